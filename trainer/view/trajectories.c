/* The tokens that matter at a position, through all states: exact, also where a token is not among the top k. */
#include <math.h>
#include <stdlib.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/view/reading.h"

void vl_trajectories_free(vl_reading *r)
{
    for (int64_t i = 0; r->trajectories && i < r->n_positions; i++) {
        vl_free(r->trajectories[i].ids);
        vl_free(r->trajectories[i].probability);
    }
    vl_free(r->trajectories);
}

static int by_id(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

vl_status vl_trajectories_start(vl_reading *r, int64_t first, int64_t n, vl_error *err)
{
    const size_t entries = (size_t)(r->n_states * r->k);
    for (int64_t i = first; i < first + n; i++) {
        vl_trajectories *t = &r->trajectories[i];
        t->ids = vl_alloc(entries, sizeof *t->ids);
        if (!t->ids)
            return vl_fail_nomem(err, "trajectories");
        for (size_t e = 0; e < entries; e++)
            t->ids[e] = vl_reading_get_cell(r, i, (int64_t)e / r->k, r->has_lens).ids[(int64_t)e % r->k];
        qsort(t->ids, entries, sizeof *t->ids, by_id);
        for (size_t e = 0; e < entries; e++)
            if (e == 0 || t->ids[e] != t->ids[t->n - 1])
                t->ids[t->n++] = t->ids[e];
        t->probability = vl_calloc((size_t)(t->n * r->n_states), sizeof *t->probability);
        if (!t->probability)
            return vl_fail_nomem(err, "trajectories");
    }
    return VL_OK;
}

void vl_trajectories_put(vl_reading *r, int64_t first, int64_t n, int64_t state, const float *logits, const float *lse)
{
    for (int64_t i = 0; i < n; i++) {
        vl_trajectories *t = &r->trajectories[first + i];
        for (int64_t j = 0; j < t->n; j++)
            t->probability[j * r->n_states + state] = expf(logits[i * r->vocab_size + t->ids[j]] - lse[i]);
    }
}
