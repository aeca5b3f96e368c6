/* fit/ridge.h - the closed-form start: the linear map from a state to what is still missing of the final state. */
#ifndef VL_FIT_RIDGE_H
#define VL_FIT_RIDGE_H

#include "trainer/readout/readout.h"

/* Weighted second moments of x = h - h0 (state i) and y = (h_L - h) - y0, over the rows that are no attention sinks.
 * h0 and y0 are rough means: what is summed in fp32 stays small beside its spread. */
typedef struct vl_moments {
    int64_t d;
    int64_t rows, left_out;
    int64_t unsound;             /* of those left out: rows whose numbers are not finite */
    double weight;               /* sum of the rows' weights */
    double *xx, *yx;             /* [D, D] sum w x x^T, sum w y x^T (y along the rows); NULL without a matrix */
    double *x, *y;               /* [D] sum w x, sum w y */
    double x_squares, y_squares; /* sum w |x|^2, sum w |y|^2 */
    double *h0, *y0;             /* [D] */
} vl_moments;

typedef struct vl_moments_args {
    int64_t state, final_state;
    bool matrix; /* else the means alone are collected */
} vl_moments_args;
/* One pass over `rows` (two more over a sample of them). Rows at position 0 are left out, and rows whose norm, of the
 * state or of the final state, is above 50 times the median: attention sinks, whose size would drown all others. */
vl_status vl_moments_collect(vl_moments *out, vl_readout *readout, const vl_rows *rows, const vl_moments_args *args,
                             vl_error *err);
void vl_moments_clear(vl_moments *moments);

/* weight [D, D] and bias [D] minimise sum w |(h_L - h) - (A h + b)|^2 + lambda * m |A|^2 * sum w, m = mean over the
 * columns of the variance of h. A matrix that is not positive definite is tried again with ten times the lambda:
 * *lambda is the one that was used. weight == NULL (or moments without a matrix): the mean difference alone. */
vl_status vl_moments_solve(float *weight, float *bias, const vl_moments *moments, double *lambda, vl_error *err);

/* The root mean square of h about its mean, per column. */
double vl_moments_spread(const vl_moments *moments);
/* The same of what the solution leaves unexplained of h_L, in units of that spread: the size of the changes of A that
 * are still worth making. weight == NULL: all but the mean is unexplained. */
double vl_moments_unexplained(const float *weight, const vl_moments *moments, double lambda);

#endif
