/* The instructions: AVX-512 with BF16. Compiled with those flags; called only where the processor has them. */
#include <immintrin.h>
#include <math.h>

#include "kernels/cpu/panel.h"

#if defined(__AVX512F__) && defined(__AVX512BF16__)

static inline __m512 load16(const void *p)
{
    return _mm512_loadu_ps((const float *)p);
}

/* Asks for a cache line. */
static inline void fetch(const void *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T0);
}

void vl_panel_kernel(float *out, int64_t out_stride, const uint32_t *a, const uint32_t *b, int64_t pairs, int rows,
                     bool accumulate)
{
    enum { AHEAD = 256 }; /* words of the right panel to prefetch: 8 steps */
    __m512 left[PANEL_ROWS], right[PANEL_ROWS];
    _Pragma("GCC unroll 14") for (int i = 0; i < PANEL_ROWS; i++)
    {
        left[i] = _mm512_setzero_ps();
        right[i] = _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < pairs; k++) {
        __m512bh b0 = (__m512bh)load16(b), b1 = (__m512bh)load16(b + 16);
        fetch(b + AHEAD), fetch(b + AHEAD + 16);
        _Pragma("GCC unroll 14") for (int i = 0; i < PANEL_ROWS; i++)
        {
            __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[i]);
            left[i] = _mm512_dpbf16_ps(left[i], x, b0);
            right[i] = _mm512_dpbf16_ps(right[i], x, b1);
        }
        a += PANEL_ROWS;
        b += PANEL_COLUMNS;
    }
    _Pragma("GCC unroll 14") for (int i = 0; i < PANEL_ROWS; i++)
    {
        if (i < rows) {
            float *to = out + i * out_stride;
            if (accumulate) {
                left[i] = _mm512_add_ps(left[i], load16(to));
                right[i] = _mm512_add_ps(right[i], load16(to + 16));
            }
            _mm512_storeu_ps(to, left[i]);
            _mm512_storeu_ps(to + 16, right[i]);
        }
    }
}

static inline __mmask16 tail(int64_t n)
{
    return n >= 16 ? (__mmask16)0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

void vl_panel_round(uint32_t *words, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += 32) {
        __m512 low = _mm512_maskz_loadu_ps(tail(n - i), x + i);
        __m512 high = _mm512_maskz_loadu_ps(tail(n - i - 16), x + i + 16);
        _mm512_storeu_si512(words + i / 2, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

/* 16 x 16 words, in place: two rounds inside 128-bit lanes, two that exchange lanes. */
static inline void transpose16(__m512i r[16])
{
    __m512i t[16];
    _Pragma("GCC unroll 8") for (int i = 0; i < 16; i += 2)
    {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    _Pragma("GCC unroll 4") for (int i = 0; i < 16; i += 4)
    {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++)
    {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++)
    {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

void vl_panel_interleave(uint32_t *panel, const uint32_t *words, int64_t stride, int rows, int64_t pairs)
{
    for (int64_t k = 0; k < pairs; k += 16) {
        __m512i r[16];
        _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) r[i] =
            i < rows ? _mm512_loadu_si512(words + i * stride + k) : _mm512_setzero_si512();
        transpose16(r);
        int64_t n = pairs - k < 16 ? pairs - k : 16;
        _Pragma("GCC unroll 16") for (int z = 0; z < 16; z++) if (z < n)
            _mm512_mask_storeu_epi32(panel + (k + z) * PANEL_ROWS, (1 << PANEL_ROWS) - 1, r[z]);
    }
}

void vl_panel_columns(uint32_t *panel, const uint16_t *rows, int64_t stride, int n_rows, int64_t n)
{
    int64_t pairs = pairs_of(n);
    for (int64_t k = 0; k < pairs; k += 16) {
        int64_t left = n - 2 * k, count = pairs - k < 16 ? pairs - k : 16;
        __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;
        for (int half = 0; half < 2; half++) {
            const uint16_t *from = rows + 16 * half * stride + 2 * k;
            __m512i r[16];
            _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) r[i] =
                16 * half + i < n_rows ? _mm512_maskz_loadu_epi16(mask, from + i * stride) : _mm512_setzero_si512();
            transpose16(r);
            _Pragma("GCC unroll 16") for (int z = 0; z < 16; z++) if (z < count)
                _mm512_storeu_si512(panel + (k + z) * PANEL_COLUMNS + 16 * half, r[z]);
        }
    }
}

/* As vl_expf, with the hardware's scaling, which underflows by itself. NaN stays NaN. */
static inline __m512 exp16(__m512 x)
{
    x = _mm512_max_ps(_mm512_set1_ps(-200.0f), x); /* far below, the reduction would lose its meaning */
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), 8);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

void vl_panel_lse_add(vl_panel_lse *lse, float *z, const float *bias, int64_t n, int64_t ahead)
{
    __m512 high = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = tail(n - i);
        __m512 x = _mm512_maskz_loadu_ps(mask, z + i);
        fetch(z + i + ahead);
        if (bias) {
            x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, bias + i));
            _mm512_mask_storeu_ps(z + i, mask, x);
        }
        high = _mm512_mask_max_ps(high, mask, high, x);
    }
    float max = _mm512_reduce_max_ps(high);
    if (max == -INFINITY)
        return; /* nothing here is possible */
    if (max > lse->max) {
        lse->sum *= exp((double)lse->max - (double)max); /* 0 the first time, as the maximum was -infinity */
        lse->max = max;
    }
    __m512 shift = _mm512_set1_ps(lse->max);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = tail(n - i);
        sum = _mm512_mask_add_ps(sum, mask, sum, exp16(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, z + i), shift)));
    }
    lse->sum += (double)_mm512_reduce_add_ps(sum);
}

float vl_panel_kl(uint32_t *words, const vl_panel_span *span, const vl_loss_row *row)
{
    const float *z = span->z, *teacher = span->teacher;
    int64_t n = span->n;
    __m512 lse = _mm512_set1_ps(row->lse), teacher_lse = _mm512_set1_ps(row->teacher_lse);
    __m512 weight = _mm512_set1_ps(row->weight), sum = _mm512_setzero_ps(), gap[2];
    for (int64_t i = 0; i < n; i += 32) {
        fetch(span->next_z + i), fetch(span->next_z + i + 16);
        fetch(span->next_teacher + i), fetch(span->next_teacher + i + 16);
        _Pragma("GCC unroll 2") for (int h = 0; h < 2; h++)
        {
            __mmask16 mask = tail(n - i - 16 * h);
            __m512 log_q = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, z + i + 16 * h), lse);
            __m512 log_p = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, teacher + i + 16 * h), teacher_lse);
            __m512 p = exp16(log_p);
            gap[h] = _mm512_maskz_sub_ps(mask, exp16(log_q), p);
            sum = _mm512_mask_add_ps(sum, mask, sum, _mm512_fmadd_ps(p, _mm512_sub_ps(log_p, log_q), gap[h]));
        }
        if (words)
            _mm512_storeu_si512(words + i / 2, (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(weight, gap[1]),
                                                                            _mm512_mul_ps(weight, gap[0])));
    }
    return _mm512_reduce_add_ps(sum);
}

#else /* a compiler without the flags, or another processor: cpu_matrix_new never packs panels there */

void vl_panel_kernel(float *out, int64_t out_stride, const uint32_t *a, const uint32_t *b, int64_t pairs, int rows,
                     bool accumulate)
{
    (void)out, (void)out_stride, (void)a, (void)b, (void)pairs, (void)rows, (void)accumulate;
}

void vl_panel_round(uint32_t *words, const float *x, int64_t n)
{
    (void)words, (void)x, (void)n;
}

void vl_panel_interleave(uint32_t *panel, const uint32_t *words, int64_t stride, int rows, int64_t pairs)
{
    (void)panel, (void)words, (void)stride, (void)rows, (void)pairs;
}

void vl_panel_columns(uint32_t *panel, const uint16_t *rows, int64_t stride, int n_rows, int64_t n)
{
    (void)panel, (void)rows, (void)stride, (void)n_rows, (void)n;
}

void vl_panel_lse_add(vl_panel_lse *lse, float *z, const float *bias, int64_t n, int64_t ahead)
{
    (void)lse, (void)z, (void)bias, (void)n, (void)ahead;
}

float vl_panel_kl(uint32_t *words, const vl_panel_span *span, const vl_loss_row *row)
{
    (void)words, (void)span, (void)row;
    return NAN;
}

#endif
