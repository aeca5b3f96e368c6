/* RMS norm and layer norm, forward and backward, one row at a time. */
#include <math.h>

#include "kernels/cpu/cpu.h"

/* Mean (0 for RMS) and reciprocal deviation of n values; summed in fp64, as rows may carry a large offset. */
VL_SIMD static void row_statistics(float *mean, float *scale, const float *x, int64_t n, vl_norm_kind kind, double eps)
{
    double sum = 0, squares = 0;
    float m = 0;
    if (kind == VL_NORM_LAYER) {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++)
            sum += (double)x[i];
        m = (float)(sum / (double)n);
    }
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; i++) {
        double centred = (double)(x[i] - m);
        squares += centred * centred;
    }
    *mean = m;
    if (kind == VL_NORM_NONE)
        *scale = 1;
    else
        *scale = (float)(1.0 / sqrt(squares / (double)n + eps));
}

VL_SIMD static void norm_row(float *out, const float *x, const vl_norm_args *a, int64_t n)
{
    const float *weight = a->weight.data, *bias = a->bias.data;
    float mean, scale;
    row_statistics(&mean, &scale, x, n, a->kind, a->eps);
    if (bias)
        for (int64_t i = 0; i < n; i++)
            out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
    else
        for (int64_t i = 0; i < n; i++)
            out[i] = (x[i] - mean) * scale * weight[i];
}

vl_status cpu_norm(void *context, const vl_norm_args *a, vl_error *err)
{
    (void)context, (void)err;
    int64_t width = a->weight.shape[a->weight.ndim - 1], groups = a->x.shape[1] / width;
#pragma omp parallel for schedule(static) if (a->x.shape[0] * a->x.shape[1] > 16384)
    for (int64_t i = 0; i < a->x.shape[0]; i++)
        for (int64_t g = 0; g < groups; g++)
            norm_row(row_of(a->out, i) + g * width, row_of(a->x, i) + g * width, a, width);
    return VL_OK;
}

/* With x^ = (x - mean) * s and g = dy * weight:  dx = s * (g - mean(g) - x^ * mean(g x^)); RMS has no mean(g) term. */
VL_SIMD static void norm_backward_row(float *dx, const float *dy, const float *x, const vl_norm_backward_args *a,
                                      int64_t n)
{
    const float *weight = a->weight.data;
    float mean, scale;
    double sum = 0, dot = 0;
    row_statistics(&mean, &scale, x, n, a->kind, a->eps);
#pragma omp simd reduction(+ : sum, dot)
    for (int64_t i = 0; i < n; i++) {
        float g = dy[i] * weight[i];
        sum += (double)g;
        dot += (double)(g * ((x[i] - mean) * scale));
    }
    float shift = a->kind == VL_NORM_LAYER ? (float)(sum / (double)n) : 0;
    float slope = a->kind == VL_NORM_NONE ? 0 : (float)(dot / (double)n);
    for (int64_t i = 0; i < n; i++)
        dx[i] = scale * (dy[i] * weight[i] - shift - (x[i] - mean) * scale * slope);
}

vl_status cpu_norm_backward(void *context, const vl_norm_backward_args *a, vl_error *err)
{
    (void)context, (void)err;
#pragma omp parallel for schedule(static) if (a->x.shape[0] * a->x.shape[1] > 16384)
    for (int64_t i = 0; i < a->x.shape[0]; i++)
        norm_backward_row(row_of(a->dx, i), row_of(a->dy, i), row_of(a->x, i), a, a->x.shape[1]);
    return VL_OK;
}
