/* Qwen2 and Qwen2.5: the plain decoder with biases on q, k and v. Semantics: transformers 5.24.0,
 * src/transformers/models/qwen2/modeling_qwen2.py; defaults: configuration_qwen2.py. */
#include "trainer/model/family.h"

static vl_status text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    vl_spec_plain(out);
    out->hidden_size = 4096;
    out->intermediate_size = 22016;
    out->n_layers = out->n_heads = out->n_kv_heads = 32;
    out->vocab_size = 151936;
    out->max_position = 32768;
    out->qkv_bias = true; /* no key says so (Qwen2Attention.__init__) */
    VL_TRY(vl_spec_text(out, in));
    VL_TRY(vl_spec_finish_text(out, in));
    VL_TRY(vl_spec_rope(&out->ropes[0], out, in, 1));
    return vl_spec_switched_window(out, in);
}

const vl_family vl_family_qwen2 = {.model_type = "qwen2",
                                   .architecture = "Qwen2ForCausalLM",
                                   .prefixes = {[VL_PART_TEXT] = {"model."}, [VL_PART_HEAD] = {"lm_head."}},
                                   .text = text};
