/* RoPE settings: transformers modeling_rope_utils.py (ROPE_INIT_FUNCTIONS). Up to version 4 `rope_theta` and
 * `rope_scaling`; since version 5 one object `rope_parameters` that also holds rope_theta. */
#include <math.h>
#include <string.h>

#include "trainer/model/spec.h"

static const char *const rope_names[] = {
    [VL_ROPE_DEFAULT] = "default", [VL_ROPE_LINEAR] = "linear", [VL_ROPE_DYNAMIC] = "dynamic",
    [VL_ROPE_YARN] = "yarn",       [VL_ROPE_LLAMA3] = "llama3", [VL_ROPE_LONGROPE] = "longrope"};
enum { N_ROPE = sizeof rope_names / sizeof *rope_names, MAX_LENGTH = 1 << 30 };

/* Older names: "su" is longrope, and "mrope" the default with three axes (Qwen2VLConfig). */
static const struct {
    const char *name;
    vl_rope_kind kind;
} aliases[] = {{"su", VL_ROPE_LONGROPE}, {"mrope", VL_ROPE_DEFAULT}};

static const char *const known_keys[] = {"rope_type",
                                         "type",
                                         "rope_theta",
                                         "factor",
                                         "partial_rotary_factor",
                                         "low_freq_factor",
                                         "high_freq_factor",
                                         "original_max_position_embeddings",
                                         "beta_fast",
                                         "beta_slow",
                                         "attention_factor",
                                         "truncate",
                                         "mscale",
                                         "mscale_all_dim",
                                         "short_factor",
                                         "long_factor",
                                         "mrope_section",
                                         "mrope_interleaved"};

const char *vl_rope_name(vl_rope_kind kind)
{
    return (unsigned)kind < N_ROPE ? rope_names[kind] : "unknown";
}

/* "rope_type", or the key "type" of before 4.43. */
static vl_status read_kind(vl_rope_kind *out, const vl_hf_reader *in)
{
    const char *name = "default", *old = NULL;
    VL_TRY(vl_hf_key_string(&old, in, "type"));
    if (old)
        name = old;
    VL_TRY(vl_hf_key_string(&name, in, "rope_type"));
    for (int i = 0; i < N_ROPE; i++)
        if (strcmp(rope_names[i], name) == 0) {
            /* Phi-3's files of before "longrope" was a name (Phi3Config._rope_scaling_adjustment) */
            bool lists = i == VL_ROPE_YARN && vl_hf_key_has(in, "short_factor");
            *out = lists ? VL_ROPE_LONGROPE : (vl_rope_kind)i;
            return VL_OK;
        }
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (strcmp(aliases[i].name, name) == 0) {
            *out = aliases[i].kind;
            return VL_OK;
        }
    return vl_fail(in->err, VL_EUNSUPPORTED,
                   "%s: RoPE of type \"%s\"; supported: default, linear, dynamic, yarn, llama3, longrope", in->where,
                   name);
}

/* A setting that is not known would change the model without a word. */
static vl_status refuse_unknown(const vl_hf_reader *in)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)in->object, key, value)
    {
        bool known = json_is_null(value);
        for (size_t i = 0; !known && i < sizeof known_keys / sizeof *known_keys; i++)
            known = strcmp(known_keys[i], key) == 0;
        if (!known)
            return vl_fail(in->err, VL_EUNSUPPORTED, "%s: RoPE with a setting \"%.40s\", whose meaning is not known",
                           in->where, key);
    }
    return VL_OK;
}

static vl_status require(const vl_hf_reader *in, const char *key)
{
    if (vl_hf_key_has(in, key))
        return VL_OK;
    return vl_fail(in->err, VL_EFORMAT, "%s: \"%s\" is missing, the RoPE type needs it", in->where, key);
}

static vl_status read_llama3(vl_rope_spec *out, const vl_hf_reader *in)
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
static vl_status read_yarn(vl_rope_spec *out, const vl_hf_reader *in, int max_position)
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

/* _compute_longrope_parameters. The trained length may stand outside (Phi-3), and that counts. */
static vl_status read_longrope(vl_rope_spec *out, const vl_hf_reader *in, const vl_hf_reader *around, int max_position)
{
    int n_short = 0, n_long = 0, pairs = out->columns / 2;
    VL_TRY(require(in, "short_factor"));
    VL_TRY(require(in, "long_factor"));
    VL_TRY(vl_hf_key_floats(out->short_factor, &n_short, VL_MAX_ROPE_PAIRS, in, "short_factor"));
    VL_TRY(vl_hf_key_floats(out->long_factor, &n_long, VL_MAX_ROPE_PAIRS, in, "long_factor"));
    if (n_short != pairs || n_long != pairs)
        return vl_fail(in->err, VL_EFORMAT, "%s: longrope with %d short and %d long factors, expected %d of each",
                       in->where, n_short, n_long, pairs);
    for (int i = 0; i < pairs; i++)
        if (out->short_factor[i] <= 0 || out->long_factor[i] <= 0)
            return vl_fail(in->err, VL_EFORMAT, "%s: longrope with a factor that is not above 0", in->where);
    VL_TRY(vl_hf_key_int(&out->original_max_position, in, "original_max_position_embeddings", 1, MAX_LENGTH));
    VL_TRY(vl_hf_key_int(&out->original_max_position, around, "original_max_position_embeddings", 1, MAX_LENGTH));
    double trained = out->original_max_position, stretch = max_position / trained;
    VL_TRY(vl_hf_key_double(&stretch, in, "factor", 1e-6, 1e6));
    out->attention_factor = stretch > 1 && trained > 1 ? sqrt(1 + log(stretch) / log(trained)) : 1;
    return vl_hf_key_double(&out->attention_factor, in, "attention_factor", 1e-6, 1e6);
}

/* Three axes of positions: how many pairs follow each. */
static vl_status read_sections(vl_rope_spec *out, const vl_hf_reader *in)
{
    int n = 0, sum = 0;
    VL_TRY(vl_hf_key_ints(out->sections, &n, 3, in, "mrope_section", (vl_hf_range){0, VL_MAX_ROPE_PAIRS}));
    VL_TRY(vl_hf_key_bool(&out->interleaved, in, "mrope_interleaved"));
    for (int i = 0; i < 3; i++)
        sum += out->sections[i];
    if (n != 0 && (n != 3 || sum != out->columns / 2))
        return vl_fail(in->err, VL_EFORMAT, "%s: \"mrope_section\" has %d parts of %d pairs, expected 3 of %d",
                       in->where, n, sum, out->columns / 2);
    return VL_OK;
}

static vl_status read_scaling(vl_rope_spec *out, const vl_decoder_spec *text, const vl_hf_reader *in,
                              const vl_hf_reader *around)
{
    VL_TRY(read_kind(&out->kind, in));
    VL_TRY(read_sections(out, in));
    if (out->kind == VL_ROPE_DEFAULT)
        return VL_OK;
    if (out->original_max_position == 0 || out->kind != VL_ROPE_LONGROPE)
        out->original_max_position = text->max_position;
    if (out->kind == VL_ROPE_LONGROPE)
        return read_longrope(out, in, around, text->max_position);
    VL_TRY(require(in, "factor"));
    VL_TRY(vl_hf_key_double(&out->factor, in, "factor", 1, 1e6)); /* modeling_rope_utils.py demands >= 1 too */
    if (out->kind == VL_ROPE_LLAMA3)
        return read_llama3(out, in);
    return out->kind == VL_ROPE_YARN ? read_yarn(out, in, text->max_position) : VL_OK;
}

/* The columns that turn: int(head_dim * partial_rotary_factor). */
static vl_status set_columns(vl_rope_spec *out, const vl_decoder_spec *text, const vl_hf_reader *in, double partial)
{
    out->columns = (int)(text->head_dim * partial);
    if (out->columns < 2 || out->columns % 2 != 0 || out->columns > text->head_dim ||
        out->columns / 2 > VL_MAX_ROPE_PAIRS)
        return vl_fail(in->err, VL_EUNSUPPORTED,
                       "%s: %d of the %d columns of a head turn; supported: 2 to %d, in pairs", in->where, out->columns,
                       text->head_dim, 2 * VL_MAX_ROPE_PAIRS);
    return VL_OK;
}

static void set_defaults(vl_rope_spec *out)
{
    *out = (vl_rope_spec){.theta = out->theta,
                          .original_max_position = out->original_max_position,
                          .factor = 1,
                          .low_freq_factor = 1,
                          .high_freq_factor = 1,
                          .beta_fast = 32,
                          .beta_slow = 1,
                          .attention_factor = 1};
}

static vl_status read_object(vl_rope_spec *out, const vl_decoder_spec *text, const vl_hf_reader *in,
                             const vl_hf_reader *around, double partial)
{
    VL_TRY(refuse_unknown(in));
    VL_TRY(vl_hf_key_double(&out->theta, in, "rope_theta", 1, 1e15));
    VL_TRY(vl_hf_key_double(&partial, in, "partial_rotary_factor", 0, 1));
    VL_TRY(set_columns(out, text, in, partial));
    return read_scaling(out, text, in, around);
}

vl_status vl_spec_rope_object(vl_rope_spec *out, const vl_decoder_spec *text, const vl_hf_reader *in, double partial)
{
    set_defaults(out);
    return read_object(out, text, in, in, partial);
}

vl_status vl_spec_rope(vl_rope_spec *out, const vl_decoder_spec *text, const vl_hf_reader *in, double partial)
{
    set_defaults(out);
    VL_TRY(vl_hf_key_double(&out->theta, in, "rope_theta", 1, 1e15));
    VL_TRY(vl_hf_key_double(&partial, in, "partial_rotary_factor", 0, 1));
    /* A scaling that is there wins (modeling_rope_utils.py of version 5, convert_rope_params_to_dict). */
    const char *key = json_object_size(json_object_get(in->object, "rope_scaling")) > 0 ? "rope_scaling"
                      : vl_hf_key_has(in, "rope_parameters")                            ? "rope_parameters"
                                                                                        : "rope_scaling";
    vl_hf_section inner;
    VL_TRY(vl_hf_section_open(&inner, in, key));
    return read_object(out, text, &inner.reader, in, partial);
}
