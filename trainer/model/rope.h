/* model/rope.h - the tables of rotary position embedding. */
#ifndef VL_MODEL_ROPE_H
#define VL_MODEL_ROPE_H

#include "trainer/model/decoder_spec.h"

/* Inverse frequencies [columns / 2] for a sequence of `n_positions` (only dynamic and longrope look at its length). */
void vl_rope_frequencies(float *out, const vl_rope_spec *rope, int64_t n_positions);

/* cos and sin [n, columns / 2] of n rows of a sequence. */
typedef struct vl_rope_rows {
    const int32_t (*positions)[3]; /* [n] time, row, column */
    int64_t n;
    int64_t n_positions; /* of the whole sequence as far as it is known: the largest position + 1 */
} vl_rope_rows;
/* `scratch` holds columns / 2 floats. */
void vl_rope_table(float *cosines, float *sines, float *scratch, const vl_rope_spec *rope, const vl_rope_rows *rows);

/* A longer sequence turns all its earlier rows otherwise: keys of a cache do not serve any more, and the reference
 * throws them away (Phi3ForCausalLM.prepare_inputs_for_generation). Not so with the dynamic kind, whose cached keys it
 * keeps. */
bool vl_rope_changes(const vl_rope_spec *rope, int64_t old_length, int64_t new_length);

#endif
