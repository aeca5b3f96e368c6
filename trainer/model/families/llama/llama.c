/* LLaMA: the plain decoder. Semantics: transformers 4.46.3, src/transformers/models/llama/modeling_llama.py; defaults:
 * configuration_llama.py, LlamaConfig.__init__. */
#include "trainer/model/family.h"

static vl_status text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    bool attention_bias = false;
    vl_spec_plain(out);
    out->hidden_size = 4096;
    out->intermediate_size = 11008;
    out->n_layers = out->n_heads = 32;
    out->vocab_size = 32000;
    out->max_position = 2048;
    out->bos_id = 1;
    out->eos_ids[0] = 2;
    out->n_eos = 1;
    VL_TRY(vl_spec_text(out, in));
    VL_TRY(vl_spec_finish_text(out, in));
    VL_TRY(vl_spec_rope(&out->ropes[0], out, in, 1));
    VL_TRY(vl_hf_key_bool(&attention_bias, in, "attention_bias"));
    out->qkv_bias = out->o_bias = attention_bias;
    return vl_hf_key_bool(&out->mlp_bias, in, "mlp_bias");
}

static const char *const buffers[] = {"rotary_emb.inv_freq", NULL};

const vl_family vl_family_llama = {.model_type = "llama",
                                   .architecture = "LlamaForCausalLM",
                                   .prefixes = {[VL_PART_TEXT] = {"model."}, [VL_PART_HEAD] = {"lm_head."}},
                                   .ignored = buffers,
                                   .text = text};
