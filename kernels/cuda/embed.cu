/* Rows of a table, widened and scaled. */
#include <string.h>

#include "kernels/cuda/context.h"

template <typename T>
static __global__ void gather(float *out, int64_t out_row, const T *table, const int32_t *ids, int64_t rows, int64_t n,
                              float scale)
{
    for (int64_t i = blockIdx.y; i < rows; i += gridDim.y) {
        const T *from = table + ids[i] * n;
        for (int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; j < n; j += gridDim.x * blockDim.x)
            out[i * out_row + j] = scale * vl_load(from + j);
    }
}

static inline float scale_of(const vl_embed_args *a)
{
    return a->scale != 0.0f ? a->scale : 1.0f;
}

template <typename T>
static vl_status launch(vl_cuda *cuda, const vl_embed_args *a, const vl_cuda_matrix *w, vl_error *err)
{
    vl_cuda_grid g = vl_cuda_grid_of(a->out.shape[0], w->n_in);
    VL_LAUNCH((gather<T>), g.grid, g.block, 0, cuda->stream, (float *)a->out.data, a->out.row_stride,
              (const T *)w->device, (const int32_t *)a->ids.data, a->out.shape[0], w->n_in, scale_of(a));
    return vl_cuda_check(cudaGetLastError(), "embed", err);
}

static __global__ void scale_rows(float *out, int64_t out_row, int64_t rows, int64_t n, float scale)
{
    for (int64_t i = blockIdx.y; i < rows; i += gridDim.y)
        for (int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; j < n; j += gridDim.x * blockDim.x)
            out[i * out_row + j] *= scale;
}

/* The table is in the file only: the rows are gathered here, and only they travel. */
static vl_status gather_on_host(vl_cuda *cuda, const vl_embed_args *a, const vl_cuda_matrix *w, vl_error *err)
{
    int64_t rows = a->out.shape[0];
    size_t row = (size_t)w->n_in * vl_dtype_size(w->host_dtype);
    int32_t *ids = (int32_t *)vl_alloc((size_t)rows, sizeof *ids);
    if (!ids)
        return vl_fail_nomem(err, "rows of the embedding");
    vl_cuda_stage *stage = NULL;
    vl_tensor flat = vl_tensor_1d(a->ids.data, VL_I32, rows);
    vl_status status = vl_cuda_read(cuda, ids, &flat, err);
    if (status == VL_OK)
        status = vl_cuda_stage_get(cuda, (size_t)rows * row, &stage, err);
    for (int64_t i = 0; status == VL_OK && i < rows; i++)
        memcpy((char *)stage->host + (size_t)i * row, (const char *)w->host + (size_t)ids[i] * row, row);
    vl_free(ids);
    VL_TRY(status);
    VL_TRY(vl_cuda_stage_upload(cuda, stage, (size_t)rows * row, err));
    VL_TRY(vl_cuda_convert(cuda, a->out, vl_tensor_2d(stage->device, w->host_dtype, rows, w->n_in), err));
    VL_TRY(vl_cuda_stage_release(cuda, stage, err));
    if (scale_of(a) == 1.0f)
        return VL_OK;
    vl_cuda_grid g = vl_cuda_grid_of(rows, w->n_in);
    VL_LAUNCH(scale_rows, g.grid, g.block, 0, cuda->stream, (float *)a->out.data, a->out.row_stride, rows, w->n_in,
              scale_of(a));
    return vl_cuda_check(cudaGetLastError(), "embed", err);
}

vl_status vl_cuda_embed(void *context, const vl_embed_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    const vl_cuda_matrix *w = (const vl_cuda_matrix *)a->table->data;
    if (!w->device || w->dtype != w->host_dtype) /* a copy that was rounded for products does not serve */
        return gather_on_host(cuda, a, w, err);
    if (w->dtype == VL_BF16)
        return launch<vl_bf16>(cuda, a, w, err);
    if (w->dtype == VL_F16)
        return launch<vl_f16>(cuda, a, w, err);
    return launch<float>(cuda, a, w, err);
}
