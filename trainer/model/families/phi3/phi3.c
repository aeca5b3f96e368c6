/* Phi-3, Phi-3.5-mini, Phi-4 and Phi-4-mini: the plain decoder with fused weights. Semantics: transformers 5.24.0,
 * src/transformers/models/phi3/modeling_phi3.py; defaults: configuration_phi3.py. */
#include "trainer/model/family.h"

static vl_status text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    vl_spec_plain(out);
    out->hidden_size = 3072;
    out->intermediate_size = 8192;
    out->n_layers = out->n_heads = 32;
    out->vocab_size = 32064;
    out->max_position = 4096;
    out->norm_eps = 1e-5;
    out->bos_id = 1;
    out->pad_id = out->eos_ids[0] = 32000;
    out->n_eos = 1;
    out->qkv_layout = VL_QKV_BLOCKS;
    out->gate_up_fused = true; /* gate first */
    out->names.qkv = "self_attn.qkv_proj";
    out->names.gate_up = "mlp.gate_up_proj";
    VL_TRY(vl_spec_text(out, in));
    VL_TRY(vl_spec_finish_text(out, in));
    out->ropes[0].original_max_position = 4096;
    VL_TRY(vl_spec_rope(&out->ropes[0], out, in, 1));
    return vl_spec_window(out, in, 0);
}

const vl_family vl_family_phi3 = {.model_type = "phi3",
                                  .architecture = "Phi3ForCausalLM",
                                  .prefixes = {[VL_PART_TEXT] = {"model."}, [VL_PART_HEAD] = {"lm_head."}},
                                  .text = text};
