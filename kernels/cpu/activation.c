/* Pointwise functions of the MLPs. */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/expf.h"

VL_SIMD static void silu_row(float *out, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i] / (1.0f + vl_expf(-x[i]));
}

VL_SIMD static void quick_gelu_row(float *out, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i] / (1.0f + vl_expf(-1.702f * x[i]));
}

/* (1 + tanh(y)) / 2 = 1 / (1 + exp(-2 y)) */
VL_SIMD static void gelu_tanh_row(float *out, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float y = 0.79788456080286536f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
        out[i] = x[i] / (1.0f + vl_expf(-2.0f * y));
    }
}

static void gelu_row(float *out, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.70710678118654752f));
}

VL_SIMD static void relu_row(float *out, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i] > 0 ? x[i] : 0;
}

VL_SIMD static void multiply_row(float *out, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = a[i] * b[i];
}

static void activate_row(float *out, const float *x, int64_t n, vl_activation kind)
{
    switch (kind) {
    case VL_ACT_SILU: silu_row(out, x, n); break;
    case VL_ACT_GELU: gelu_row(out, x, n); break;
    case VL_ACT_GELU_TANH: gelu_tanh_row(out, x, n); break;
    case VL_ACT_QUICK_GELU: quick_gelu_row(out, x, n); break;
    case VL_ACT_RELU: relu_row(out, x, n); break;
    }
}

vl_status cpu_activation(void *context, const vl_activation_args *a, vl_error *err)
{
    enum { PIECE = 1024 };
    (void)context, (void)err;
#pragma omp parallel for schedule(static) if (a->x.shape[0] * a->x.shape[1] > 16384)
    for (int64_t i = 0; i < a->x.shape[0]; i++) {
        float *out = row_of(a->out, i);
        const float *x = row_of(a->x, i), *up = a->up.data ? row_of(a->up, i) : NULL;
        float piece[PIECE]; /* out may be `up`, which must be read before it is written */
        for (int64_t j = 0; j < a->x.shape[1]; j += PIECE) {
            int64_t n = a->x.shape[1] - j < PIECE ? a->x.shape[1] - j : PIECE;
            if (up) {
                activate_row(piece, x + j, n, a->kind);
                multiply_row(out + j, piece, up + j, n);
            } else {
                activate_row(out + j, x + j, n, a->kind);
            }
        }
    }
    return VL_OK;
}
