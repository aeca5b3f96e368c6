/* muon.c - momentum, orthogonalised (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024).
 *
 * The Nesterov momentum M = U S V^T is replaced by about U V^T, by five steps of a quintic Newton-Schulz iteration.
 * A step so has spectral norm lr whatever the gradient's scale and the width: a D x D matrix that acts on states of
 * any size changes them by the share lr, which is the right unit for a residual adapter (the factor sqrt(out / in) of
 * the root-mean-square norm is 1 here). */
#include "trainer/base/status.h"
#include "trainer/fit/optimizer.h"

enum { NEWTON_SCHULZ_STEPS = 5 };

/* X <- a X + (b G + c G G) X with G = X X^T; the coefficients drive singular values of (0, 1] to about 0.7 .. 1.2. Sums
 * with a matrix are made by the product that the other one comes from. */
static vl_status newton_schulz(const vl_optimizer_engine *e, vl_tensor *x, vl_tensor *spare, vl_error *err)
{
    const float a = 3.4445f, b = -4.7750f, c = 2.0315f;
    vl_tensor gram = e->scratch[2], poly = e->scratch[3];
    vl_gemm_args square = {.out = gram, .a = *x, .b = *x, .transpose_b = true, .alpha = 1.0f, .fast = e->rule.fast};
    vl_gemm_args sum = {.out = poly, .a = gram, .b = gram, .c = gram, .alpha = c, .beta = b, .fast = e->rule.fast};
    vl_gemm_args next = {.out = *spare, .a = poly, .b = *x, .c = *x, .alpha = 1.0f, .beta = a, .fast = e->rule.fast};
    VL_TRY(vl_op_gemm(e->device, &square, err));
    VL_TRY(vl_op_gemm(e->device, &sum, err));
    VL_TRY(vl_op_gemm(e->device, &next, err));
    vl_tensor swap = *x;
    *x = *spare;
    *spare = swap;
    return VL_OK;
}

vl_status vl_muon_step(const vl_optimizer_engine *e, const vl_optimizer_move *move, vl_error *err)
{
    vl_tensor x = e->scratch[0], spare = e->scratch[1], direction = e->direction;
    /* From zero with rate -1 this leaves the Nesterov direction. */
    VL_TRY(vl_op_zero(e->device, direction, err));
    VL_TRY(vl_op_sgd(e->device,
                     &(vl_sgd_args){.parameter = direction,
                                    .gradient = move->gradient,
                                    .momentum = move->state->exp_avg,
                                    .learning_rate = -1.0f,
                                    .momentum_factor = (float)e->rule.momentum,
                                    .gradient_scale = 1.0f,
                                    .scale = vl_optimizer_clip(move),
                                    .nesterov = e->rule.momentum > 0,
                                    .first = move->age == 0},
                     err));
    /* Singular values of at most 1. */
    VL_TRY(vl_op_normalise(e->device, &(vl_normalise_args){.out = x, .x = direction}, err));
    for (int i = 0; i < NEWTON_SCHULZ_STEPS; i++)
        VL_TRY(newton_schulz(e, &x, &spare, err));
    if (x.dtype != VL_F32) {
        VL_TRY(vl_op_cast(e->device, &(vl_cast_args){.out = direction, .x = x}, err));
        x = direction;
    }
    /* Without momentum, SGD's decay is the decoupled one: parameter -= rate * (x + decay * parameter). */
    return vl_op_sgd(e->device,
                     &(vl_sgd_args){.parameter = move->parameter,
                                    .gradient = x,
                                    .learning_rate = (float)(move->rate * vl_optimizer_schedule(&e->rule, move->step)),
                                    .weight_decay = (float)e->rule.weight_decay,
                                    .gradient_scale = 1.0f,
                                    .scale = vl_optimizer_gate(move)},
                     err);
}
