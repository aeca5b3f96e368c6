/* eval/rank.h - rank correlation. */
#ifndef VL_EVAL_RANK_H
#define VL_EVAL_RANK_H

#include <stdint.h>

/* Spearman's rho of x and y [n]: Pearson's correlation of their ranks, ties taking the mean of theirs. NaN where n < 2
 * or one of them is constant. `scratch` is [2 n]. */
double vl_spearman(const double *x, const double *y, int64_t n, double *scratch);
/* Partial rank correlation: how x and y are ranked alike beyond what z [n] explains. Pearson's correlation of what is
 * left of the ranks of x and of y after a linear regression on the ranks of z (Marino et al., "A methodology for
 * performing global uncertainty and sensitivity analysis in systems biology", J. Theor. Biol. 254, 2008; with one z it
 * has a closed form). NaN where vl_spearman is, and where the ranks of z are those of x or y. `scratch` is [2 n]. */
double vl_partial_spearman(const double *x, const double *y, const double *z, int64_t n, double *scratch);

#endif
