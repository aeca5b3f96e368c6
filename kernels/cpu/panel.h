/* kernels/cpu/panel.h - our own bf16 GEMM for the unembedding, on AVX512-BF16.
 *
 * The head is packed once for each direction, in panels of 32 columns of pairs along the inner dimension, which is
 * what the dot-product instruction eats:
 *   forward  [ceil(V/32)][ceil(D/2)][32] pairs (w[v][2k], w[v][2k+1])
 *   backward [ceil(D/32)][ceil(V/2)][32] pairs (w[2k][d], w[2k+1][d])
 * The left operand is packed in panels of 14 rows, the same way. 14 x 32 accumulators fill 28 of the 32 registers. */
#ifndef VL_KERNELS_PANEL_H
#define VL_KERNELS_PANEL_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loss.h"

enum {
    PANEL_ROWS = 14,
    PANEL_COLUMNS = 32,
    PANEL_CHUNK = 18 * PANEL_ROWS, /* rows that one thread holds the logits of: 50 MB of them at V = 49152 */
    PANEL_BLOCK = 1024             /* columns of logits that are worked on while they are in the caches */
};

static inline int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

static inline int64_t pairs_of(int64_t n)
{
    return (n + 1) / 2;
}

/* Rows of the panel that begins at row `at` of `rows`. */
static inline int panel_height(int64_t rows, int64_t at)
{
    return (int)(rows - at < PANEL_ROWS ? rows - at : PANEL_ROWS);
}

/* Packs a bf16-mode matrix for both directions; freed with vl_free. */
vl_status vl_panels_new(uint32_t **forward, uint32_t **backward, const vl_cpu_matrix *matrix, vl_error *err);
/* n elements of a matrix, or rows [first, first + rows), rounded to bf16 (a copy where they are bf16). */
void vl_cpu_round_row(uint16_t *out, const vl_cpu_matrix *matrix, int64_t first_element, int64_t n);
void vl_cpu_round_rows(uint16_t *out, const vl_cpu_matrix *matrix, int64_t first, int64_t rows);

/* Rows per chunk: at most PANEL_CHUNK, and as many chunks for every thread. */
int64_t vl_panel_chunk_rows(int64_t m, int threads);
/* Rows [first, first + rows) of x as left panels. */
void vl_panel_pack_rows(uint32_t *left, vl_tensor x, int64_t first, int64_t rows);
/* Columns [first, last) of the logits of packed rows: out[rows, n] = left x head^T, out being column `first`. */
typedef struct vl_panel_product {
    float *out;
    int64_t out_stride;
    const uint32_t *left;
    const vl_cpu_matrix *head;
    int64_t rows;
} vl_panel_product;
void vl_panel_multiply(const vl_panel_product *product, int64_t first, int64_t last);

/* A product with a matrix that is not packed (panel_stream.c), and whether it is worth its packing. */
bool vl_panel_streams(const vl_cpu *cpu, const vl_linear_args *args);
vl_status vl_panel_stream(vl_cpu *cpu, const vl_linear_args *args, vl_error *err);
vl_status vl_panel_linear(vl_cpu *cpu, const vl_linear_args *args, vl_error *err);
vl_status vl_panel_unembed_loss(vl_cpu *cpu, const vl_unembed_loss_args *args, vl_error *err);
/* The parts of a row that vary with its number. */
vl_loss_row vl_cpu_loss_row(const vl_unembed_loss_args *args, int64_t row);

/* ---- panel_avx512.c: the code that needs the instructions ------------------------------------------------- */

/* out[rows <= 14][32] (+)= a (one left panel, `pairs` long) x b (one right panel). */
void vl_panel_kernel(float *out, int64_t out_stride, const uint32_t *a, const uint32_t *b, int64_t pairs, int rows,
                     bool accumulate);
/* n floats as ceil(n / 2) pairs of bf16, with zeros up to a multiple of 16 pairs. */
void vl_panel_round(uint32_t *words, const float *x, int64_t n);
/* Up to 14 rows of pairs, `stride` (a multiple of 16) apart, as one left panel; missing rows are 0. */
void vl_panel_interleave(uint32_t *panel, const uint32_t *words, int64_t stride, int rows, int64_t pairs);
/* Up to 32 rows of n bf16 numbers, `stride` apart, as one right panel of ceil(n / 2) pairs; missing rows are 0. */
void vl_panel_columns(uint32_t *panel, const uint16_t *rows, int64_t stride, int n_rows, int64_t n);
/* A running log-sum-exp: log(sum) + max. Starts as {-INFINITY, 0}. */
typedef struct vl_panel_lse {
    float max;
    double sum;
} vl_panel_lse;
/* Adds n logits, after adding a bias (NULL: none) to them in place. Meanwhile asks memory for the n logits that lie
 * `ahead` further on, as the caches' own prediction does not reach over to another row. */
void vl_panel_lse_add(vl_panel_lse *lse, float *z, const float *bias, int64_t n, int64_t ahead);
/* n logits of a row and of its teacher, and where the next row's lie. */
typedef struct vl_panel_span {
    const float *z, *teacher, *next_z, *next_teacher;
    int64_t n;
} vl_panel_span;
/* KL(p||q) over a span (the hot loop of the default objective); the gradient weight * (q - p) goes to `words`, as by
 * vl_panel_round, or nowhere (NULL). */
float vl_panel_kl(uint32_t *words, const vl_panel_span *span, const vl_loss_row *row);

#endif
