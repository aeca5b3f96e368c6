/* Products with weights that stay in their file: packed a piece at a time, where and when it is used.
 *
 * A piece is up to STREAM_COLUMNS outputs by STREAM_PAIRS pairs of inputs, which the third-level cache can hold. All
 * threads pack it together, and then run all rows of x over it, so that a weight is read from the mapped file once and
 * what is packed need not go back to memory. x is packed whole beforehand. */
#include <string.h>

#include "kernels/cpu/panel.h"
#include "trainer/base/mem.h"

enum {
    STREAM_COLUMNS = 2048,
    STREAM_PAIRS = 2048,
    STREAM_ITEM = 512,  /* outputs, and */
    STREAM_CHUNK = 252, /* rows that a thread takes at a time */
    STREAM_ROWS = 128   /* fewer rows of x do not pay for the packing */
};

bool vl_panel_streams(const vl_cpu *cpu, const vl_linear_args *a)
{
    const vl_cpu_matrix *w = a->weight->data;
    return w->bf16 && cpu->has_avx512_bf16 && !a->transpose && a->x.shape[0] >= STREAM_ROWS;
}

/* A piece of the weights: outputs [first, first + columns), pairs [pair, pair + count). */
typedef struct piece {
    const vl_linear_args *args;
    const uint32_t *left; /* [m / 14] panels of `pairs` */
    uint32_t *right;      /* [columns / 32] panels of `count` */
    int64_t pairs, first, columns, pair, count;
} piece;

static int64_t at_most(int64_t n, int64_t limit)
{
    return n < limit ? n : limit;
}

/* The panel of 32 outputs that begins `at` columns into the piece. */
static void pack_panel(const piece *p, int64_t at)
{
    const vl_cpu_matrix *w = p->args->weight->data;
    int64_t inputs = at_most(w->n_in - 2 * p->pair, 2 * p->count), stride = w->n_in;
    int64_t n = at_most(p->columns - at, PANEL_COLUMNS), start = (p->first + at) * w->n_in + 2 * p->pair;
    uint32_t *panel = p->right + at * p->count;
    if (w->dtype == VL_BF16) {
        vl_panel_columns(panel, (const uint16_t *)w->host + start, stride, (int)n, inputs);
        return;
    }
    enum { WIDTH = 256 };
    uint16_t rounded[PANEL_COLUMNS * WIDTH] __attribute__((aligned(64)));
    for (int64_t k = 0; k < inputs; k += WIDTH) {
        int64_t width = at_most(inputs - k, WIDTH);
        for (int64_t i = 0; i < n; i++)
            vl_cpu_round_row(rounded + i * WIDTH, w, start + i * stride + k, width);
        vl_panel_columns(panel + k / 2 * PANEL_COLUMNS, rounded, WIDTH, (int)n, width);
    }
}

/* out[rows, n <= 32] (+)= values, and the bias. */
static void put_edge(float *out, int64_t stride, const float *values, int rows, int64_t n, bool accumulate)
{
    for (int r = 0; r < rows; r++)
        for (int64_t c = 0; c < n; c++)
            out[r * stride + c] = (accumulate ? out[r * stride + c] : 0) + values[r * PANEL_COLUMNS + c];
}

static void add_bias(float *out, int64_t stride, const float *bias, int rows, int64_t n)
{
    for (int r = 0; r < rows; r++)
        for (int64_t c = 0; c < n; c++)
            out[r * stride + c] += bias[c];
}

/* Rows [row, row + rows) of out and columns [begin, end) of the piece. */
static void multiply(const piece *p, int64_t row, int64_t rows, int64_t begin, int64_t end)
{
    const vl_linear_args *a = p->args;
    bool accumulate = a->accumulate || p->pair > 0, last = p->pair + p->count == p->pairs;
    float edge[PANEL_ROWS * PANEL_COLUMNS];
    for (int64_t j = begin; j < end; j += PANEL_COLUMNS)
        for (int64_t i = row; i < row + rows; i += PANEL_ROWS) {
            const uint32_t *left = p->left + i * p->pairs + p->pair * PANEL_ROWS, *right = p->right + j * p->count;
            float *to = row_of(a->out, i) + p->first + j;
            int64_t n = at_most(end - j, PANEL_COLUMNS), stride = a->out.row_stride;
            int height = panel_height(row + rows, i);
            if (n == PANEL_COLUMNS) {
                vl_panel_kernel(to, stride, left, right, p->count, height, accumulate);
            } else {
                vl_panel_kernel(edge, PANEL_COLUMNS, left, right, p->count, height, false);
                put_edge(to, stride, edge, height, n, accumulate);
            }
            if (last && a->bias.data)
                add_bias(to, stride, (const float *)a->bias.data + p->first + j, height, n);
        }
}

/* The share of one thread of a team that runs this together. */
static void run_piece(const piece *p)
{
    int64_t m = p->args->x.shape[0], chunks = (m + STREAM_CHUNK - 1) / STREAM_CHUNK;
    int64_t rows = round_up((m + chunks - 1) / chunks, PANEL_ROWS),
            items = (p->columns + STREAM_ITEM - 1) / STREAM_ITEM;
#pragma omp for schedule(static)
    for (int64_t at = 0; at < p->columns; at += PANEL_COLUMNS)
        pack_panel(p, at);
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = 0; item < chunks * items; item++) {
        int64_t row = item / items * rows, begin = item % items * STREAM_ITEM;
        if (row < m)
            multiply(p, row, at_most(m - row, rows), begin, at_most(p->columns, begin + STREAM_ITEM));
    }
}

vl_status vl_panel_stream(vl_cpu *cpu, const vl_linear_args *a, vl_error *err)
{
    const vl_cpu_matrix *w = a->weight->data;
    int64_t m = a->x.shape[0], pairs = pairs_of(w->n_in), parts = (pairs + STREAM_PAIRS - 1) / STREAM_PAIRS;
    int64_t part = round_up((pairs + parts - 1) / parts, 16); /* parts of one size; a panel is packed by 16 pairs */
    size_t right_words = (size_t)(round_up(at_most(w->n_out, STREAM_COLUMNS), PANEL_COLUMNS) * part);
    uint32_t *left = vl_cpu_scratch_get(cpu, SCRATCH_SOURCE, (size_t)(round_up(m, PANEL_ROWS) * pairs), 4);
    uint32_t *right = vl_cpu_scratch_get(cpu, SCRATCH_WEIGHT, right_words, 4);
    if (!left || !right)
        return vl_fail_nomem(err, "packed activations");
#pragma omp parallel num_threads(cpu->threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < m; i += PANEL_ROWS)
            vl_panel_pack_rows(left + i * pairs, a->x, i, panel_height(m, i));
        for (int64_t first = 0; first < w->n_out; first += STREAM_COLUMNS)
            for (int64_t pair = 0; pair < pairs; pair += part) {
                piece p = {a,     left,
                           right, pairs,
                           first, at_most(w->n_out - first, STREAM_COLUMNS),
                           pair,  at_most(pairs - pair, part)};
                run_piece(&p);
            }
    }
    return VL_OK;
}
