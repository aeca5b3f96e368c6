/* The instructions: AVX-512 with BF16. Compiled with those flags; called only where the processor has them. */
#include <immintrin.h>
#include <math.h>

#include "kernels/cpu/panel.h"

#if defined(__AVX512F__) && defined(__AVX512BF16__)

static inline __m512 load16(const void *p)
{
    return _mm512_loadu_ps((const float *)p);
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
        _mm_prefetch((const char *)(b + AHEAD), _MM_HINT_T0);
        _mm_prefetch((const char *)(b + AHEAD + 16), _MM_HINT_T0);
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

/* 32 floats of a row as 16 pairs, by conversion to bf16 (round to nearest even). */
static inline __m512i pair_up(const float *x, int64_t n)
{
    if (n >= 32)
        return (__m512i)_mm512_cvtne2ps_pbh(load16(x + 16), load16(x));
    __mmask32 mask = (__mmask32)((1ull << n) - 1);
    __m512 low = _mm512_maskz_loadu_ps((__mmask16)mask, x), high = _mm512_setzero_ps();
    if (n > 16)
        high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + 16);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

void vl_panel_pack(uint32_t *panel, const float *x, int64_t stride, int rows, int64_t columns)
{
    uint32_t words[PANEL_ROWS][16] __attribute__((aligned(64))) = {{0}};
    int64_t pairs = (columns + 1) / 2;
    for (int64_t k = 0; k < pairs; k += 16) {
        for (int i = 0; i < rows; i++)
            _mm512_store_si512(words[i], pair_up(x + i * stride + 2 * k, columns - 2 * k));
        int64_t n = pairs - k < 16 ? pairs - k : 16;
        for (int64_t z = 0; z < n; z++)
            for (int i = 0; i < PANEL_ROWS; i++)
                panel[(k + z) * PANEL_ROWS + i] = words[i][z];
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

static inline __mmask16 tail(int64_t n)
{
    return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1);
}

float vl_panel_kl(float *z, const float *teacher, const vl_loss_row *row, int64_t n)
{
    __m512 lse = _mm512_set1_ps(row->lse), teacher_lse = _mm512_set1_ps(row->teacher_lse);
    __m512 weight = _mm512_set1_ps(row->weight), sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = tail(n - i);
        __m512 log_q = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, z + i), lse);
        __m512 log_p = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, teacher + i), teacher_lse);
        __m512 p = exp16(log_p), q = exp16(log_q);
        __m512 gap = _mm512_sub_ps(q, p);
        sum = _mm512_mask_add_ps(sum, mask, sum, _mm512_fmadd_ps(p, _mm512_sub_ps(log_p, log_q), gap));
        _mm512_mask_storeu_ps(z + i, mask, _mm512_mul_ps(weight, gap));
    }
    return _mm512_reduce_add_ps(sum);
}

float vl_panel_logsumexp(const float *z, int64_t n)
{
    enum { PIECE = 4096 };
    __m512 high = _mm512_set1_ps(-INFINITY);
    for (int64_t i = 0; i < n; i += 16)
        high = _mm512_mask_max_ps(high, tail(n - i), high, _mm512_maskz_loadu_ps(tail(n - i), z + i));
    float max = _mm512_reduce_max_ps(high);
    double total = 0;
    for (int64_t first = 0; first < n; first += PIECE) {
        int64_t end = n - first < PIECE ? n : first + PIECE;
        __m512 sum = _mm512_setzero_ps();
        for (int64_t i = first; i < end; i += 16) {
            __mmask16 mask = tail(end - i);
            __m512 e = exp16(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, z + i), _mm512_set1_ps(max)));
            sum = _mm512_mask_add_ps(sum, mask, sum, e);
        }
        total += (double)_mm512_reduce_add_ps(sum);
    }
    return max + (float)log(total);
}

#else /* a compiler without the flags, or another processor: cpu_matrix_new never packs panels there */

#include <stdlib.h>

void vl_panel_kernel(float *out, int64_t out_stride, const uint32_t *a, const uint32_t *b, int64_t pairs, int rows,
                     bool accumulate)
{
    (void)out, (void)out_stride, (void)a, (void)b, (void)pairs, (void)rows, (void)accumulate;
}

void vl_panel_pack(uint32_t *panel, const float *x, int64_t stride, int rows, int64_t columns)
{
    (void)panel, (void)x, (void)stride, (void)rows, (void)columns;
}

float vl_panel_kl(float *z, const float *teacher, const vl_loss_row *row, int64_t n)
{
    (void)z, (void)teacher, (void)row, (void)n;
    return NAN;
}

float vl_panel_logsumexp(const float *z, int64_t n)
{
    (void)z, (void)n;
    return NAN;
}

#endif
