/* RMS norm and layer norm, forward and backward. A team of threads owns a group of columns of a row: a warp where it is
 * narrow, a block where it is wide. The second and third visits of a row find it in the cache. */
#include "kernels/cuda/context.h"
#include "kernels/cuda/rows.cuh"

enum { THREADS = 256, WARP_WIDTH = 512 /* a warp serves groups up to here */ };

typedef struct norm_view {
    float *out; /* backward: dx */
    const float *x;
    const float *dy;            /* backward only */
    const float *weight, *bias; /* bias may be NULL */
    int64_t out_row, x_row, dy_row;
    int64_t teams, groups, width; /* teams = rows * groups of a row */
    double eps;
    bool vector;
} norm_view;

/* A thread's place: its team's group, and the columns that it owns of it: first, first + step, ... by fours. */
typedef struct place {
    int64_t row, offset; /* of the group in its row */
    int64_t first, step;
} place;

template <bool BLOCK> __device__ inline int64_t first_team(void)
{
    return BLOCK ? (int64_t)blockIdx.x : (int64_t)blockIdx.x * (blockDim.x / VL_WARP) + threadIdx.x / VL_WARP;
}

template <bool BLOCK> __device__ inline int64_t team_step(void)
{
    return BLOCK ? (int64_t)gridDim.x : (int64_t)gridDim.x * (blockDim.x / VL_WARP);
}

template <bool BLOCK> __device__ inline place place_of(int64_t team, const norm_view &v)
{
    place p;
    p.row = team / v.groups, p.offset = team % v.groups * v.width;
    p.first = 4 * (BLOCK ? (int64_t)threadIdx.x : (int64_t)threadIdx.x % VL_WARP);
    p.step = 4 * (BLOCK ? (int64_t)blockDim.x : (int64_t)VL_WARP);
    return p;
}

template <bool BLOCK> __device__ inline double team_sum(double value, double *shared)
{
    return BLOCK ? vl_block_sum(value, shared) : vl_warp_sum(value);
}

/* In fp64, as rows may carry a large offset. */
template <bool BLOCK> __device__ inline float team_mean(const float *x, place p, const norm_view &v, double *shared)
{
    double sum = 0;
    for (int64_t j = p.first; j < v.width; j += p.step) {
        float4 a = vl_load_some(x + j, v.width - j, v.vector);
        sum += ((double)a.x + (double)a.y) + ((double)a.z + (double)a.w);
    }
    return (float)(team_sum<BLOCK>(sum, shared) / (double)v.width);
}

__device__ inline float4 centred(const float *x, int64_t n, float mean, const norm_view &v)
{
    float4 a = vl_load_padded(x, n, v.vector, mean);
    return make_float4(a.x - mean, a.y - mean, a.z - mean, a.w - mean);
}

__device__ inline float4 times(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

__device__ inline double total(float4 a)
{
    return (double)((a.x + a.y) + (a.z + a.w));
}

__device__ inline float reciprocal_deviation(double squares, const norm_view &v)
{
    return (float)(1.0 / sqrt(squares / (double)v.width + v.eps));
}

template <int KIND, bool BLOCK> static __global__ void __launch_bounds__(THREADS) norm_groups(norm_view v)
{
    __shared__ double shared[VL_MAX_WARPS];
    for (int64_t team = first_team<BLOCK>(); team < v.teams; team += team_step<BLOCK>()) {
        place p = place_of<BLOCK>(team, v);
        const float *x = v.x + p.row * v.x_row + p.offset;
        float *out = v.out + p.row * v.out_row + p.offset;
        float mean = KIND == VL_NORM_LAYER ? team_mean<BLOCK>(x, p, v, shared) : 0.0f;
        double squares = 0;
        for (int64_t j = p.first; j < v.width; j += p.step) {
            float4 a = centred(x + j, v.width - j, mean, v);
            squares += total(times(a, a));
        }
        float scale = KIND == VL_NORM_NONE ? 1.0f : reciprocal_deviation(team_sum<BLOCK>(squares, shared), v);
        for (int64_t j = p.first; j < v.width; j += p.step) {
            int64_t n = v.width - j;
            float4 a = centred(x + j, n, mean, v), w = vl_load_some(v.weight + j, n, v.vector);
            float4 b = v.bias ? vl_load_some(v.bias + j, n, v.vector) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            a.x = a.x * scale * w.x + b.x, a.y = a.y * scale * w.y + b.y;
            a.z = a.z * scale * w.z + b.z, a.w = a.w * scale * w.w + b.w;
            vl_store_some(out + j, a, n, v.vector);
        }
    }
}

/* With x^ = (x - mean) * s and g = dy * weight:  dx = s * (g - mean(g) - x^ * mean(g x^)); RMS has no mean(g) term. */
template <int KIND, bool BLOCK> static __global__ void __launch_bounds__(THREADS) norm_backward_groups(norm_view v)
{
    __shared__ double shared[VL_MAX_WARPS];
    for (int64_t team = first_team<BLOCK>(); team < v.teams; team += team_step<BLOCK>()) {
        place p = place_of<BLOCK>(team, v);
        const float *x = v.x + p.row * v.x_row, *dy = v.dy + p.row * v.dy_row;
        float mean = KIND == VL_NORM_LAYER ? team_mean<BLOCK>(x, p, v, shared) : 0.0f;
        double squares = 0, sum = 0, dot = 0;
        for (int64_t j = p.first; j < v.width; j += p.step) {
            int64_t n = v.width - j;
            float4 a = centred(x + j, n, mean, v);
            float4 g = times(vl_load_some(dy + j, n, v.vector), vl_load_some(v.weight + j, n, v.vector));
            squares += total(times(a, a));
            dot += total(times(a, g));
            sum += KIND == VL_NORM_LAYER ? total(g) : 0;
        }
        float scale = KIND == VL_NORM_NONE ? 1.0f : reciprocal_deviation(team_sum<BLOCK>(squares, shared), v);
        float slope = (float)(team_sum<BLOCK>(dot, shared) / (double)v.width) * scale * scale;
        slope = KIND == VL_NORM_NONE ? 0.0f : slope;
        float shift = KIND == VL_NORM_LAYER ? (float)(team_sum<BLOCK>(sum, shared) / (double)v.width) : 0.0f;
        for (int64_t j = p.first; j < v.width; j += p.step) {
            int64_t n = v.width - j;
            float4 a = centred(x + j, n, mean, v);
            float4 g = times(vl_load_some(dy + j, n, v.vector), vl_load_some(v.weight + j, n, v.vector));
            g.x = scale * (g.x - shift - a.x * slope), g.y = scale * (g.y - shift - a.y * slope);
            g.z = scale * (g.z - shift - a.z * slope), g.w = scale * (g.w - shift - a.w * slope);
            vl_store_some(v.out + p.row * v.out_row + j, g, n, v.vector);
        }
    }
}

/* ---- launches ---------------------------------------------------------------------------------------------- */

template <int KIND> static void launch_forward(const norm_view &v, cudaStream_t stream)
{
    if (v.width > WARP_WIDTH)
        VL_LAUNCH((norm_groups<KIND, true>), vl_cuda_blocks(v.teams, 1), THREADS, 0, stream, v);
    else
        VL_LAUNCH((norm_groups<KIND, false>), vl_cuda_blocks(v.teams, THREADS / VL_WARP), THREADS, 0, stream, v);
}

template <int KIND> static void launch_backward(const norm_view &v, cudaStream_t stream)
{
    if (v.width > WARP_WIDTH)
        VL_LAUNCH((norm_backward_groups<KIND, true>), vl_cuda_blocks(v.teams, 1), THREADS, 0, stream, v);
    else
        VL_LAUNCH((norm_backward_groups<KIND, false>), vl_cuda_blocks(v.teams, THREADS / VL_WARP), THREADS, 0, stream,
                  v);
}

vl_status vl_cuda_norm(void *context, const vl_norm_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    norm_view v;
    v.out = (float *)a->out.data, v.x = (const float *)a->x.data, v.dy = NULL;
    v.weight = (const float *)a->weight.data, v.bias = (const float *)a->bias.data;
    v.out_row = a->out.row_stride, v.x_row = a->x.row_stride, v.dy_row = 0, v.eps = a->eps;
    v.width = a->weight.shape[a->weight.ndim - 1], v.groups = a->x.shape[1] / v.width;
    v.teams = a->x.shape[0] * v.groups;
    v.vector = v.width % 4 == 0 && vl_aligned16(v.out, v.out_row, 4) && vl_aligned16(v.x, v.x_row, 4) &&
               vl_aligned16(v.weight, 0, 4) && vl_aligned16(v.bias, 0, 4);
    if (a->kind == VL_NORM_RMS)
        launch_forward<VL_NORM_RMS>(v, cuda->stream);
    else if (a->kind == VL_NORM_NONE)
        launch_forward<VL_NORM_NONE>(v, cuda->stream);
    else
        launch_forward<VL_NORM_LAYER>(v, cuda->stream);
    return vl_cuda_check(cudaGetLastError(), "norm", err);
}

vl_status vl_cuda_norm_backward(void *context, const vl_norm_backward_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    norm_view v;
    v.out = (float *)a->dx.data, v.x = (const float *)a->x.data, v.dy = (const float *)a->dy.data;
    v.weight = (const float *)a->weight.data, v.bias = NULL;
    v.out_row = a->dx.row_stride, v.x_row = a->x.row_stride, v.dy_row = a->dy.row_stride, v.eps = a->eps;
    v.width = a->x.shape[1], v.groups = 1, v.teams = a->x.shape[0];
    v.vector = vl_aligned16(v.out, v.out_row, 4) && vl_aligned16(v.x, v.x_row, 4) && vl_aligned16(v.dy, v.dy_row, 4) &&
               vl_aligned16(v.weight, 0, 4);
    if (a->kind == VL_NORM_RMS)
        launch_backward<VL_NORM_RMS>(v, cuda->stream);
    else if (a->kind == VL_NORM_NONE)
        launch_backward<VL_NORM_NONE>(v, cuda->stream);
    else
        launch_backward<VL_NORM_LAYER>(v, cuda->stream);
    return vl_cuda_check(cudaGetLastError(), "norm_backward", err);
}
