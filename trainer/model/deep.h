/* model/deep.h - DeepStack: rows of the vision tower's earlier layers that are added to the rows of the pictures behind
 * the first blocks of the decoder.
 *
 * Semantics: transformers 5.24.0, models/qwen3_vl/modeling_qwen3_vl.py (Qwen3VLTextModel._deepstack_process). State i +
 * 1 is behind the addition of block i. */
#ifndef VL_MODEL_DEEP_H
#define VL_MODEL_DEEP_H

#include "trainer/model/pass.h"

enum { VL_MAX_DEEP = 8 };

/* Rows of all pictures of a pass, packed in the order of sequences and pictures. */
struct vl_deep {
    vl_device *device;
    int n;                       /* blocks that add something */
    vl_tensor rows[VL_MAX_DEEP]; /* [picture rows of the pass, D] */
    int64_t used;                /* rows that were handed out */
};

/* Room for the pictures of the pass. The pass frees it with vl_deep_free. Errors: VL_ENOMEM. */
vl_status vl_deep_new(vl_deep **out, const vl_pass *pass, int n, vl_error *err);
void vl_deep_free(vl_deep *deep);
/* The next n_rows of each block's rows, to be written. */
void vl_deep_take(vl_deep *deep, vl_tensor out[VL_MAX_DEEP], int64_t n_rows);
/* Rows of pictures of x = themselves + those of block `layer`. */
vl_status vl_deep_add(const vl_deep *deep, const vl_pass *pass, int layer, vl_error *err);

#endif
