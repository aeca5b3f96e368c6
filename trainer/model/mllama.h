/* model/mllama.h - Mllama (Llama 3.2 Vision): a LLaMA decoder some of whose blocks attend to the picture instead of to
 * the text. No row of the residual stream is a patch; a text without pictures skips those blocks.
 *
 * Semantics: transformers 4.46.3, src/transformers/models/mllama/modeling_mllama.py (MllamaForConditionalGeneration,
 * MllamaTextModel, MllamaCrossAttentionDecoderLayer, MllamaTextCrossAttention, _prepare_cross_attention_mask).
 * Letters as in kernels/ops.h and mllama_vision.h; S picture rows of a pass: G * N of each picture, picture by picture,
 * sequence by sequence. */
#ifndef VL_MODEL_MLLAMA_H
#define VL_MODEL_MLLAMA_H

#include "trainer/base/str.h"
#include "trainer/model/llama.h"
#include "trainer/model/mllama_vision.h"

typedef struct vl_cross_block {
    vl_tensor input_norm, post_norm; /* [D] */
    vl_tensor q_norm, k_norm;        /* [E]: of each head */
    vl_linear q;                     /* [H*E, D] */
    vl_linear k, v;                  /* [K*E, D] */
    vl_linear o;                     /* [D, H*E] */
    vl_mlp mlp;
    float attention_gate, mlp_gate; /* tanh of what is stored */
} vl_cross_block;

typedef struct vl_mllama {
    const vl_hf_config *config; /* borrowed */
    vl_mllama_vision vision;
    vl_linear projector;    /* [D, O], with bias */
    vl_cross_block *blocks; /* [n_cross], in the order of config->text.cross_attention_layers */
    const char *bos;        /* how the token is spelled; of the tokenizer */
    bool instruct;          /* its chat template is that of the instruct models */
} vl_mllama;

/* ---- prompts (mllama_prompt.c) ---- */

/* Finds bos and instruct. Errors: VL_EMISMATCH, VL_EFORMAT (a tokenizer without the tokens that prompts need). */
vl_status vl_mllama_prompt_open(vl_mllama *mllama, const char *directory, const vl_tokenizer *tokenizer, vl_error *err);
/* The text that goes to the tokenizer. */
vl_status vl_mllama_wrap(vl_str *out, const vl_mllama *mllama, const vl_prompt *prompt, vl_error *err);
/* Fills sequence->visible where there are pictures. */
vl_status vl_mllama_place(vl_sequence *sequence, const vl_hf_config *config, vl_error *err);

/* ---- blocks (mllama_cross.c) ---- */

/* *out is freed with vl_cross_block_free, also after a failure. */
vl_status vl_cross_block_load(vl_cross_block *out, vl_loader *loader, int layer, vl_error *err);
void vl_cross_block_free(vl_cross_block *block, vl_device *device);
/* As vl_llama_expect. */
void vl_cross_block_expect(const vl_cross_block *block);

/* What a pass keeps of its pictures. */
typedef struct vl_mllama_context {
    int64_t n_keys;      /* S */
    int64_t n_mask_rows; /* rows of the pass that the masks were made for */
    vl_span *spans;      /* [n_sequences] rows of `states`; n is 0 without pictures */
    vl_device *device;
    void *memory;          /* NULL until the first block that needs the pictures */
    void *states;          /* [S, D]: projected picture rows, cross_attention_states */
    void *q_mask, *k_mask; /* [M], [S] i64: bit image * G + tile */
    void *row_mask;        /* [M] f32: 0 where a token sees no tile */
    void **k, **v;         /* [n_pairs] of [S, K*E] */
    int n_pairs;           /* with a KV cache one for each block; without, one for all in turn */
} vl_mllama_context;

/* *out = NULL where no sequence has a picture. Nothing is computed yet. Errors: VL_EINVAL, VL_ENOMEM. */
vl_status vl_mllama_context_new(vl_mllama_context **out, const vl_mllama *mllama, const vl_pass *pass, vl_error *err);
void vl_mllama_context_free(vl_mllama_context *context);
/* The vision encoder and the projector over all pictures, and the masks; once for a pass. */
vl_status vl_mllama_look(const vl_mllama *mllama, vl_pass *pass, vl_error *err);
/* x = x + gate * attention to the pictures; x = x + gate * row mask * mlp. `index` counts cross-attention blocks. */
vl_status vl_cross_block_run(const vl_mllama *mllama, vl_pass *pass, int index, vl_error *err);

#endif
