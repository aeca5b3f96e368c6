/* Qwen3 (dense): the plain decoder with a norm of each head of q and k. Semantics: transformers 5.24.0,
 * src/transformers/models/qwen3/modeling_qwen3.py; defaults: configuration_qwen3.py. */
#include "trainer/model/family.h"

static vl_status text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    bool bias = false;
    vl_spec_plain(out);
    out->hidden_size = 4096;
    out->intermediate_size = 22016;
    out->n_layers = out->n_heads = out->n_kv_heads = 32;
    out->head_dim = 128; /* even where hidden_size / heads is something else */
    out->vocab_size = 151936;
    out->max_position = 32768;
    out->qk_norm = VL_QK_HEAD;
    out->names.q_norm = "self_attn.q_norm";
    out->names.k_norm = "self_attn.k_norm";
    VL_TRY(vl_spec_text(out, in));
    VL_TRY(vl_spec_finish_text(out, in));
    VL_TRY(vl_spec_rope(&out->ropes[0], out, in, 1));
    VL_TRY(vl_hf_key_bool(&bias, in, "attention_bias"));
    out->qkv_bias = out->o_bias = bias;
    return vl_spec_switched_window(out, in);
}

const vl_family vl_family_qwen3 = {.model_type = "qwen3",
                                   .architecture = "Qwen3ForCausalLM",
                                   .prefixes = {[VL_PART_TEXT] = {"model."}, [VL_PART_HEAD] = {"lm_head."}},
                                   .text = text};
