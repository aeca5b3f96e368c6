/* fit/plan.h - which rows of a cache are trained on, which are kept to choose by, and in which order they come. */
#ifndef VL_FIT_PLAN_H
#define VL_FIT_PLAN_H

#include <vlens/cache.h>
#include <vlens/config.h>

#include "trainer/base/sha256.h"

/* Rows are shuffled in runs of neighbours: one read each, and no index of N rows is held. */
enum { VL_RUN_ROWS = 128 };
/* Rows of the validation part that are looked at; enough for the third digit of a mean KL. */
enum { VL_VALIDATION_ROWS = 4096 };
/* Rows of the probe, by which the strength of the closed form is chosen: one tile, spread over the validation part. */
enum { VL_PROBE_ROWS = 1024 };

typedef struct vl_run {
    int64_t first, n; /* cache rows [first, first + n) */
} vl_run;

/* One part of the data. The mean over its rows of weight[class] * loss is
 * sum_c w_c mean_c(loss) / sum_c w_c over the classes that occur: weight[c] = (w_c / sum w) * N / N_c. Every row
 * takes part in every epoch, so this has less variance than drawing classes. */
typedef struct vl_part {
    vl_run *runs; /* ascending */
    int64_t n_runs, n_rows;
    int64_t class_rows[VL_CLASS_COUNT];
    double weight[VL_CLASS_COUNT];
} vl_part;

typedef struct vl_plan {
    vl_part train, validation; /* of the training split: a held-out sample is in neither */
    vl_part probe;             /* some runs of `validation` */
    int64_t tokens_per_step, steps;
    char digest[VL_SHA256_HEX]; /* of both parts: the same rows, the same digest */
} vl_plan;

/* Errors: VL_EINVAL (nothing left to train on), VL_ENOMEM. Freed by vl_plan_clear. */
vl_status vl_plan_new(vl_plan *out, const vl_config *config, const vl_cache *cache, vl_error *err);
void vl_plan_clear(vl_plan *plan);

/* Fills `assigned` [S]: 1 for the samples of the training split that belong to the validation part. Whole images:
 * samples that share one are on the same side. */
vl_status vl_plan_validation_samples(uint8_t *assigned, const vl_config *config, const vl_cache *cache, vl_error *err);

/* Walks the rows of a part: shuffled by epoch and without an end, or in file order once. */
typedef struct vl_sampler {
    const vl_part *part;
    uint64_t seed;
    int64_t epoch, index, offset; /* next: row `offset` of run order[index] */
    int64_t *order;               /* [n_runs], NULL for file order */
} vl_sampler;

vl_status vl_sampler_shuffled(vl_sampler *out, const vl_part *part, uint64_t seed, vl_error *err);
vl_sampler vl_sampler_in_order(const vl_part *part);
void vl_sampler_clear(vl_sampler *sampler);
/* Goes to where `rows` rows have been taken: the order follows from seed and epoch, so that a resumed run needs
 * nothing but its step number. */
void vl_sampler_seek(vl_sampler *sampler, int64_t rows);
/* The next `rows` rows as pieces (at most `rows` of them); returns how many pieces. Fewer rows only at the end of a
 * walk in file order. */
int64_t vl_sampler_take(vl_sampler *sampler, vl_run *pieces, int64_t rows);
/* What the next vl_sampler_take would give, without going there; nothing at the end of an epoch, whose successor is not
 * shuffled yet. */
int64_t vl_sampler_peek(const vl_sampler *sampler, vl_run *pieces, int64_t rows);

#endif
