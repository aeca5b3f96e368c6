/* RoPE settings: transformers 4.46.3 modeling_rope_utils.py (ROPE_INIT_FUNCTIONS); since version 5 they are written
 * as one object `rope_parameters` that also holds rope_theta. */
#include <math.h>
#include <string.h>

#include "trainer/hf/config_read.h"

static const char *const rope_names[] = {[VL_HF_ROPE_DEFAULT] = "default",
                                         [VL_HF_ROPE_LINEAR] = "linear",
                                         [VL_HF_ROPE_DYNAMIC] = "dynamic",
                                         [VL_HF_ROPE_YARN] = "yarn",
                                         [VL_HF_ROPE_LLAMA3] = "llama3"};
enum { N_ROPE = sizeof rope_names / sizeof *rope_names, MAX_LENGTH = 1 << 30 };

const char *vl_hf_rope_name(vl_hf_rope_kind kind)
{
    return (unsigned)kind < N_ROPE ? rope_names[kind] : "unknown";
}

/* "rope_type", or the key "type" of before 4.43. */
static vl_status read_kind(vl_hf_rope_kind *out, const vl_hf_reader *in)
{
    const char *name = "default", *old = NULL;
    VL_TRY(vl_hf_key_string(&old, in, "type"));
    if (old)
        name = old;
    VL_TRY(vl_hf_key_string(&name, in, "rope_type"));
    for (int i = 0; i < N_ROPE; i++)
        if (strcmp(rope_names[i], name) == 0) {
            *out = (vl_hf_rope_kind)i;
            return VL_OK;
        }
    return vl_fail(in->err, VL_EUNSUPPORTED,
                   "%s: RoPE of type \"%s\"; supported: default, linear, dynamic, yarn, llama3", in->where, name);
}

static vl_status require(const vl_hf_reader *in, const char *key)
{
    if (vl_hf_key_has(in, key))
        return VL_OK;
    return vl_fail(in->err, VL_EFORMAT, "%s: \"%s\" is missing, the RoPE type needs it", in->where, key);
}

static vl_status refuse_unless(const vl_hf_reader *in, const char *key, double same)
{
    double value = same;
    VL_TRY(vl_hf_key_double(&value, in, key, -1e30, 1e30));
    if (value != same)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"%s\" is %g; supported: %g", in->where, key, value, same);
    return VL_OK;
}

static vl_status read_llama3(vl_rope_config *out, const vl_hf_reader *in)
{
    VL_TRY(require(in, "low_freq_factor"));
    VL_TRY(require(in, "high_freq_factor"));
    VL_TRY(require(in, "original_max_position_embeddings"));
    VL_TRY(vl_hf_key_double(&out->low_freq_factor, in, "low_freq_factor", 1e-6, 1e6));
    VL_TRY(vl_hf_key_double(&out->high_freq_factor, in, "high_freq_factor", 1e-6, 1e6));
    VL_TRY(vl_hf_key_int(&out->original_max_position, in, "original_max_position_embeddings", 1, MAX_LENGTH));
    if (out->high_freq_factor <= out->low_freq_factor)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"high_freq_factor\" is %g, expected more than low_freq_factor, %g",
                       in->where, out->high_freq_factor, out->low_freq_factor);
    return VL_OK;
}

/* 4.46.3 takes max_position_embeddings as the trained length and `factor` as it stands; later versions take
 * original_max_position_embeddings and max / original. Where the two readings differ nobody can know which of them
 * the model was made with. */
static vl_status read_yarn(vl_rope_config *out, const vl_hf_reader *in, int max_position)
{
    bool truncate = true;
    VL_TRY(vl_hf_key_double(&out->beta_fast, in, "beta_fast", 0, 1e6));
    VL_TRY(vl_hf_key_double(&out->beta_slow, in, "beta_slow", 0, 1e6));
    if (out->beta_fast == 0) /* `or 32`: 0 counts as omitted */
        out->beta_fast = 32;
    if (out->beta_slow == 0)
        out->beta_slow = 1;
    if (out->beta_fast < out->beta_slow)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"beta_fast\" is %g, expected at least beta_slow, %g", in->where,
                       out->beta_fast, out->beta_slow);
    out->attention_factor = 0.1 * log(out->factor) + 1;
    VL_TRY(vl_hf_key_double(&out->attention_factor, in, "attention_factor", 1e-6, 1e6));
    VL_TRY(vl_hf_key_int(&out->original_max_position, in, "original_max_position_embeddings", 1, MAX_LENGTH));
    if (vl_hf_key_has(in, "original_max_position_embeddings") &&
        fabs((double)max_position / out->original_max_position / out->factor - 1) > 1e-6)
        return vl_fail(in->err, VL_EUNSUPPORTED,
                       "%s: yarn with factor %g, but max_position_embeddings / original_max_position_embeddings is "
                       "%d / %d: versions of transformers disagree on what that means",
                       in->where, out->factor, max_position, out->original_max_position);
    VL_TRY(vl_hf_key_bool(&truncate, in, "truncate"));
    if (!truncate || vl_hf_key_has(in, "mscale") || vl_hf_key_has(in, "mscale_all_dim"))
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: yarn with mscale, mscale_all_dim or \"truncate\": false",
                       in->where);
    return VL_OK;
}

static vl_status read_scaling(vl_text_config *text, const vl_hf_reader *in)
{
    vl_rope_config *out = &text->rope;
    VL_TRY(read_kind(&out->kind, in));
    VL_TRY(refuse_unless(in, "partial_rotary_factor", 1));
    if (out->kind == VL_HF_ROPE_DEFAULT)
        return VL_OK;
    VL_TRY(require(in, "factor"));
    VL_TRY(vl_hf_key_double(&out->factor, in, "factor", 1, 1e6)); /* modeling_rope_utils.py demands >= 1 too */
    if (out->kind == VL_HF_ROPE_LLAMA3)
        return read_llama3(out, in);
    out->original_max_position = text->max_position;
    if (out->kind == VL_HF_ROPE_YARN)
        return read_yarn(out, in, text->max_position);
    return VL_OK;
}

vl_status vl_hf_read_rope(vl_text_config *out, const vl_hf_reader *in)
{
    out->rope = (vl_rope_config){.kind = VL_HF_ROPE_DEFAULT,
                                 .factor = 1,
                                 .low_freq_factor = 1,
                                 .high_freq_factor = 1,
                                 .beta_fast = 32,
                                 .beta_slow = 1,
                                 .attention_factor = 1};
    VL_TRY(vl_hf_key_double(&out->rope_theta, in, "rope_theta", 1, 1e15));
    VL_TRY(refuse_unless(in, "partial_rotary_factor", 1));
    const char *key = vl_hf_key_has(in, "rope_parameters") ? "rope_parameters" : "rope_scaling";
    if (!vl_hf_key_has(in, key))
        return VL_OK;
    char where[VL_ERROR_MESSAGE_SIZE];
    snprintf(where, sizeof where, "%s: %s", in->where, key);
    const vl_hf_reader inner = {json_object_get(in->object, key), where, in->err};
    if (!json_is_object(inner.object))
        return vl_fail(in->err, VL_EFORMAT, "%s: \"%s\" is no object", in->where, key);
    VL_TRY(vl_hf_key_double(&out->rope_theta, &inner, "rope_theta", 1, 1e15));
    return read_scaling(out, &inner);
}
