/* eval/pooled.h - what belongs to many rows together: mean distributions, and calibration. */
#ifndef VL_EVAL_POOLED_H
#define VL_EVAL_POOLED_H

#include <vlens/eval.h>

#include "trainer/base/team.h"
#include "trainer/eval/rows.h"

enum {
    VL_POOLED_LENSES = VL_EVAL_WRONG_PICTURE, /* the lenses before it */
    VL_POOLED_GROUPS = VL_CLASS_COUNT + 4,    /* finest groups: the classes, then first and the parts of answers */
    VL_POOLED_BINS = 15,
    VL_POOLED_ROWS = 64 /* of a piece */
};

typedef struct vl_pooled_bin {
    double rows, lens, model; /* sums over rows of the probability of the lens' first token */
} vl_pooled_bin;

typedef struct vl_pooled_count {
    double rows;
    vl_pooled_bin bin[VL_POOLED_BINS];
} vl_pooled_count;

typedef struct vl_pooled_cell {
    vl_pooled_count count;
    double *mean; /* [V] sums of probabilities; NULL before the first row */
} vl_pooled_cell;

typedef struct vl_pooled {
    int64_t n_states, v;
    vl_pooled_cell *cell;    /* [n_states, VL_POOLED_LENSES, VL_POOLED_GROUPS]; NULL: not asked for */
    float *logits, *teacher; /* [VL_POOLED_ROWS, V] work areas */
} vl_pooled;

vl_status vl_pooled_new(vl_pooled *out, int64_t n_states, int64_t v, vl_error *err);
void vl_pooled_clear(vl_pooled *pooled);

typedef struct vl_pooled_rows {
    int64_t state;
    vl_eval_lens lens;
    const uint8_t *group; /* [n] finest groups, on the host */
    const uint8_t *sound; /* [n] 0: the row is left out; NULL: none is */
    vl_tensor logits;     /* [n, V] of the lens, on the device */
    vl_tensor teacher;    /* [n, V] of the model */
} vl_pooled_rows;
/* Adds rows. Without vl_pooled_new it does nothing. */
vl_status vl_pooled_add(vl_pooled *pooled, vl_device *device, const vl_pooled_rows *rows, vl_error *err);

/* Sums of all members of a team. Every state is measured by one of them, so that nothing is rounded. */
vl_status vl_pooled_add_up(vl_pooled *pooled, const vl_team *team, vl_error *err);

/* Over all rows of `group` (a class or a union). NaN where nothing was added. */
double vl_pooled_bias(const vl_pooled *pooled, int64_t state, vl_eval_lens lens, int group);
double vl_pooled_ece(const vl_pooled *pooled, int64_t state, vl_eval_lens lens, int group);

#endif
