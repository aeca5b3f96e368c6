/* Rotary position embedding, Hugging Face layout: element i of a head turns with element i + P. */
#include "kernels/cuda/context.h"

typedef struct rope_view {
    float *x;
    const float *cosine, *sine;
    int64_t x_row, cosine_row, sine_row, rows;
    int heads, half, width; /* P and E */
} rope_view;

static __global__ void rotate(rope_view r)
{
    int pairs = r.heads * r.half;
    for (int64_t t = blockIdx.y; t < r.rows; t += gridDim.y)
        for (int j = (int)(blockIdx.x * blockDim.x + threadIdx.x); j < pairs; j += (int)(gridDim.x * blockDim.x)) {
            int i = j % r.half;
            float *low = r.x + t * r.x_row + (int64_t)(j / r.half) * r.width + i;
            float a = low[0], b = low[r.half];
            float c = r.cosine[t * r.cosine_row + i], s = r.sine[t * r.sine_row + i];
            low[0] = a * c - b * s;
            low[r.half] = b * c + a * s;
        }
}

vl_status vl_cuda_rope(void *context, const vl_rope_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    rope_view r;
    r.x = (float *)a->x.data, r.cosine = (const float *)a->cos.data, r.sine = (const float *)a->sin.data;
    r.x_row = a->x.row_stride, r.cosine_row = a->cos.row_stride, r.sine_row = a->sin.row_stride;
    r.rows = a->x.shape[0], r.heads = a->n_heads, r.half = (int)a->cos.shape[1];
    r.width = (int)(a->x.shape[1] / a->n_heads);
    vl_cuda_grid g = vl_cuda_grid_of(r.rows, 4 * (int64_t)r.heads * r.half);
    VL_LAUNCH(rotate, g.grid, g.block, 0, cuda->stream, r);
    return vl_cuda_check(cudaGetLastError(), "rope", err);
}
