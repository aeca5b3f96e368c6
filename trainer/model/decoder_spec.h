/* model/decoder_spec.h - a text decoder as a description: pure data, filled by a family from config.json.
 *
 * One block serves every decoder (decoder.c); what differs between them is said here. Zero is the plain choice
 * everywhere, so that a family sets only what is its own. Letters as in kernels/ops.h; F is the width of the MLP. */
#ifndef VL_MODEL_DECODER_SPEC_H
#define VL_MODEL_DECODER_SPEC_H

#include "kernels/ops.h"

enum {
    VL_MAX_LAYERS = 1024,
    VL_MAX_ROPES = 2,        /* kinds of layers that turn differently */
    VL_MAX_ROPE_PAIRS = 256, /* of one head */
    VL_MAX_EOS = 16
};

/* ---- positions --------------------------------------------------------------------------------------------- */

typedef enum vl_rope_kind {
    VL_ROPE_DEFAULT = 0,
    VL_ROPE_LINEAR,
    VL_ROPE_DYNAMIC,
    VL_ROPE_YARN,
    VL_ROPE_LLAMA3,
    VL_ROPE_LONGROPE
} vl_rope_kind;

/* Fields that the kind does not need hold 1 (factors) or 0. */
typedef struct vl_rope_spec {
    vl_rope_kind kind;
    double theta;
    int columns;   /* of a head that turn, in pairs (c, c + columns / 2); the others pass. At most E */
    double factor; /* linear, dynamic, yarn, llama3 */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn; 32 and 1 where omitted or 0 */
    double attention_factor;                  /* multiplies cos and sin */
    int original_max_position;                /* the length that the formula of the kind uses: the trained one */
    /* Three axes of positions (M-RoPE): how many pairs follow time, row and column. All 0: one axis, time. */
    int sections[3];
    bool interleaved; /* pair j follows row where j % 3 == 1, column where j % 3 == 2, as long as they last */
    float short_factor[VL_MAX_ROPE_PAIRS], long_factor[VL_MAX_ROPE_PAIRS]; /* longrope; [columns / 2] */
} vl_rope_spec;

/* ---- blocks ------------------------------------------------------------------------------------------------ */

typedef enum vl_norm_form {
    VL_FORM_RMS = 0,
    VL_FORM_RMS_ONE_PLUS, /* what is stored is the weight minus 1 (Gemma) */
    VL_FORM_LAYER,        /* with bias */
    VL_FORM_LAYER_NO_BIAS,
    VL_FORM_NONE
} vl_norm_form;

typedef enum vl_qk_norm {
    VL_QK_PLAIN = 0,
    VL_QK_HEAD, /* each head normed, before it turns; weight [E] */
    VL_QK_WIDTH /* the whole projection normed, before it is cut into heads; weight [H*E], [K*E] */
} vl_qk_norm;

typedef enum vl_qkv_layout {
    VL_QKV_APART = 0,
    VL_QKV_BLOCKS, /* one matrix: rows of q, of k, of v */
    VL_QKV_HEADS   /* one matrix: for each head its rows of q, k and v (H == K) */
} vl_qkv_layout;

typedef enum vl_block_kind {
    VL_BLOCK_SELF = 0, /* causal attention among the tokens */
    VL_BLOCK_CROSS     /* attention to the picture, gated; a sequence without pictures skips the block (Mllama) */
} vl_block_kind;

typedef struct vl_layer_spec {
    vl_block_kind kind;
    int rope;               /* index into ropes; -1: this layer does not turn */
    int window;             /* keys that a query sees, its own included; 0: all before it */
    double attention_scale; /* of q . k; the usual is E ^ -0.5 */
} vl_layer_spec;

/* Tensor names below "layers.%d." (`layer`) and below the part; NULL where the family has no such tensor. Names of
 * linears and norms stand without ".weight" and ".bias". */
typedef struct vl_decoder_names {
    const char *embed, *positions, *project_in, *project_out, *norm, *layer;
    const char *attention_norm, *attention_after_norm, *mlp_norm, *mlp_after_norm;
    const char *q, *k, *v, *o, *qkv, *q_norm, *k_norm;
    const char *gate, *up, *gate_up, *down; /* without gate: up is the only way in */
    const char *cross_q, *cross_k, *cross_v, *cross_o, *cross_q_norm, *cross_k_norm, *attention_gate, *mlp_gate;
} vl_decoder_names;
/* Those that most families share. */
extern const vl_decoder_names vl_plain_names;

typedef struct vl_decoder_spec {
    int hidden_size, intermediate_size, n_layers, n_heads, n_kv_heads, head_dim; /* D, F, L, H, K, E */
    int vocab_size;                                                              /* V: rows of the head */
    int embed_rows;                                                              /* rows of the embedding table */
    int embed_width;  /* its columns, where project_in leads from them to D; 0: D */
    int max_position; /* the longest sequence that it was made for */
    vl_decoder_names names;

    /* state 0 */
    double embed_scale;  /* multiplies token rows; 0: 1. Pictures' rows are not multiplied */
    int position_rows;   /* rows of a table of learned positions; 0: none */
    int position_offset; /* row of position 0 */

    /* blocks: x = x + attention(x), x = x + mlp(x), with norms where these say. */
    vl_norm_form norm_form;
    double norm_eps;
    bool norm_before;      /* of what a branch reads */
    bool norm_after;       /* of what a branch gives, before the sum */
    bool norm_sum;         /* of the sum (the original Transformer) */
    bool parallel;         /* both branches read the x of before: x + attention(n1 x) + mlp(n2 x) */
    double residual_scale; /* multiplies both branches; 0: 1 */
    bool qkv_bias, o_bias, mlp_bias;
    vl_qkv_layout qkv_layout;
    bool gate_up_fused; /* one matrix: rows of gate, then of up */
    bool transposed;    /* blocks' weights are stored [in, out] (GPT-2's Conv1D) */
    vl_qk_norm qk_norm;
    vl_activation hidden_act;
    bool pictures_see_themselves; /* a row of a picture sees all rows of its run of image tokens (Gemma 3) */
    double attention_softcap;     /* scores = c tanh(scores / c) before the mask; 0: none */
    vl_rope_spec ropes[VL_MAX_ROPES];
    int n_ropes;
    vl_layer_spec layers[VL_MAX_LAYERS]; /* [L] */

    /* head: V rows of W norm(x); W may be the embedding table */
    vl_norm_form final_norm_form;
    double logit_scale;   /* multiplies logits; 0: 1 */
    double logit_softcap; /* logits = c tanh(logits / c); 0: none */
    bool tie_embeddings;
    bool tie_is_written; /* the config itself says it; else it is the class's default */

    int bos_id, pad_id;      /* -1 where there is none */
    int eos_ids[VL_MAX_EOS]; /* those of generation_config.json where that has any */
    int n_eos;
} vl_decoder_spec;

/* How many layers are of a kind, among the first n. */
static inline int vl_decoder_count(const vl_decoder_spec *spec, vl_block_kind kind, int n)
{
    int count = 0;
    for (int i = 0; i < n; i++)
        count += spec->layers[i].kind == kind;
    return count;
}

#endif
