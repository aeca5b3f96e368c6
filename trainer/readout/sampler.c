/* sampler.c - choices of rows, and the order in which they are walked. */
#include "trainer/base/mem.h"
#include "trainer/base/rng.h"
#include "trainer/base/status.h"
#include "trainer/readout/rows.h"

vl_status vl_rows_of_list(vl_rows *out, const int64_t *rows, int64_t n, vl_error *err)
{
    *out = (vl_rows){.runs = vl_alloc((size_t)n + 1, sizeof *out->runs), .n_rows = n};
    if (!out->runs)
        return vl_fail_nomem(err, "list of rows");
    for (int64_t i = 0; i < n; i++) {
        if (i > 0 && rows[i] == rows[i - 1] + 1)
            out->runs[out->n_runs - 1].n++;
        else
            out->runs[out->n_runs++] = (vl_run){rows[i], 1};
    }
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        out->weight[c] = 1;
    return VL_OK;
}

vl_status vl_rows_of_memory(vl_rows *out, int64_t n, vl_error *err)
{
    const int64_t first = 0;
    VL_TRY(vl_rows_of_list(out, &first, 1, err));
    out->runs[0].n = out->n_rows = n;
    return VL_OK;
}

void vl_rows_clear(vl_rows *rows)
{
    vl_free(rows->runs);
    *rows = (vl_rows){.runs = NULL};
}

/* Every epoch has a generator of its own; the odd factor keeps the seeds of epochs apart. */
static void shuffle(vl_sampler *s)
{
    vl_rng rng;
    vl_rng_seed(&rng, s->seed + (uint64_t)s->epoch * 0x9e3779b97f4a7c15u);
    vl_rng_permutation(&rng, s->order, s->rows->n_runs);
}

vl_status vl_sampler_shuffled(vl_sampler *out, const vl_rows *rows, uint64_t seed, vl_error *err)
{
    *out = (vl_sampler){.rows = rows, .seed = seed};
    out->order = vl_alloc((size_t)rows->n_runs, sizeof *out->order);
    if (!out->order)
        return vl_fail_nomem(err, "order of the training rows");
    shuffle(out);
    return VL_OK;
}

vl_sampler vl_sampler_in_order(const vl_rows *rows)
{
    return (vl_sampler){.rows = rows};
}

void vl_sampler_clear(vl_sampler *sampler)
{
    vl_free(sampler->order);
    *sampler = (vl_sampler){.rows = NULL};
}

static const vl_run *current(const vl_sampler *s)
{
    return &s->rows->runs[s->order ? s->order[s->index] : s->index];
}

void vl_sampler_seek(vl_sampler *s, int64_t rows)
{
    int64_t epoch = rows / s->rows->n_rows;
    if (s->order && epoch != s->epoch) {
        s->epoch = epoch;
        shuffle(s);
    }
    s->index = 0;
    s->offset = rows % s->rows->n_rows;
    while (s->offset > 0 && s->offset >= current(s)->n) {
        s->offset -= current(s)->n;
        s->index++;
    }
}

/* At most `rows` rows of the current run. */
static vl_run next_piece(vl_sampler *s, int64_t rows)
{
    const vl_run *run = current(s);
    int64_t left = run->n - s->offset, take = left < rows ? left : rows;
    vl_run piece = {run->first + s->offset, take};
    s->offset += take;
    if (s->offset == run->n) {
        s->offset = 0;
        s->index++;
    }
    return piece;
}

int64_t vl_sampler_take(vl_sampler *s, vl_run *pieces, int64_t rows)
{
    int64_t n = 0;
    for (; rows > 0; rows -= pieces[n++].n) {
        if (s->index == s->rows->n_runs) {
            if (!s->order)
                break;
            s->epoch++;
            s->index = 0;
            shuffle(s);
        }
        pieces[n] = next_piece(s, rows);
    }
    return n;
}

int64_t vl_sampler_peek(const vl_sampler *s, vl_run *pieces, int64_t rows)
{
    vl_sampler ahead = *s;
    int64_t n = 0;
    for (; rows > 0; rows -= pieces[n++].n) {
        if (ahead.index == ahead.rows->n_runs)
            return 0;
        pieces[n] = next_piece(&ahead, rows);
    }
    return n;
}
