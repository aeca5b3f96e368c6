/* sampler.c - the order in which the runs of a part are read. */
#include "trainer/base/mem.h"
#include "trainer/base/rng.h"
#include "trainer/fit/plan.h"

/* Every epoch has a generator of its own; the odd factor keeps the seeds of epochs apart. */
static void shuffle(vl_sampler *s)
{
    vl_rng rng;
    vl_rng_seed(&rng, s->seed + (uint64_t)s->epoch * 0x9e3779b97f4a7c15u);
    vl_rng_permutation(&rng, s->order, s->part->n_runs);
}

vl_status vl_sampler_shuffled(vl_sampler *out, const vl_part *part, uint64_t seed, vl_error *err)
{
    *out = (vl_sampler){.part = part, .seed = seed};
    out->order = vl_alloc((size_t)part->n_runs, sizeof *out->order);
    if (!out->order)
        return vl_fail_nomem(err, "order of the training rows");
    shuffle(out);
    return VL_OK;
}

vl_sampler vl_sampler_in_order(const vl_part *part)
{
    return (vl_sampler){.part = part};
}

void vl_sampler_clear(vl_sampler *sampler)
{
    vl_free(sampler->order);
    *sampler = (vl_sampler){.part = NULL};
}

static const vl_run *current(const vl_sampler *s)
{
    return &s->part->runs[s->order ? s->order[s->index] : s->index];
}

void vl_sampler_seek(vl_sampler *s, int64_t rows)
{
    int64_t epoch = rows / s->part->n_rows;
    if (s->order && epoch != s->epoch) {
        s->epoch = epoch;
        shuffle(s);
    }
    s->index = 0;
    s->offset = rows % s->part->n_rows;
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
        if (s->index == s->part->n_runs) {
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
        if (ahead.index == ahead.part->n_runs)
            return 0;
        pieces[n] = next_piece(&ahead, rows);
    }
    return n;
}
