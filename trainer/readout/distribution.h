/* readout/distribution.h - what a row predicts: logits and their logarithm of a sum, on the device. */
#ifndef VL_READOUT_DISTRIBUTION_H
#define VL_READOUT_DISTRIBUTION_H

#include "kernels/ops.h"
#include "trainer/model/head.h"

typedef struct vl_distribution {
    vl_tensor logits; /* [capacity, V] */
    vl_tensor lse;    /* [capacity, 1] */
} vl_distribution;

/* For at most `capacity` rows, on the device of the head. Freed with vl_distribution_clear. */
vl_status vl_distribution_new(vl_distribution *out, vl_head *head, int64_t capacity, vl_error *err);
void vl_distribution_clear(vl_distribution *distribution, vl_device *device);
/* The first n rows. */
vl_distribution vl_distribution_rows(const vl_distribution *distribution, int64_t n);
/* The first rows of `out` become unembed(norm(states)) of states [n, D]. */
vl_status vl_distribution_of(const vl_distribution *out, vl_head *head, vl_tensor states, vl_error *err);
/* The columns of vl_metric [n, VL_METRIC_COUNT] of q against the teacher p, n rows each, into `host`. `metrics` is
 * [capacity, VL_METRIC_COUNT] on the device; targets [n] i32, or no data. */
typedef struct vl_comparison {
    const vl_distribution *teacher, *lens;
    vl_tensor metrics, targets;
    int64_t rows;
} vl_comparison;
vl_status vl_distribution_compare(float *host, vl_device *device, const vl_comparison *args, vl_error *err);

#endif
