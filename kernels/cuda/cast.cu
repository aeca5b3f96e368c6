/* Conversions between fp32, fp16 and bf16. */
#include "kernels/cuda/context.h"

template <typename Out, typename In>
static __global__ void convert(Out *out, int64_t out_row, const In *in, int64_t in_row, int64_t rows, int64_t columns)
{
    for (int64_t i = blockIdx.y; i < rows; i += gridDim.y)
        for (int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; j < columns; j += gridDim.x * blockDim.x)
            vl_store(out + i * out_row + j, vl_load(in + i * in_row + j));
}

template <typename Out, typename In> static vl_status launch(vl_cuda *cuda, vl_tensor out, vl_tensor in, vl_error *err)
{
    int64_t rows = in.shape[0], columns = in.shape[1];
    vl_cuda_grid g = vl_cuda_grid_of(rows, columns);
    VL_LAUNCH((convert<Out, In>), g.grid, g.block, 0, cuda->stream, (Out *)out.data, out.row_stride,
              (const In *)in.data, in.row_stride, rows, columns);
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

vl_status vl_cuda_to_bf16(vl_cuda *cuda, vl_cuda_area area, vl_tensor x, vl_bf16 **out, vl_error *err)
{
    void *memory;
    VL_TRY(vl_cuda_area_get(cuda, area, (size_t)(x.shape[0] * x.shape[1]) * sizeof(vl_bf16), &memory, err));
    *out = (vl_bf16 *)memory;
    return vl_cuda_convert(cuda, vl_tensor_2d(memory, VL_BF16, x.shape[0], x.shape[1]), x, err);
}

vl_status vl_cuda_cast(void *context, const vl_cast_args *args, vl_error *err)
{
    return vl_cuda_convert((vl_cuda *)context, args->out, args->x, err);
}
