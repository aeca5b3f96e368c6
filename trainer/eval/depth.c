#include "trainer/eval/depth.h"

#include "trainer/base/mem.h"
#include "trainer/base/status.h"

enum { BITS = 63 }; /* states of a word: the sign is left alone */

static int64_t *words_of(const vl_depth *depth, int64_t row, vl_eval_lens lens)
{
    return depth->differs + (row * VL_DEPTH_LENSES + (int64_t)lens) * depth->n_words;
}

vl_status vl_depth_new(vl_depth *out, int64_t n_rows, int64_t n_states, vl_error *err)
{
    *out = (vl_depth){.n_rows = n_rows, .n_words = (n_states + BITS - 1) / BITS};
    out->differs = vl_calloc((size_t)(n_rows * VL_DEPTH_LENSES), (size_t)out->n_words * sizeof(int64_t));
    return out->differs ? VL_OK : vl_fail_nomem(err, "prediction depths");
}

void vl_depth_clear(vl_depth *depth)
{
    vl_free(depth->differs);
    *depth = (vl_depth){0};
}

void vl_depth_differs(vl_depth *depth, int64_t row, vl_eval_lens lens, int64_t state)
{
    words_of(depth, row, lens)[state / BITS] |= (int64_t)1 << state % BITS;
}

vl_status vl_depth_add_up(vl_depth *depth, const vl_team *team, vl_error *err)
{
    vl_team_sum sum = {depth->differs, VL_I64, depth->n_rows * VL_DEPTH_LENSES * depth->n_words, 0, vl_team_size(team)};
    return vl_team_add(team, &sum, err);
}

int64_t vl_depth_of(const vl_depth *depth, int64_t row, vl_eval_lens lens)
{
    const int64_t *words = words_of(depth, row, lens);
    for (int64_t state = depth->n_words * BITS; state > 0; state--)
        if (words[(state - 1) / BITS] >> (state - 1) % BITS & 1)
            return state;
    return 0;
}
