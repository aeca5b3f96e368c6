/* Optimiser steps, fused over one pass of the parameters. */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { PIECE = 1 << 15 };

static int64_t element_count(vl_tensor t)
{
    return t.ndim == 1 ? t.shape[0] : t.shape[0] * t.shape[1];
}

/* NaN: no step is taken. */
static float scale_of(float given, vl_tensor scale)
{
    return scale.data ? given * *(const float *)scale.data : given;
}

/* torch.optim.SGD: g += wd * p; m = mu * m + g (m = g at first); p -= lr * (nesterov ? g + mu * m : m). */
VL_SIMD static void sgd_piece(const vl_sgd_args *a, float scale, int64_t first, int64_t n)
{
    float *p = (float *)a->parameter.data + first;
    float *m = a->momentum.data ? (float *)a->momentum.data + first : NULL;
    const float *gradient = (const float *)a->gradient.data + first;
    float mu = a->momentum_factor, keep = a->first ? 0.0f : mu, rate = a->learning_rate;
    for (int64_t i = 0; i < n; i++) {
        float g = gradient[i] * scale + a->weight_decay * p[i];
        float velocity = (a->first || !m ? 0.0f : keep * m[i]) + g;
        if (m)
            m[i] = velocity;
        p[i] -= rate * (a->nesterov ? g + mu * velocity : velocity);
    }
}

vl_status cpu_sgd(void *context, const vl_sgd_args *a, vl_error *err)
{
    (void)context, (void)err;
    int64_t n = element_count(a->parameter);
    float scale = scale_of(a->gradient_scale, a->scale);
    if (isnan(scale))
        return VL_OK;
#pragma omp parallel for schedule(static) if (n > PIECE)
    for (int64_t first = 0; first < n; first += PIECE)
        sgd_piece(a, scale, first, n - first < PIECE ? n - first : PIECE);
    return VL_OK;
}

/* Kingma and Ba 2015 with decoupled weight decay (Loshchilov and Hutter 2019). */
typedef struct adam_numbers {
    float step_size, root_correction, scale;
} adam_numbers;

VL_SIMD static void adam_piece(const vl_adam_args *a, adam_numbers v, int64_t first, int64_t n)
{
    float *p = (float *)a->parameter.data + first, *m = (float *)a->mean.data + first;
    float *s = (float *)a->square.data + first;
    const float *gradient = (const float *)a->gradient.data + first;
    float decay = 1.0f - a->learning_rate * a->weight_decay;
    for (int64_t i = 0; i < n; i++) {
        float g = gradient[i] * v.scale;
        m[i] = m[i] + (1.0f - a->beta1) * (g - m[i]);
        s[i] = a->beta2 * s[i] + (1.0f - a->beta2) * g * g;
        p[i] = p[i] * decay - v.step_size * m[i] / (sqrtf(s[i]) / v.root_correction + a->epsilon);
    }
}

vl_status cpu_adam(void *context, const vl_adam_args *a, vl_error *err)
{
    (void)context, (void)err;
    int64_t n = element_count(a->parameter);
    adam_numbers v = {.scale = scale_of(a->gradient_scale, a->scale)};
    v.step_size = (float)((double)a->learning_rate / (1.0 - pow((double)a->beta1, (double)a->step)));
    v.root_correction = (float)sqrt(1.0 - pow((double)a->beta2, (double)a->step));
    if (isnan(v.scale))
        return VL_OK;
#pragma omp parallel for schedule(static) if (n > PIECE)
    for (int64_t first = 0; first < n; first += PIECE)
        adam_piece(a, v, first, n - first < PIECE ? n - first : PIECE);
    return VL_OK;
}
