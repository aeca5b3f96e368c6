/* fit/plan.h - which rows of a cache are trained on and which are kept to choose by. */
#ifndef VL_FIT_PLAN_H
#define VL_FIT_PLAN_H

#include <vlens/config.h>

#include "trainer/base/sha256.h"
#include "trainer/readout/rows.h"

/* Rows of the validation part that are looked at; enough for the third digit of a mean KL. */
enum { VL_VALIDATION_ROWS = 4096 };
/* Rows of the probe, by which the strength of the closed form is chosen: one tile, spread over the validation part. */
enum { VL_PROBE_ROWS = 1024 };

typedef struct vl_plan {
    vl_rows train, validation; /* of the training split: a held-out sample is in neither */
    vl_rows probe;             /* some runs of `validation` */
    int64_t tokens_per_step, steps;
    char digest[VL_SHA256_HEX]; /* of both parts: the same rows, the same digest */
} vl_plan;

/* Errors: VL_EINVAL (nothing left to train on), VL_ENOMEM. Freed by vl_plan_clear. */
vl_status vl_plan_new(vl_plan *out, const vl_config *config, const vl_cache *cache, vl_error *err);
void vl_plan_clear(vl_plan *plan);

/* Fills `assigned` [S]: 1 for the samples of the training split that belong to the validation part. Whole images:
 * samples that share one are on the same side. */
vl_status vl_plan_validation_samples(uint8_t *assigned, const vl_config *config, const vl_cache *cache, vl_error *err);

#endif
