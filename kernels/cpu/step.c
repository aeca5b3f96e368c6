/* What a step of the fit needs beside its products: sums of losses, clipping, and rows that lie ready. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

vl_status cpu_take_rows(void *context, const vl_take_rows_args *a, vl_error *err)
{
    (void)context, (void)err;
    size_t element = vl_dtype_size(a->table.dtype), width = (size_t)a->table.shape[1];
    bool widen = a->out.dtype != a->table.dtype;
    for (int64_t r = 0, to = 0; r < a->n_runs; r++)
        for (int64_t i = 0; i < a->runs[r].n; i++, to++) {
            const char *from =
                (const char *)a->table.data + (size_t)((a->runs[r].first + i) * a->table.row_stride) * element;
            if (widen)
                vl_cpu_widen_row(row_of(a->out, to), from, a->table.dtype, (int64_t)width);
            else
                memcpy((char *)a->out.data + (size_t)(to * a->out.row_stride) * element, from, width * element);
        }
    return VL_OK;
}

/* One row; adds to counts [2]. */
VL_SIMD static void pack_row(void *out, vl_dtype dtype, const float *x, int64_t n, int32_t *counts)
{
    uint16_t *half = out, infinity = dtype == VL_BF16 ? 0x7f80 : 0x7c00;
    int32_t bad = 0, infinite = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad += (bits & 0x7f800000u) == 0x7f800000u;
        infinite += (bits & 0x7fffffffu) == 0x7f800000u;
    }
    counts[0] += bad;
    if (dtype == VL_F32) {
        memcpy(out, x, (size_t)n * sizeof *x);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        half[i] = dtype == VL_BF16 ? vl_f32_to_bf16(x[i]) : vl_f32_to_f16(x[i]);
    for (int64_t i = 0; i < n; i++)
        counts[1] += (half[i] & 0x7fff) == infinity;
    counts[1] -= infinite; /* those that were before */
}

vl_status cpu_pack_rows(void *context, const vl_pack_rows_args *a, vl_error *err)
{
    (void)context, (void)err;
    size_t element = vl_dtype_size(a->out.dtype);
    int32_t *counts = a->counts.data, bad = 0, overflows = 0;
    for (int64_t r = 0, to = 0; r < a->n_runs; to += a->runs[r++].n) {
#pragma omp parallel for schedule(static) reduction(+ : bad, overflows) if (a->runs[r].n > 16)
        for (int64_t i = 0; i < a->runs[r].n; i++) {
            int32_t found[2] = {0, 0};
            pack_row((char *)a->out.data + (size_t)((to + i) * a->out.row_stride) * element, a->out.dtype,
                     row_of(a->x, a->runs[r].first + i), a->x.shape[1], found);
            bad += found[0];
            overflows += found[1];
        }
    }
    counts[0] += bad;
    counts[1] += overflows;
    return VL_OK;
}

vl_status cpu_normalise(void *context, const vl_normalise_args *a, vl_error *err)
{
    double squares;
    VL_TRY(cpu_sum_squares(context, &squares, a->x, err));
    float factor = squares > 0 ? (float)(1.0 / sqrt(squares)) : 0.0f;
#pragma omp parallel for schedule(static) if (a->x.shape[0] > 64)
    for (int64_t i = 0; i < a->x.shape[0]; i++)
        for (int64_t j = 0; j < a->x.shape[1]; j++)
            row_of(a->out, i)[j] = factor * row_of(a->x, i)[j];
    return VL_OK;
}

vl_status cpu_loss_total(void *context, const vl_loss_total_args *a, vl_error *err)
{
    (void)context, (void)err;
    const float *loss = a->loss.data, *weight = a->weight.data;
    double *total = a->total.data, sum = a->fresh ? 0 : total[0], bad = a->fresh ? -1 : total[1];
    for (int64_t i = 0; i < a->loss.shape[a->loss.ndim - 1]; i++) {
        sum += (weight ? (double)weight[i] : 1) * (double)loss[i];
        if (bad < 0 && !isfinite(loss[i]))
            bad = (double)(a->first_row + i);
    }
    total[0] = sum;
    total[1] = bad;
    return VL_OK;
}

vl_status cpu_step_scale(void *context, const vl_step_scale_args *a, vl_error *err)
{
    double squares, more = 0, loss = *(const double *)a->loss.data;
    VL_TRY(cpu_sum_squares(context, &squares, a->gradient, err));
    if (a->another.data)
        VL_TRY(cpu_sum_squares(context, &more, a->another, err));
    double norm = sqrt(squares + more);
    float scale = a->clip > 0 && norm > a->clip ? (float)(a->clip / norm) : 1.0f;
    *(double *)a->norm.data = norm;
    bool sound = isfinite(norm) && isfinite(loss);
    ((float *)a->scale.data)[0] = sound ? scale : NAN;
    ((float *)a->scale.data)[1] = sound ? 1.0f : NAN;
    return VL_OK;
}
