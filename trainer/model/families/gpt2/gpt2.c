/* GPT-2: learned positions, layer norms, weights stored as [in, out]. Semantics: transformers 5.24.0,
 * src/transformers/models/gpt2/modeling_gpt2.py and pytorch_utils.py (Conv1D); defaults: configuration_gpt2.py. */
#include "trainer/model/family.h"

static const vl_decoder_names names = {.embed = "wte.weight",
                                       .positions = "wpe.weight",
                                       .norm = "ln_f",
                                       .layer = "h.%d.",
                                       .attention_norm = "ln_1",
                                       .mlp_norm = "ln_2",
                                       .qkv = "attn.c_attn",
                                       .o = "attn.c_proj",
                                       .up = "mlp.c_fc",
                                       .down = "mlp.c_proj"};

static vl_status read_sizes(vl_decoder_spec *out, const vl_hf_reader *in)
{
    out->hidden_size = 768;
    out->n_layers = out->n_heads = 12;
    out->vocab_size = 50257;
    out->max_position = 1024;
    VL_TRY(vl_hf_key_size(&out->hidden_size, in, "n_embd"));
    VL_TRY(vl_hf_key_int(&out->n_layers, in, "n_layer", 1, VL_MAX_LAYERS));
    VL_TRY(vl_hf_key_int(&out->n_heads, in, "n_head", 1, 65536));
    VL_TRY(vl_hf_key_int(&out->vocab_size, in, "vocab_size", 1, VL_HF_MAX_VOCAB));
    VL_TRY(vl_hf_key_int(&out->max_position, in, "n_positions", 1, VL_HF_MAX_SIZE));
    out->intermediate_size = 4 * out->hidden_size;
    VL_TRY(vl_hf_key_size(&out->intermediate_size, in, "n_inner"));
    out->position_rows = out->max_position;
    return VL_OK;
}

/* Scores are divided by sqrt(E) unless scale_attn_weights is false, and by layer + 1 where that is asked for. */
static vl_status read_scales(vl_decoder_spec *out, const vl_hf_reader *in)
{
    bool scaled = true, by_layer = false;
    VL_TRY(vl_hf_key_bool(&scaled, in, "scale_attn_weights"));
    VL_TRY(vl_hf_key_bool(&by_layer, in, "scale_attn_by_inverse_layer_idx"));
    for (int i = 0; i < out->n_layers; i++) {
        out->layers[i].rope = -1;
        out->layers[i].attention_scale = (scaled ? out->layers[i].attention_scale : 1) / (by_layer ? i + 1 : 1);
    }
    return VL_OK;
}

static vl_status text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    vl_spec_plain(out);
    out->names = names;
    out->n_ropes = 0;
    out->norm_form = out->final_norm_form = VL_FORM_LAYER;
    out->norm_eps = 1e-5;
    out->hidden_act = VL_ACT_GELU_TANH;
    out->qkv_bias = out->o_bias = out->mlp_bias = true;
    out->qkv_layout = VL_QKV_BLOCKS;
    out->transposed = true;
    out->tie_embeddings = true;
    out->bos_id = out->eos_ids[0] = 50256;
    out->n_eos = 1;
    VL_TRY(read_sizes(out, in));
    VL_TRY(vl_hf_key_double(&out->norm_eps, in, "layer_norm_epsilon", 0, 1));
    VL_TRY(vl_spec_activation(&out->hidden_act, in, "activation_function"));
    VL_TRY(vl_hf_key_only_bool(in, "add_cross_attention", false));
    VL_TRY(vl_spec_tie(out, in));
    VL_TRY(vl_spec_id(&out->bos_id, in, "bos_token_id"));
    VL_TRY(vl_spec_id(&out->pad_id, in, "pad_token_id"));
    VL_TRY(vl_spec_eos(out, in));
    VL_TRY(vl_spec_finish_text(out, in));
    return read_scales(out, in);
}

/* attn.bias is a mask, whatever its name says. */
const vl_family vl_family_gpt2 = {.model_type = "gpt2",
                                  .architecture = "GPT2LMHeadModel",
                                  .prefixes = {[VL_PART_TEXT] = {"transformer.", ""}, [VL_PART_HEAD] = {"lm_head."}},
                                  .ignored = (const char *const[]){".attn.bias", ".attn.masked_bias", NULL},
                                  .text = text};
