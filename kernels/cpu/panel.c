/* Blocking around the micro-kernel: packing, threads over row chunks, and the fused loss.
 *
 * A chunk of rows belongs to one thread: it computes all its logits (kept, [rows, V] fp32, one chunk per thread),
 * their log-sum-exp, then block by block of the vocabulary the gradient, packed at once as the left operand of the
 * backward product. Sums never cross threads, so results do not depend on how many there are. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/cpu/panel.h"
#include "trainer/base/mem.h"

enum {
    CHUNK_ROWS = 18 * PANEL_ROWS, /* at most: logits of a chunk are 50 MB at V = 49152 */
    BLOCK = 1024                  /* vocabulary columns whose gradient is packed at once: stays in L2 */
};

static int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

static int64_t pairs_of(int64_t n)
{
    return (n + 1) / 2;
}

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
    *forward = vl_alloc_aligned((size_t)(v_panels * d_pairs), PANEL_COLUMNS * 4);
    *backward = vl_alloc_aligned((size_t)(d_panels * v_pairs), PANEL_COLUMNS * 4);
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

/* Rows per chunk so that all threads get the same number of chunks. */
static int64_t chunk_rows(int64_t m, int threads)
{
    int64_t chunks = round_up((m + CHUNK_ROWS - 1) / CHUNK_ROWS, threads);
    return round_up((m + chunks - 1) / chunks, PANEL_ROWS);
}

static int panel_height(int64_t rows, int64_t at)
{
    return (int)(rows - at < PANEL_ROWS ? rows - at : PANEL_ROWS);
}

static void pack_left(uint32_t *left, vl_tensor x, int64_t first, int64_t rows)
{
    int64_t pairs = pairs_of(x.shape[1]);
    for (int64_t i = 0; i < rows; i += PANEL_ROWS)
        vl_panel_pack(left + i * pairs, row_of(x, first + i), x.row_stride, panel_height(rows, i), x.shape[1]);
}

/* out[rows, columns of panels [first, last)] = left x panels; the last panel may hang over `n` columns. */
static void multiply_panels(float *out, int64_t out_stride, const uint32_t *left, const uint32_t *panels,
                            int64_t pairs, int64_t rows, int64_t n, int64_t first, int64_t last)
{
    float edge[PANEL_ROWS * PANEL_COLUMNS];
    for (int64_t j = first; j < last; j++) {
        const uint32_t *panel = panels + j * pairs * PANEL_COLUMNS;
        int64_t width = n - j * PANEL_COLUMNS;
        for (int64_t i = 0; i < rows; i += PANEL_ROWS) {
            float *to = out + i * out_stride + j * PANEL_COLUMNS;
            int height = panel_height(rows, i);
            if (width >= PANEL_COLUMNS) {
                vl_panel_kernel(to, out_stride, left + i * pairs, panel, pairs, height, false);
                continue;
            }
            vl_panel_kernel(edge, PANEL_COLUMNS, left + i * pairs, panel, pairs, height, false);
            for (int r = 0; r < height; r++)
                memcpy(to + r * out_stride, edge + r * PANEL_COLUMNS, (size_t)width * 4);
        }
    }
}

static void add_bias_rows(float *logits, int64_t stride, const float *bias, int64_t rows, int64_t n)
{
    for (int64_t i = 0; bias && i < rows; i++)
        for (int64_t j = 0; j < n; j++)
            logits[i * stride + j] += bias[j];
}

vl_status vl_panel_linear(vl_cpu *cpu, const vl_linear_args *a, vl_error *err)
{
    const vl_cpu_matrix *w = a->weight->data;
    int64_t m = a->x.shape[0], pairs = pairs_of(w->n_in), rows = chunk_rows(m, 1), chunks = (m + rows - 1) / rows;
    int64_t panels = round_up(w->n_out, PANEL_COLUMNS) / PANEL_COLUMNS;
    int64_t blocks = (panels * PANEL_COLUMNS + BLOCK - 1) / BLOCK;
    uint32_t *left = vl_cpu_scratch_get(cpu, SCRATCH_SOURCE, (size_t)(round_up(m, PANEL_ROWS) * pairs), 4);
    if (!left)
        return vl_fail_nomem(err, "packed activations");
#pragma omp parallel num_threads(cpu->threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < (m + PANEL_ROWS - 1) / PANEL_ROWS; i++)
            pack_left(left + i * PANEL_ROWS * pairs, a->x, i * PANEL_ROWS, panel_height(m, i * PANEL_ROWS));
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < chunks * blocks; item++) {
            int64_t c = item % chunks * rows, n = m - c < rows ? m - c : rows;
            int64_t first = item / chunks * (BLOCK / PANEL_COLUMNS), last = first + BLOCK / PANEL_COLUMNS;
            multiply_panels(row_of(a->out, c), a->out.row_stride, left + c * pairs, w->forward_panels, pairs, n,
                            w->n_out, first, last < panels ? last : panels);
        }
    }
    add_bias_rows(a->out.data, a->out.row_stride, a->bias.data, m, w->n_out);
    return VL_OK;
}

/* One thread's work areas. */
typedef struct chunk_memory {
    float *logits;      /* [rows, stride] */
    int64_t stride;     /* V rounded up to a panel: rows never share a cache line with the next */
    uint32_t *left;     /* packed x, [rows][D/2] */
    uint32_t *gradient; /* packed gradient of one block, [rows][BLOCK/2] */
    float *edge;        /* [14, 32] */
} chunk_memory;

static double row_piece(const vl_loss_row *row, float *z, int64_t first, int64_t n, bool gradient)
{
    if (row->kind == VL_LOSS_KL && gradient)
        return (double)vl_panel_kl(z, row->teacher + first, row, n);
    return vl_loss_piece(row, z, first, n, gradient);
}

/* dx[rows, D] (+)= gradient block [rows, n] x head rows [first, first + n). */
static void backward_block(const vl_unembed_loss_args *a, const chunk_memory *mem, int64_t chunk, int64_t rows,
                           int64_t first, int64_t n)
{
    const vl_cpu_matrix *w = a->head->data;
    int64_t v_pairs = pairs_of(w->n_out), block_pairs = pairs_of(n);
    for (int64_t j = 0; j < w->n_in; j += PANEL_COLUMNS) {
        const uint32_t *panel = w->backward_panels + (j * v_pairs + first / 2 * PANEL_COLUMNS);
        bool whole = j + PANEL_COLUMNS <= w->n_in;
        for (int64_t i = 0; i < rows; i += PANEL_ROWS) {
            float *out = row_of(a->dx, chunk + i) + j;
            const uint32_t *left = mem->gradient + i * block_pairs;
            int height = panel_height(rows, i);
            if (whole) {
                vl_panel_kernel(out, a->dx.row_stride, left, panel, block_pairs, height, first > 0);
                continue;
            }
            vl_panel_kernel(mem->edge, PANEL_COLUMNS, left, panel, block_pairs, height, false);
            for (int r = 0; r < height; r++)
                for (int64_t c = 0; c < w->n_in - j; c++)
                    out[r * a->dx.row_stride + c] =
                        mem->edge[r * PANEL_COLUMNS + c] + (first > 0 ? out[r * a->dx.row_stride + c] : 0);
        }
    }
}

static void chunk_loss(const vl_unembed_loss_args *a, const chunk_memory *mem, int64_t chunk, int64_t rows)
{
    const vl_cpu_matrix *w = a->head->data;
    int64_t v = w->n_out, panels = round_up(v, PANEL_COLUMNS) / PANEL_COLUMNS;
    bool gradient = a->dx.data != NULL;
    vl_loss_row row[CHUNK_ROWS];
    double loss[CHUNK_ROWS];
    pack_left(mem->left, a->x, chunk, rows);
    multiply_panels(mem->logits, mem->stride, mem->left, w->forward_panels, pairs_of(w->n_in), rows, v, 0, panels);
    add_bias_rows(mem->logits, mem->stride, a->head_bias.data, rows, v);
    for (int64_t i = 0; i < rows; i++) {
        row[i] = vl_cpu_loss_row(a, chunk + i);
        row[i].lse = vl_panel_logsumexp(mem->logits + i * mem->stride, v);
        loss[i] = 0;
        if (gradient)
            vl_loss_prepare(&row[i], mem->logits + i * mem->stride, v);
    }
    for (int64_t first = 0; first < v; first += BLOCK) {
        int64_t n = v - first < BLOCK ? v - first : BLOCK;
        for (int64_t i = 0; i < rows; i += PANEL_ROWS) {
            int height = panel_height(rows, i);
            for (int64_t r = i; r < i + height; r++)
                loss[r] += row_piece(&row[r], mem->logits + r * mem->stride + first, first, n, gradient);
            if (gradient)
                vl_panel_pack(mem->gradient + i * pairs_of(n), mem->logits + i * mem->stride + first, mem->stride,
                              height, n);
        }
        if (gradient)
            backward_block(a, mem, chunk, rows, first, n);
    }
    for (int64_t i = 0; i < rows; i++)
        ((float *)a->loss.data)[chunk + i] = (float)loss[i];
}

vl_status vl_panel_unembed_loss(vl_cpu *cpu, const vl_unembed_loss_args *a, vl_error *err)
{
    const vl_cpu_matrix *w = a->head->data;
    int64_t m = a->x.shape[0], rows = chunk_rows(m, cpu->threads), chunks = (m + rows - 1) / rows;
    int64_t stride = round_up(w->n_out, PANEL_COLUMNS), pairs = pairs_of(w->n_in);
    size_t edge = PANEL_ROWS * PANEL_COLUMNS, threads = (size_t)cpu->threads;
    size_t logits_size = (size_t)(rows * stride), left_size = (size_t)round_up(rows * pairs, 16);
    size_t gradient_size = (size_t)(rows * (BLOCK / 2));
    float *logits = vl_cpu_scratch_get(cpu, SCRATCH_LOGITS, threads * logits_size, 4);
    uint32_t *left = vl_cpu_scratch_get(cpu, SCRATCH_SOURCE, threads * left_size, 4);
    uint32_t *gradient = vl_cpu_scratch_get(cpu, SCRATCH_GRADIENT, threads * (gradient_size + edge), 4);
    if (!logits || !left || !gradient)
        return vl_fail_nomem(err, "a tile of logits");
#pragma omp parallel num_threads(cpu->threads)
    {
        size_t t = (size_t)omp_get_thread_num();
        chunk_memory mem = {logits + t * logits_size, stride, left + t * left_size,
                            gradient + t * (gradient_size + edge), NULL};
        mem.edge = (float *)(mem.gradient + gradient_size);
#pragma omp for schedule(dynamic, 1)
        for (int64_t c = 0; c < chunks; c++)
            chunk_loss(a, &mem, c * rows, m - c * rows < rows ? m - c * rows : rows);
    }
    return VL_OK;
}
