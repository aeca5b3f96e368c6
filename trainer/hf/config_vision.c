/* The vision towers: CLIPVisionConfig and MllamaVisionConfig. */
#include "trainer/hf/config_read.h"

/* transformers 4.46.3 models/clip/configuration_clip.py, CLIPVisionConfig.__init__. */
static const vl_clip_config clip_defaults = {.hidden_size = 768,
                                             .intermediate_size = 3072,
                                             .n_layers = 12,
                                             .n_heads = 12,
                                             .image_size = 224,
                                             .patch_size = 32,
                                             .n_channels = 3,
                                             .layer_norm_eps = 1e-5,
                                             .hidden_act = VL_ACT_QUICK_GELU};

/* transformers 4.46.3 models/llava/configuration_llava.py: the tower where vision_config is omitted. */
static const vl_clip_config llava_defaults = {.hidden_size = 1024,
                                              .intermediate_size = 4096,
                                              .n_layers = 24,
                                              .n_heads = 16,
                                              .image_size = 336,
                                              .patch_size = 14,
                                              .n_channels = 3,
                                              .layer_norm_eps = 1e-5,
                                              .hidden_act = VL_ACT_QUICK_GELU};

/* transformers 4.46.3 models/mllama/configuration_mllama.py, MllamaVisionConfig.__init__. */
static const vl_mllama_vision_config mllama_defaults = {
    .hidden_size = 1280,
    .intermediate_size = 5120,
    .n_layers = 32,
    .n_global_layers = 8,
    .n_heads = 16,
    .image_size = 448,
    .patch_size = 14,
    .n_channels = 3,
    .max_tiles = 4,
    .output_dim = 7680,
    .norm_eps = 1e-5,
    .hidden_act = VL_ACT_GELU,
    .indices = {3, 7, 15, 23, 30},
    .n_indices = 5,
    .ratios = {{1, 1}, {1, 2}, {1, 3}, {1, 4}, {2, 1}, {2, 2}, {3, 1}, {4, 1}},
    .n_ratios = 8};

/* The width of a head, and the patches along one side. */
static vl_status divide(int *head_dim, int *grid, const int sizes[4], const vl_hf_reader *in)
{
    int hidden = sizes[0], heads = sizes[1], image = sizes[2], patch = sizes[3];
    if (hidden % heads != 0)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"hidden_size\" is %d, expected a multiple of the %d heads", in->where,
                       hidden, heads);
    if (patch > image || image % patch != 0)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"image_size\" is %d; supported: a multiple of patch_size, %d",
                       in->where, image, patch);
    if (image / patch > 1024)
        return vl_fail(in->err, VL_EFORMAT, "%s: %d patches along a side, expected at most 1024", in->where,
                       image / patch);
    *head_dim = hidden / heads;
    *grid = image / patch;
    return VL_OK;
}

static vl_status three_channels(int channels, const vl_hf_reader *in)
{
    if (channels != 3)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"num_channels\" is %d; supported: 3", in->where, channels);
    return VL_OK;
}

vl_status vl_hf_read_clip(vl_clip_config *out, const vl_hf_reader *in)
{
    *out = in->object ? clip_defaults : llava_defaults;
    VL_TRY(vl_hf_key_size(&out->hidden_size, in, "hidden_size"));
    VL_TRY(vl_hf_key_size(&out->intermediate_size, in, "intermediate_size"));
    VL_TRY(vl_hf_key_int(&out->n_layers, in, "num_hidden_layers", 1, VL_HF_MAX_LAYERS));
    VL_TRY(vl_hf_key_int(&out->n_heads, in, "num_attention_heads", 1, 65536));
    VL_TRY(vl_hf_key_int(&out->image_size, in, "image_size", 1, 65536));
    VL_TRY(vl_hf_key_int(&out->patch_size, in, "patch_size", 1, 1024));
    VL_TRY(vl_hf_key_size(&out->n_channels, in, "num_channels"));
    VL_TRY(vl_hf_key_double(&out->layer_norm_eps, in, "layer_norm_eps", 0, 1));
    VL_TRY(vl_hf_key_activation(&out->hidden_act, in, "hidden_act"));
    VL_TRY(three_channels(out->n_channels, in));
    const int sizes[4] = {out->hidden_size, out->n_heads, out->image_size, out->patch_size};
    VL_TRY(divide(&out->head_dim, &out->grid, sizes, in));
    out->n_patches = out->grid * out->grid;
    return VL_OK;
}

static vl_status read_indices(vl_mllama_vision_config *out, const vl_hf_reader *in)
{
    VL_TRY(vl_hf_key_ints(out->indices, &out->n_indices, VL_HF_MAX_INDICES, in, "intermediate_layers_indices",
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
    if (!json_is_array(list) || json_array_size(list) > VL_HF_MAX_RATIOS)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"supported_aspect_ratios\" is no list of at most %d pairs", in->where,
                       VL_HF_MAX_RATIOS);
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

vl_status vl_hf_read_mllama_vision(vl_mllama_vision_config *out, const vl_hf_reader *in)
{
    *out = mllama_defaults;
    VL_TRY(vl_hf_key_size(&out->hidden_size, in, "hidden_size"));
    VL_TRY(vl_hf_key_size(&out->intermediate_size, in, "intermediate_size"));
    VL_TRY(vl_hf_key_int(&out->n_layers, in, "num_hidden_layers", 1, VL_HF_MAX_LAYERS));
    VL_TRY(vl_hf_key_int(&out->n_global_layers, in, "num_global_layers", 0, VL_HF_MAX_LAYERS));
    /* Saved as attention_heads; num_attention_heads is what newer code calls it (attribute_map). */
    VL_TRY(vl_hf_key_int(&out->n_heads, in, "num_attention_heads", 1, 65536));
    VL_TRY(vl_hf_key_int(&out->n_heads, in, "attention_heads", 1, 65536));
    VL_TRY(vl_hf_key_int(&out->image_size, in, "image_size", 1, 65536));
    VL_TRY(vl_hf_key_int(&out->patch_size, in, "patch_size", 1, 1024));
    VL_TRY(vl_hf_key_size(&out->n_channels, in, "num_channels"));
    VL_TRY(vl_hf_key_int(&out->max_tiles, in, "max_num_tiles", 1, 16));
    VL_TRY(vl_hf_key_int(&out->output_dim, in, "vision_output_dim", 1, 1 << 26));
    VL_TRY(vl_hf_key_double(&out->norm_eps, in, "norm_eps", 0, 1));
    VL_TRY(vl_hf_key_activation(&out->hidden_act, in, "hidden_act"));
    VL_TRY(three_channels(out->n_channels, in));
    const int sizes[4] = {out->hidden_size, out->n_heads, out->image_size, out->patch_size};
    VL_TRY(divide(&out->head_dim, &out->grid, sizes, in));
    out->n_patches = out->grid * out->grid + 1;
    VL_TRY(read_indices(out, in));
    VL_TRY(read_ratios(out, in));
    return check_ratios(out, in);
}
