#include "trainer/eval/result.h"

#include <math.h>

#include "trainer/base/mem.h"

const char *vl_eval_lens_name(vl_eval_lens lens)
{
    static const char *const names[] = {"logit", "tuned", "baseline", "wrong_picture"};
    return names[lens];
}

const char *vl_metric_name(vl_metric metric)
{
    static const char *const names[] = {"kl", "ce", "entropy", "top1", "top5", "rank", "js", "tv", "bias", "ece"};
    return names[metric];
}

void vl_eval_free(vl_eval_result *result)
{
    if (!result)
        return;
    vl_tally_clear(&result->tally);
    vl_pooled_clear(&result->pooled);
    vl_free(result->depth);
    vl_free(result->cell);
    vl_free(result->gain);
    vl_free(result->left_out);
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

vl_estimate vl_eval_get_depth(const vl_eval_result *result, int group, vl_eval_lens lens)
{
    return result->depth[group * VL_EVAL_LENS_COUNT + (int)lens];
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

typedef struct finish_work {
    uint16_t *draws; /* NULL without intervals */
    double *scratch; /* [resamples + 1] */
} finish_work;

static void finish_cell(vl_eval_result *r, int g, int64_t state, vl_eval_lens lens, const finish_work *work)
{
    const vl_tally *t = &r->tally;
    size_t at = place(r, g, state, lens);
    const int64_t *rows = vl_tally_rows(t, state, lens, r->group[g]);
    const double *sum = vl_tally_kl(t, state, lens, r->group[g]);
    r->cell[at] = vl_tally_cell(t, state, lens, r->group[g]);
    r->gain[at] = (vl_estimate){NAN, NAN, NAN};
    if (r->cell[at].rows == 0)
        return;
    r->cell[at].kl =
        vl_bootstrap_estimate(sum, NULL, rows, t->n_clusters, work->draws, r->bootstrap.resamples, work->scratch);
    bool pairs = r->cell[at].rows == vl_tally_cell(t, state, VL_EVAL_TUNED, r->group[g]).rows;
    if (pairs && (lens == VL_EVAL_LOGIT || lens == VL_EVAL_BASELINE)) /* the same rows are left out of both */
        r->gain[at] = vl_bootstrap_estimate(sum, vl_tally_kl(t, state, VL_EVAL_TUNED, r->group[g]), rows, t->n_clusters,
                                            work->draws, r->bootstrap.resamples, work->scratch);
    if (lens != VL_EVAL_WRONG_PICTURE) {
        r->cell[at].metric[VL_METRIC_BIAS] = vl_pooled_bias(&r->pooled, state, lens, r->group[g]);
        r->cell[at].metric[VL_METRIC_ECE] = vl_pooled_ece(&r->pooled, state, lens, r->group[g]);
    }
}

static void finish_depth(vl_eval_result *r, int g, vl_eval_lens lens, const finish_work *work)
{
    const vl_tally *t = &r->tally;
    vl_estimate *out = &r->depth[g * VL_EVAL_LENS_COUNT + (int)lens];
    *out = (vl_estimate){NAN, NAN, NAN};
    if (lens == VL_EVAL_WRONG_PICTURE || (lens == VL_EVAL_BASELINE && !r->has_baseline))
        return;
    *out = vl_bootstrap_estimate(vl_tally_depth(t, lens, r->group[g]), NULL, t->rows + r->group[g] * t->n_clusters,
                                 t->n_clusters, work->draws, r->bootstrap.resamples, work->scratch);
}

vl_status vl_eval_result_finish(vl_eval_result *r, vl_error *err)
{
    choose_groups(r);
    size_t cells = (size_t)r->n_groups * (size_t)(r->n_layers + 1) * VL_EVAL_LENS_COUNT;
    finish_work work = {NULL, vl_alloc((size_t)(r->bootstrap.resamples + 1), sizeof(double))};
    vl_status status = VL_OK;
    r->cell = vl_calloc(cells, sizeof *r->cell);
    r->gain = vl_calloc(cells, sizeof *r->gain);
    r->depth = vl_calloc((size_t)r->n_groups * VL_EVAL_LENS_COUNT, sizeof *r->depth);
    if (!r->cell || !r->gain || !r->depth || !work.scratch)
        status = vl_fail_nomem(err, "evaluation result");
    if (status == VL_OK && r->bootstrap.resamples > 0)
        status = vl_bootstrap_draw(&work.draws, &r->bootstrap, r->tally.n_clusters, err);
    for (int g = 0; status == VL_OK && g < r->n_groups; g++)
        for (vl_eval_lens lens = 0; lens < VL_EVAL_LENS_COUNT; lens++) {
            for (int64_t s = 0; s <= r->n_layers; s++)
                finish_cell(r, g, s, lens, &work);
            finish_depth(r, g, lens, &work);
        }
    vl_free(work.draws);
    vl_free(work.scratch);
    return status;
}
