/* Sums of tensors, cutting pictures into patches, and sums over rows. */
#include <string.h>

#include "kernels/cpu/cpu.h"

VL_SIMD static void add_row(float *out, const float *x, const float *y, float scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i] + scale * y[i];
}

VL_SIMD static void add_scaled_row(float *out, const float *x, const float *y, const float *scales, float scale,
                                   int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i] + scale * (scales[i] * y[i]);
}

vl_status cpu_add(void *context, const vl_add_args *a, vl_error *err)
{
    (void)context, (void)err;
    bool broadcast = a->y.shape[0] == 1 && a->x.shape[0] != 1;
    const float *row_scale = a->row_scale.data, *column_scale = a->column_scale.data;
    const int64_t n = a->x.shape[1];
#pragma omp parallel for schedule(static) if (a->x.shape[0] * n > 16384)
    for (int64_t i = 0; i < a->x.shape[0]; i++) {
        const float *x = row_of(a->x, i), *y = row_of(a->y, broadcast ? 0 : i);
        const float scale = row_scale ? a->scale * row_scale[i] : a->scale;
        if (column_scale)
            add_scaled_row(row_of(a->out, i), x, y, column_scale, scale, n);
        else
            add_row(row_of(a->out, i), x, y, scale, n);
    }
    return VL_OK;
}

vl_status cpu_patchify(void *context, const vl_patchify_args *a, vl_error *err)
{
    (void)context, (void)err;
    int columns = a->width / a->patch, p = a->patch;
    for (int64_t i = 0; i < a->out.shape[0]; i++) {
        float *out = row_of(a->out, i);
        int top = (int)(i / columns) * p, left = (int)(i % columns) * p;
        for (int c = 0; c < a->channels; c++)
            for (int y = 0; y < p; y++, out += p)
                memcpy(out, row_of(a->pixels, (int64_t)c * a->height + top + y) + left, (size_t)p * 4);
    }
    return VL_OK;
}

VL_SIMD static void accumulate_columns(float *out, vl_tensor x, int64_t first, int64_t n)
{
    for (int64_t i = 0; i < x.shape[0]; i++) {
        const float *row = (const float *)x.data + i * x.row_stride + first;
        for (int64_t j = 0; j < n; j++)
            out[first + j] += row[j];
    }
}

/* Threads own columns, so that the order of additions never depends on their number. */
vl_status cpu_column_sum(void *context, const vl_column_sum_args *a, vl_error *err)
{
    enum { COLUMNS = 256 };
    (void)context, (void)err;
    float *out = a->out.data;
    int64_t n = a->x.shape[1];
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < n; first += COLUMNS) {
        int64_t width = n - first < COLUMNS ? n - first : COLUMNS;
        for (int64_t j = first; j < first + width; j++)
            out[j] = a->beta == 0 ? 0 : a->beta * out[j];
        accumulate_columns(out, a->x, first, width);
    }
    return VL_OK;
}

VL_SIMD static double row_sum_squares(const float *x, int64_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

vl_status cpu_sum_squares(void *context, double *out, vl_tensor x, vl_error *err)
{
    (void)context, (void)err;
    double sum = 0;
    int64_t rows = x.ndim == 2 ? x.shape[0] : 1;
    for (int64_t i = 0; i < rows; i++)
        sum += row_sum_squares(row_of(x, i), x.shape[x.ndim - 1]);
    *out = sum;
    return VL_OK;
}
