/* eval/causal_basis.h - the directions of a state that matter most to a lens (causal basis extraction; vlens/fidelity.h
 * names the source). */
#ifndef VL_EVAL_CAUSAL_BASIS_H
#define VL_EVAL_CAUSAL_BASIS_H

#include "trainer/base/rng.h"
#include "trainer/readout/objective.h"

/* A lens on one block of rows of one state. */
typedef struct vl_causal_block {
    vl_device *device;
    vl_objective objective;
    vl_adapter adapter; /* borrowed; no bias: the logit lens */
    int64_t n, d;
    vl_tensor h, delta;         /* [n, D] states; what replaces them, minus them */
    vl_tensor ablated, back;    /* [n, D] work areas */
    vl_tensor v, share, slope;  /* [1, D], [n, 1], [n, 1] */
    vl_tensor gradient, weight; /* [D, 1], [n] */
    vl_tensor bias_gradient;    /* [D] */
    float *host;                /* [D] */
} vl_causal_block;

/* h and target are [n, D] in host memory, copied. Cleared with vl_causal_block_clear, also after a failure. */
vl_status vl_causal_block_new(vl_causal_block *out, vl_head *head, const float *h, const float *target, int64_t n,
                              vl_error *err);
void vl_causal_block_clear(vl_causal_block *block);
/* Takes a lens: its own distribution of the rows becomes what changes are measured against. */
vl_status vl_causal_block_lens(vl_causal_block *block, const vl_adapter *adapter, vl_error *err);
/* KL(lens(h) || lens(r(h, v))) of each row into block->objective.host_loss, its mean into *mean, and where `gradient`
 * is given that of the mean with respect to v, as if v had no fixed length. v is [D] of length 1. */
vl_status vl_causal_block_energy(double *mean, double *gradient, vl_causal_block *block, const double *v,
                                 vl_error *err);
/* n_directions orthonormal rows [n_directions, D], each the strongest found that is orthogonal to those before. The
 * energy is convex in v to leading order, so that going to the end of the gradient (a power iteration) climbs; a step
 * that does not is halved. */
vl_status vl_causal_block_basis(double *basis, int n_directions, vl_causal_block *block, vl_rng *rng, vl_error *err);
/* Random orthonormal rows. */
void vl_random_basis(double *basis, int n_directions, int64_t d, vl_rng *rng);

#endif
