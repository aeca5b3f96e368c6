#include "trainer/eval/result.h"

#include <math.h>

#include "trainer/base/mem.h"

const char *vl_eval_lens_name(vl_eval_lens lens)
{
    static const char *const names[] = {"logit", "tuned", "baseline", "wrong_picture"};
    return names[lens];
}

const char *vl_eval_metric_name(vl_eval_metric metric)
{
    static const char *const names[] = {"kl", "ce", "entropy", "top1", "top5", "rank", "js", "tv"};
    return names[metric];
}

void vl_eval_free(vl_eval_result *result)
{
    if (!result)
        return;
    vl_tally_clear(&result->tally);
    vl_free(result->cell);
    vl_free(result->gain);
    vl_free(result);
}

int64_t vl_eval_n_layers(const vl_eval_result *result)
{
    return result->n_layers;
}

int vl_eval_n_groups(const vl_eval_result *result)
{
    return result->n_groups;
}

vl_eval_group vl_eval_get_group(const vl_eval_result *result, int group)
{
    return result->group_info[group];
}

static size_t place(const vl_eval_result *r, int group, int64_t state, vl_eval_lens lens)
{
    return ((size_t)group * (size_t)(r->n_layers + 1) + (size_t)state) * VL_EVAL_LENS_COUNT + (size_t)lens;
}

vl_eval_cell vl_eval_get_cell(const vl_eval_result *result, int group, int64_t state, vl_eval_lens lens)
{
    return result->cell[place(result, group, state, lens)];
}

vl_estimate vl_eval_get_gain(const vl_eval_result *result, int group, int64_t state, vl_eval_lens other)
{
    return result->gain[place(result, group, state, other)];
}

static int64_t total(const int64_t *counts, int64_t n, int64_t *nonzero)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += counts[i];
        *nonzero += counts[i] > 0;
    }
    return sum;
}

/* A class stands in the result where it has rows; unions only where they are more than one class. */
static void choose_groups(vl_eval_result *r)
{
    int64_t n = r->tally.n_clusters, unused = 0, rows_before = -1;
    for (int g = 0; g < VL_GROUP_COUNT; g++) {
        vl_eval_group info = {.name = vl_eval_group_name(g)};
        info.rows = total(r->tally.rows + g * n, n, &info.clusters);
        info.wrong_picture_rows = total(r->tally.wrong + g * n, n, &unused);
        bool same_as_text = g == VL_GROUP_ALL && info.rows == rows_before;
        if (g == VL_GROUP_ALL_TEXT)
            rows_before = info.rows;
        if (info.rows == 0 || same_as_text)
            continue;
        r->group[r->n_groups] = g;
        r->group_info[r->n_groups++] = info;
    }
}

vl_status vl_eval_result_finish(vl_eval_result *r, vl_error *err)
{
    choose_groups(r);
    size_t cells = (size_t)r->n_groups * (size_t)(r->n_layers + 1) * VL_EVAL_LENS_COUNT;
    uint16_t *draws = NULL;
    double *scratch = vl_alloc((size_t)(r->bootstrap.resamples + 1), sizeof(double));
    vl_status status = VL_OK;
    r->cell = vl_calloc(cells, sizeof *r->cell);
    r->gain = vl_calloc(cells, sizeof *r->gain);
    if (!r->cell || !r->gain || !scratch) {
        vl_free(scratch);
        return vl_fail_nomem(err, "evaluation result");
    }
    if (r->bootstrap.resamples > 0)
        status = vl_bootstrap_draw(&draws, &r->bootstrap, r->tally.n_clusters, err);
    int64_t n = r->tally.n_clusters;
    for (int g = 0; status == VL_OK && g < r->n_groups; g++)
        for (int64_t s = 0; s <= r->n_layers; s++)
            for (vl_eval_lens lens = 0; lens < VL_EVAL_LENS_COUNT; lens++) {
                size_t at = place(r, g, s, lens);
                const int64_t *rows =
                    (lens == VL_EVAL_WRONG_PICTURE ? r->tally.wrong : r->tally.rows) + r->group[g] * n;
                const double *sum = vl_tally_kl(&r->tally, s, lens, r->group[g]);
                r->cell[at] = vl_tally_cell(&r->tally, s, lens, r->group[g]);
                r->gain[at] = (vl_estimate){NAN, NAN, NAN};
                if (r->cell[at].rows == 0)
                    continue;
                r->cell[at].kl = vl_bootstrap_estimate(sum, NULL, rows, n, draws, r->bootstrap.resamples, scratch);
                if (lens == VL_EVAL_LOGIT || lens == VL_EVAL_BASELINE)
                    r->gain[at] = vl_bootstrap_estimate(sum, vl_tally_kl(&r->tally, s, VL_EVAL_TUNED, r->group[g]),
                                                        rows, n, draws, r->bootstrap.resamples, scratch);
            }
    vl_free(draws);
    vl_free(scratch);
    return status;
}
