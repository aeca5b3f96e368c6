/* Conversions between fp32, fp16 and bf16. */
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/panel.h"

VL_SIMD static void round_row_bf16(uint16_t *restrict out, const float *restrict in, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, in + i, 4);
        uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
        uint32_t quiet = (bits >> 16) | 0x40; /* a NaN must not round to infinity */
        out[i] = (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
    }
}

VL_SIMD static void widen_row_bf16(float *restrict out, const uint16_t *restrict in, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = vl_bf16_to_f32(in[i]);
}

VL_SIMD static void widen_row_f16(float *restrict out, const uint16_t *restrict in, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t magnitude = (uint32_t)(in[i] & 0x7fffu) << 13, special = magnitude | 0x7f800000u, wide;
        float value;
        memcpy(&value, &magnitude, 4);
        value *= 0x1p112f;
        memcpy(&wide, &value, 4);
        wide = magnitude >= (0x7c00u << 13) ? special : wide;
        wide |= (uint32_t)(in[i] & 0x8000u) << 16;
        memcpy(out + i, &wide, 4);
    }
}

/* As vl_f32_to_f16, without branches. */
VL_SIMD static void round_row_f16(uint16_t *restrict out, const float *restrict in, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits, tiny, half;
        memcpy(&bits, in + i, 4);
        uint32_t magnitude = bits & 0x7fffffffu;
        float shifted, absolute;
        memcpy(&absolute, &magnitude, 4);
        shifted = absolute + 0.5f; /* a subnormal half: the sum is rounded as it must be */
        memcpy(&tiny, &shifted, 4);
        half = (magnitude + 0xfffu + ((magnitude >> 13) & 1) - 0x38000000u) >> 13;
        half = magnitude < 0x38800000u ? tiny - 0x3f000000u : half;
        half = magnitude >= 0x477ff000u ? 0x7c00u : half; /* rounds to 65536 or more */
        half = magnitude > 0x7f800000u ? 0x7e00u : half;
        out[i] = (uint16_t)(half | (bits >> 16 & 0x8000u));
    }
}

void vl_cpu_widen_row(float *out, const void *in, vl_dtype dtype, int64_t n)
{
    if (dtype == VL_BF16)
        widen_row_bf16(out, in, n);
    else if (dtype == VL_F16)
        widen_row_f16(out, in, n);
    else
        memcpy(out, in, (size_t)n * 4);
}

void vl_cpu_to_bf16(uint16_t *out, vl_tensor x, int threads)
{
    (void)threads;
    int64_t n = x.shape[1];
#pragma omp parallel for schedule(static) if (x.shape[0] * n > 65536)
    for (int64_t i = 0; i < x.shape[0]; i++)
        round_row_bf16(out + i * n, row_of(x, i), n);
}

/* Through a small fp32 buffer per piece where the weights are fp16 or fp32. */
void vl_cpu_round_row(uint16_t *out, const vl_cpu_matrix *w, int64_t first, int64_t n)
{
    enum { PIECE = 4096 };
    float wide[PIECE];
    size_t element = vl_dtype_size(w->dtype);
    const char *in = (const char *)w->host + (size_t)first * element;
    if (w->dtype == VL_BF16) {
        memcpy(out, in, (size_t)n * element);
        return;
    }
    for (int64_t j = 0; j < n; j += PIECE) {
        int64_t width = n - j < PIECE ? n - j : PIECE;
        vl_cpu_widen_row(wide, in + (size_t)j * element, w->dtype, width);
        round_row_bf16(out + j, wide, width);
    }
}

void vl_cpu_round_rows(uint16_t *out, const vl_cpu_matrix *w, int64_t first, int64_t rows)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++)
        vl_cpu_round_row(out + i * w->n_in, w, (first + i) * w->n_in, w->n_in);
}

/* To a 16-bit type, through fp32 (which holds every value of the other) where both are 16 bits wide. */
static void round_row(uint16_t *out, vl_dtype to, const void *in, vl_dtype from, int64_t n)
{
    enum { PIECE = 1024 };
    float wide[PIECE];
    for (int64_t i = 0; i < n; i += PIECE) {
        int64_t width = n - i < PIECE ? n - i : PIECE;
        const float *values = from == VL_F32 ? (const float *)in + i : wide;
        if (from != VL_F32)
            vl_cpu_widen_row(wide, (const uint16_t *)in + i, from, width);
        if (to == VL_BF16)
            round_row_bf16(out + i, values, width);
        else
            round_row_f16(out + i, values, width);
    }
}

vl_status cpu_cast(void *context, const vl_cast_args *a, vl_error *err)
{
    (void)context, (void)err;
    int64_t n = a->x.shape[1];
    size_t in_size = vl_dtype_size(a->x.dtype), out_size = vl_dtype_size(a->out.dtype);
#pragma omp parallel for schedule(static) if (a->x.shape[0] * n > 65536)
    for (int64_t i = 0; i < a->x.shape[0]; i++) {
        const void *in = (const char *)a->x.data + (size_t)(i * a->x.row_stride) * in_size;
        void *out = (char *)a->out.data + (size_t)(i * a->out.row_stride) * out_size;
        if (a->x.dtype == a->out.dtype)
            memcpy(out, in, (size_t)n * in_size);
        else if (a->out.dtype == VL_F32)
            vl_cpu_widen_row(out, in, a->x.dtype, n);
        else
            round_row(out, a->out.dtype, in, a->x.dtype, n);
    }
    return VL_OK;
}
