/* Gemma 3, the decoder: as Gemma 2 with norms of q and k, without the cap of scores, and two ropes. Semantics:
 * transformers 5.24.0, src/transformers/models/gemma3/modeling_gemma3.py; defaults: configuration_gemma3.py. */
#include "trainer/model/families/gemma2/gemma2.h"

enum { GLOBAL = 0, SLIDING = 1 }; /* ropes */

/* Version 5 nests one object for each type of layer; before, rope_theta and rope_scaling are the global layers', and
 * rope_local_base_freq is that of the sliding ones, which no scaling touches. */
static vl_status read_ropes(vl_decoder_spec *out, const vl_hf_reader *in)
{
    vl_hf_section both, part;
    out->n_ropes = 2;
    out->ropes[GLOBAL].theta = 1e6;
    out->ropes[SLIDING].theta = 1e4;
    VL_TRY(vl_hf_section_open(&both, in, "rope_parameters"));
    if (vl_hf_key_has(&both.reader, "full_attention") || vl_hf_key_has(&both.reader, "sliding_attention")) {
        VL_TRY(vl_hf_section_open(&part, &both.reader, "full_attention"));
        VL_TRY(vl_spec_rope_object(&out->ropes[GLOBAL], out, &part.reader, 1));
        VL_TRY(vl_hf_section_open(&part, &both.reader, "sliding_attention"));
        return vl_spec_rope_object(&out->ropes[SLIDING], out, &part.reader, 1);
    }
    VL_TRY(vl_spec_rope(&out->ropes[GLOBAL], out, in, 1));
    VL_TRY(vl_hf_key_double(&out->ropes[SLIDING].theta, in, "rope_local_base_freq", 1, 1e15));
    const vl_hf_reader nothing = {NULL, in->where, in->err};
    return vl_spec_rope_object(&out->ropes[SLIDING], out, &nothing, 1);
}

static vl_status read_windows(vl_decoder_spec *out, const vl_hf_reader *in)
{
    int pattern = 6;
    VL_TRY(vl_hf_key_int(&pattern, in, "_sliding_window_pattern", 1, VL_MAX_LAYERS));
    VL_TRY(vl_hf_key_int(&pattern, in, "sliding_window_pattern", 1, VL_MAX_LAYERS));
    VL_TRY(vl_spec_window(out, in, 4096));
    for (int i = 0; i < out->n_layers; i++)
        if ((i + 1) % pattern == 0)
            out->layers[i].window = 0;
    VL_TRY(vl_spec_layer_types(out, in, 4096));
    for (int i = 0; i < out->n_layers; i++)
        out->layers[i].rope = out->layers[i].window ? SLIDING : GLOBAL;
    return VL_OK;
}

static vl_status text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    out->vocab_size = 262208;
    out->max_position = 131072;
    VL_TRY(vl_gemma_read(out, in));
    out->qk_norm = VL_QK_HEAD;
    out->names.q_norm = "self_attn.q_norm";
    out->names.k_norm = "self_attn.k_norm";
    /* attn_logit_softcapping is a key, but no score ever sees it */
    VL_TRY(vl_spec_cap(&out->logit_softcap, in, "final_logit_softcapping"));
    VL_TRY(read_ropes(out, in));
    return read_windows(out, in);
}

const vl_family vl_family_gemma3_text = {.model_type = "gemma3_text",
                                         .architecture = "Gemma3ForCausalLM",
                                         .prefixes = {[VL_PART_TEXT] = {"model."}, [VL_PART_HEAD] = {"lm_head."}},
                                         .text = text};
