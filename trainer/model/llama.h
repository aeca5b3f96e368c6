/* model/llama.h - the LLaMA text decoder: token table and blocks. The final norm and the unembedding are the head's.
 *
 * Semantics: transformers 4.46.3, src/transformers/models/llama/modeling_llama.py (LlamaRMSNorm, LlamaAttention,
 * LlamaMLP, LlamaDecoderLayer). The pieces are apart so that a block of another kind (Mllama's cross-attention) can
 * be put between these: it reads and writes the same pass. */
#ifndef VL_MODEL_LLAMA_H
#define VL_MODEL_LLAMA_H

#include "trainer/model/pass.h"
#include "trainer/model/weights.h"

typedef struct vl_mlp {
    vl_linear gate, up; /* [F, D] */
    vl_linear down;     /* [D, F] */
} vl_mlp;

typedef struct vl_llama_block {
    vl_tensor input_norm, post_norm; /* [D] */
    vl_linear q;                     /* [H*E, D] */
    vl_linear k, v;                  /* [K*E, D] */
    vl_linear o;                     /* [D, H*E] */
    vl_mlp mlp;
} vl_llama_block;

typedef struct vl_llama {
    const vl_text_config *config; /* borrowed */
    vl_matrix *embed;             /* [embed_rows, D] */
    vl_llama_block *blocks;       /* [L]; those of cross-attention layers stay empty */
} vl_llama;

/* *out is freed with vl_llama_free, also after a failure. */
vl_status vl_llama_load(vl_llama *out, vl_loader *loader, vl_error *err);
void vl_llama_free(vl_llama *llama, vl_device *device);

/* mlp.* of layers.<layer>. */
vl_status vl_mlp_load(vl_mlp *out, const vl_scope *scope, const vl_text_config *text, vl_error *err);
void vl_mlp_free(vl_device *device, vl_mlp *mlp);
/* Asks for the weights of a block, or of an MLP, to be read from their file: they are needed next. */
void vl_mlp_expect(const vl_mlp *mlp);
void vl_llama_expect(const vl_llama *llama, int layer);

/* x [M, D] = rows `ids` [M] (host memory) of the token table. Errors: VL_EINVAL (an id outside the table). */
vl_status vl_llama_embed(const vl_llama *llama, vl_pass *pass, const int32_t *ids, vl_error *err);
/* x = x + attention(norm(x)); x = x + mlp(norm(x)). */
vl_status vl_llama_run_block(const vl_llama *llama, vl_pass *pass, int layer, vl_error *err);

/* wide_b [M, D] = down(act(gate(wide_a)) * up(wide_a)), in chunks of rows. */
vl_status vl_mlp_run(const vl_mlp *mlp, vl_pass *pass, vl_error *err);
/* out [M, D] = RMS norm of x. */
vl_status vl_rms_norm(const vl_pass *pass, vl_tensor out, vl_tensor x, vl_tensor weight, vl_error *err);

#endif
