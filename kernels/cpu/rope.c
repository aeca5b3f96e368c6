/* Rotary position embedding, Hugging Face layout: element i of a head turns with element i + P. */
#include "kernels/cpu/cpu.h"

VL_SIMD static void rotate_head(float *x, const float *cosine, const float *sine, int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + half] = b * cosine[i] + a * sine[i];
    }
}

vl_status cpu_rope(void *context, const vl_rope_args *a, vl_error *err)
{
    (void)context, (void)err;
    int64_t width = a->x.shape[1] / a->n_heads;
#pragma omp parallel for schedule(static) if (a->x.shape[0] * a->x.shape[1] > 16384)
    for (int64_t t = 0; t < a->x.shape[0]; t++)
        for (int h = 0; h < a->n_heads; h++)
            rotate_head(row_of(a->x, t) + h * width, row_of(a->cos, t), row_of(a->sin, t), a->cos.shape[1]);
    return VL_OK;
}
