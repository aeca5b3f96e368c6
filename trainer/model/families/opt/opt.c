/* OPT: learned positions from row 2 on, layer norms, relu; the 350m norms its sums and has a narrower token table.
 * Semantics: transformers 5.24.0, src/transformers/models/opt/modeling_opt.py; defaults: configuration_opt.py. */
#include "trainer/model/family.h"

static const vl_decoder_names names = {.embed = "embed_tokens.weight",
                                       .positions = "embed_positions.weight",
                                       .project_in = "project_in",
                                       .project_out = "project_out",
                                       .norm = "final_layer_norm",
                                       .layer = "layers.%d.",
                                       .attention_norm = "self_attn_layer_norm",
                                       .mlp_norm = "final_layer_norm", /* the block's second norm, despite the name */
                                       .q = "self_attn.q_proj",
                                       .k = "self_attn.k_proj",
                                       .v = "self_attn.v_proj",
                                       .o = "self_attn.out_proj",
                                       .up = "fc1",
                                       .down = "fc2"};
enum { POSITION_OFFSET = 2 }; /* OPTLearnedPositionalEmbedding */

static vl_status read_sizes(vl_decoder_spec *out, const vl_hf_reader *in)
{
    out->hidden_size = 768;
    out->n_layers = out->n_heads = 12;
    out->vocab_size = 50272;
    out->max_position = 2048;
    out->intermediate_size = 3072;
    VL_TRY(vl_spec_text(out, in));
    VL_TRY(vl_hf_key_size(&out->intermediate_size, in, "ffn_dim"));
    out->embed_width = out->hidden_size;
    VL_TRY(vl_hf_key_size(&out->embed_width, in, "word_embed_proj_dim"));
    out->position_offset = POSITION_OFFSET;
    out->position_rows = out->max_position + POSITION_OFFSET;
    return VL_OK;
}

static vl_status read_norms(vl_decoder_spec *out, const vl_hf_reader *in)
{
    bool before = true, no_final = false;
    VL_TRY(vl_hf_key_bool(&before, in, "do_layer_norm_before"));
    VL_TRY(vl_hf_key_bool(&no_final, in, "_remove_final_layer_norm"));
    out->norm_before = before;
    out->norm_sum = !before;
    out->norm_form = VL_FORM_LAYER;
    out->norm_eps = 1e-5; /* torch's default, no key */
    out->final_norm_form = before && !no_final ? VL_FORM_LAYER : VL_FORM_NONE;
    return VL_OK;
}

static vl_status text(vl_decoder_spec *out, const vl_hf_reader *in)
{
    vl_spec_plain(out);
    out->names = names;
    out->n_ropes = 0;
    out->hidden_act = VL_ACT_RELU;
    out->qkv_bias = out->o_bias = out->mlp_bias = true;
    out->tie_embeddings = true;
    out->pad_id = 1;
    out->bos_id = out->eos_ids[0] = 2;
    out->n_eos = 1;
    VL_TRY(read_sizes(out, in));
    VL_TRY(vl_spec_activation(&out->hidden_act, in, "activation_function"));
    VL_TRY(read_norms(out, in));
    VL_TRY(vl_hf_key_only_bool(in, "enable_bias", true));
    VL_TRY(vl_hf_key_only_bool(in, "layer_norm_elementwise_affine", true));
    VL_TRY(vl_spec_finish_text(out, in));
    for (int i = 0; i < out->n_layers; i++)
        out->layers[i].rope = -1;
    return VL_OK;
}

const vl_family vl_family_opt = {
    .model_type = "opt",
    .architecture = "OPTForCausalLM",
    .prefixes = {[VL_PART_TEXT] = {"model.decoder.", "decoder."}, [VL_PART_HEAD] = {"lm_head."}},
    .text = text};
