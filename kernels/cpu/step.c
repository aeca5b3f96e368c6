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
