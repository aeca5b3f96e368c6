/* model/decoder.h - the text decoder of every family: token table and blocks, as its vl_decoder_spec says. The final
 * norm and the unembedding are the head's.
 *
 * Semantics: transformers' modeling files of the families; where a family differs from LLaMA, the field of the spec
 * says how, and the family's folder names the source. */
#ifndef VL_MODEL_DECODER_H
#define VL_MODEL_DECODER_H

#include "trainer/model/pass.h"
#include "trainer/model/weights.h"

typedef struct vl_mlp {
    vl_linear gate, up; /* [F, D]; gate.weight is NULL in an MLP with one way in */
    vl_linear down;     /* [D, F] */
} vl_mlp;

typedef struct vl_block {
    vl_norm attention_norm, mlp_norm;             /* [D]: before the branch, or of the sum */
    vl_norm attention_after_norm, mlp_after_norm; /* [D]: behind the branch */
    vl_norm q_norm, k_norm;                       /* [E], or [H*E] and [K*E] */
    vl_linear q;                                  /* [H*E, D] */
    vl_linear k, v;                               /* [K*E, D] */
    vl_linear o;                                  /* [D, H*E] */
    vl_mlp mlp;
    float attention_gate, mlp_gate; /* VL_BLOCK_CROSS: tanh of what is stored */
} vl_block;

typedef struct vl_decoder {
    const vl_decoder_spec *spec; /* borrowed */
    vl_matrix *embed;            /* [embed_rows, embed_width] */
    vl_matrix *positions;        /* [position_rows, D], or NULL */
    vl_linear project_in;        /* [D, embed_width], or weight NULL */
    vl_block *blocks;            /* [L] */
} vl_decoder;

/* *out is freed with vl_decoder_free, also after a failure. (decoder_load.c) */
vl_status vl_decoder_load(vl_decoder *out, vl_loader *loader, vl_error *err);
void vl_decoder_free(vl_decoder *decoder, vl_device *device);
/* Asks for the weights of a block to be read from their file: they are needed next. */
void vl_decoder_prefetch(const vl_decoder *decoder, int layer);

/* x [M, D] = state 0 of rows with `ids` [M] (host memory). Errors: VL_EINVAL (an id outside the table, a position
 * behind the learned ones). */
vl_status vl_decoder_embed(const vl_decoder *decoder, vl_pass *pass, const int32_t *ids, vl_error *err);
/* x = block `layer` of x. Of a cross block pass->context must be set (cross.h). */
vl_status vl_decoder_run_block(const vl_decoder *decoder, vl_pass *pass, int layer, vl_error *err);

/* wide_b [M, D] = MLP of wide_a, in chunks of rows. For both kinds of blocks. */
vl_status vl_mlp_run(const vl_mlp *mlp, const vl_pass *pass, vl_error *err);

#endif
