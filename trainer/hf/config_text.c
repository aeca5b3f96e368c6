/* The language models: LlamaConfig and MllamaTextConfig. */
#include <stdlib.h>

#include "trainer/hf/config_read.h"

enum { MAX_ID = 2147483647 };

/* transformers 4.46.3 models/llama/configuration_llama.py, LlamaConfig.__init__; n_kv_heads = n_heads (0 here). */
static const vl_text_config llama_defaults = {.hidden_size = 4096,
                                              .intermediate_size = 11008,
                                              .n_layers = 32,
                                              .n_heads = 32,
                                              .n_kv_heads = 0,
                                              .vocab_size = 32000,
                                              .max_position = 2048,
                                              .rms_eps = 1e-6,
                                              .rope_theta = 10000,
                                              .hidden_act = VL_ACT_SILU,
                                              .bos_id = 1,
                                              .pad_id = -1,
                                              .eos_ids = {2},
                                              .n_eos = 1};

/* transformers 4.46.3 models/mllama/configuration_mllama.py, MllamaTextConfig.__init__. */
static const vl_text_config mllama_defaults = {.hidden_size = 4096,
                                               .intermediate_size = 14336,
                                               .n_layers = 40,
                                               .n_heads = 32,
                                               .n_kv_heads = 8,
                                               .vocab_size = 128256,
                                               .max_position = 131072,
                                               .rms_eps = 1e-5,
                                               .rope_theta = 500000,
                                               .hidden_act = VL_ACT_SILU,
                                               .cross_attention_layers = {3, 8, 13, 18, 23, 28, 33, 38},
                                               .n_cross = 8,
                                               .bos_id = 128000,
                                               .pad_id = 128004,
                                               .eos_ids = {128001},
                                               .n_eos = 1};

vl_status vl_hf_read_eos(vl_text_config *out, const vl_hf_reader *in)
{
    const json_t *value = json_object_get(in->object, "eos_token_id");
    if (!value)
        return VL_OK;
    out->n_eos = 0;
    if (json_is_null(value))
        return VL_OK;
    if (json_is_array(value))
        return vl_hf_key_ints(out->eos_ids, &out->n_eos, VL_HF_MAX_EOS, in, "eos_token_id", (vl_hf_range){0, MAX_ID});
    VL_TRY(vl_hf_key_int(&out->eos_ids[0], in, "eos_token_id", 0, MAX_ID));
    out->n_eos = 1;
    return VL_OK;
}

/* Unlike elsewhere an explicit null means "none", not the default. Some files write "none" as -1. */
static vl_status read_id(int *out, const vl_hf_reader *in, const char *key)
{
    if (json_is_null(json_object_get(in->object, key)))
        *out = -1;
    return vl_hf_key_int(out, in, key, -1, MAX_ID);
}

/* What both classes have; *out holds the defaults. */
static vl_status read_common(vl_text_config *out, const vl_hf_reader *in)
{
    VL_TRY(vl_hf_key_size(&out->hidden_size, in, "hidden_size"));
    VL_TRY(vl_hf_key_size(&out->intermediate_size, in, "intermediate_size"));
    VL_TRY(vl_hf_key_int(&out->n_layers, in, "num_hidden_layers", 1, VL_HF_MAX_LAYERS));
    VL_TRY(vl_hf_key_int(&out->n_heads, in, "num_attention_heads", 1, 65536));
    VL_TRY(vl_hf_key_int(&out->n_kv_heads, in, "num_key_value_heads", 1, 65536));
    VL_TRY(vl_hf_key_int(&out->vocab_size, in, "vocab_size", 1, VL_HF_MAX_VOCAB));
    VL_TRY(vl_hf_key_int(&out->max_position, in, "max_position_embeddings", 1, 1 << 30));
    VL_TRY(vl_hf_key_double(&out->rms_eps, in, "rms_norm_eps", 0, 1));
    VL_TRY(vl_hf_key_activation(&out->hidden_act, in, "hidden_act"));
    VL_TRY(vl_hf_key_bool(&out->tie_embeddings, in, "tie_word_embeddings"));
    VL_TRY(read_id(&out->bos_id, in, "bos_token_id"));
    VL_TRY(read_id(&out->pad_id, in, "pad_token_id"));
    VL_TRY(vl_hf_read_eos(out, in));
    VL_TRY(vl_hf_read_rope(out, in));
    if (out->n_kv_heads == 0)
        out->n_kv_heads = out->n_heads;
    if (out->n_heads % out->n_kv_heads != 0)
        return vl_fail(in->err, VL_EFORMAT,
                       "%s: \"num_attention_heads\" is %d, expected a multiple of num_key_value_heads, %d", in->where,
                       out->n_heads, out->n_kv_heads);
    return VL_OK;
}

/* head_dim, where given, need not be hidden_size / num_attention_heads (modeling_llama.py, LlamaAttention). */
static vl_status read_head_dim(vl_text_config *out, const vl_hf_reader *in)
{
    out->head_dim = 0;
    VL_TRY(vl_hf_key_int(&out->head_dim, in, "head_dim", 1, 65536));
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

vl_status vl_hf_read_llama(vl_text_config *out, const vl_hf_reader *in)
{
    *out = llama_defaults;
    VL_TRY(read_common(out, in));
    VL_TRY(read_head_dim(out, in));
    VL_TRY(vl_hf_key_bool(&out->attention_bias, in, "attention_bias"));
    VL_TRY(vl_hf_key_bool(&out->mlp_bias, in, "mlp_bias"));
    out->embed_rows = out->vocab_size;
    return VL_OK;
}

static int by_value(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

/* transformers asks "is layer i in the list", so the order of the list means nothing. */
static vl_status read_cross_layers(vl_text_config *out, const vl_hf_reader *in)
{
    VL_TRY(vl_hf_key_ints(out->cross_attention_layers, &out->n_cross, VL_HF_MAX_CROSS, in, "cross_attention_layers",
                          (vl_hf_range){0, out->n_layers - 1}));
    qsort(out->cross_attention_layers, (size_t)out->n_cross, sizeof *out->cross_attention_layers, by_value);
    for (int i = 0; i < out->n_cross; i++) {
        int layer = out->cross_attention_layers[i];
        if (layer >= out->n_layers) /* the default list, in a shorter model */
            return vl_fail(in->err, VL_EFORMAT, "%s: cross-attention layer %d, but only %d layers", in->where, layer,
                           out->n_layers);
        if (i > 0 && layer == out->cross_attention_layers[i - 1])
            return vl_fail(in->err, VL_EFORMAT, "%s: \"cross_attention_layers\" holds %d twice", in->where, layer);
    }
    return VL_OK;
}

vl_status vl_hf_read_mllama_text(vl_text_config *out, const vl_hf_reader *in)
{
    *out = mllama_defaults;
    VL_TRY(read_common(out, in));
    VL_TRY(read_head_dim(out, in));
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
