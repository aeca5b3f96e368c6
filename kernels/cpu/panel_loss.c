/* The fused unembedding and loss on our own bf16 micro-kernel.
 *
 * A chunk of rows belongs to one thread. Block by block of the vocabulary it makes their logits (which are kept) and
 * brings their log-sum-exp up to date; then block by block it takes loss and gradient, which goes as bf16 straight into
 * left panels for the product with the head, and never to memory. Sums do not cross threads, and each row's are in one
 * order: results depend neither on the number of threads nor on the rows beside a row. */
#include <math.h>
#include <omp.h>

#include "kernels/cpu/panel.h"
#include "trainer/base/mem.h"

/* A chunk and the work areas of the thread that it belongs to. */
typedef struct chunk_memory {
    int64_t chunk, rows; /* its first row and their number */
    float *logits;       /* [rows, stride] */
    int64_t stride;
    uint32_t *left;     /* packed x, [rows][D/2] */
    uint32_t *words;    /* bf16 gradient of 14 rows of a block, [14][BLOCK/2] */
    uint32_t *gradient; /* packed gradient of one block, [rows][BLOCK/2] */
    float *edge;        /* [14, 32] */
    vl_loss_row *row;   /* [rows] */
    double *loss;       /* [rows] */
} chunk_memory;

/* The logits of the chunk and everything that the losses need to know of whole rows. */
static void chunk_forward(const vl_unembed_loss_args *a, const chunk_memory *mem)
{
    int64_t chunk = mem->chunk, rows = mem->rows;
    const vl_cpu_matrix *w = a->head->data;
    const float *bias = a->head_bias.data;
    vl_panel_lse lse[PANEL_CHUNK];
    vl_panel_pack_rows(mem->left, a->x, chunk, rows);
    for (int64_t i = 0; i < rows; i++)
        lse[i] = (vl_panel_lse){-INFINITY, 0};
    for (int64_t first = 0; first < w->n_out; first += PANEL_BLOCK) {
        int64_t n = w->n_out - first < PANEL_BLOCK ? w->n_out - first : PANEL_BLOCK;
        vl_panel_product product = {mem->logits + first, mem->stride, mem->left, w, rows};
        vl_panel_multiply(&product, first, first + n);
        for (int64_t i = 0; i < rows; i++)
            vl_panel_lse_add(&lse[i], mem->logits + i * mem->stride + first, bias ? bias + first : NULL, n,
                             i + 1 < rows ? mem->stride : 0);
    }
    for (int64_t i = 0; i < rows; i++) {
        mem->row[i] = vl_cpu_loss_row(a, chunk + i);
        mem->row[i].lse = lse[i].max + (float)log(lse[i].sum);
        mem->loss[i] = 0;
        if (a->dx.data)
            vl_loss_prepare(&mem->row[i], mem->logits + i * mem->stride, w->n_out);
    }
}

/* Adds the loss of row i over logits [first, first + n); its gradient goes to `words` (NULL: nowhere). */
static void row_loss(const chunk_memory *mem, uint32_t *words, int64_t i, int64_t first, int64_t n)
{
    enum { PIECE = 256 };
    const vl_loss_row *row = &mem->row[i], *next = &mem->row[i + 1 < mem->rows ? i + 1 : i];
    float *z = mem->logits + i * mem->stride + first;
    const float *next_z = z + (next - row) * mem->stride;
    if (row->kind == VL_LOSS_KL) {
        vl_panel_span span = {z, row->teacher + first, next_z, next->teacher + first, n};
        mem->loss[i] += (double)vl_panel_kl(words, &span, row);
        return;
    }
    for (int64_t j = 0; j < n; j += PIECE) {
        for (int64_t k = j; k < j + PIECE && k < n; k += 16) { /* as vl_panel_kl does */
            __builtin_prefetch(next_z + k);
            if (row->kind != VL_LOSS_CE)
                __builtin_prefetch(next->teacher + first + k);
        }
        mem->loss[i] += vl_loss_piece(row, z + j, first + j, n - j < PIECE ? n - j : PIECE, words != NULL);
    }
    if (words)
        vl_panel_round(words, z, n);
}

/* dx[rows, D] (+)= gradient block [rows, n] x head rows [first, first + n). */
static void backward_block(const vl_unembed_loss_args *a, const chunk_memory *mem, int64_t first, int64_t n)
{
    const vl_cpu_matrix *w = a->head->data;
    int64_t v_pairs = pairs_of(w->n_out), block_pairs = pairs_of(n);
    for (int64_t j = 0; j < w->n_in; j += PANEL_COLUMNS) {
        const uint32_t *panel = w->backward_panels + (j * v_pairs + first / 2 * PANEL_COLUMNS);
        bool whole = j + PANEL_COLUMNS <= w->n_in;
        for (int64_t i = 0; i < mem->rows; i += PANEL_ROWS) {
            float *out = row_of(a->dx, mem->chunk + i) + j;
            const uint32_t *left = mem->gradient + i * block_pairs;
            int height = panel_height(mem->rows, i);
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

static void chunk_loss(const vl_unembed_loss_args *a, const chunk_memory *mem)
{
    int64_t v = a->head->n_out, rows = mem->rows;
    bool gradient = a->dx.data != NULL;
    chunk_forward(a, mem);
    for (int64_t first = 0; first < v; first += PANEL_BLOCK) {
        int64_t n = v - first < PANEL_BLOCK ? v - first : PANEL_BLOCK;
        for (int64_t i = 0; i < rows; i += PANEL_ROWS) {
            int height = panel_height(rows, i);
            for (int r = 0; r < height; r++)
                row_loss(mem, gradient ? mem->words + r * (PANEL_BLOCK / 2) : NULL, i + r, first, n);
            if (gradient)
                vl_panel_interleave(mem->gradient + i * pairs_of(n), mem->words, PANEL_BLOCK / 2, height, pairs_of(n));
        }
        if (gradient)
            backward_block(a, mem, first, n);
    }
    for (int64_t i = 0; i < rows; i++)
        ((float *)a->loss.data)[mem->chunk + i] = (float)mem->loss[i];
}

/* An odd number of cache lines, so that rows do not compete for the same sets of the caches. */
static int64_t spread_stride(int64_t n)
{
    return (round_up(n, 16) / 16 | 1) * 16;
}

vl_status vl_panel_unembed_loss(vl_cpu *cpu, const vl_unembed_loss_args *a, vl_error *err)
{
    const vl_cpu_matrix *w = a->head->data;
    int64_t m = a->x.shape[0], rows = vl_panel_chunk_rows(m, cpu->threads), chunks = (m + rows - 1) / rows;
    int64_t stride = spread_stride(w->n_out);
    size_t threads = (size_t)cpu->threads, logits_size = (size_t)(rows * stride);
    size_t left_size = (size_t)round_up(rows * pairs_of(w->n_in), 16), words_size = PANEL_ROWS * PANEL_BLOCK / 2;
    size_t gradient_size = (size_t)(rows * PANEL_BLOCK / 2), edge_size = PANEL_ROWS * PANEL_COLUMNS;
    size_t all_words = words_size + gradient_size + edge_size;
    float *logits = vl_cpu_scratch_get(cpu, SCRATCH_LOGITS, threads * logits_size, 4);
    uint32_t *left = vl_cpu_scratch_get(cpu, SCRATCH_SOURCE, threads * left_size, 4);
    uint32_t *gradient = vl_cpu_scratch_get(cpu, SCRATCH_GRADIENT, threads * all_words, 4);
    if (!logits || !left || !gradient)
        return vl_fail_nomem(err, "a tile of logits");
#pragma omp parallel num_threads(cpu->threads)
    {
        size_t t = (size_t)omp_get_thread_num();
        vl_loss_row row[PANEL_CHUNK];
        double loss[PANEL_CHUNK];
        uint32_t *words = gradient + t * all_words;
        chunk_memory mem = {.logits = logits + t * logits_size,
                            .stride = stride,
                            .left = left + t * left_size,
                            .words = words,
                            .gradient = words + words_size,
                            .edge = (float *)(words + words_size + gradient_size),
                            .row = row,
                            .loss = loss};
#pragma omp for schedule(dynamic, 1)
        for (int64_t c = 0; c < chunks; c++) {
            mem.chunk = c * rows;
            mem.rows = m - mem.chunk < rows ? m - mem.chunk : rows;
            chunk_loss(a, &mem);
        }
    }
    return VL_OK;
}
