#include "trainer/model/families/internvl/internvl.h"

#include <math.h>
#include <string.h>

#include "trainer/base/mem.h"

static const vl_tower_names names = {.patch = "embeddings.patch_embeddings.projection",
                                     .class_row = "embeddings.cls_token",
                                     .position = "embeddings.position_embeddings",
                                     .post_norm = "layernorm",
                                     .layer = "encoder.layer.%d.",
                                     .norm1 = "layernorm_before",
                                     .norm2 = "layernorm_after",
                                     .q = "attention.q_proj",
                                     .k = "attention.k_proj",
                                     .v = "attention.v_proj",
                                     .o = "attention.projection_layer",
                                     .q_norm = "attention.q_norm",
                                     .k_norm = "attention.k_norm",
                                     .scale1 = "lambda_1",
                                     .scale2 = "lambda_2",
                                     .fc1 = "mlp.fc1",
                                     .fc2 = "mlp.fc2"};

/* A side in pixels: one number, or a list of two that are equal. */
static vl_status read_side(int *out, const vl_hf_reader *in, const char *key)
{
    int sides[2], n = 0;
    if (!json_is_array(json_object_get(in->object, key)))
        return vl_hf_key_int(out, in, key, 1, 65536);
    VL_TRY(vl_hf_key_ints(sides, &n, 2, in, key, (vl_hf_range){1, 65536}));
    if (n != 2 || sides[0] != sides[1])
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"%s\" is no square; supported: two equal sides", in->where, key);
    *out = sides[0];
    return VL_OK;
}

/* InternVLVisionConfig's defaults. */
static vl_status read_tower(vl_tower_spec *out, const vl_hf_reader *in)
{
    const char *norm = "layer_norm";
    bool mean_pooling = true, qk_norm = false;
    *out = (vl_tower_spec){.hidden_size = 1024,
                           .intermediate_size = 4096,
                           .n_layers = 24,
                           .n_heads = 16,
                           .image_size = 448,
                           .patch_size = 14,
                           .n_channels = 3,
                           .class_row = true,
                           .tables_of_three = true,
                           .patch_bias = true,
                           .o_bias = true,
                           .mlp_bias = true,
                           .norm_form = VL_FORM_LAYER,
                           .norm_eps = 1e-6,
                           .hidden_act = VL_ACT_GELU,
                           .scales = true,
                           .names = names};
    VL_TRY(read_side(&out->image_size, in, "image_size"));
    VL_TRY(read_side(&out->patch_size, in, "patch_size"));
    VL_TRY(vl_spec_tower(out, in));
    VL_TRY(vl_hf_key_bool(&out->attention_bias, in, "attention_bias"));
    VL_TRY(vl_hf_key_bool(&qk_norm, in, "use_qk_norm"));
    VL_TRY(vl_hf_key_bool(&mean_pooling, in, "use_mean_pooling"));
    VL_TRY(vl_hf_key_string(&norm, in, "norm_type"));
    if (strcmp(norm, "layer_norm") != 0 && strcmp(norm, "rms_norm") != 0)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"norm_type\" is \"%s\"; supported: layer_norm, rms_norm",
                       in->where, norm);
    out->norm_form = strcmp(norm, "rms_norm") == 0 ? VL_FORM_RMS : VL_FORM_LAYER;
    out->qk_norm = qk_norm ? VL_QK_WIDTH : VL_QK_PLAIN;
    out->post_norm = !mean_pooling; /* else `layernorm` is the identity */
    out->state = out->n_layers;
    return VL_OK;
}

static vl_status read_vision(vl_vision_spec *vision, const vl_hf_reader *in)
{
    static const char *const types[] = {"internvl_vision", NULL};
    double ratio = 0.5;
    vl_hf_section section;
    vision->path = VL_VISION_IN_STREAM;
    VL_TRY(vl_spec_section(&section, NULL, in, "vision_config", types));
    VL_TRY(read_tower(&vision->tower, &section.reader));
    VL_TRY(vl_spec_feature_layer(&vision->tower, in, -1));
    if (vision->tower.state < vision->tower.n_layers)
        vision->tower.post_norm = false;
    VL_TRY(vl_hf_key_double(&ratio, in, "downsample_ratio", 1e-3, 1));
    const int shuffle = (int)(1 / ratio + 0.5);
    if (fabs(shuffle * ratio - 1) > 1e-9 || vision->tower.grid % shuffle != 0)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"downsample_ratio\" is %g, a tile has %d patches along a side",
                       in->where, ratio, vision->tower.grid);
    vision->connector = (vl_connector_spec){.kind = VL_CONNECTOR_MLP,
                                            .act = VL_ACT_GELU,
                                            .bias = true,
                                            .shuffle = shuffle,
                                            .norm_form = VL_FORM_LAYER,
                                            .norm_eps = 1e-5,
                                            .norm = "layer_norm",
                                            .names = {"linear_1", "linear_2"}};
    VL_TRY(vl_spec_activation(&vision->connector.act, in, "projector_hidden_act"));
    vision->image_token = 151667;
    VL_TRY(vl_spec_image_token(&vision->image_token, in));
    vision->image_size = vision->sample_side = vision->tower.image_size;
    vision->rows = vision->columns = vision->tower.grid / shuffle;
    vision->pictures_at_once = 1;
    return VL_OK;
}

static vl_status describe(vl_model_spec *out, const vl_hf_config *config, vl_error *err)
{
    const vl_hf_reader in = vl_hf_config_reader(config, VL_HF_CONFIG, err);
    const vl_hf_reader image = vl_hf_config_reader(config, VL_HF_IMAGE_PROCESSOR, err);
    const vl_hf_reader processor = vl_hf_config_reader(config, VL_HF_PROCESSOR, err);
    VL_TRY(vl_spec_text_section(&out->decoder, &in, "text_config", "qwen2"));
    VL_TRY(vl_spec_outer_tie(&out->decoder, &in));
    VL_TRY(read_vision(&out->vision, &in));
    vl_internvl_own *own = out->own = vl_calloc(1, sizeof *own);
    if (!own)
        return vl_fail_nomem(err, "model");
    VL_TRY(vl_internvl_read_pictures(own, out, &image, &processor));
    out->vision.max_tiles = own->max_tiles > 1 ? own->max_tiles + 1 : 1;
    out->preprocess.alpha = VL_ALPHA_ON_WHITE;
    return VL_OK;
}

static vl_status place(vl_sequence *sequence, const vl_model_spec *spec, vl_error *err)
{
    return vl_place_rows(sequence, spec, 0, err);
}

const vl_family vl_family_internvl = {
    .model_type = "internvl",
    .architecture = "InternVLForConditionalGeneration",
    .rules = "1 transformers-5.24 pixels=torchvision",
    .prefixes = {[VL_PART_TEXT] = {"language_model.model.", "model.language_model."},
                 [VL_PART_HEAD] = {"language_model.lm_head.", "lm_head."},
                 [VL_PART_VISION] = {"vision_tower.", "model.vision_tower."},
                 [VL_PART_CONNECTOR] = {"multi_modal_projector.", "model.multi_modal_projector."}},
    .describe = describe,
    .measure = vl_internvl_measure,
    .pixels = vl_internvl_pixels,
    .wrap = vl_internvl_wrap,
    .place = place};
