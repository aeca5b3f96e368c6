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

/* x Phi(x). The smaller tail of Phi is erfc(z) / 2 with z = |x| / sqrt 2, and erfc(z) = t exp(P(t) - z^2) with
 * t = 1 / (1 + z / 2): P is smooth, and interpolated here at Chebyshev nodes of z in [0, 9.3] to a relative error of
 * 5e-8 in erfc, so that negative x keep their accuracy as well. */
VL_SIMD static void gelu_row(float *out, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float z = 0.70710678118654752f * (x[i] > 0 ? x[i] : -x[i]), t = 1.0f / (1.0f + 0.5f * z);
        float p = 0.141110063f;
        p = p * t - 0.659755528f;
        p = p * t + 1.10639918f;
        p = p * t - 0.628076136f;
        p = p * t - 0.137827441f;
        p = p * t + 0.0325688757f;
        p = p * t + 0.0236664899f;
        p = p * t + 0.388999313f;
        p = p * t + 0.998348713f;
        p = p * t - 1.26543343f;
        float tail = 0.5f * t * vl_expf(p - z * z);
        out[i] = x[i] * (x[i] > 0 ? 1.0f - tail : tail);
    }
}

VL_SIMD static void relu_row(float *out, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i] > 0 ? x[i] : 0;
}

/* c tanh(x / c), with tanh y = 1 - 2 / (1 + exp(2 y)) */
VL_SIMD static void cap_row(float *out, const float *x, int64_t n, float cap)
{
    float twice = 2.0f / cap;
    for (int64_t i = 0; i < n; i++)
        out[i] = cap * (1.0f - 2.0f / (1.0f + vl_expf(twice * x[i])));
}

VL_SIMD static void multiply_row(float *out, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = a[i] * b[i];
}

static void activate_row(float *out, const float *x, int64_t n, const vl_activation_args *a)
{
    switch (a->kind) {
    case VL_ACT_SILU: silu_row(out, x, n); break;
    case VL_ACT_GELU: gelu_row(out, x, n); break;
    case VL_ACT_GELU_TANH: gelu_tanh_row(out, x, n); break;
    case VL_ACT_QUICK_GELU: quick_gelu_row(out, x, n); break;
    case VL_ACT_RELU: relu_row(out, x, n); break;
    case VL_ACT_CAP: cap_row(out, x, n, a->cap); break;
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
                activate_row(piece, x + j, n, a);
                multiply_row(out + j, piece, up + j, n);
            } else {
                activate_row(out + j, x + j, n, a);
            }
        }
    }
    return VL_OK;
}
