/* Conversions between fp32, fp16 and bf16, and rows that are scaled into the range of fp16. */
#include <float.h>

#include "kernels/cuda/context.h"

typedef struct convert_view {
    int64_t out_row, in_row, rows, columns;
    bool vector; /* eight elements at a time */
} convert_view;

template <typename Out, typename In> static __global__ void convert(Out *out, const In *in, convert_view v)
{
    int64_t first = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = blockIdx.y; i < v.rows; i += gridDim.y) {
        Out *to = out + i * v.out_row;
        const In *from = in + i * v.in_row;
        if (v.vector)
            for (int64_t j = 8 * first; j < v.columns; j += 8 * step)
                vl_store8(to + j, vl_load8(from + j));
        else
            for (int64_t j = first; j < v.columns; j += step)
                vl_store(to + j, vl_load(from + j));
    }
}

/* Whether rows of both allow accesses of 16 bytes, and end with one. */
static bool in_eights(vl_tensor out, vl_tensor in)
{
    return in.shape[1] % 8 == 0 && vl_aligned16(out.data, out.row_stride, (int)vl_dtype_size(out.dtype)) &&
           vl_aligned16(in.data, in.row_stride, (int)vl_dtype_size(in.dtype));
}

template <typename Out, typename In> static vl_status launch(vl_cuda *cuda, vl_tensor out, vl_tensor in, vl_error *err)
{
    convert_view v = {out.row_stride, in.row_stride, in.shape[0], in.shape[1], in_eights(out, in)};
    vl_cuda_grid g = vl_cuda_grid_of(v.rows, v.vector ? v.columns / 2 : 4 * v.columns);
    VL_LAUNCH((convert<Out, In>), g.grid, g.block, 0, cuda->stream, (Out *)out.data, (const In *)in.data, v);
    return vl_cuda_check(cudaGetLastError(), "cast", err);
}

template <typename Out> static vl_status launch_from(vl_cuda *cuda, vl_tensor out, vl_tensor in, vl_error *err)
{
    if (in.dtype == VL_BF16)
        return launch<Out, vl_bf16>(cuda, out, in, err);
    if (in.dtype == VL_F16)
        return launch<Out, vl_f16>(cuda, out, in, err);
    return launch<Out, float>(cuda, out, in, err);
}

vl_status vl_cuda_convert(vl_cuda *cuda, vl_tensor out, vl_tensor in, vl_error *err)
{
    size_t element = vl_dtype_size(in.dtype), width = (size_t)in.shape[1] * element;
    if (in.shape[0] == 0 || in.shape[1] == 0)
        return VL_OK;
    if (in.dtype == out.dtype)
        return vl_cuda_check(cudaMemcpy2DAsync(out.data, (size_t)out.row_stride * element, in.data,
                                               (size_t)in.row_stride * element, width, (size_t)in.shape[0],
                                               cudaMemcpyDeviceToDevice, cuda->stream),
                             "cast", err);
    if (out.dtype == VL_BF16)
        return launch_from<vl_bf16>(cuda, out, in, err);
    if (out.dtype == VL_F16)
        return launch_from<vl_f16>(cuda, out, in, err);
    return launch_from<float>(cuda, out, in, err);
}

vl_status vl_cuda_narrow(vl_cuda *cuda, vl_cuda_area area, vl_dtype dtype, vl_tensor x, vl_tensor *out, vl_error *err)
{
    void *memory;
    *out = x;
    if (x.dtype == dtype)
        return VL_OK;
    VL_TRY(vl_cuda_area_get(cuda, area, (size_t)(x.shape[0] * x.shape[1]) * vl_dtype_size(dtype), &memory, err));
    *out = vl_tensor_2d(memory, dtype, x.shape[0], x.shape[1]);
    return vl_cuda_convert(cuda, *out, x, err);
}

vl_status vl_cuda_cast(void *context, const vl_cast_args *args, vl_error *err)
{
    return vl_cuda_convert((vl_cuda *)context, args->out, args->x, err);
}

/* ---- rows of fp16 ------------------------------------------------------------------------------------------ */

enum { THREADS = 256, LARGEST_EXPONENT = 14 /* entries stay below 2^15: half of what fp16 holds */ };

typedef struct narrow_view {
    vl_f16 *out; /* dense */
    float *growth;
    const float *x;
    int64_t x_row, columns;
    bool vector;
} narrow_view;

/* 2^n, for n from -126 to 127. */
__device__ inline float power_of_two(int n)
{
    return __int_as_float((n + 127) << 23);
}

/* A block owns a row. Rows with infinities and NaN stay as they are. */
static __global__ void __launch_bounds__(THREADS) narrow_rows(narrow_view v)
{
    __shared__ float shared[VL_MAX_WARPS];
    const float *x = v.x + blockIdx.x * v.x_row;
    vl_f16 *out = v.out + blockIdx.x * v.columns;
    float largest = 0.0f;
    for (int64_t j = 4 * (int)threadIdx.x; j < v.columns; j += 4 * THREADS) {
        float4 a = vl_load_some(x + j, v.columns - j, v.vector);
        largest = fmaxf(fmaxf(largest, fmaxf(fabsf(a.x), fabsf(a.y))), fmaxf(fabsf(a.z), fabsf(a.w)));
    }
    largest = vl_block_max(largest, shared);
    int excess = 0;
    if (largest <= FLT_MAX)
        excess = ((__float_as_int(largest) >> 23) & 255) - 127 - LARGEST_EXPONENT;
    excess = excess > 0 ? excess : 0;
    float shrink = power_of_two(-excess);
    for (int64_t j = 4 * (int)threadIdx.x; j < v.columns; j += 4 * THREADS) {
        float4 a = vl_load_some(x + j, v.columns - j, v.vector);
        a.x *= shrink, a.y *= shrink, a.z *= shrink, a.w *= shrink;
        vl_store_some(out + j, a, v.columns - j, v.vector);
    }
    if (threadIdx.x == 0)
        v.growth[blockIdx.x] = power_of_two(excess);
}

vl_status vl_cuda_narrow_rows(vl_cuda *cuda, vl_tensor x, vl_tensor *out, float **growth, vl_error *err)
{
    narrow_view v;
    void *memory, *factors;
    int64_t rows = x.shape[0];
    VL_TRY(vl_cuda_area_get(cuda, VL_CUDA_AREA_LEFT, (size_t)(rows * x.shape[1]) * sizeof(vl_f16), &memory, err));
    VL_TRY(vl_cuda_area_get(cuda, VL_CUDA_AREA_GROWTH, (size_t)rows * sizeof(float), &factors, err));
    v.out = (vl_f16 *)memory, v.growth = *growth = (float *)factors;
    v.x = (const float *)x.data, v.x_row = x.row_stride, v.columns = x.shape[1];
    v.vector = vl_aligned16(v.x, v.x_row, 4) && v.columns % 4 == 0;
    *out = vl_tensor_2d(memory, VL_F16, rows, x.shape[1]);
    if (rows == 0)
        return VL_OK;
    VL_LAUNCH(narrow_rows, (unsigned)rows, THREADS, 0, cuda->stream, v);
    return vl_cuda_check(cudaGetLastError(), "rows in fp16", err);
}

typedef struct grow_view {
    float *out;
    const float *growth, *bias; /* bias may be NULL */
    int64_t out_row, columns;
} grow_view;

/* A block owns a row; nearly all have nothing to do. */
static __global__ void __launch_bounds__(THREADS) grow_rows(grow_view v)
{
    float *out = v.out + blockIdx.x * v.out_row, factor = v.growth[blockIdx.x];
    if (factor == 1.0f)
        return;
    for (int64_t j = (int)threadIdx.x; j < v.columns; j += THREADS) {
        float bias = v.bias ? v.bias[j] : 0.0f;
        out[j] = factor * (out[j] - bias) + bias;
    }
}

vl_status vl_cuda_grow_rows(vl_cuda *cuda, vl_tensor out, const float *growth, const float *bias, vl_error *err)
{
    grow_view v = {(float *)out.data, growth, bias, out.row_stride, out.shape[1]};
    if (out.shape[0] == 0)
        return VL_OK;
    VL_LAUNCH(grow_rows, (unsigned)out.shape[0], THREADS, 0, cuda->stream, v);
    return vl_cuda_check(cudaGetLastError(), "rows in fp16", err);
}

typedef struct scale_view {
    float *out;
    const float *weight; /* NULL: 1 */
    int64_t out_row, columns;
    float scale;
    bool vector;
} scale_view;

static __global__ void __launch_bounds__(THREADS) scale_rows(scale_view v)
{
    float *out = v.out + blockIdx.x * v.out_row, factor = v.weight ? v.scale * v.weight[blockIdx.x] : v.scale;
    for (int64_t j = 4 * (int)threadIdx.x; j < v.columns; j += 4 * THREADS) {
        float4 a = vl_load_some(out + j, v.columns - j, v.vector);
        a.x *= factor, a.y *= factor, a.z *= factor, a.w *= factor;
        vl_store_some(out + j, a, v.columns - j, v.vector);
    }
}

vl_status vl_cuda_scale_rows(vl_cuda *cuda, vl_tensor out, const float *weight, float scale, vl_error *err)
{
    scale_view v = {(float *)out.data, weight, out.row_stride, out.shape[1], scale, false};
    v.vector = vl_aligned16(v.out, v.out_row, 4);
    VL_LAUNCH(scale_rows, (unsigned)out.shape[0], THREADS, 0, cuda->stream, v);
    return vl_cuda_check(cudaGetLastError(), "weights of rows", err);
}
