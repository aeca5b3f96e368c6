/* eval/depth.h - prediction depth: from which state on a lens' first token is the model's. */
#ifndef VL_EVAL_DEPTH_H
#define VL_EVAL_DEPTH_H

#include <vlens/eval.h>

#include "trainer/base/team.h"

enum { VL_DEPTH_LENSES = VL_EVAL_WRONG_PICTURE }; /* the lenses before it */

/* One bit per row, lens and state: set where the first tokens differ. Members of a team measure states of their own, so
 * that each bit is set by one of them at most, and the sum of their words holds the bits of all. */
typedef struct vl_depth {
    int64_t n_rows, n_words; /* words of a row and lens */
    int64_t *differs;        /* [n_rows, VL_DEPTH_LENSES, n_words] */
} vl_depth;

vl_status vl_depth_new(vl_depth *out, int64_t n_rows, int64_t n_states, vl_error *err);
void vl_depth_clear(vl_depth *depth);
/* The first tokens differ at that row and state. */
void vl_depth_differs(vl_depth *depth, int64_t row, vl_eval_lens lens, int64_t state);
/* The states that all members of a team have measured. */
vl_status vl_depth_add_up(vl_depth *depth, const vl_team *team, vl_error *err);
/* The state after the last one that differs; 0 where none does. */
int64_t vl_depth_of(const vl_depth *depth, int64_t row, vl_eval_lens lens);

#endif
