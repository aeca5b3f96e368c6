/* readout/rows.h - which rows of a cache, and in which order they are walked. */
#ifndef VL_READOUT_ROWS_H
#define VL_READOUT_ROWS_H

#include <vlens/cache.h>

/* Rows are shuffled in runs of neighbours: one read each, and no index of N rows is held. */
enum { VL_RUN_ROWS = 128 };

typedef struct vl_run {
    int64_t first, n; /* cache rows [first, first + n) */
} vl_run;

/* A choice of rows. The mean over them of weight[class] * loss is sum_c w_c mean_c(loss) / sum_c w_c over the classes
 * that occur: weight[c] = (w_c / sum w) * N / N_c. Every row takes part in every epoch, so this has less variance than
 * drawing classes. */
typedef struct vl_rows {
    vl_run *runs; /* in the order of a walk */
    int64_t n_runs, n_rows;
    int64_t class_rows[VL_CLASS_COUNT];
    double weight[VL_CLASS_COUNT];
} vl_rows;

/* rows[n] of a cache in any order, each with weight 1: neighbours become runs. Freed with vl_rows_clear.
 * Error: VL_ENOMEM. */
vl_status vl_rows_of_list(vl_rows *out, const int64_t *rows, int64_t n, vl_error *err);
/* Rows 0..n-1 of an array in memory, likewise. */
vl_status vl_rows_of_memory(vl_rows *out, int64_t n, vl_error *err);
void vl_rows_clear(vl_rows *rows);

/* Walks rows: shuffled by epoch and without an end, or in their order once. */
typedef struct vl_sampler {
    const vl_rows *rows;
    uint64_t seed;
    int64_t epoch, index, offset; /* next: row `offset` of run order[index] */
    int64_t *order;               /* [n_runs], NULL: as they stand */
} vl_sampler;

/* Error: VL_ENOMEM. Freed with vl_sampler_clear. */
vl_status vl_sampler_shuffled(vl_sampler *out, const vl_rows *rows, uint64_t seed, vl_error *err);
/* Owns nothing. */
vl_sampler vl_sampler_in_order(const vl_rows *rows);
void vl_sampler_clear(vl_sampler *sampler);
/* Goes to where `rows` rows have been taken: the order follows from seed and epoch, so that a resumed run needs
 * nothing but its step number. */
void vl_sampler_seek(vl_sampler *sampler, int64_t rows);
/* The next `rows` rows as pieces (at most `rows` of them); returns how many pieces. Fewer rows only at the end of a
 * walk in order. */
int64_t vl_sampler_take(vl_sampler *sampler, vl_run *pieces, int64_t rows);
/* What the next vl_sampler_take would give, without going there; nothing at the end of an epoch, whose successor is not
 * shuffled yet. */
int64_t vl_sampler_peek(const vl_sampler *sampler, vl_run *pieces, int64_t rows);

#endif
