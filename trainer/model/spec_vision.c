/* What the families that see pictures share in their reading of config.json. */
#include <string.h>

#include "trainer/model/spec.h"

static vl_status divide(vl_tower_spec *out, const vl_hf_reader *in)
{
    if (out->hidden_size % out->n_heads != 0)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"hidden_size\" is %d, expected a multiple of the %d heads", in->where,
                       out->hidden_size, out->n_heads);
    if (out->patch_size > out->image_size)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"image_size\" is %d, \"patch_size\" %d", in->where, out->image_size,
                       out->patch_size);
    if (out->image_size / out->patch_size > 1024)
        return vl_fail(in->err, VL_EFORMAT, "%s: %d patches along a side, expected at most 1024", in->where,
                       out->image_size / out->patch_size);
    out->head_dim = out->hidden_size / out->n_heads;
    out->grid = out->image_size / out->patch_size;
    out->n_patches = out->grid * out->grid;
    return VL_OK;
}

vl_status vl_spec_tower_sizes(vl_tower_spec *out, const vl_hf_reader *in)
{
    VL_TRY(vl_hf_key_size(&out->hidden_size, in, "hidden_size"));
    VL_TRY(vl_hf_key_size(&out->intermediate_size, in, "intermediate_size"));
    VL_TRY(vl_hf_key_int(&out->n_layers, in, "num_hidden_layers", 1, VL_MAX_LAYERS));
    if (!json_is_array(json_object_get(in->object, "image_size"))) /* a list is read by the family that has them */
        VL_TRY(vl_hf_key_int(&out->image_size, in, "image_size", 1, 65536));
    if (!json_is_array(json_object_get(in->object, "patch_size")))
        VL_TRY(vl_hf_key_int(&out->patch_size, in, "patch_size", 1, 1024));
    VL_TRY(vl_hf_key_size(&out->n_channels, in, "num_channels"));
    VL_TRY(vl_spec_activation(&out->hidden_act, in, "hidden_act"));
    if (out->n_channels != 3)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"num_channels\" is %d; supported: 3", in->where,
                       out->n_channels);
    return divide(out, in);
}

vl_status vl_spec_tower(vl_tower_spec *out, const vl_hf_reader *in)
{
    VL_TRY(vl_hf_key_int(&out->n_heads, in, "num_attention_heads", 1, 65536));
    VL_TRY(vl_hf_key_double(&out->norm_eps, in, "layer_norm_eps", 0, 1));
    return vl_spec_tower_sizes(out, in);
}

const vl_tower_names vl_clip_names = {.patch = "embeddings.patch_embedding",
                                      .class_row = "embeddings.class_embedding",
                                      .position = "embeddings.position_embedding.weight",
                                      .pre_norm = "pre_layrnorm", /* so spelled in every checkpoint */
                                      .post_norm = "post_layernorm",
                                      .layer = "encoder.layers.%d.",
                                      .norm1 = "layer_norm1",
                                      .norm2 = "layer_norm2",
                                      .q = "self_attn.q_proj",
                                      .k = "self_attn.k_proj",
                                      .v = "self_attn.v_proj",
                                      .o = "self_attn.out_proj",
                                      .fc1 = "mlp.fc1",
                                      .fc2 = "mlp.fc2"};

/* CLIPVisionConfig's defaults, or LlavaConfig's own tower (ViT-L/14-336) where vision_config is omitted. */
vl_tower_spec vl_clip_tower(bool omitted)
{
    vl_tower_spec tower = {.hidden_size = omitted ? 1024 : 768,
                           .intermediate_size = omitted ? 4096 : 3072,
                           .n_layers = omitted ? 24 : 12,
                           .n_heads = omitted ? 16 : 12,
                           .image_size = omitted ? 336 : 224,
                           .patch_size = omitted ? 14 : 32,
                           .n_channels = 3,
                           .class_row = true,
                           .attention_bias = true,
                           .o_bias = true,
                           .mlp_bias = true,
                           .pre_norm = true,
                           .norm_form = VL_FORM_LAYER,
                           .norm_eps = 1e-5,
                           .hidden_act = VL_ACT_QUICK_GELU,
                           .names = vl_clip_names};
    return tower;
}

/* SiglipVisionConfig's defaults. */
vl_tower_spec vl_siglip_tower(void)
{
    vl_tower_spec tower = {.hidden_size = 768,
                           .intermediate_size = 3072,
                           .n_layers = 12,
                           .n_heads = 12,
                           .image_size = 224,
                           .patch_size = 16,
                           .n_channels = 3,
                           .patch_bias = true,
                           .attention_bias = true,
                           .o_bias = true,
                           .mlp_bias = true,
                           .norm_form = VL_FORM_LAYER,
                           .norm_eps = 1e-6,
                           .hidden_act = VL_ACT_GELU_TANH,
                           .names = vl_clip_names};
    return tower;
}

/* hidden_states[vision_feature_layer] by python's rules; a tower of n layers has n + 1 of them. */
vl_status vl_spec_feature_layer(vl_tower_spec *tower, const vl_hf_reader *in, int layer)
{
    int n_states = tower->n_layers + 1;
    if (json_is_array(json_object_get(in->object, "vision_feature_layer")))
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"vision_feature_layer\" is a list; supported: one integer",
                       in->where);
    VL_TRY(vl_hf_key_int(&layer, in, "vision_feature_layer", -n_states, n_states - 1));
    tower->state = layer + (layer < 0 ? n_states : 0);
    if (tower->state < 0 || tower->state >= n_states) /* the default, in a tower without layers enough */
        return vl_fail(in->err, VL_EFORMAT, "%s: \"vision_feature_layer\" is %d, the tower has %d states", in->where,
                       layer, n_states);
    return VL_OK;
}

vl_status vl_spec_feature_strategy(bool *keep_class_row, const vl_hf_reader *in)
{
    const char *name = *keep_class_row ? "full" : "default";
    VL_TRY(vl_hf_key_string(&name, in, "vision_feature_select_strategy"));
    if (strcmp(name, "default") != 0 && strcmp(name, "full") != 0)
        return vl_fail(in->err, VL_EUNSUPPORTED,
                       "%s: \"vision_feature_select_strategy\" is \"%s\"; supported: default, full", in->where, name);
    *keep_class_row = strcmp(name, "full") == 0;
    return VL_OK;
}

/* "image_token_index"; newer files (4.50 and later) call it "image_token_id". */
vl_status vl_spec_image_token(int32_t *out, const vl_hf_reader *in)
{
    int newer = -1, token = *out;
    VL_TRY(vl_hf_key_int(&newer, in, "image_token_id", 0, VL_HF_MAX_VOCAB));
    if (newer >= 0)
        token = newer;
    VL_TRY(vl_hf_key_int(&token, in, "image_token_index", 0, VL_HF_MAX_VOCAB));
    if (newer >= 0 && newer != token)
        return vl_fail(in->err, VL_EMISMATCH, "%s: \"image_token_index\" is %d, \"image_token_id\" is %d", in->where,
                       token, newer);
    *out = token;
    return VL_OK;
}

/* Versions up to 4 tie by the text_config, 5 by the top level. Where the two contradict, the file decides: tied if it
 * has no head of its own. */
vl_status vl_spec_outer_tie(vl_decoder_spec *out, const vl_hf_reader *in)
{
    bool outer = out->tie_embeddings;
    if (!vl_hf_key_has(in, "tie_word_embeddings"))
        return VL_OK;
    VL_TRY(vl_hf_key_bool(&outer, in, "tie_word_embeddings"));
    out->tie_is_written = !out->tie_is_written || outer == out->tie_embeddings;
    out->tie_embeddings = out->tie_embeddings || outer;
    return VL_OK;
}
