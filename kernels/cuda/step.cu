/* What a step of the fit needs beside its products. Nothing here makes the host wait: what decides about the step is
 * computed and used on the device, and looked at when the step is over. */
#include <math.h>

#include "kernels/cuda/context.h"

enum { THREADS = 256 };

/* ---- losses ------------------------------------------------------------------------------------------------ */

typedef struct total_view {
    double *total;
    const float *loss, *weight; /* weight may be NULL */
    int64_t rows, first_row;
    bool fresh;
} total_view;

/* One block. Each thread has every THREADS-th row, so that the order of the sum depends on the number of rows alone. */
static __global__ void __launch_bounds__(THREADS) add_losses(total_view v)
{
    __shared__ double shared[VL_MAX_WARPS];
    double sum = 0, bad = -(double)INFINITY; /* minus the first row: the largest is looked for */
    for (int64_t i = (int)threadIdx.x; i < v.rows; i += THREADS) {
        float loss = v.loss[i];
        sum += (v.weight ? (double)v.weight[i] : 1.0) * (double)loss;
        if (!isfinite(loss) && bad == -(double)INFINITY)
            bad = -(double)(v.first_row + i);
    }
    sum = vl_block_sum(sum, shared);
    bad = vl_block_max(bad, shared);
    if (threadIdx.x > 0)
        return;
    double before = v.fresh ? -1.0 : v.total[1];
    v.total[0] = v.fresh ? sum : v.total[0] + sum;
    v.total[1] = before >= 0.0 ? before : bad == -(double)INFINITY ? -1.0 : -bad;
}

vl_status vl_cuda_loss_total(void *context, const vl_loss_total_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    total_view v = {(double *)a->total.data,
                    (const float *)a->loss.data,
                    (const float *)a->weight.data,
                    a->loss.shape[a->loss.ndim - 1],
                    a->first_row,
                    a->fresh};
    VL_LAUNCH(add_losses, 1, THREADS, 0, cuda->stream, v);
    return vl_cuda_check(cudaGetLastError(), "loss_total", err);
}

/* ---- norms ------------------------------------------------------------------------------------------------- */

typedef struct norm_view {
    const float *x;
    const double *squares;
    int64_t out_row, x_row, rows, columns;
    bool vector;
} norm_view;

template <typename Out> static __global__ void divide_by_norm(Out *out, norm_view v)
{
    double squares = *v.squares;
    float factor = squares > 0.0 ? (float)(1.0 / sqrt(squares)) : 0.0f;
    for (int64_t i = blockIdx.y; i < v.rows; i += gridDim.y)
        for (int64_t j = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x); j < v.columns;
             j += 4 * (int64_t)gridDim.x * blockDim.x) {
            int64_t n = v.columns - j;
            float4 x = vl_load_some(v.x + i * v.x_row + j, n, v.vector);
            x.x *= factor, x.y *= factor, x.z *= factor, x.w *= factor;
            vl_store_some(out + i * v.out_row + j, x, n, v.vector);
        }
}

vl_status vl_cuda_normalise(void *context, const vl_normalise_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    void *memory;
    VL_TRY(vl_cuda_scratch(cuda, VL_CUDA_SQUARES * sizeof(double), &memory, err));
    VL_TRY(vl_cuda_add_squares(cuda, (double *)memory, a->x, err));
    norm_view v = {(const float *)a->x.data,
                   (const double *)memory + VL_CUDA_SQUARE_BLOCKS,
                   a->out.row_stride,
                   a->x.row_stride,
                   a->x.shape[0],
                   a->x.shape[1],
                   false};
    v.vector = vl_aligned16(v.x, v.x_row, 4) && vl_aligned16(a->out.data, v.out_row, (int)vl_dtype_size(a->out.dtype));
    vl_cuda_grid g = vl_cuda_grid_of(v.rows, v.columns);
    if (a->out.dtype == VL_BF16)
        VL_LAUNCH((divide_by_norm<vl_bf16>), g.grid, g.block, 0, cuda->stream, (vl_bf16 *)a->out.data, v);
    else
        VL_LAUNCH((divide_by_norm<float>), g.grid, g.block, 0, cuda->stream, (float *)a->out.data, v);
    return vl_cuda_check(cudaGetLastError(), "normalise", err);
}

static __global__ void choose_scale(float *scale, double *norm, const double *squares, const double *loss, double clip)
{
    double sum = squares[VL_CUDA_SQUARE_BLOCKS] + squares[VL_CUDA_SQUARES + VL_CUDA_SQUARE_BLOCKS], root = sqrt(sum);
    bool sound = isfinite(root) && isfinite(*loss);
    *norm = root;
    scale[0] = !sound ? nanf("") : clip > 0.0 && root > clip ? (float)(clip / root) : 1.0f;
    scale[1] = sound ? 1.0f : nanf("");
}

vl_status vl_cuda_step_scale(void *context, const vl_step_scale_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    const vl_tensor nothing = vl_tensor_1d(NULL, VL_F32, 0);
    void *memory;
    VL_TRY(vl_cuda_scratch(cuda, 2 * VL_CUDA_SQUARES * sizeof(double), &memory, err));
    double *squares = (double *)memory;
    VL_TRY(vl_cuda_add_squares(cuda, squares, a->gradient, err));
    VL_TRY(vl_cuda_add_squares(cuda, squares + VL_CUDA_SQUARES, a->another.data ? a->another : nothing, err));
    VL_LAUNCH(choose_scale, 1, 1, 0, cuda->stream, (float *)a->scale.data, (double *)a->norm.data, squares,
              (const double *)a->loss.data, a->clip);
    return vl_cuda_check(cudaGetLastError(), "step_scale", err);
}
