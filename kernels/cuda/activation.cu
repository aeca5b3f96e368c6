/* Pointwise functions of the MLPs. */
#include <math.h>

#include "kernels/cuda/context.h"

template <int KIND> __device__ static inline float activate(float x)
{
    if (KIND == VL_ACT_SILU)
        return x / (1.0f + expf(-x));
    if (KIND == VL_ACT_QUICK_GELU)
        return x / (1.0f + expf(-1.702f * x));
    if (KIND == VL_ACT_GELU) /* by erfc, so that the tail keeps its accuracy */
        return 0.5f * x * erfcf(-0.70710678118654752f * x);
    if (KIND == VL_ACT_GELU_TANH) { /* (1 + tanh(y)) / 2 = 1 / (1 + exp(-2 y)) */
        float y = 0.79788456080286536f * (x + 0.044715f * x * x * x);
        return x / (1.0f + expf(-2.0f * y));
    }
    return x > 0.0f ? x : 0.0f;
}

typedef struct activation_view {
    float *out;
    const float *x, *up; /* up may be NULL */
    int64_t out_row, x_row, up_row, rows, columns;
    bool vector; /* all of them allow 16-byte accesses */
} activation_view;

template <int KIND> static __global__ void activate_rows(activation_view v)
{
    for (int64_t i = blockIdx.y; i < v.rows; i += gridDim.y)
        for (int64_t j = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x); j < v.columns;
             j += 4 * (int64_t)gridDim.x * blockDim.x) {
            int64_t n = v.columns - j;
            float4 x = vl_load_some(v.x + i * v.x_row + j, n, v.vector);
            float4 y = make_float4(activate<KIND>(x.x), activate<KIND>(x.y), activate<KIND>(x.z), activate<KIND>(x.w));
            if (v.up) {
                float4 up = vl_load_some(v.up + i * v.up_row + j, n, v.vector);
                y.x *= up.x, y.y *= up.y, y.z *= up.z, y.w *= up.w;
            }
            vl_store_some(v.out + i * v.out_row + j, y, n, v.vector);
        }
}

/* A soft cap: cap * tanh(x / cap), or that times up. */
static __global__ void cap_rows(activation_view v, float cap)
{
    for (int64_t i = blockIdx.y; i < v.rows; i += gridDim.y)
        for (int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; j < v.columns;
             j += (int64_t)gridDim.x * blockDim.x) {
            float y = cap * tanhf(v.x[i * v.x_row + j] / cap);
            v.out[i * v.out_row + j] = v.up ? y * v.up[i * v.up_row + j] : y;
        }
}

vl_status vl_cuda_activation(void *context, const vl_activation_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    activation_view v;
    v.out = (float *)a->out.data, v.x = (const float *)a->x.data, v.up = (const float *)a->up.data;
    v.out_row = a->out.row_stride, v.x_row = a->x.row_stride, v.up_row = a->up.row_stride;
    v.rows = a->x.shape[0], v.columns = a->x.shape[1];
    v.vector = vl_aligned16(v.out, v.out_row, 4) && vl_aligned16(v.x, v.x_row, 4) &&
               (!v.up || vl_aligned16(v.up, v.up_row, 4));
    vl_cuda_grid g = vl_cuda_grid_of(v.rows, v.columns);
    switch (a->kind) {
    case VL_ACT_SILU: VL_LAUNCH((activate_rows<VL_ACT_SILU>), g.grid, g.block, 0, cuda->stream, v); break;
    case VL_ACT_GELU: VL_LAUNCH((activate_rows<VL_ACT_GELU>), g.grid, g.block, 0, cuda->stream, v); break;
    case VL_ACT_GELU_TANH: VL_LAUNCH((activate_rows<VL_ACT_GELU_TANH>), g.grid, g.block, 0, cuda->stream, v); break;
    case VL_ACT_QUICK_GELU: VL_LAUNCH((activate_rows<VL_ACT_QUICK_GELU>), g.grid, g.block, 0, cuda->stream, v); break;
    case VL_ACT_RELU: VL_LAUNCH((activate_rows<VL_ACT_RELU>), g.grid, g.block, 0, cuda->stream, v); break;
    case VL_ACT_CAP: VL_LAUNCH(cap_rows, g.grid, g.block, 0, cuda->stream, v, a->cap); break;
    }
    return vl_cuda_check(cudaGetLastError(), "activation", err);
}
