/* Optimiser steps, fused over one pass of the parameters. */
#include <math.h>

#include "kernels/cuda/context.h"

enum { THREADS = 256 };

static int64_t element_count(vl_tensor t)
{
    return t.ndim == 1 ? t.shape[0] : t.shape[0] * t.shape[1];
}

/* torch.optim.SGD: g += wd * p; m = mu * m + g (m = g at first); p -= lr * (nesterov ? g + mu * m : m). */
typedef struct sgd_view {
    float *parameter, *momentum;   /* momentum may be NULL */
    const float *gradient, *limit; /* limit: multiplies the gradient too; may be NULL */
    int64_t n;
    float rate, factor, decay, scale;
    bool nesterov, first, vector;
} sgd_view;

__device__ inline void sgd_element(float *p, float *m, float gradient, const sgd_view &v)
{
    float g = gradient * v.scale + v.decay * *p;
    float velocity = v.first ? g : v.factor * *m + g;
    *m = velocity;
    *p -= v.rate * (v.nesterov ? g + v.factor * velocity : velocity);
}

/* What clipping leaves of a gradient; false: no step is taken. */
__device__ inline bool apply_limit(float *scale, const float *limit)
{
    if (!limit)
        return true;
    *scale *= *limit;
    return !isnan(*limit);
}

static __global__ void sgd_step(sgd_view v)
{
    if (!apply_limit(&v.scale, v.limit))
        return;
    for (int64_t i = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x); i < v.n;
         i += 4 * (int64_t)gridDim.x * blockDim.x) {
        int64_t n = v.n - i;
        float4 g = vl_load_some(v.gradient + i, n, v.vector), p = vl_load_some(v.parameter + i, n, v.vector);
        float4 m = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (!v.first && v.momentum) /* the buffer holds nothing yet */
            m = vl_load_some(v.momentum + i, n, v.vector);
        sgd_element(&p.x, &m.x, g.x, v);
        sgd_element(&p.y, &m.y, g.y, v);
        sgd_element(&p.z, &m.z, g.z, v);
        sgd_element(&p.w, &m.w, g.w, v);
        if (v.momentum)
            vl_store_some(v.momentum + i, m, n, v.vector);
        vl_store_some(v.parameter + i, p, n, v.vector);
    }
}

vl_status vl_cuda_sgd(void *context, const vl_sgd_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    sgd_view v;
    v.parameter = (float *)a->parameter.data, v.momentum = (float *)a->momentum.data;
    v.gradient = (const float *)a->gradient.data, v.n = element_count(a->parameter);
    v.rate = a->learning_rate, v.factor = a->momentum_factor, v.decay = a->weight_decay, v.scale = a->gradient_scale;
    v.nesterov = a->nesterov, v.first = a->first, v.limit = (const float *)a->scale.data;
    v.vector = vl_aligned16(v.parameter, 0, 4) && vl_aligned16(v.momentum, 0, 4) && vl_aligned16(v.gradient, 0, 4);
    if (v.n == 0)
        return VL_OK;
    VL_LAUNCH(sgd_step, vl_cuda_blocks(v.n, 4 * THREADS), THREADS, 0, cuda->stream, v);
    return vl_cuda_check(cudaGetLastError(), "sgd", err);
}

/* Kingma and Ba 2015 with decoupled weight decay (Loshchilov and Hutter 2019). */
typedef struct adam_view {
    float *parameter, *mean, *square;
    const float *gradient, *limit; /* as of SGD */
    int64_t n;
    float keep, step_size, root_correction, epsilon, scale; /* keep: what decay leaves of a parameter */
    float beta2, new1, new2;                                /* the weights of the past and of the new */
    bool vector;
} adam_view;

__device__ inline void adam_element(float *p, float *m, float *s, float gradient, const adam_view &v)
{
    float g = gradient * v.scale;
    *m = *m + v.new1 * (g - *m);
    *s = v.beta2 * *s + v.new2 * g * g;
    *p = *p * v.keep - v.step_size * *m / (sqrtf(*s) / v.root_correction + v.epsilon);
}

static __global__ void adam_step(adam_view v)
{
    if (!apply_limit(&v.scale, v.limit))
        return;
    for (int64_t i = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x); i < v.n;
         i += 4 * (int64_t)gridDim.x * blockDim.x) {
        int64_t n = v.n - i;
        float4 g = vl_load_some(v.gradient + i, n, v.vector), p = vl_load_some(v.parameter + i, n, v.vector);
        float4 m = vl_load_some(v.mean + i, n, v.vector), s = vl_load_some(v.square + i, n, v.vector);
        adam_element(&p.x, &m.x, &s.x, g.x, v);
        adam_element(&p.y, &m.y, &s.y, g.y, v);
        adam_element(&p.z, &m.z, &s.z, g.z, v);
        adam_element(&p.w, &m.w, &s.w, g.w, v);
        vl_store_some(v.mean + i, m, n, v.vector);
        vl_store_some(v.square + i, s, n, v.vector);
        vl_store_some(v.parameter + i, p, n, v.vector);
    }
}

vl_status vl_cuda_adam(void *context, const vl_adam_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    adam_view v;
    v.parameter = (float *)a->parameter.data, v.mean = (float *)a->mean.data, v.square = (float *)a->square.data;
    v.gradient = (const float *)a->gradient.data, v.n = element_count(a->parameter);
    v.step_size = (float)((double)a->learning_rate / (1.0 - pow((double)a->beta1, (double)a->step)));
    v.root_correction = (float)sqrt(1.0 - pow((double)a->beta2, (double)a->step));
    v.keep = 1.0f - a->learning_rate * a->weight_decay, v.epsilon = a->epsilon, v.scale = a->gradient_scale;
    v.beta2 = a->beta2, v.new1 = 1.0f - a->beta1, v.new2 = 1.0f - a->beta2;
    v.limit = (const float *)a->scale.data;
    v.vector = vl_aligned16(v.parameter, 0, 4) && vl_aligned16(v.mean, 0, 4) && vl_aligned16(v.square, 0, 4) &&
               vl_aligned16(v.gradient, 0, 4);
    if (v.n == 0)
        return VL_OK;
    VL_LAUNCH(adam_step, vl_cuda_blocks(v.n, 4 * THREADS), THREADS, 0, cuda->stream, v);
    return vl_cuda_check(cudaGetLastError(), "adam", err);
}
