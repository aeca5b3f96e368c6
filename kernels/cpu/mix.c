/* Weighted sums of picked rows. */
#include "kernels/cpu/cpu.h"

VL_SIMD static void start_row(float *out, const float *x, float weight, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = weight * x[i];
}

VL_SIMD static void add_row(float *out, const float *x, float weight, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] += weight * x[i];
}

vl_status cpu_mix_rows(void *context, const vl_mix_rows_args *a, vl_error *err)
{
    (void)context, (void)err;
    const int64_t rows = a->out.shape[0], n = a->out.shape[1], taps = a->rows.shape[1];
#pragma omp parallel for schedule(static) if (rows * n > 16384)
    for (int64_t i = 0; i < rows; i++) {
        const int32_t *from = (const int32_t *)a->rows.data + i * a->rows.row_stride;
        const float *weights = a->weights.data ? row_of(a->weights, i) : NULL;
        start_row(row_of(a->out, i), row_of(a->x, from[0]), weights ? weights[0] : 1, n);
        for (int64_t k = 1; k < taps; k++)
            add_row(row_of(a->out, i), row_of(a->x, from[k]), weights ? weights[k] : 1, n);
    }
    return VL_OK;
}
