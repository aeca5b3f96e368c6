/* Sums of tensors. */
#include "kernels/cuda/context.h"

typedef struct add_view {
    float *out;
    const float *x, *y, *row_scale, *column_scale; /* the scales may be NULL */
    int64_t out_row, x_row, y_row, rows, columns;  /* y_row 0: one row for all */
    float scale;
    bool vector;
} add_view;

static __global__ void add_rows(add_view v)
{
    for (int64_t i = blockIdx.y; i < v.rows; i += gridDim.y) {
        float scale = v.row_scale ? v.scale * v.row_scale[i] : v.scale;
        for (int64_t j = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x); j < v.columns;
             j += 4 * (int64_t)gridDim.x * blockDim.x) {
            int64_t n = v.columns - j;
            float4 x = vl_load_some(v.x + i * v.x_row + j, n, v.vector);
            float4 y = vl_load_some(v.y + i * v.y_row + j, n, v.vector);
            if (v.column_scale) {
                float4 c = vl_load_some(v.column_scale + j, n, v.vector);
                y.x *= c.x, y.y *= c.y, y.z *= c.z, y.w *= c.w;
            }
            x.x += scale * y.x, x.y += scale * y.y, x.z += scale * y.z, x.w += scale * y.w;
            vl_store_some(v.out + i * v.out_row + j, x, n, v.vector);
        }
    }
}

vl_status vl_cuda_add(void *context, const vl_add_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    add_view v;
    v.out = (float *)a->out.data, v.x = (const float *)a->x.data, v.y = (const float *)a->y.data;
    v.row_scale = (const float *)a->row_scale.data, v.column_scale = (const float *)a->column_scale.data;
    v.rows = a->x.shape[0], v.columns = a->x.shape[1], v.scale = a->scale;
    v.out_row = a->out.row_stride, v.x_row = a->x.row_stride;
    v.y_row = a->y.shape[0] == 1 && v.rows != 1 ? 0 : a->y.row_stride;
    v.vector = vl_aligned16(v.out, v.out_row, 4) && vl_aligned16(v.x, v.x_row, 4) && vl_aligned16(v.y, v.y_row, 4) &&
               vl_aligned16(v.column_scale, 4, 4);
    vl_cuda_grid g = vl_cuda_grid_of(v.rows, v.columns);
    VL_LAUNCH(add_rows, g.grid, g.block, 0, cuda->stream, v);
    return vl_cuda_check(cudaGetLastError(), "add", err);
}
