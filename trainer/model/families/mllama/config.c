/* config.json and its neighbours: keys, defaults and checks of configuration_mllama.py (MllamaConfig, MllamaTextConfig,
 * MllamaVisionConfig). */
#include <stdlib.h>

#include "trainer/base/mem.h"
#include "trainer/model/families/mllama/mllama.h"

/* ---- decoder ----------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

/* transformers asks "is layer i in the list", so the order of the list means nothing. */
static vl_status read_cross_layers(vl_decoder_spec *out, const vl_hf_reader *in)
{
    int layers[VL_MAX_LAYERS] = {3, 8, 13, 18, 23, 28, 33, 38}, n = 8;
    VL_TRY(
        vl_hf_key_ints(layers, &n, VL_MAX_LAYERS, in, "cross_attention_layers", (vl_hf_range){0, out->n_layers - 1}));
    qsort(layers, (size_t)n, sizeof *layers, by_value);
    for (int i = 0; i < n; i++) {
        if (layers[i] >= out->n_layers) /* the default list, in a shorter model */
            return vl_fail(in->err, VL_EFORMAT, "%s: cross-attention layer %d, but only %d layers", in->where,
                           layers[i], out->n_layers);
        if (i > 0 && layers[i] == layers[i - 1])
            return vl_fail(in->err, VL_EFORMAT, "%s: \"cross_attention_layers\" holds %d twice", in->where, layers[i]);
        out->layers[layers[i]].kind = VL_BLOCK_CROSS;
    }
    return VL_OK;
}

static void name_cross_blocks(vl_decoder_names *names)
{
    names->cross_q = "cross_attn.q_proj";
    names->cross_k = "cross_attn.k_proj";
    names->cross_v = "cross_attn.v_proj";
    names->cross_o = "cross_attn.o_proj";
    names->cross_q_norm = "cross_attn.q_norm";
    names->cross_k_norm = "cross_attn.k_norm";
    names->attention_gate = "cross_attn_attn_gate";
    names->mlp_gate = "cross_attn_mlp_gate";
}

static vl_status read_text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    vl_spec_plain(out);
    name_cross_blocks(&out->names);
    out->hidden_size = 4096;
    out->intermediate_size = 14336;
    out->n_layers = 40;
    out->n_heads = 32;
    out->n_kv_heads = 8;
    out->vocab_size = 128256;
    out->max_position = 131072;
    out->norm_eps = 1e-5;
    out->ropes[0].theta = 500000;
    out->bos_id = 128000;
    out->pad_id = 128004;
    out->eos_ids[0] = 128001;
    out->n_eos = 1;
    VL_TRY(vl_spec_text(out, in));
    VL_TRY(vl_spec_finish_text(out, in));
    VL_TRY(vl_spec_rope(&out->ropes[0], out, in, 1));
    /* modeling_mllama.py computes hidden_size // num_attention_heads and knows no head_dim. */
    if (out->head_dim * out->n_heads != out->hidden_size)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"head_dim\" is %d; supported: hidden_size / heads, %d / %d",
                       in->where, out->head_dim, out->hidden_size, out->n_heads);
    if (out->tie_embeddings)
        return vl_fail(in->err, VL_EUNSUPPORTED,
                       "%s: \"tie_word_embeddings\" is true; supported: false (the embedding table has 8 rows more "
                       "than the head)",
                       in->where);
    out->embed_rows = out->vocab_size + 8; /* modeling_mllama.py: nn.Embedding(config.vocab_size + 8, ...) */
    return read_cross_layers(out, in);
}

/* ---- vision encoder ---------------------------------------------------------------------------------------- */

static const vl_mllama_vision_config defaults = {
    .n_global_layers = 8,
    .max_tiles = 4,
    .output_dim = 7680,
    .indices = {3, 7, 15, 23, 30},
    .n_indices = 5,
    .ratios = {{1, 1}, {1, 2}, {1, 3}, {1, 4}, {2, 1}, {2, 2}, {3, 1}, {4, 1}},
    .n_ratios = 8};

static vl_status read_indices(vl_mllama_vision_config *out, const vl_hf_reader *in)
{
    VL_TRY(vl_hf_key_ints(out->indices, &out->n_indices, VL_MLLAMA_INDICES, in, "intermediate_layers_indices",
                          (vl_hf_range){0, out->n_layers}));
    for (int i = 0; i < out->n_indices; i++) {
        if (out->indices[i] > out->n_layers) /* the default list, in a shorter model */
            return vl_fail(in->err, VL_EFORMAT, "%s: intermediate layer %d, but only %d layers", in->where,
                           out->indices[i], out->n_layers);
        /* 4.46.3 gathers in the order of the list, later versions in the order of the layers. */
        if (i > 0 && out->indices[i] <= out->indices[i - 1])
            return vl_fail(in->err, VL_EUNSUPPORTED,
                           "%s: \"intermediate_layers_indices\" does not ascend (%d after %d); supported: ascending",
                           in->where, out->indices[i], out->indices[i - 1]);
    }
    if (out->output_dim != (int64_t)out->hidden_size * (1 + out->n_indices))
        return vl_fail(in->err, VL_EFORMAT,
                       "%s: \"vision_output_dim\" is %d, expected hidden_size * (1 + %d intermediate layers), %lld",
                       in->where, out->output_dim, out->n_indices, (long long)out->hidden_size * (1 + out->n_indices));
    return VL_OK;
}

static vl_status read_ratios(vl_mllama_vision_config *out, const vl_hf_reader *in)
{
    const json_t *list = json_object_get(in->object, "supported_aspect_ratios");
    if (!list || json_is_null(list))
        return VL_OK;
    if (!json_is_array(list) || json_array_size(list) > VL_MLLAMA_RATIOS)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"supported_aspect_ratios\" is no list of at most %d pairs", in->where,
                       VL_MLLAMA_RATIOS);
    out->n_ratios = (int)json_array_size(list);
    for (int i = 0; i < out->n_ratios; i++) {
        const json_t *pair = json_array_get(list, (size_t)i);
        for (int k = 0; k < 2; k++) {
            json_int_t tiles = json_integer_value(json_array_get(pair, (size_t)k)); /* 0 where it is no integer */
            if (json_array_size(pair) != 2 || tiles < 1 || tiles > out->max_tiles)
                return vl_fail(in->err, VL_EFORMAT,
                               "%s: \"supported_aspect_ratios\"[%d] is no pair of numbers from 1 to max_num_tiles, %d",
                               in->where, i, out->max_tiles);
            out->ratios[i][k] = (int)tiles;
        }
    }
    return VL_OK;
}

/* The processor numbers the ratios by a list of its own (image_processing_mllama.py, get_all_supported_aspect_ratios);
 * the embeddings are only found where the config has the same one. */
static vl_status check_ratios(const vl_mllama_vision_config *out, const vl_hf_reader *in)
{
    int n = 0;
    bool same = true;
    for (int a = 1; a <= out->max_tiles; a++)
        for (int b = 1; a * b <= out->max_tiles; b++, n++)
            same = same && n < out->n_ratios && out->ratios[n][0] == a && out->ratios[n][1] == b;
    if (!same || n != out->n_ratios)
        return vl_fail(in->err, VL_EUNSUPPORTED,
                       "%s: \"supported_aspect_ratios\" (%d of them) is not the list of all %d arrangements of at most "
                       "%d tiles that the image processor numbers by",
                       in->where, out->n_ratios, n, out->max_tiles);
    return VL_OK;
}

static vl_status read_sizes(vl_mllama_vision_config *out, const vl_hf_reader *in)
{
    vl_tower_spec tower = {.hidden_size = 1280,
                           .intermediate_size = 5120,
                           .n_layers = 32,
                           .n_heads = 16,
                           .image_size = 448,
                           .patch_size = 14,
                           .n_channels = 3,
                           .norm_eps = 1e-5,
                           .hidden_act = VL_ACT_GELU};
    /* Saved as attention_heads; num_attention_heads is what newer code calls it (attribute_map). */
    VL_TRY(vl_hf_key_int(&tower.n_heads, in, "num_attention_heads", 1, 65536));
    VL_TRY(vl_hf_key_int(&tower.n_heads, in, "attention_heads", 1, 65536));
    VL_TRY(vl_hf_key_double(&tower.norm_eps, in, "norm_eps", 0, 1));
    VL_TRY(vl_spec_tower_sizes(&tower, in));
    *out = defaults;
    out->hidden_size = tower.hidden_size;
    out->intermediate_size = tower.intermediate_size;
    out->n_layers = tower.n_layers;
    out->n_heads = tower.n_heads;
    out->head_dim = tower.head_dim;
    out->image_size = tower.image_size;
    out->patch_size = tower.patch_size;
    out->n_channels = tower.n_channels;
    out->grid = tower.grid;
    out->n_patches = tower.n_patches + 1;
    out->norm_eps = tower.norm_eps;
    out->hidden_act = tower.hidden_act;
    return VL_OK;
}

static vl_status read_vision(vl_mllama_vision_config *out, const vl_hf_reader *in)
{
    static const char *const types[] = {"mllama_vision_model", NULL};
    vl_hf_section section;
    VL_TRY(vl_spec_section(&section, NULL, in, "vision_config", types));
    VL_TRY(read_sizes(out, &section.reader));
    VL_TRY(vl_hf_key_int(&out->n_global_layers, &section.reader, "num_global_layers", 0, VL_MAX_LAYERS));
    VL_TRY(vl_hf_key_int(&out->max_tiles, &section.reader, "max_num_tiles", 1, 16));
    VL_TRY(vl_hf_key_int(&out->output_dim, &section.reader, "vision_output_dim", 1, 1 << 26));
    VL_TRY(read_indices(out, &section.reader));
    VL_TRY(read_ratios(out, &section.reader));
    return check_ratios(out, &section.reader);
}

/* ---- the whole --------------------------------------------------------------------------------------------- */

/* The processor must cut pictures into the tiles that the encoder reads. */
static vl_status check_processor(const vl_preprocess *pp, const vl_mllama_vision_config *vision, const vl_hf_reader *in)
{
    if (pp->height != vision->image_size || pp->width != vision->image_size)
        return vl_fail(in->err, VL_EMISMATCH, "%s: cuts tiles of %d x %d, the vision encoder reads %d x %d", in->where,
                       pp->height, pp->width, vision->image_size, vision->image_size);
    if (pp->max_image_tiles != vision->max_tiles)
        return vl_fail(in->err, VL_EMISMATCH, "%s: gives a picture %d tiles, the vision encoder %d", in->where,
                       pp->max_image_tiles, vision->max_tiles);
    return VL_OK;
}

static vl_status read_preprocess(vl_model_spec *out, const vl_hf_config *config, vl_error *err)
{
    const vl_hf_reader in = vl_hf_config_reader(config, VL_HF_IMAGE_PROCESSOR, err);
    if (!in.object)
        return vl_fail(err, VL_EIO, "%s: no such file", in.where);
    VL_TRY(vl_mllama_read_preprocess(&out->preprocess, &in));
    return check_processor(&out->preprocess, vl_mllama_config(out), &in);
}

static void set_vision(vl_vision_spec *out, const vl_mllama_vision_config *vision)
{
    out->path = VL_VISION_CROSS;
    out->image_size = vision->image_size;
    out->rows = out->columns = vision->grid;
    out->max_tiles = vision->max_tiles;
    out->tile_rows = vision->n_patches;
    out->rows_fixed = true;
    out->pictures_at_once = 1;
    for (int side = 1; side * side <= vision->max_tiles; side++)
        out->sample_side = side * vision->image_size;
}

vl_status vl_mllama_describe(vl_model_spec *out, const vl_hf_config *config, vl_error *err)
{
    static const char *const types[] = {"mllama_text_model", NULL};
    const vl_hf_reader in = vl_hf_config_reader(config, VL_HF_CONFIG, err);
    vl_hf_section text;
    vl_mllama_vision_config *vision = vl_calloc(1, sizeof *vision);
    if (!vision)
        return vl_fail_nomem(err, "model");
    out->own = vision;
    VL_TRY(vl_spec_section(&text, NULL, &in, "text_config", types));
    VL_TRY(read_text(&out->decoder, &text.reader));
    VL_TRY(read_vision(vision, &in));
    set_vision(&out->vision, vision);
    out->vision.image_token = 128256;
    VL_TRY(vl_spec_image_token(&out->vision.image_token, &in));
    if (out->vision.image_token >= out->decoder.embed_rows)
        return vl_fail(err, VL_EFORMAT, "%s: \"image_token_index\" is %d, the embedding table has %d rows", in.where,
                       (int)out->vision.image_token, out->decoder.embed_rows);
    return read_preprocess(out, config, err);
}
