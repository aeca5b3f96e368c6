/* Sums over rows and over whole tensors, each in two stages: blocks leave partial sums, and a second kernel adds those
 * in order. What is added to what depends on the shape alone, so that the same input gives the same bits. */
#include "kernels/cuda/context.h"

/* ---- columns ----------------------------------------------------------------------------------------------- */

enum { WARPS = 8, COLUMNS = 4 * VL_WARP, SLICE_ROWS = 64, MAX_SLICES = 64 };

typedef struct column_view {
    const float *x;
    float *partial; /* [slices, columns] */
    int64_t row, rows, columns;
    bool vector;
} column_view;

/* Block (x, y): 128 columns and the y-th slice of the rows, whose rows go round its warps. */
static __global__ void __launch_bounds__(WARPS *VL_WARP) column_slices(column_view v)
{
    __shared__ float4 sums[WARPS][VL_WARP];
    int lane = (int)threadIdx.x, warp = (int)threadIdx.y;
    int64_t column = (int64_t)blockIdx.x * COLUMNS + 4 * lane, n = v.columns - column;
    int64_t first = v.rows * blockIdx.y / gridDim.y, last = v.rows * (blockIdx.y + 1) / gridDim.y;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int64_t i = first + warp; i < last && n > 0; i += WARPS) {
        float4 x = vl_load_some(v.x + i * v.row + column, n, v.vector);
        sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || n <= 0)
        return;
    for (int w = 1; w < WARPS; w++) {
        float4 x = sums[w][lane];
        sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
    }
    vl_store_some(v.partial + blockIdx.y * v.columns + column, sum, n, v.columns % 4 == 0);
}

static __global__ void column_totals(float *out, const float *partial, int64_t columns, int slices, float beta)
{
    int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= columns)
        return;
    float sum = beta == 0 ? 0.0f : beta * out[j]; /* beta == 0 does not read out */
    for (int s = 0; s < slices; s++)
        sum += partial[s * columns + j];
    out[j] = sum;
}

vl_status vl_cuda_column_sum(void *context, const vl_column_sum_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    int64_t slices = (a->x.shape[0] + SLICE_ROWS - 1) / SLICE_ROWS, most = MAX_SLICES;
    slices = slices < 1 ? 1 : slices < most ? slices : most;
    column_view v;
    void *partial;
    v.x = (const float *)a->x.data, v.row = a->x.row_stride, v.rows = a->x.shape[0], v.columns = a->x.shape[1];
    v.vector = vl_aligned16(v.x, v.row, 4);
    if (v.columns == 0)
        return VL_OK;
    VL_TRY(vl_cuda_scratch(cuda, (size_t)(slices * v.columns) * sizeof(float), &partial, err));
    v.partial = (float *)partial;
    VL_LAUNCH(column_slices, dim3((unsigned)((v.columns + COLUMNS - 1) / COLUMNS), (unsigned)slices, 1),
              dim3(VL_WARP, WARPS, 1), 0, cuda->stream, v);
    VL_TRY(vl_cuda_check(cudaGetLastError(), "column_sum", err));
    VL_LAUNCH(column_totals, (unsigned)((v.columns + 255) / 256), 256, 0, cuda->stream, (float *)a->out.data, v.partial,
              v.columns, (int)slices, a->beta);
    return vl_cuda_check(cudaGetLastError(), "column_sum", err);
}

/* ---- squares ----------------------------------------------------------------------------------------------- */

enum { THREADS = 256 };

typedef struct square_view {
    const float *x;
    int64_t row, rows, columns;
    bool vector;
} square_view;

static __global__ void __launch_bounds__(THREADS) square_blocks(double *partial, square_view v)
{
    __shared__ double shared[VL_MAX_WARPS];
    int64_t quads = (v.columns + 3) / 4; /* of a row */
    double sum = 0;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < v.rows * quads;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t column = i % quads * 4;
        float4 x = vl_load_some(v.x + i / quads * v.row + column, v.columns - column, v.vector);
        sum += (double)x.x * (double)x.x + (double)x.y * (double)x.y;
        sum += (double)x.z * (double)x.z + (double)x.w * (double)x.w;
    }
    sum = vl_block_sum(sum, shared);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

/* One block. The total goes behind the partial sums of the most blocks that there may be. */
static __global__ void __launch_bounds__(THREADS) square_total(double *partial, int blocks)
{
    __shared__ double shared[VL_MAX_WARPS];
    double sum = 0;
    for (int i = (int)threadIdx.x; i < blocks; i += THREADS)
        sum += partial[i];
    sum = vl_block_sum(sum, shared);
    if (threadIdx.x == 0)
        partial[VL_CUDA_SQUARE_BLOCKS] = sum;
}

vl_status vl_cuda_add_squares(vl_cuda *cuda, double *partial, vl_tensor x, vl_error *err)
{
    square_view v;
    v.x = (const float *)x.data, v.row = x.row_stride, v.rows = x.ndim == 2 ? x.shape[0] : 1;
    v.columns = x.shape[x.ndim - 1], v.vector = vl_aligned16(v.x, v.rows > 1 ? v.row : 0, 4);
    int64_t wanted = (v.rows * ((v.columns + 3) / 4) + THREADS - 1) / THREADS;
    int blocks = wanted < VL_CUDA_SQUARE_BLOCKS ? (int)wanted : VL_CUDA_SQUARE_BLOCKS;
    if (blocks > 0) {
        VL_LAUNCH(square_blocks, (unsigned)blocks, THREADS, 0, cuda->stream, partial, v);
        VL_TRY(vl_cuda_check(cudaGetLastError(), "sum_squares", err));
    }
    VL_LAUNCH(square_total, 1, THREADS, 0, cuda->stream, partial, blocks);
    return vl_cuda_check(cudaGetLastError(), "sum_squares", err);
}

vl_status vl_cuda_sum_squares(void *context, double *out, vl_tensor x, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    void *memory;
    VL_TRY(vl_cuda_scratch(cuda, VL_CUDA_SQUARES * sizeof(double), &memory, err));
    VL_TRY(vl_cuda_add_squares(cuda, (double *)memory, x, err));
    vl_tensor total = vl_tensor_1d((double *)memory + VL_CUDA_SQUARE_BLOCKS, VL_F64, 1);
    return vl_cuda_read(context, out, &total, err);
}
