/* model/cross.h - blocks that attend to the picture instead of to the text (VL_BLOCK_CROSS). No row of the residual
 * stream is a patch; a sequence without pictures skips these blocks.
 *
 * Semantics: transformers 4.46.3, src/transformers/models/mllama/modeling_mllama.py (MllamaCrossAttentionDecoderLayer,
 * MllamaTextCrossAttention, _prepare_cross_attention_mask). Letters as in kernels/ops.h; S picture rows of a pass: all
 * tiles of each picture, used or not, picture by picture, sequence by sequence. */
#ifndef VL_MODEL_CROSS_H
#define VL_MODEL_CROSS_H

#include "trainer/model/decoder.h"
#include "trainer/model/vision_spec.h"

/* What a pass keeps of its pictures. */
typedef struct vl_cross_context {
    int64_t n_keys;      /* S */
    int64_t n_mask_rows; /* rows of the pass that the masks were made for */
    int64_t tile_rows, picture_rows;
    vl_span *spans; /* [n_sequences] rows of `states`; n is 0 without pictures */
    vl_device *device;
    void *memory;          /* NULL until the first block that needs the pictures */
    void *states;          /* [S, D]: the encoded pictures */
    void *q_mask, *k_mask; /* [M], [S] i64: bit image * tiles + tile */
    void *row_mask;        /* [M] f32: 0 where a token sees no tile */
    void **k, **v;         /* [n_pairs] of [S, K*E] */
    int n_pairs;           /* with a KV cache one for each cross block; without, one for all in turn */
} vl_cross_context;

/* *out = NULL where no sequence has a picture. Nothing is computed yet. Errors: VL_EINVAL, VL_ENOMEM. */
vl_status vl_cross_context_new(vl_cross_context **out, const vl_vision_spec *vision, const vl_pass *pass,
                               vl_error *err);
void vl_cross_context_free(vl_cross_context *context);
/* Memory for the states, the keys and the values, and the masks. The states are then for the caller to fill. */
vl_status vl_cross_context_prepare(vl_cross_context *context, const vl_pass *pass, vl_error *err);
/* The rows of picture `image` of a sequence: [picture_rows, D]. */
vl_tensor vl_cross_picture(const vl_cross_context *context, const vl_pass *pass, int sequence, int image);

/* x = x + gate * attention to the pictures; x = x + gate * row mask * mlp. pass->context holds encoded pictures. */
vl_status vl_cross_block_run(const vl_block *block, vl_pass *pass, int layer, vl_error *err);

#endif
