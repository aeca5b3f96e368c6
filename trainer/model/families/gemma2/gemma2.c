/* Gemma 2: norms around both branches, soft caps, windows on every other layer. Semantics: transformers 5.24.0,
 * src/transformers/models/gemma2/modeling_gemma2.py; defaults: configuration_gemma2.py. */
#include "trainer/model/families/gemma2/gemma2.h"

#include <math.h>

static void set_block(vl_decoder_spec *out)
{
    out->norm_form = out->final_norm_form = VL_FORM_RMS_ONE_PLUS;
    out->norm_after = true;
    out->names.attention_after_norm = "post_attention_layernorm"; /* LLaMA's name, at another place */
    out->names.mlp_norm = "pre_feedforward_layernorm";
    out->names.mlp_after_norm = "post_feedforward_layernorm";
}

vl_status vl_gemma_read(vl_decoder_spec *out, const vl_hf_reader *in)
{
    double scalar = 256;
    bool bias = false;
    int vocab = out->vocab_size, positions = out->max_position;
    vl_spec_plain(out);
    set_block(out);
    out->hidden_size = 2304;
    out->intermediate_size = 9216;
    out->n_layers = 26;
    out->n_heads = 8;
    out->n_kv_heads = 4;
    out->head_dim = 256;
    out->vocab_size = vocab;
    out->max_position = positions;
    out->tie_embeddings = true;
    out->bos_id = 2;
    out->pad_id = 0;
    out->eos_ids[0] = 1;
    out->n_eos = 1;
    VL_TRY(vl_spec_text(out, in));
    out->hidden_act = VL_ACT_GELU_TANH; /* "hidden_act" is in the files, but nothing reads it */
    VL_TRY(vl_spec_activation(&out->hidden_act, in, "hidden_activation"));
    VL_TRY(vl_hf_key_only_bool(in, "use_bidirectional_attention", false));
    VL_TRY(vl_hf_key_bool(&bias, in, "attention_bias"));
    out->qkv_bias = out->o_bias = bias;
    VL_TRY(vl_hf_key_double(&scalar, in, "query_pre_attn_scalar", 1e-6, 1e9));
    VL_TRY(vl_spec_finish_text(out, in));
    for (int i = 0; i < out->n_layers; i++)
        out->layers[i].attention_scale = 1 / sqrt(scalar);
    /* A model that transformers loads in bf16 holds this factor rounded; here it is float32, as in a model that is
     * loaded in float32 (docs/reference/models.md). */
    out->embed_scale = (double)(float)sqrt((double)out->hidden_size);
    return VL_OK;
}

static vl_status text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    out->vocab_size = 256000;
    out->max_position = 8192;
    VL_TRY(vl_gemma_read(out, in));
    out->attention_softcap = 50;
    out->logit_softcap = 30;
    VL_TRY(vl_spec_cap(&out->attention_softcap, in, "attn_logit_softcapping"));
    VL_TRY(vl_spec_cap(&out->logit_softcap, in, "final_logit_softcapping"));
    VL_TRY(vl_spec_rope(&out->ropes[0], out, in, 1));
    VL_TRY(vl_spec_window(out, in, 4096));
    for (int i = 1; i < out->n_layers; i += 2) /* layers 0, 2, 4, ... slide */
        out->layers[i].window = 0;
    return vl_spec_layer_types(out, in, 4096);
}

const vl_family vl_family_gemma2 = {.model_type = "gemma2",
                                    .architecture = "Gemma2ForCausalLM",
                                    .prefixes = {[VL_PART_TEXT] = {"model."}, [VL_PART_HEAD] = {"lm_head."}},
                                    .text = text};
