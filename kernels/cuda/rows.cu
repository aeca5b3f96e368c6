/* Rows that are picked: of states that lie on the device, and of those that leave it. Which rows they are travels with
 * the launch. */
#include "kernels/cuda/context.h"

/* As many runs as one launch takes; returns how many. */
static int64_t fill_runs(vl_cuda_runs *out, const vl_row_run *runs, int64_t n)
{
    int64_t used = n < VL_CUDA_RUNS ? n : (int64_t)VL_CUDA_RUNS;
    out->rows = 0;
    for (int64_t r = 0; r < VL_CUDA_RUNS; r++) {
        out->first[r] = r < used ? runs[r].first - out->rows : 0;
        out->rows += r < used ? runs[r].n : 0;
        out->end[r] = (int32_t)out->rows;
    }
    return used;
}

typedef struct row_view {
    int64_t out_row, in_row, columns;
    bool vector; /* eight at a time */
} row_view;

template <typename Out, typename In> static row_view view_of(vl_tensor out, vl_tensor in)
{
    row_view v = {out.row_stride, in.row_stride, out.shape[1], false};
    v.vector = v.columns % 8 == 0 && vl_aligned16(out.data, v.out_row, (int)sizeof(Out)) &&
               vl_aligned16(in.data, v.in_row, (int)sizeof(In));
    return v;
}

/* ---- into place -------------------------------------------------------------------------------------------- */

template <typename Out, typename In>
static __global__ void take_rows(Out *out, const In *table, row_view v, vl_cuda_runs runs)
{
    int64_t start = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, step = (int64_t)gridDim.x * blockDim.x;
    int run = 0;
    for (int64_t i = blockIdx.y; i < runs.rows; i += gridDim.y) {
        while (i >= runs.end[run])
            run++;
        const In *from = table + (runs.first[run] + i) * v.in_row;
        Out *to = out + i * v.out_row;
        if (v.vector)
            for (int64_t j = 8 * start; j < v.columns; j += 8 * step)
                vl_store8(to + j, vl_load8(from + j));
        else
            for (int64_t j = start; j < v.columns; j += step)
                vl_store(to + j, vl_load(from + j));
    }
}

template <typename Out, typename In> static vl_status take(vl_cuda *cuda, const vl_take_rows_args *a, vl_error *err)
{
    row_view v = view_of<Out, In>(a->out, a->table);
    vl_cuda_runs runs;
    Out *out = (Out *)a->out.data;
    for (int64_t done = 0; done < a->n_runs; out += runs.rows * v.out_row) {
        done += fill_runs(&runs, a->runs + done, a->n_runs - done);
        if (runs.rows == 0)
            continue;
        vl_cuda_grid g = vl_cuda_grid_of(runs.rows, v.vector ? v.columns / 2 : 4 * v.columns);
        VL_LAUNCH((take_rows<Out, In>), g.grid, g.block, 0, cuda->stream, out, (const In *)a->table.data, v, runs);
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

/* ---- on their way out -------------------------------------------------------------------------------------- */

__device__ inline bool is_infinite(float x)
{
    return (__float_as_int(x) & 0x7fffffff) == 0x7f800000;
}
__device__ inline bool is_infinite(vl_bf16 x)
{
    return (__bfloat16_as_ushort(x) & 0x7fff) == 0x7f80;
}
__device__ inline bool is_infinite(vl_f16 x)
{
    return (__half_as_ushort(x) & 0x7fff) == 0x7c00;
}

/* counts: no finite number; infinite now, and not before */
template <typename Out>
static __global__ void pack_rows(Out *out, const float *x, row_view v, vl_cuda_runs runs, int32_t *counts)
{
    int64_t start = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, step = (int64_t)gridDim.x * blockDim.x;
    int run = 0, bad = 0, overflows = 0;
    for (int64_t i = blockIdx.y; i < runs.rows; i += gridDim.y) {
        while (i >= runs.end[run])
            run++;
        const float *from = x + (runs.first[run] + i) * v.in_row;
        Out *to = out + i * v.out_row;
        for (int64_t j = start; j < v.columns; j += step) {
            float value = from[j];
            Out rounded;
            vl_store(&rounded, value);
            to[j] = rounded;
            bad += (__float_as_int(value) & 0x7f800000) == 0x7f800000;
            overflows += is_infinite(rounded) && !is_infinite(value);
        }
    }
    bad = vl_warp_sum(bad);
    overflows = vl_warp_sum(overflows);
    if (threadIdx.x % VL_WARP == 0 && bad > 0)
        atomicAdd(counts, bad);
    if (threadIdx.x % VL_WARP == 0 && overflows > 0)
        atomicAdd(counts + 1, overflows);
}

template <typename Out> static vl_status pack(vl_cuda *cuda, const vl_pack_rows_args *a, vl_error *err)
{
    row_view v = view_of<Out, float>(a->out, a->x);
    vl_cuda_runs runs;
    Out *out = (Out *)a->out.data;
    for (int64_t done = 0; done < a->n_runs; out += runs.rows * v.out_row) {
        done += fill_runs(&runs, a->runs + done, a->n_runs - done);
        if (runs.rows == 0)
            continue;
        vl_cuda_grid g = vl_cuda_grid_of(runs.rows, v.columns);
        VL_LAUNCH((pack_rows<Out>), g.grid, g.block, 0, cuda->stream, out, (const float *)a->x.data, v, runs,
                  (int32_t *)a->counts.data);
        VL_TRY(vl_cuda_check(cudaGetLastError(), "pack_rows", err));
    }
    return VL_OK;
}

vl_status vl_cuda_pack_rows(void *context, const vl_pack_rows_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    if (a->out.dtype == VL_BF16)
        return pack<vl_bf16>(cuda, a, err);
    return a->out.dtype == VL_F16 ? pack<vl_f16>(cuda, a, err) : pack<float>(cuda, a, err);
}
