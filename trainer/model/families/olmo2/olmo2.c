/* OLMo 2: norms behind the branches, and of the whole projections of q and k. Semantics: transformers 5.24.0,
 * src/transformers/models/olmo2/modeling_olmo2.py; defaults: configuration_olmo2.py. */
#include "trainer/model/family.h"

static vl_status text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    bool bias = false;
    vl_spec_plain(out);
    out->hidden_size = 4096;
    out->intermediate_size = 11008;
    out->n_layers = out->n_heads = 32;
    out->vocab_size = 50304;
    out->max_position = 2048;
    out->norm_eps = 1e-5;
    out->pad_id = 1;
    out->eos_ids[0] = 50279;
    out->n_eos = 1;
    out->norm_before = false;
    out->norm_after = true;
    out->qk_norm = VL_QK_WIDTH;
    out->names.attention_after_norm = "post_attention_layernorm";
    out->names.mlp_after_norm = "post_feedforward_layernorm";
    out->names.q_norm = "self_attn.q_norm";
    out->names.k_norm = "self_attn.k_norm";
    VL_TRY(vl_spec_text(out, in));
    VL_TRY(vl_spec_finish_text(out, in));
    VL_TRY(vl_spec_rope(&out->ropes[0], out, in, 1));
    VL_TRY(vl_hf_key_bool(&bias, in, "attention_bias"));
    out->qkv_bias = out->o_bias = bias;
    return VL_OK;
}

const vl_family vl_family_olmo2 = {.model_type = "olmo2",
                                   .architecture = "Olmo2ForCausalLM",
                                   .prefixes = {[VL_PART_TEXT] = {"model."}, [VL_PART_HEAD] = {"lm_head."}},
                                   .text = text};
