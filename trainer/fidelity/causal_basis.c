#include "trainer/fidelity/causal_basis.h"

#include <math.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"

enum { ITERATIONS = 24, RANDOM_STARTS = 2, START_ITERATIONS = 3, HALVINGS = 4, POWER_ITERATIONS = 12 };
static const double ENOUGH = 1e-3; /* relative gain below which a direction is taken as found */

/* ---- the block --------------------------------------------------------------------------------------------- */

vl_status vl_causal_block_new(vl_causal_block *b, vl_head *head, const float *h, const float *target, int64_t n,
                              vl_error *err)
{
    vl_device *device = vl_head_device(head);
    int64_t d = vl_head_get_info(head)->d_model;
    *b = (vl_causal_block){.device = device, .n = n, .d = d};
    VL_TRY(vl_objective_new(&b->objective, head, VL_LOSS_KL, n, err));
    VL_TRY(vl_tensor_new(&b->h, device, VL_F32, n, d, err));
    VL_TRY(vl_tensor_new(&b->delta, device, VL_F32, n, d, err));
    VL_TRY(vl_tensor_new(&b->ablated, device, VL_F32, n, d, err));
    VL_TRY(vl_tensor_new(&b->back, device, VL_F32, n, d, err));
    VL_TRY(vl_tensor_new(&b->v, device, VL_F32, 1, d, err));
    VL_TRY(vl_tensor_new(&b->share, device, VL_F32, n, 1, err));
    VL_TRY(vl_tensor_new(&b->slope, device, VL_F32, n, 1, err));
    VL_TRY(vl_tensor_new(&b->gradient, device, VL_F32, d, 1, err));
    VL_TRY(vl_tensor_new(&b->weight, device, VL_F32, 1, n, err));
    VL_TRY(vl_tensor_new(&b->bias_gradient, device, VL_F32, 1, d, err));
    b->bias_gradient = vl_tensor_1d(b->bias_gradient.data, VL_F32, d);
    b->host = vl_alloc((size_t)(n > d ? n : d), sizeof *b->host);
    if (!b->host)
        return vl_fail_nomem(err, "causal basis");
    for (int64_t i = 0; i < n; i++)
        b->host[i] = 1.0f / (float)n;
    VL_TRY(vl_device_write(device, &b->weight, b->host, err));
    b->weight = vl_tensor_1d(b->weight.data, VL_F32, n);
    VL_TRY(vl_device_write(device, &b->h, h, err));
    VL_TRY(vl_device_write(device, &b->delta, target, err));
    return vl_op_add(device, &(vl_add_args){.out = b->delta, .x = b->delta, .y = b->h, .scale = -1.0f}, err);
}

void vl_causal_block_clear(vl_causal_block *b)
{
    vl_tensor *tensors[] = {&b->h,     &b->delta, &b->ablated,  &b->back,   &b->v,
                            &b->share, &b->slope, &b->gradient, &b->weight, &b->bias_gradient};
    for (size_t i = 0; b->device && i < sizeof tensors / sizeof *tensors; i++)
        vl_device_free(b->device, tensors[i]->data);
    vl_objective_clear(&b->objective);
    vl_free(b->host);
    *b = (vl_causal_block){.device = NULL};
}

vl_status vl_causal_block_lens(vl_causal_block *b, const vl_adapter *adapter, vl_error *err)
{
    b->adapter = *adapter;
    vl_tensor u;
    VL_TRY(vl_adapter_apply(&u, b->device, b->ablated, b->h, &b->adapter, false, err));
    return vl_objective_teacher(&b->objective, u, err);
}

/* ---- energy and gradient ----------------------------------------------------------------------------------- */

/* ablated = h + (delta v) v^T; share = delta v. */
static vl_status ablate(vl_causal_block *b, const double *v, vl_error *err)
{
    for (int64_t j = 0; j < b->d; j++)
        b->host[j] = (float)v[j];
    VL_TRY(vl_device_write(b->device, &b->v, b->host, err));
    vl_gemm_args share = {.out = b->share, .a = b->delta, .b = b->v, .transpose_b = true, .alpha = 1};
    VL_TRY(vl_op_gemm(b->device, &share, err));
    VL_TRY(vl_op_cast(b->device, &(vl_cast_args){.out = b->ablated, .x = b->h}, err));
    vl_gemm_args add = {.out = b->ablated, .a = b->share, .b = b->v, .alpha = 1, .beta = 1};
    return vl_op_gemm(b->device, &add, err);
}

/* With u = r + r A^T and r = h + (delta v) v^T:  dE/dr = du (I + A);
 * dE/dv = sum_rows (dE/dr . v) delta + share dE/dr. */
static vl_status gradient_of(double *gradient, vl_causal_block *b, vl_error *err)
{
    vl_tensor du = vl_tensor_rows(b->objective.dx, 0, b->n);
    VL_TRY(vl_op_cast(b->device, &(vl_cast_args){.out = b->back, .x = du}, err));
    if (b->adapter.weight.data) {
        vl_gemm_args through = {.out = b->back, .a = du, .b = b->adapter.weight, .alpha = 1, .beta = 1};
        VL_TRY(vl_op_gemm(b->device, &through, err));
    }
    vl_gemm_args slope = {.out = b->slope, .a = b->back, .b = b->v, .transpose_b = true, .alpha = 1};
    VL_TRY(vl_op_gemm(b->device, &slope, err));
    vl_gemm_args first = {.out = b->gradient, .a = b->delta, .b = b->slope, .transpose_a = true, .alpha = 1};
    VL_TRY(vl_op_gemm(b->device, &first, err));
    vl_gemm_args second = {.out = b->gradient, .a = b->back, .b = b->share, .transpose_a = true, .alpha = 1, .beta = 1};
    VL_TRY(vl_op_gemm(b->device, &second, err));
    VL_TRY(vl_device_read(b->device, b->host, &b->gradient, err));
    for (int64_t j = 0; j < b->d; j++)
        gradient[j] = (double)b->host[j];
    return VL_OK;
}

vl_status vl_causal_block_energy(double *mean, double *gradient, vl_causal_block *b, const double *v, vl_error *err)
{
    vl_adapter_gradient bias = {.bias = b->bias_gradient, .fresh = true}; /* what makes the objective go back to du */
    vl_objective_tile tile = {.h = b->ablated, .row_weight = b->weight};
    VL_TRY(ablate(b, v, err));
    VL_TRY(vl_objective_layer(&b->objective, &tile, &b->adapter, gradient ? &bias : NULL, err));
    double sum = 0;
    for (int64_t i = 0; i < b->n; i++)
        sum += (double)b->objective.host_loss[i];
    *mean = sum / (double)b->n;
    return gradient ? gradient_of(gradient, b, err) : VL_OK;
}

/* ---- the search -------------------------------------------------------------------------------------------- */

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Makes v orthogonal to the `n` rows of the basis (twice, against rounding) and of length 1; false where nothing is
 * left. */
static bool make_unit(double *v, const double *basis, int n, int64_t d)
{
    for (int pass = 0; pass < 2; pass++)
        for (int k = 0; k < n; k++) {
            double along = dot(v, basis + k * d, d);
            for (int64_t j = 0; j < d; j++)
                v[j] -= along * basis[k * d + j];
        }
    double length = sqrt(dot(v, v, d));
    for (int64_t j = 0; j < d && length > 0; j++)
        v[j] /= length;
    return length > 0 && isfinite(length);
}

typedef struct search {
    vl_causal_block *block;
    const double *basis;
    int found;                   /* rows of the basis that are there */
    double *v, *next, *gradient; /* [D] */
    double energy;
} search;

/* One move: towards the gradient, all the way first, then half, ... Sets *gain to what it brought, 0 where nothing. */
static vl_status climb(search *s, double *gain, vl_error *err)
{
    int64_t d = s->block->d;
    double energy, part = 1;
    *gain = 0;
    VL_TRY(vl_causal_block_energy(&s->energy, s->gradient, s->block, s->v, err));
    if (!make_unit(s->gradient, s->basis, s->found, d))
        return VL_OK;
    for (int half = 0; half <= HALVINGS; half++, part /= 2) {
        for (int64_t j = 0; j < d; j++)
            s->next[j] = (1 - part) * s->v[j] + part * s->gradient[j];
        if (!make_unit(s->next, s->basis, s->found, d))
            continue;
        VL_TRY(vl_causal_block_energy(&energy, NULL, s->block, s->next, err));
        if (energy > s->energy) {
            *gain = energy - s->energy;
            s->energy = energy;
            memcpy(s->v, s->next, (size_t)d * sizeof *s->v);
            return VL_OK;
        }
    }
    return VL_OK;
}

static vl_status climb_for(search *s, int iterations, vl_error *err)
{
    double gain = INFINITY;
    for (int i = 0; i < iterations && gain > ENOUGH * s->energy; i++)
        VL_TRY(climb(s, &gain, err));
    return VL_OK;
}

static void random_unit(double *v, const double *basis, int n, int64_t d, vl_rng *rng)
{
    do {
        for (int64_t j = 0; j < d; j++)
            v[j] = vl_rng_normal(rng);
    } while (!make_unit(v, basis, n, d));
}

/* The direction in which rows differ most from what replaces them: the first eigenvector of delta^T delta among those
 * orthogonal to the basis, roughly. */
static vl_status widest(search *s, vl_error *err)
{
    vl_causal_block *b = s->block;
    for (int i = 0; i < POWER_ITERATIONS; i++) {
        for (int64_t j = 0; j < b->d; j++)
            b->host[j] = (float)s->v[j];
        VL_TRY(vl_device_write(b->device, &b->v, b->host, err));
        vl_gemm_args share = {.out = b->share, .a = b->delta, .b = b->v, .transpose_b = true, .alpha = 1};
        VL_TRY(vl_op_gemm(b->device, &share, err));
        vl_gemm_args back = {.out = b->gradient, .a = b->delta, .b = b->share, .transpose_a = true, .alpha = 1};
        VL_TRY(vl_op_gemm(b->device, &back, err));
        VL_TRY(vl_device_read(b->device, b->host, &b->gradient, err));
        for (int64_t j = 0; j < b->d; j++)
            s->next[j] = (double)b->host[j];
        if (!make_unit(s->next, s->basis, s->found, b->d))
            return VL_OK;
        memcpy(s->v, s->next, (size_t)b->d * sizeof *s->v);
    }
    return VL_OK;
}

/* The energy has several peaks. The best of a few short climbs, from the widest direction and from random ones, goes
 * on. */
static vl_status find_direction(search *s, double *best, vl_rng *rng, vl_error *err)
{
    int64_t d = s->block->d;
    double highest = -INFINITY;
    for (int start = 0; start <= RANDOM_STARTS; start++) {
        random_unit(s->v, s->basis, s->found, d, rng);
        if (start == 0)
            VL_TRY(widest(s, err));
        s->energy = 0;
        VL_TRY(climb_for(s, START_ITERATIONS, err));
        if (s->energy > highest) {
            highest = s->energy;
            memcpy(best, s->v, (size_t)d * sizeof *best);
        }
    }
    memcpy(s->v, best, (size_t)d * sizeof *best);
    VL_TRY(climb_for(s, ITERATIONS, err));
    memcpy(best, s->v, (size_t)d * sizeof *best);
    return VL_OK;
}

vl_status vl_causal_block_basis(double *basis, int n_directions, vl_causal_block *b, vl_rng *rng, vl_error *err)
{
    size_t d = (size_t)b->d;
    double *memory = vl_alloc(3 * d, sizeof *memory);
    if (!memory)
        return vl_fail_nomem(err, "causal basis");
    search s = {.block = b, .basis = basis, .v = memory, .next = memory + d, .gradient = memory + 2 * d};
    vl_status status = VL_OK;
    for (; s.found < n_directions && status == VL_OK; s.found++)
        status = find_direction(&s, basis + (size_t)s.found * d, rng, err);
    vl_free(memory);
    return status;
}

void vl_random_basis(double *basis, int n_directions, int64_t d, vl_rng *rng)
{
    for (int k = 0; k < n_directions; k++)
        random_unit(basis + k * d, basis, k, d, rng);
}
