/* GPT-NeoX and Pythia: both branches read the same state, a part of each head turns. Semantics: transformers 5.24.0,
 * src/transformers/models/gpt_neox/modeling_gpt_neox.py; defaults: configuration_gpt_neox.py. */
#include "trainer/model/family.h"

static const vl_decoder_names names = {.embed = "embed_in.weight",
                                       .norm = "final_layer_norm",
                                       .layer = "layers.%d.",
                                       .attention_norm = "input_layernorm",
                                       .mlp_norm = "post_attention_layernorm",
                                       .qkv = "attention.query_key_value",
                                       .o = "attention.dense",
                                       .up = "mlp.dense_h_to_4h",
                                       .down = "mlp.dense_4h_to_h"};

/* Spellings of before version 5 ("rotary_emb_base", "rotary_pct"). */
static vl_status read_rope(vl_decoder_spec *out, const vl_hf_reader *in)
{
    double partial = 0.25; /* not 1, where nothing is said */
    VL_TRY(vl_hf_key_double(&out->ropes[0].theta, in, "rotary_emb_base", 1, 1e15));
    VL_TRY(vl_hf_key_double(&partial, in, "rotary_pct", 0, 1));
    return vl_spec_rope(&out->ropes[0], out, in, partial);
}

static vl_status text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    bool bias = true;
    vl_spec_plain(out);
    out->names = names;
    out->hidden_size = 6144;
    out->intermediate_size = 24576;
    out->n_layers = 44;
    out->n_heads = 64;
    out->vocab_size = 50432;
    out->max_position = 2048;
    out->norm_form = out->final_norm_form = VL_FORM_LAYER;
    out->norm_eps = 1e-5;
    out->hidden_act = VL_ACT_GELU;
    out->parallel = true;
    out->mlp_bias = true;
    out->qkv_layout = VL_QKV_HEADS;
    out->bos_id = out->eos_ids[0] = 0;
    out->n_eos = 1;
    VL_TRY(vl_spec_text(out, in));
    VL_TRY(vl_hf_key_double(&out->norm_eps, in, "layer_norm_eps", 0, 1));
    VL_TRY(vl_spec_finish_text(out, in));
    VL_TRY(read_rope(out, in));
    VL_TRY(vl_hf_key_bool(&out->parallel, in, "use_parallel_residual"));
    VL_TRY(vl_hf_key_bool(&bias, in, "attention_bias"));
    out->qkv_bias = out->o_bias = bias;
    return VL_OK;
}

const vl_family vl_family_gpt_neox = {
    .model_type = "gpt_neox",
    .architecture = "GPTNeoXForCausalLM",
    .prefixes = {[VL_PART_TEXT] = {"gpt_neox."}, [VL_PART_HEAD] = {"embed_out.", "lm_head."}},
    .ignored =
        (const char *const[]){".attention.bias", ".attention.masked_bias", ".attention.rotary_emb.inv_freq", NULL},
    .text = text};
