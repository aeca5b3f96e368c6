/* Mistral: the plain decoder, whose layers all slide or none. Semantics: transformers 5.24.0,
 * src/transformers/models/mistral/modeling_mistral.py; defaults: configuration_mistral.py. */
#include "trainer/model/family.h"

static vl_status text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    vl_spec_plain(out);
    out->hidden_size = 4096;
    out->intermediate_size = 14336;
    out->n_layers = out->n_heads = 32;
    out->n_kv_heads = 8;
    out->vocab_size = 32000;
    out->max_position = 131072;
    out->bos_id = 1;
    out->eos_ids[0] = 2;
    out->n_eos = 1;
    VL_TRY(vl_spec_text(out, in));
    VL_TRY(vl_spec_finish_text(out, in));
    VL_TRY(vl_spec_rope(&out->ropes[0], out, in, 1));
    return vl_spec_window(out, in, 4096); /* null: none; layer_types are not looked at */
}

const vl_family vl_family_mistral = {.model_type = "mistral",
                                     .architecture = "MistralForCausalLM",
                                     .prefixes = {[VL_PART_TEXT] = {"model."}, [VL_PART_HEAD] = {"lm_head."}},
                                     .ignored = (const char *const[]){"rotary_emb.inv_freq", NULL},
                                     .text = text};
