/* What a step of the fit needs beside its products. Nothing here makes the host wait: what decides about the step is
 * computed and used on the device, and looked at when the step is over. */
#include <math.h>
#include <string.h>

#include "kernels/cuda/context.h"

enum { THREADS = 256 };

/* ---- rows that lie ready ----------------------------------------------------------------------------------- */

enum { RUNS = 64 /* of a launch */ };

/* Travels as an argument of the kernel. */
typedef struct take_view {
    int64_t out_row, table_row, rows, columns;
    int64_t first[RUNS]; /* row of the table minus row of the result, of each run */
    int32_t end[RUNS];   /* row of the result behind it */
    bool vector;         /* eight at a time */
} take_view;

template <typename Out, typename In> static __global__ void take_rows(Out *out, const In *table, take_view v)
{
    int64_t start = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, step = (int64_t)gridDim.x * blockDim.x;
    int run = 0;
    for (int64_t i = blockIdx.y; i < v.rows; i += gridDim.y) {
        while (i >= v.end[run])
            run++;
        const In *from = table + (v.first[run] + i) * v.table_row;
        Out *to = out + i * v.out_row;
        if (v.vector)
            for (int64_t j = 8 * start; j < v.columns; j += 8 * step)
                vl_store8(to + j, vl_load8(from + j));
        else
            for (int64_t j = start; j < v.columns; j += step)
                vl_store(to + j, vl_load(from + j));
    }
}

/* As many runs as one launch takes; returns how many. */
static int64_t fill_view(take_view *v, const vl_row_run *runs, int64_t n)
{
    int64_t used = n < RUNS ? n : (int64_t)RUNS;
    v->rows = 0;
    for (int64_t r = 0; r < used; r++) {
        v->first[r] = runs[r].first - v->rows;
        v->rows += runs[r].n;
        v->end[r] = (int32_t)v->rows;
    }
    return used;
}

template <typename Out, typename In> static vl_status take(vl_cuda *cuda, const vl_take_rows_args *a, vl_error *err)
{
    take_view v;
    memset(&v, 0, sizeof v);
    v.out_row = a->out.row_stride, v.table_row = a->table.row_stride, v.columns = a->out.shape[1];
    v.vector = v.columns % 8 == 0 && vl_aligned16(a->out.data, v.out_row, (int)sizeof(Out)) &&
               vl_aligned16(a->table.data, v.table_row, (int)sizeof(In));
    Out *out = (Out *)a->out.data;
    for (int64_t done = 0; done < a->n_runs; out += v.rows * v.out_row) {
        done += fill_view(&v, a->runs + done, a->n_runs - done);
        if (v.rows == 0)
            continue;
        vl_cuda_grid g = vl_cuda_grid_of(v.rows, v.vector ? v.columns / 2 : 4 * v.columns);
        VL_LAUNCH((take_rows<Out, In>), g.grid, g.block, 0, cuda->stream, out, (const In *)a->table.data, v);
        VL_TRY(vl_cuda_check(cudaGetLastError(), "take_rows", err));
    }
    return VL_OK;
}

vl_status vl_cuda_take_rows(void *context, const vl_take_rows_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    bool wide = a->out.dtype == VL_F32;
    if (a->table.dtype == VL_BF16)
        return wide ? take<float, vl_bf16>(cuda, a, err) : take<vl_bf16, vl_bf16>(cuda, a, err);
    if (a->table.dtype == VL_F16)
        return wide ? take<float, vl_f16>(cuda, a, err) : take<vl_f16, vl_f16>(cuda, a, err);
    return take<float, float>(cuda, a, err); /* also i32: the bits are only moved */
}

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
