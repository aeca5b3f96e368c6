/* eval/fidelity_numbers.h - how alike a lens and the model rank directions, with intervals. */
#ifndef VL_EVAL_FIDELITY_NUMBERS_H
#define VL_EVAL_FIDELITY_NUMBERS_H

#include <vlens/eval.h>

#include "trainer/base/rng.h"

/* What ablating each direction did, as means over the rows of each sample; all [n_directions, n_samples], borrowed. */
typedef struct vl_direction_effects {
    int64_t n_directions, n_samples;
    const double *lens_kl, *model_kl; /* nats */
    const double *displacement;       /* squared length */
    const uint16_t *draws;            /* [resamples, n_samples] */
    int64_t resamples;
} vl_direction_effects;

/* Spearman's rho of the directions' mean changes in *plain, and with the displacement held fixed in *partial. The 95 %
 * intervals resample samples and directions together; `rng` draws the directions. */
vl_status vl_fidelity_rank(vl_estimate *plain, vl_estimate *partial, const vl_direction_effects *effects, vl_rng *rng,
                           vl_error *err);

#endif
