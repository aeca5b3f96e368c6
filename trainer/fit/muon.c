/* muon.c - momentum, orthogonalised (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024).
 *
 * The Nesterov momentum M = U S V^T is replaced by about U V^T, by five steps of a quintic Newton-Schulz iteration.
 * A step so has spectral norm lr whatever the gradient's scale and the width: a D x D matrix that acts on states of
 * any size changes them by the share lr, which is the right unit for a residual adapter (the factor sqrt(out / in) of
 * the root-mean-square norm is 1 here). */
#include <math.h>

#include "trainer/base/status.h"
#include "trainer/fit/optimizer.h"

enum { NEWTON_SCHULZ_STEPS = 5 };

/* X <- a X + (b G + c G G) X with G = X X^T; the coefficients drive singular values of (0, 1] to about 0.7 .. 1.2. */
static vl_status newton_schulz(const vl_optimizer_engine *e, vl_tensor *x, vl_tensor *spare, vl_error *err)
{
    const float a = 3.4445f, b = -4.7750f, c = 2.0315f;
    vl_tensor gram = e->scratch[2], poly = e->scratch[3];
    bool fast = e->rule.fast;
    VL_TRY(vl_op_gemm(e->device,
                      &(vl_gemm_args){.out = gram, .a = *x, .b = *x, .transpose_b = true, .alpha = 1.0f, .fast = fast},
                      err));
    VL_TRY(vl_op_gemm(e->device, &(vl_gemm_args){.out = poly, .a = gram, .b = gram, .alpha = c, .fast = fast}, err));
    VL_TRY(vl_op_add(e->device, &(vl_add_args){.out = poly, .x = poly, .y = gram, .scale = b}, err));
    VL_TRY(vl_op_gemm(e->device, &(vl_gemm_args){.out = *spare, .a = poly, .b = *x, .alpha = 1.0f, .fast = fast}, err));
    VL_TRY(vl_op_add(e->device, &(vl_add_args){.out = *spare, .x = *spare, .y = *x, .scale = a}, err));
    vl_tensor swap = *x;
    *x = *spare;
    *spare = swap;
    return VL_OK;
}

/* out = x / |x|: singular values at most 1. A gradient of zeros stays zero. */
static vl_status normalise(const vl_optimizer_engine *e, vl_tensor out, vl_tensor x, vl_error *err)
{
    double squares;
    VL_TRY(vl_op_sum_squares(e->device, &squares, x, err));
    VL_TRY(vl_op_zero(e->device, out, err));
    float factor = squares > 0 ? (float)(1.0 / sqrt(squares)) : 0.0f;
    return vl_op_add(e->device, &(vl_add_args){.out = out, .x = out, .y = x, .scale = factor}, err);
}

vl_status vl_muon_step(const vl_optimizer_engine *e, const vl_optimizer_move *move, vl_error *err)
{
    vl_tensor x = e->scratch[0], spare = e->scratch[1];
    /* From zero with rate -1 this leaves the Nesterov direction in `spare`. */
    VL_TRY(vl_op_zero(e->device, spare, err));
    VL_TRY(vl_op_sgd(e->device,
                     &(vl_sgd_args){.parameter = spare,
                                    .gradient = move->gradient,
                                    .momentum = move->state->exp_avg,
                                    .learning_rate = -1.0f,
                                    .momentum_factor = (float)e->rule.momentum,
                                    .gradient_scale = (float)move->scale,
                                    .nesterov = e->rule.momentum > 0,
                                    .first = move->age == 0},
                     err));
    VL_TRY(normalise(e, x, spare, err));
    for (int i = 0; i < NEWTON_SCHULZ_STEPS; i++)
        VL_TRY(newton_schulz(e, &x, &spare, err));
    /* Without momentum, SGD's decay is the decoupled one: parameter -= rate * (x + decay * parameter). */
    return vl_op_sgd(e->device,
                     &(vl_sgd_args){.parameter = move->parameter,
                                    .gradient = x,
                                    .momentum = spare,
                                    .learning_rate = (float)(move->rate * vl_optimizer_schedule(&e->rule, move->step)),
                                    .weight_decay = (float)e->rule.weight_decay,
                                    .gradient_scale = 1.0f,
                                    .first = true},
                     err);
}
