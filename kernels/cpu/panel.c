/* Blocking around the micro-kernel: packing, and the product that makes logits. */
#include <string.h>

#include "kernels/cpu/panel.h"
#include "trainer/base/mem.h"

/* One panel of 32 outputs: pairs along the row of each output. */
static void pack_forward_panel(uint32_t *panel, const uint16_t *rows, int64_t n_rows, int64_t n_in)
{
    int64_t pairs = pairs_of(n_in);
    memset(panel, 0, (size_t)(pairs * PANEL_COLUMNS) * 4);
    for (int64_t c = 0; c < n_rows; c++) {
        const uint16_t *row = rows + c * n_in;
        for (int64_t k = 0; k < pairs; k++) {
            uint32_t high = 2 * k + 1 < n_in ? row[2 * k + 1] : 0;
            panel[k * PANEL_COLUMNS + c] = row[2 * k] | high << 16;
        }
    }
}

/* Rows 2k and 2k + 1 of the matrix, spread over all panels of 32 inputs. */
static void pack_backward_rows(uint32_t *panels, const uint16_t *even, const uint16_t *odd, int64_t k, int64_t pairs,
                               int64_t n_in)
{
    for (int64_t j = 0; j < n_in; j++) {
        uint32_t high = odd ? odd[j] : 0;
        panels[(j / PANEL_COLUMNS * pairs + k) * PANEL_COLUMNS + j % PANEL_COLUMNS] = even[j] | high << 16;
    }
}

vl_status vl_panels_new(uint32_t **forward, uint32_t **backward, const vl_cpu_matrix *w, vl_error *err)
{
    int64_t v_panels = round_up(w->n_out, PANEL_COLUMNS) / PANEL_COLUMNS, d_pairs = pairs_of(w->n_in);
    int64_t d_panels = round_up(w->n_in, PANEL_COLUMNS) / PANEL_COLUMNS, v_pairs = pairs_of(w->n_out);
    *forward = vl_cpu_alloc((size_t)(v_panels * d_pairs), PANEL_COLUMNS * 4);
    *backward = vl_cpu_alloc((size_t)(d_panels * v_pairs), PANEL_COLUMNS * 4);
    if (!*forward || !*backward)
        return vl_fail_nomem(err, "packed unembedding");
    memset(*backward, 0, (size_t)(d_panels * v_pairs) * PANEL_COLUMNS * 4);
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        uint16_t *rows = vl_alloc((size_t)(PANEL_COLUMNS * w->n_in), 2);
        failed |= !rows;
#pragma omp for schedule(static)
        for (int64_t panel = 0; panel < v_panels; panel++) {
            if (!rows)
                continue;
            int64_t first = panel * PANEL_COLUMNS;
            int64_t n = w->n_out - first < PANEL_COLUMNS ? w->n_out - first : PANEL_COLUMNS;
            vl_cpu_round_rows(rows, w, first, n);
            pack_forward_panel(*forward + panel * d_pairs * PANEL_COLUMNS, rows, n, w->n_in);
            for (int64_t i = 0; i < n; i += 2)
                pack_backward_rows(*backward, rows + i * w->n_in, i + 1 < n ? rows + (i + 1) * w->n_in : NULL,
                                   (first + i) / 2, v_pairs, w->n_in);
        }
        vl_free(rows);
    }
    return failed ? vl_fail_nomem(err, "packed unembedding") : VL_OK;
}

int64_t vl_panel_chunk_rows(int64_t m, int threads)
{
    int64_t chunks = round_up((m + PANEL_CHUNK - 1) / PANEL_CHUNK, threads);
    return round_up((m + chunks - 1) / chunks, PANEL_ROWS);
}

void vl_panel_pack_rows(uint32_t *left, vl_tensor x, int64_t first, int64_t rows)
{
    enum { PIECE = 512 }; /* columns at a time */
    uint32_t words[PANEL_ROWS * PIECE / 2] __attribute__((aligned(64)));
    int64_t pairs = pairs_of(x.shape[1]);
    for (int64_t i = 0; i < rows; i += PANEL_ROWS)
        for (int64_t j = 0; j < x.shape[1]; j += PIECE) {
            int64_t n = x.shape[1] - j < PIECE ? x.shape[1] - j : PIECE;
            int height = panel_height(rows, i);
            for (int r = 0; r < height; r++)
                vl_panel_round(words + r * (PIECE / 2), row_of(x, first + i + r) + j, n);
            vl_panel_interleave(left + i * pairs + j / 2 * PANEL_ROWS, words, PIECE / 2, height, pairs_of(n));
        }
}

void vl_panel_multiply(const vl_panel_product *p, int64_t first, int64_t last)
{
    float edge[PANEL_ROWS * PANEL_COLUMNS];
    int64_t pairs = pairs_of(p->head->n_in);
    for (int64_t j = first; j < last; j += PANEL_COLUMNS) {
        const uint32_t *panel = p->head->forward_panels + j * pairs;
        for (int64_t i = 0; i < p->rows; i += PANEL_ROWS) {
            float *to = p->out + i * p->out_stride + (j - first);
            int height = panel_height(p->rows, i);
            if (j + PANEL_COLUMNS <= last) {
                vl_panel_kernel(to, p->out_stride, p->left + i * pairs, panel, pairs, height, false);
                continue;
            }
            vl_panel_kernel(edge, PANEL_COLUMNS, p->left + i * pairs, panel, pairs, height, false);
            for (int r = 0; r < height; r++)
                memcpy(to + r * p->out_stride, edge + r * PANEL_COLUMNS, (size_t)(last - j) * 4);
        }
    }
}

static void add_bias(const vl_panel_product *p, const float *bias, int64_t first, int64_t last)
{
    for (int64_t i = 0; bias && i < p->rows; i++)
        for (int64_t j = first; j < last; j++)
            p->out[i * p->out_stride + j - first] += bias[j];
}

vl_status vl_panel_linear(vl_cpu *cpu, const vl_linear_args *a, vl_error *err)
{
    const vl_cpu_matrix *w = a->weight->data;
    int64_t m = a->x.shape[0], v = w->n_out, pairs = pairs_of(w->n_in), rows = vl_panel_chunk_rows(m, 1);
    int64_t chunks = (m + rows - 1) / rows, blocks = (v + PANEL_BLOCK - 1) / PANEL_BLOCK;
    uint32_t *left = vl_cpu_scratch_get(cpu, SCRATCH_SOURCE, (size_t)(round_up(m, PANEL_ROWS) * pairs), 4);
    if (!left)
        return vl_fail_nomem(err, "packed activations");
#pragma omp parallel num_threads(cpu->threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < m; i += PANEL_ROWS)
            vl_panel_pack_rows(left + i * pairs, a->x, i, panel_height(m, i));
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < chunks * blocks; item++) {
            int64_t c = item % chunks * rows, first = item / chunks * PANEL_BLOCK;
            int64_t last = v - first < PANEL_BLOCK ? v : first + PANEL_BLOCK;
            vl_panel_product product = {.out = row_of(a->out, c) + first,
                                        .out_stride = a->out.row_stride,
                                        .left = left + c * pairs,
                                        .head = w,
                                        .rows = m - c < rows ? m - c : rows};
            vl_panel_multiply(&product, first, last);
            add_bias(&product, a->bias.data, first, last);
        }
    }
    return VL_OK;
}
