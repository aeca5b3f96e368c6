/* What the families' readings of config.json share. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/model/family.h"

/* Names of transformers/activations.py, ACT2FN. gelu_new, gelu_fast and gelu_pytorch_tanh are one formula written
 * three ways. */
static const struct {
    const char *name;
    vl_activation act;
} activations[] = {
    {"silu", VL_ACT_SILU},
    {"swish", VL_ACT_SILU},
    {"gelu", VL_ACT_GELU},
    {"gelu_python", VL_ACT_GELU},
    {"gelu_new", VL_ACT_GELU_TANH},
    {"gelu_fast", VL_ACT_GELU_TANH},
    {"gelu_pytorch_tanh", VL_ACT_GELU_TANH},
    {"quick_gelu", VL_ACT_QUICK_GELU},
    {"relu", VL_ACT_RELU},
};

vl_status vl_spec_activation(vl_activation *out, const vl_hf_reader *in, const char *key)
{
    const char *name = NULL;
    VL_TRY(vl_hf_key_string(&name, in, key));
    if (!name)
        return VL_OK;
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (strcmp(activations[i].name, name) == 0) {
            *out = activations[i].act;
            return VL_OK;
        }
    return vl_fail(
        in->err, VL_EUNSUPPORTED,
        "%s: \"%s\" is \"%s\"; supported: silu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, relu",
        in->where, key, name);
}

vl_status vl_spec_eos(vl_decoder_spec *out, const vl_hf_reader *in)
{
    const json_t *value = json_object_get(in->object, "eos_token_id");
    if (!value)
        return VL_OK;
    out->n_eos = 0;
    if (json_is_null(value))
        return VL_OK;
    if (json_is_array(value))
        return vl_hf_key_ints(out->eos_ids, &out->n_eos, VL_MAX_EOS, in, "eos_token_id",
                              (vl_hf_range){0, VL_HF_MAX_ID});
    VL_TRY(vl_hf_key_int(&out->eos_ids[0], in, "eos_token_id", 0, VL_HF_MAX_ID));
    out->n_eos = 1;
    return VL_OK;
}

/* Unlike elsewhere an explicit null means "none", not the default. Some files write "none" as -1. */
vl_status vl_spec_id(int *out, const vl_hf_reader *in, const char *key)
{
    if (json_is_null(json_object_get(in->object, key)))
        *out = -1;
    return vl_hf_key_int(out, in, key, -1, VL_HF_MAX_ID);
}

vl_status vl_spec_tie(vl_decoder_spec *out, const vl_hf_reader *in)
{
    out->tie_is_written = out->tie_is_written || vl_hf_key_has(in, "tie_word_embeddings");
    return vl_hf_key_bool(&out->tie_embeddings, in, "tie_word_embeddings");
}

void vl_spec_plain(vl_decoder_spec *out)
{
    *out = (vl_decoder_spec){.names = vl_plain_names,
                             .norm_eps = 1e-6,
                             .norm_before = true,
                             .hidden_act = VL_ACT_SILU,
                             .ropes = {{.theta = 10000}},
                             .n_ropes = 1,
                             .bos_id = -1,
                             .pad_id = -1};
}

vl_status vl_spec_text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    VL_TRY(vl_hf_key_size(&out->hidden_size, in, "hidden_size"));
    VL_TRY(vl_hf_key_size(&out->intermediate_size, in, "intermediate_size"));
    VL_TRY(vl_hf_key_int(&out->n_layers, in, "num_hidden_layers", 1, VL_MAX_LAYERS));
    VL_TRY(vl_hf_key_int(&out->n_heads, in, "num_attention_heads", 1, 65536));
    VL_TRY(vl_hf_key_int(&out->n_kv_heads, in, "num_key_value_heads", 1, 65536));
    VL_TRY(vl_hf_key_int(&out->head_dim, in, "head_dim", 1, 65536));
    VL_TRY(vl_hf_key_int(&out->vocab_size, in, "vocab_size", 1, VL_HF_MAX_VOCAB));
    VL_TRY(vl_hf_key_int(&out->max_position, in, "max_position_embeddings", 1, 1 << 30));
    VL_TRY(vl_hf_key_double(&out->norm_eps, in, "rms_norm_eps", 0, 1));
    VL_TRY(vl_spec_activation(&out->hidden_act, in, "hidden_act"));
    VL_TRY(vl_spec_tie(out, in));
    VL_TRY(vl_spec_id(&out->bos_id, in, "bos_token_id"));
    VL_TRY(vl_spec_id(&out->pad_id, in, "pad_token_id"));
    return vl_spec_eos(out, in);
}

/* head_dim, where given, need not be hidden_size / heads (modeling_llama.py, LlamaAttention). */
static vl_status finish_heads(vl_decoder_spec *out, const vl_hf_reader *in)
{
    if (out->n_kv_heads == 0)
        out->n_kv_heads = out->n_heads;
    if (out->n_heads % out->n_kv_heads != 0)
        return vl_fail(in->err, VL_EFORMAT,
                       "%s: \"num_attention_heads\" is %d, expected a multiple of num_key_value_heads, %d", in->where,
                       out->n_heads, out->n_kv_heads);
    if (out->head_dim == 0) {
        if (out->hidden_size % out->n_heads != 0)
            return vl_fail(in->err, VL_EFORMAT,
                           "%s: \"hidden_size\" is %d, expected a multiple of num_attention_heads, %d", in->where,
                           out->hidden_size, out->n_heads);
        out->head_dim = out->hidden_size / out->n_heads;
    }
    if (out->head_dim % 2 != 0)
        return vl_fail(in->err, VL_EFORMAT, "%s: a head is %d wide, expected an even width (RoPE turns pairs)",
                       in->where, out->head_dim);
    if ((int64_t)out->head_dim * out->n_heads > VL_HF_MAX_SIZE)
        return vl_fail(in->err, VL_EFORMAT, "%s: %d heads of %d are %lld columns, expected at most %d", in->where,
                       out->n_heads, out->head_dim, (long long)out->head_dim * out->n_heads, VL_HF_MAX_SIZE);
    return VL_OK;
}

vl_status vl_spec_finish_text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    VL_TRY(finish_heads(out, in));
    if (out->embed_rows == 0)
        out->embed_rows = out->vocab_size;
    for (int i = 0; i < out->n_layers; i++)
        out->layers[i] = (vl_layer_spec){.attention_scale = 1 / sqrt((double)out->head_dim)};
    return VL_OK;
}

vl_status vl_spec_dtype(vl_model_spec *out, const vl_hf_reader *in)
{
    const char *name = NULL;
    VL_TRY(vl_hf_key_string(&name, in, "torch_dtype"));
    VL_TRY(vl_hf_key_string(&name, in, "dtype"));
    if (name && strncmp(name, "torch.", 6) == 0)
        name += 6;
    static const vl_dtype known[] = {VL_F32, VL_F16, VL_BF16};
    for (size_t i = 0; name && i < sizeof known / sizeof *known; i++)
        if (strcmp(vl_dtype_name(known[i]), name) == 0) {
            out->has_dtype = true;
            out->dtype = known[i];
        }
    return VL_OK;
}

vl_status vl_spec_refuse_quantized(const vl_hf_reader *in)
{
    if (!vl_hf_key_has(in, "quantization_config"))
        return VL_OK;
    const char *method =
        json_string_value(json_object_get(json_object_get(in->object, "quantization_config"), "quant_method"));
    return vl_fail(in->err, VL_EUNSUPPORTED, "%s: quantized weights (%s); supported: float32, float16 and bfloat16",
                   in->where, method ? method : "quantization_config");
}

vl_status vl_spec_section(vl_hf_section *out, const char **type, const vl_hf_reader *in, const char *key,
                          const char *const *types)
{
    const char *name = types[0];
    VL_TRY(vl_hf_section_open(out, in, key));
    VL_TRY(vl_spec_refuse_quantized(&out->reader));
    VL_TRY(vl_hf_key_string(&name, &out->reader, "model_type"));
    char list[200];
    size_t used = 0;
    for (const char *const *t = types; *t; t++) {
        if (strcmp(*t, name) == 0) {
            if (type)
                *type = *t;
            return VL_OK;
        }
        if (used < sizeof list)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", t == types ? "" : ", ", *t);
    }
    return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"model_type\" is \"%s\"; supported here: %s", out->where, name,
                   list);
}

vl_status vl_spec_text_section(vl_decoder_spec *out, const vl_hf_reader *in, const char *key, const char *type)
{
    vl_hf_section section;
    VL_TRY(vl_hf_section_open(&section, in, key));
    VL_TRY(vl_spec_refuse_quantized(&section.reader));
    VL_TRY(vl_hf_key_string(&type, &section.reader, "model_type"));
    const vl_family *family = vl_family_find(type);
    if (!family || !family->text)
        return vl_spec_refuse_type(&section.reader, type, true);
    return family->text(out, &section.reader);
}
