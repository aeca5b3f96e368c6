/* Weighted sums of picked rows: each element of the output is one thread's. */
#include "kernels/cuda/context.h"

typedef struct mix_view {
    float *out;
    const float *x, *weights; /* weights or NULL */
    const int32_t *rows;
    int64_t out_row, x_row, weights_row, rows_row, n_out, n;
    int taps;
} mix_view;

static __global__ void mix(mix_view v)
{
    for (int64_t i = blockIdx.y; i < v.n_out; i += gridDim.y) {
        const int32_t *from = v.rows + i * v.rows_row;
        for (int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; j < v.n; j += gridDim.x * blockDim.x) {
            float sum = 0.0f;
            for (int k = 0; k < v.taps; k++)
                sum += (v.weights ? v.weights[i * v.weights_row + k] : 1.0f) * v.x[from[k] * v.x_row + j];
            v.out[i * v.out_row + j] = sum;
        }
    }
}

vl_status vl_cuda_mix_rows(void *context, const vl_mix_rows_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    mix_view v;
    v.out = (float *)a->out.data, v.x = (const float *)a->x.data, v.weights = (const float *)a->weights.data;
    v.rows = (const int32_t *)a->rows.data;
    v.out_row = a->out.row_stride, v.x_row = a->x.row_stride, v.weights_row = a->weights.row_stride;
    v.rows_row = a->rows.row_stride, v.n_out = a->out.shape[0], v.n = a->out.shape[1];
    v.taps = (int)a->rows.shape[1];
    vl_cuda_grid g = vl_cuda_grid_of(v.n_out, v.n);
    VL_LAUNCH(mix, g.grid, g.block, 0, cuda->stream, v);
    return vl_cuda_check(cudaGetLastError(), "mix_rows", err);
}
