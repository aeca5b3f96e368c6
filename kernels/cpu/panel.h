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

enum { PANEL_ROWS = 14, PANEL_COLUMNS = 32 };

/* Packs a bf16-mode matrix for both directions; freed with vl_free. */
vl_status vl_panels_new(uint32_t **forward, uint32_t **backward, const vl_cpu_matrix *matrix, vl_error *err);
/* Rows [first, first + rows) of a matrix rounded to bf16 (a copy where they are bf16). */
void vl_cpu_round_rows(uint16_t *out, const vl_cpu_matrix *matrix, int64_t first, int64_t rows);

vl_status vl_panel_linear(vl_cpu *cpu, const vl_linear_args *args, vl_error *err);
vl_status vl_panel_unembed_loss(vl_cpu *cpu, const vl_unembed_loss_args *args, vl_error *err);
/* The parts of a row that vary with its number. */
vl_loss_row vl_cpu_loss_row(const vl_unembed_loss_args *args, int64_t row);

/* ---- panel_avx512.c: the code that needs the instructions ------------------------------------------------- */

/* out[rows <= 14][32] (+)= a (one left panel, `pairs` long) x b (one right panel). */
void vl_panel_kernel(float *out, int64_t out_stride, const uint32_t *a, const uint32_t *b, int64_t pairs, int rows,
                     bool accumulate);
/* Packs up to 14 rows of `columns` floats into a left panel of ceil(columns / 2) pairs; missing rows are 0. */
void vl_panel_pack(uint32_t *panel, const float *x, int64_t stride, int rows, int64_t columns);
/* KL(p||q) over n logits, gradient weight * (q - p) in place (the hot loop of the default objective). */
float vl_panel_kl(float *z, const float *teacher, const vl_loss_row *row, int64_t n);
float vl_panel_logsumexp(const float *z, int64_t n);

#endif
