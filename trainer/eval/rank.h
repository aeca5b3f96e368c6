/* eval/rank.h - rank correlation. */
#ifndef VL_EVAL_RANK_H
#define VL_EVAL_RANK_H

#include <stdint.h>

/* Spearman's rho of x and y [n]: Pearson's correlation of their ranks, ties taking the mean of theirs. NaN where n < 2
 * or one of them is constant. `scratch` is [2 n]. */
double vl_spearman(const double *x, const double *y, int64_t n, double *scratch);

#endif
