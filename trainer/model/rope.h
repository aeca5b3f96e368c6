/* model/rope.h - the tables of rotary position embedding. */
#ifndef VL_MODEL_ROPE_H
#define VL_MODEL_ROPE_H

#include "trainer/hf/config.h"

/* Inverse frequencies [head_dim / 2] for a sequence of `n_positions` (only the dynamic kind looks at its length). */
void vl_rope_frequencies(float *out, const vl_text_config *text, int64_t n_positions);

/* cos and sin [n, head_dim / 2] of positions position .. position + n - 1 of a sequence that ends there. `scratch`
 * holds head_dim / 2 floats. */
typedef struct vl_rope_range {
    int64_t position, n;
} vl_rope_range;
void vl_rope_table(float *cosines, float *sines, float *scratch, const vl_text_config *text, vl_rope_range range);

#endif
