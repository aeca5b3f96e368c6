#include "trainer/eval/tally.h"

#include <math.h>
#include <stdlib.h>

#include "trainer/base/mem.h"
#include "trainer/base/rng.h"

static size_t cell_index(const vl_tally *t, int64_t state, vl_eval_lens lens, int group)
{
    (void)t;
    return ((size_t)state * VL_EVAL_LENS_COUNT + (size_t)lens) * VL_GROUP_COUNT + (size_t)group;
}

vl_status vl_tally_new(vl_tally *out, int64_t n_states, int64_t n_clusters, vl_error *err)
{
    size_t cells = (size_t)n_states * VL_EVAL_LENS_COUNT * VL_GROUP_COUNT, clusters = (size_t)n_clusters;
    *out = (vl_tally){.n_states = n_states, .n_clusters = n_clusters};
    out->kl = vl_calloc(cells * clusters, sizeof(double));
    out->kl_rows = vl_calloc(cells * clusters, sizeof(int64_t));
    out->metric = vl_calloc(cells * VL_METRIC_COUNT, sizeof(double));
    out->valid = vl_calloc(cells * VL_METRIC_COUNT, sizeof(int64_t));
    out->depth = vl_calloc(VL_EVAL_LENS_COUNT * VL_GROUP_COUNT * clusters, sizeof(double));
    out->rows = vl_calloc(VL_GROUP_COUNT * clusters, sizeof(int64_t));
    out->wrong = vl_calloc(VL_GROUP_COUNT * clusters, sizeof(int64_t));
    if (out->kl && out->kl_rows && out->metric && out->valid && out->depth && out->rows && out->wrong)
        return VL_OK;
    vl_tally_clear(out);
    return vl_fail_nomem(err, "sums of the evaluation");
}

void vl_tally_clear(vl_tally *tally)
{
    vl_free(tally->kl);
    vl_free(tally->kl_rows);
    vl_free(tally->metric);
    vl_free(tally->valid);
    vl_free(tally->depth);
    vl_free(tally->rows);
    vl_free(tally->wrong);
    *tally = (vl_tally){0};
}

void vl_tally_row(vl_tally *tally, int group, int64_t cluster, bool has_partner)
{
    for (int target = 0; target < VL_GROUP_COUNT; target++)
        if (vl_eval_group_holds(target, group)) {
            tally->rows[target * tally->n_clusters + cluster]++;
            tally->wrong[target * tally->n_clusters + cluster] += has_partner;
        }
}

void vl_tally_add(vl_tally *tally, int64_t state, vl_eval_lens lens, int group, int64_t cluster, const float *metric)
{
    for (int target = 0; target < VL_GROUP_COUNT; target++) {
        if (!vl_eval_group_holds(target, group))
            continue;
        size_t cell = cell_index(tally, state, lens, target);
        tally->kl[cell * (size_t)tally->n_clusters + (size_t)cluster] += (double)metric[VL_METRIC_KL];
        tally->kl_rows[cell * (size_t)tally->n_clusters + (size_t)cluster]++;
        for (int m = 0; m < VL_METRIC_COUNT; m++)
            if (!isnan(metric[m])) {
                tally->metric[cell * VL_METRIC_COUNT + (size_t)m] += (double)metric[m];
                tally->valid[cell * VL_METRIC_COUNT + (size_t)m]++;
            }
    }
}

vl_status vl_tally_add_up(vl_tally *t, const vl_team *team, vl_error *err)
{
    int64_t cells = t->n_states * VL_EVAL_LENS_COUNT * VL_GROUP_COUNT, metrics = cells * VL_METRIC_COUNT;
    vl_team_sum sums[] = {{t->kl, VL_F64, cells * t->n_clusters, 0, vl_team_size(team)},
                          {t->kl_rows, VL_I64, cells * t->n_clusters, 0, vl_team_size(team)},
                          {t->metric, VL_F64, metrics, 0, vl_team_size(team)},
                          {t->valid, VL_I64, metrics, 0, vl_team_size(team)}};
    for (int i = 0; i < 4; i++)
        VL_TRY(vl_team_add(team, &sums[i], err));
    return VL_OK;
}

void vl_tally_add_depth(vl_tally *tally, vl_eval_lens lens, int group, int64_t cluster, int64_t depth)
{
    for (int target = 0; target < VL_GROUP_COUNT; target++)
        if (vl_eval_group_holds(target, group))
            tally->depth[((int64_t)lens * VL_GROUP_COUNT + target) * tally->n_clusters + cluster] += (double)depth;
}

const double *vl_tally_depth(const vl_tally *tally, vl_eval_lens lens, int group)
{
    return tally->depth + ((int64_t)lens * VL_GROUP_COUNT + group) * tally->n_clusters;
}

const double *vl_tally_kl(const vl_tally *tally, int64_t state, vl_eval_lens lens, int group)
{
    return tally->kl + cell_index(tally, state, lens, group) * (size_t)tally->n_clusters;
}

const int64_t *vl_tally_rows(const vl_tally *tally, int64_t state, vl_eval_lens lens, int group)
{
    return tally->kl_rows + cell_index(tally, state, lens, group) * (size_t)tally->n_clusters;
}

vl_eval_cell vl_tally_cell(const vl_tally *tally, int64_t state, vl_eval_lens lens, int group)
{
    vl_eval_cell cell = {.kl = {NAN, NAN, NAN}};
    size_t at = cell_index(tally, state, lens, group) * VL_METRIC_COUNT;
    for (int m = 0; m < VL_METRIC_COUNT; m++) {
        int64_t valid = tally->valid[at + (size_t)m];
        cell.metric[m] = valid ? tally->metric[at + (size_t)m] / (double)valid : (double)NAN;
    }
    for (int m = VL_METRIC_COUNT; m < VL_METRIC_COLUMNS; m++)
        cell.metric[m] = (double)NAN;
    cell.rows = tally->valid[at + VL_METRIC_KL];
    cell.kl.mean = cell.metric[VL_METRIC_KL];
    return cell;
}

vl_status vl_bootstrap_draw(uint16_t **out, const vl_bootstrap *bootstrap, int64_t n_clusters, vl_error *err)
{
    *out = vl_calloc((size_t)(bootstrap->resamples * n_clusters), sizeof **out);
    if (!*out)
        return vl_fail_nomem(err, "bootstrap resamples");
    vl_rng rng;
    vl_rng_seed(&rng, (uint64_t)bootstrap->seed);
    for (int64_t b = 0; b < bootstrap->resamples; b++)
        for (int64_t i = 0; i < n_clusters; i++)
            (*out)[b * n_clusters + (int64_t)vl_rng_below(&rng, (uint64_t)n_clusters)]++;
    return VL_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The value at share q of a sorted list, between neighbours. */
static double quantile(const double *sorted, int64_t n, double q)
{
    double at = q * (double)(n - 1);
    int64_t low = (int64_t)at;
    double share = at - (double)low;
    return low + 1 < n ? sorted[low] * (1 - share) + sorted[low + 1] * share : sorted[n - 1];
}

vl_estimate vl_bootstrap_estimate(const double *sum, const double *minus, const int64_t *rows, int64_t n_clusters,
                                  const uint16_t *draws, int64_t resamples, double *scratch)
{
    double total = 0, weight = 0;
    for (int64_t i = 0; i < n_clusters; i++) {
        total += sum[i] - (minus ? minus[i] : 0);
        weight += (double)rows[i];
    }
    vl_estimate estimate = {weight > 0 ? total / weight : (double)NAN, NAN, NAN};
    int64_t have = 0;
    for (int64_t b = 0; draws && b < resamples; b++) {
        const uint16_t *draw = draws + b * n_clusters;
        total = weight = 0;
        for (int64_t i = 0; i < n_clusters; i++) {
            total += draw[i] * (sum[i] - (minus ? minus[i] : 0));
            weight += (double)draw[i] * (double)rows[i];
        }
        if (weight > 0)
            scratch[have++] = total / weight;
    }
    if (have > 1) {
        qsort(scratch, (size_t)have, sizeof *scratch, by_value);
        estimate.low = quantile(scratch, have, 0.025);
        estimate.high = quantile(scratch, have, 0.975);
    }
    return estimate;
}
