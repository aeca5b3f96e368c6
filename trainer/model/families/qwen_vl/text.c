/* The decoders: Qwen2's and Qwen3's blocks with positions in three axes. The keys stand in text_config, or at the top
 * level in the files of the first checkpoints. */
#include "trainer/model/families/qwen_vl/qwen_vl.h"

#include <string.h>

/* The defaults of Qwen2VLTextConfig and Qwen2_5_VLTextConfig, or of Qwen3VLTextConfig. */
static void fill_defaults(vl_decoder_spec *out, vl_qwen_kind kind)
{
    const bool three = kind == VL_QWEN_3;
    static const int sections[2][3] = {{16, 24, 24}, {24, 20, 20}};
    vl_spec_plain(out);
    out->hidden_size = three ? 4096 : 8192;
    out->intermediate_size = three ? 22016 : 29568;
    out->n_layers = three ? 32 : 80;
    out->n_heads = three ? 32 : 64;
    out->n_kv_heads = three ? 32 : 8;
    out->head_dim = three ? 128 : 0;
    out->vocab_size = three ? 151936 : 152064;
    out->max_position = three ? 128000 : 32768;
    out->norm_eps = three ? 1e-6 : 1e-5;
    out->ropes[0].theta = three ? 5e5 : 1e6;
    for (int axis = 0; axis < 3; axis++)
        out->ropes[0].sections[axis] = sections[three][axis];
    out->qkv_bias = !three;
    out->qk_norm = three ? VL_QK_HEAD : VL_QK_PLAIN;
    out->names.q_norm = "self_attn.q_norm";
    out->names.k_norm = "self_attn.k_norm";
}

static vl_status refuse_windows(const vl_hf_reader *in)
{
    const json_t *types = json_object_get(in->object, "layer_types");
    size_t i;
    json_t *type;
    VL_TRY(vl_hf_key_only_bool(in, "use_sliding_window", false));
    json_array_foreach((json_t *)(uintptr_t)types, i, type)
    {
        const char *name = json_string_value(type);
        if (!name || strcmp(name, "full_attention") != 0)
            return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"layer_types\" has \"%s\"; supported: full_attention",
                           in->where, name ? name : "something that is no text");
    }
    return VL_OK;
}

static vl_status check_sections(const vl_rope_spec *rope, const vl_hf_reader *in)
{
    const int sum = rope->sections[0] + rope->sections[1] + rope->sections[2];
    if (sum == rope->columns / 2)
        return VL_OK;
    return vl_fail(in->err, VL_EFORMAT, "%s: \"mrope_section\" has %d + %d + %d pairs, a head has %d", in->where,
                   rope->sections[0], rope->sections[1], rope->sections[2], rope->columns / 2);
}

static vl_status read(vl_decoder_spec *out, const vl_hf_reader *in, vl_qwen_kind kind)
{
    bool bias = false;
    VL_TRY(vl_spec_refuse_quantized(in));
    fill_defaults(out, kind);
    VL_TRY(vl_spec_text(out, in));
    VL_TRY(vl_spec_finish_text(out, in));
    VL_TRY(vl_spec_rope(&out->ropes[0], out, in, 1));
    VL_TRY(vl_hf_key_bool(&bias, in, "attention_bias"));
    if (kind == VL_QWEN_3)
        out->qkv_bias = out->o_bias = bias;
    out->ropes[0].interleaved =
        kind == VL_QWEN_3; /* whatever "mrope_interleaved" says, as Qwen3VLTextRotaryEmbedding */
    VL_TRY(check_sections(&out->ropes[0], in));
    return refuse_windows(in);
}

vl_status vl_qwen_read_text(vl_decoder_spec *out, const vl_hf_reader *in, vl_qwen_kind kind)
{
    vl_hf_section text;
    VL_TRY(vl_hf_section_open(&text, in, "text_config"));
    if (!text.reader.object)
        return read(out, in, kind);
    VL_TRY(read(out, &text.reader, kind));
    return vl_spec_outer_tie(out, in);
}
