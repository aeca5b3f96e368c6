/* What the families that see pictures share in their reading of config.json. */
#include "trainer/model/spec.h"

static vl_status divide(vl_tower_spec *out, const vl_hf_reader *in)
{
    if (out->hidden_size % out->n_heads != 0)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"hidden_size\" is %d, expected a multiple of the %d heads", in->where,
                       out->hidden_size, out->n_heads);
    if (out->patch_size > out->image_size || out->image_size % out->patch_size != 0)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"image_size\" is %d; supported: a multiple of patch_size, %d",
                       in->where, out->image_size, out->patch_size);
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
    VL_TRY(vl_hf_key_int(&out->image_size, in, "image_size", 1, 65536));
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
