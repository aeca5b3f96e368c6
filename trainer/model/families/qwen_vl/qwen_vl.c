#include "trainer/model/families/qwen_vl/qwen_vl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/model/deep.h"

/* ---- config ------------------------------------------------------------------------------------------------ */

/* The patches of tower and processor must be the same. */
static vl_status check_patches(const vl_qwen_own *own, const vl_hf_reader *in)
{
    const vl_patchify *p = &own->patchify;
    const vl_qwen_tower_spec *t = &own->tower;
    if (p->patch != t->patch || p->merge != t->merge || p->frames != t->frames)
        return vl_fail(in->err, VL_EMISMATCH,
                       "%s: patches of %d pixels, %d frames, merged by %d; config.json says %d, %d and %d", in->where,
                       p->patch, p->frames, p->merge, t->patch, t->frames, t->merge);
    return VL_OK;
}

static vl_status check_sizes(const vl_qwen_tower_spec *out, const vl_hf_reader *in, int hidden_size)
{
    if (out->n_heads == 0 || out->hidden_size % out->n_heads != 0 || out->hidden_size / out->n_heads % 4 != 0)
        return vl_fail(in->err, VL_EFORMAT, "%s: a width of %d for %d heads, expected heads of a multiple of 4",
                       in->where, out->hidden_size, out->n_heads);
    if (out->out_size != hidden_size)
        return vl_fail(in->err, VL_EMISMATCH, "%s: rows of %d come out, the decoder reads %d", in->where, out->out_size,
                       hidden_size);
    return VL_OK;
}

/* Qwen2-VL: embed_dim is the tower's width, hidden_size the decoder's. "spatial_patch_size" and "in_chans" of old files
 * are not read. */
static vl_status read_second(vl_qwen_tower_spec *out, const vl_hf_reader *in)
{
    double ratio = 4;
    out->hidden_size = 1280;
    out->act = VL_ACT_QUICK_GELU;
    VL_TRY(vl_hf_key_size(&out->hidden_size, in, "embed_dim"));
    VL_TRY(vl_hf_key_size(&out->out_size, in, "hidden_size"));
    VL_TRY(vl_hf_key_double(&ratio, in, "mlp_ratio", 1e-3, 1e3));
    out->intermediate_size = (int)(out->hidden_size * ratio);
    return VL_OK;
}

/* Qwen2.5-VL: window_size is in pixels. */
static vl_status read_second_and_half(vl_qwen_tower_spec *out, const vl_hf_reader *in)
{
    int window = 112, full[VL_QWEN_MAX_LAYERS] = {7, 15, 23, 31}, n = 4;
    out->hidden_size = 3584;
    out->intermediate_size = 3420;
    out->act = VL_ACT_SILU;
    VL_TRY(vl_hf_key_size(&out->hidden_size, in, "hidden_size"));
    VL_TRY(vl_hf_key_size(&out->intermediate_size, in, "intermediate_size"));
    VL_TRY(vl_hf_key_size(&out->out_size, in, "out_hidden_size"));
    VL_TRY(vl_hf_key_int(&window, in, "window_size", 1, 65536));
    VL_TRY(vl_hf_key_ints(full, &n, VL_QWEN_MAX_LAYERS, in, "fullatt_block_indexes",
                          (vl_hf_range){0, VL_QWEN_MAX_LAYERS - 1}));
    for (int i = 0; i < n; i++)
        out->full[full[i]] = true;
    out->window = window / out->merge / out->patch;
    if (out->window < 1)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"window_size\" is %d, less than one block of patches", in->where,
                       window);
    return VL_OK;
}

static vl_status read_third(vl_qwen_tower_spec *out, const vl_hf_reader *in)
{
    int positions = 2304, n = 3;
    out->hidden_size = 1152;
    out->intermediate_size = 4304;
    out->act = VL_ACT_GELU_TANH;
    out->deep[0] = 8, out->deep[1] = 16, out->deep[2] = 24;
    VL_TRY(vl_hf_key_size(&out->hidden_size, in, "hidden_size"));
    VL_TRY(vl_hf_key_size(&out->intermediate_size, in, "intermediate_size"));
    VL_TRY(vl_hf_key_size(&out->out_size, in, "out_hidden_size"));
    VL_TRY(vl_hf_key_int(&positions, in, "num_position_embeddings", 1, VL_HF_MAX_SIZE));
    VL_TRY(vl_hf_key_ints(out->deep, &n, VL_QWEN_MAX_DEEP, in, "deepstack_visual_indexes",
                          (vl_hf_range){0, VL_QWEN_MAX_LAYERS - 1}));
    out->n_deep = n;
    out->position_side = (int)(sqrt(positions) + 0.5);
    for (int i = 0; i < n; i++)
        if (out->deep[i] >= out->n_layers || (i > 0 && out->deep[i] <= out->deep[i - 1]))
            return vl_fail(in->err, VL_EFORMAT, "%s: \"deepstack_visual_indexes\" has %d, expected ascending, below %d",
                           in->where, out->deep[i], out->n_layers);
    if (out->position_side * out->position_side != positions)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"num_position_embeddings\" is %d, expected a square", in->where,
                       positions);
    return VL_OK;
}

static vl_status read_tower(vl_qwen_tower_spec *out, vl_qwen_kind kind, const vl_hf_reader *in, int hidden_size)
{
    *out = (vl_qwen_tower_spec){.kind = kind,
                                .n_layers = kind == VL_QWEN_3 ? 27 : 32,
                                .n_heads = 16,
                                .out_size = hidden_size,
                                .patch = kind == VL_QWEN_3 ? 16 : 14,
                                .merge = 2,
                                .frames = 2};
    VL_TRY(vl_hf_key_int(&out->n_layers, in, "depth", 1, VL_QWEN_MAX_LAYERS));
    VL_TRY(vl_hf_key_int(&out->n_heads, in, "num_heads", 1, 65536));
    VL_TRY(vl_hf_key_int(&out->patch, in, "patch_size", 1, 256));
    VL_TRY(vl_hf_key_int(&out->merge, in, "spatial_merge_size", 1, 16));
    VL_TRY(vl_hf_key_int(&out->frames, in, "temporal_patch_size", 1, 16));
    switch (kind) {
    case VL_QWEN_2: VL_TRY(read_second(out, in)); break;
    case VL_QWEN_2_5: VL_TRY(read_second_and_half(out, in)); break;
    case VL_QWEN_3: VL_TRY(read_third(out, in)); break;
    }
    VL_TRY(vl_spec_activation(&out->act, in, "hidden_act"));
    return check_sizes(out, in, hidden_size);
}

/* What the rest of the program asks of a tower. */
static void fill_vision(vl_vision_spec *out, const vl_qwen_own *own)
{
    const vl_qwen_tower_spec *t = &own->tower;
    const int block = t->patch * t->merge;
    out->path = VL_VISION_IN_STREAM;
    out->tower.n_layers = out->tower.state = t->n_layers;
    out->tower.hidden_size = t->hidden_size;
    out->tower.n_heads = t->n_heads;
    out->tower.patch_size = t->patch;
    out->n_deep = t->n_deep;
    out->max_tiles = 1;
    out->pictures_at_once = 1;
    out->sample_side = 448 / block * block > 0 ? 448 / block * block : block;
}

static vl_status describe(vl_model_spec *out, const vl_hf_config *config, vl_qwen_kind kind, vl_error *err)
{
    static const char *const types[3][4] = {{"qwen2_vl", "qwen2_vl_vision", NULL},
                                            {"qwen2_5_vl", "qwen2_5_vl_vision", NULL},
                                            {"qwen3_vl", "qwen3_vl_vision", NULL}};
    static const int tokens[] = {151655, 151655, 151655};
    const vl_hf_reader in = vl_hf_config_reader(config, VL_HF_CONFIG, err);
    const vl_hf_reader image = vl_hf_config_reader(config, VL_HF_IMAGE_PROCESSOR, err);
    vl_hf_section vision;
    VL_TRY(vl_qwen_read_text(&out->decoder, &in, kind));
    vl_qwen_own *own = out->own = vl_calloc(1, sizeof *own);
    if (!own)
        return vl_fail_nomem(err, "model");
    VL_TRY(vl_spec_section(&vision, NULL, &in, "vision_config", types[kind]));
    VL_TRY(read_tower(&own->tower, kind, &vision.reader, out->decoder.hidden_size));
    VL_TRY(vl_qwen_read_pictures(own, &image));
    VL_TRY(check_patches(own, &image));
    fill_vision(&out->vision, own);
    if (own->tower.n_deep > out->decoder.n_layers || own->tower.n_deep > VL_MAX_DEEP)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: %d layers of the tower go to a decoder of %d", in.where,
                       own->tower.n_deep, out->decoder.n_layers);
    out->vision.image_token = tokens[kind];
    VL_TRY(vl_spec_image_token(&out->vision.image_token, &in));
    out->preprocess.alpha = VL_ALPHA_ON_WHITE;
    return VL_OK;
}

static vl_status describe_2(vl_model_spec *out, const vl_hf_config *config, vl_error *err)
{
    return describe(out, config, VL_QWEN_2, err);
}

static vl_status describe_2_5(vl_model_spec *out, const vl_hf_config *config, vl_error *err)
{
    return describe(out, config, VL_QWEN_2_5, err);
}

static vl_status describe_3(vl_model_spec *out, const vl_hf_config *config, vl_error *err)
{
    return describe(out, config, VL_QWEN_3, err);
}

/* ---- the tower --------------------------------------------------------------------------------------------- */

static vl_status open_tower(vl_model *model, vl_loader *loader, vl_error *err)
{
    const vl_qwen_own *own = model->spec.own;
    vl_qwen_tower *tower = model->parts = vl_calloc(1, sizeof *tower);
    return tower ? vl_qwen_tower_load(tower, &own->tower, loader, err) : vl_fail_nomem(err, "vision tower");
}

static void close_tower(vl_model *model)
{
    if (!model->parts)
        return;
    vl_qwen_tower_free(model->parts, model->device);
    vl_free(model->parts);
    model->parts = NULL;
}

static vl_size grid_of(const vl_qwen_own *own, const struct vl_sequence_image *image)
{
    const int merge = own->patchify.merge;
    return (vl_size){image->grids[0].rows * merge, image->grids[0].columns * merge};
}

typedef struct shown {
    const vl_pass *pass;
    int sequence;
} shown;

static vl_status show(void *user, int state, vl_tensor rows, vl_error *err)
{
    const shown *s = user;
    char name[32];
    snprintf(name, sizeof name, "vision.hidden.%02d", state);
    if (s->pass->stage(s->pass->user, name, s->sequence, &rows) != 0)
        return vl_fail(err, VL_ECANCELLED, "the forward was stopped at %s", name);
    return VL_OK;
}

static vl_status encode(const vl_model *model, const vl_encode_args *args, vl_error *err)
{
    const vl_qwen_own *own = model->spec.own;
    int64_t done = 0;
    for (int i = 0; i < args->n; i++) {
        const struct vl_sequence_image *image = &args->pass->sequences[args->sequence[i]]->images[args->image[i]];
        shown to = {args->pass, args->sequence[i]};
        vl_tensor deep[VL_QWEN_MAX_DEEP];
        for (int k = 0; args->deep && k < own->tower.n_deep; k++)
            deep[k] = vl_tensor_rows(args->deep[k], done, image->n_rows);
        if (!image->pixels)
            return vl_fail(err, VL_EINVAL, "a picture without its pixel values");
        const vl_qwen_tower_args tower = {.pixels = image->pixels,
                                          .grid = grid_of(own, image),
                                          .out = vl_tensor_rows(args->out, done, image->n_rows),
                                          .deep = deep,
                                          .hidden = args->pass->stage ? show : NULL,
                                          .user = &to};
        VL_TRY(vl_qwen_tower_forward(model->parts, args->pass->device, &tower, err));
        done += image->n_rows;
    }
    return VL_OK;
}

static double encode_work(const vl_model_spec *spec, const struct vl_sequence_image *image)
{
    const vl_qwen_own *own = spec->own;
    return vl_qwen_tower_work(&own->tower, grid_of(own, image));
}

/* ---- the families ------------------------------------------------------------------------------------------ */

#define FAMILY(type, class, how, ...)                                                                                  \
    {                                                                                                                  \
        .model_type = type, .architecture = class,                                                                     \
        .rules = "1 transformers-5.24 pixels=torchvision state=behind-deepstack", .prefixes = __VA_ARGS__,             \
        .describe = how, .measure = vl_qwen_measure, .pixels = vl_qwen_pixels, .wrap = vl_qwen_wrap,                   \
        .place = vl_qwen_place, .open = open_tower, .close = close_tower, .encode = encode, .encode_work = encode_work \
    }
/* Before transformers 4.52 (and saved by 5), and 4.52 to 4.57. */
#define OLD_AND_NEW                                                                                                    \
    {                                                                                                                  \
        [VL_PART_TEXT] = {"model.", "model.language_model."}, [VL_PART_HEAD] = {"lm_head."}, [VL_PART_VISION] = {      \
            "visual.",                                                                                                 \
            "model.visual."                                                                                            \
        }                                                                                                              \
    }
#define NEW                                                                                                            \
    {                                                                                                                  \
        [VL_PART_TEXT] = {"model.language_model."}, [VL_PART_HEAD] = {"lm_head."}, [VL_PART_VISION] = {                \
            "model.visual."                                                                                            \
        }                                                                                                              \
    }

const vl_family vl_family_qwen2_vl = FAMILY("qwen2_vl", "Qwen2VLForConditionalGeneration", describe_2, OLD_AND_NEW);
const vl_family vl_family_qwen2_5_vl =
    FAMILY("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", describe_2_5, OLD_AND_NEW);
const vl_family vl_family_qwen3_vl = FAMILY("qwen3_vl", "Qwen3VLForConditionalGeneration", describe_3, NEW);
