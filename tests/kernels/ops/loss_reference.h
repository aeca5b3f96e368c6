/* tests/kernels/ops/loss_reference.h - the four losses of unembed_loss and their gradients in float64, from their
 * definitions.
 */
#ifndef VL_TESTS_LOSS_REFERENCE_H
#define VL_TESTS_LOSS_REFERENCE_H

#include "kernels/ops.h"

typedef struct loss_problem {
    int64_t m, d, v;
    vl_loss kind;
    const double *x;       /* [m, d] */
    const double *head;    /* [v, d] */
    const double *bias;    /* [v] or NULL */
    const double *teacher; /* [m, v] logits; unused by CE */
    const double *targets; /* [m], CE */
    const double *weights; /* [m] or NULL */
    double cap;            /* logits are cap tanh(z / cap); 0: z */
} loss_problem;

/* loss[m]; dx[m, d] with its scale[m, d] (the sum of the magnitudes of its terms), where they are not NULL. */
void loss_reference(double *loss, double *dx, double *scale, const loss_problem *problem);
double loss_log_sum_exp(const double *x, int64_t n);

#endif
