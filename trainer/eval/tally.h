/* eval/tally.h - sums per state, lens, class and cluster, and the bootstrap over clusters. */
#ifndef VL_EVAL_TALLY_H
#define VL_EVAL_TALLY_H

#include <vlens/eval.h>

#include "trainer/base/team.h"
#include "trainer/eval/rows.h"

typedef struct vl_tally {
    int64_t n_states, n_clusters;
    double *kl;       /* [n_states, lenses, VL_GROUP_COUNT, n_clusters] sums of KL */
    int64_t *kl_rows; /* the same shape: rows that were summed (a row that is no finite number is not) */
    double *metric;   /* [n_states, lenses, VL_GROUP_COUNT, VL_METRIC_COUNT] sums */
    int64_t *valid;   /* the same shape: rows that have that metric (there is not always a next token) */
    double *depth;    /* [lenses, VL_GROUP_COUNT, n_clusters] sums of prediction depths */
    int64_t *rows;    /* [VL_GROUP_COUNT, n_clusters] */
    int64_t *wrong;   /* [VL_GROUP_COUNT, n_clusters] rows with a partner */
} vl_tally;

vl_status vl_tally_new(vl_tally *out, int64_t n_states, int64_t n_clusters, vl_error *err);
void vl_tally_clear(vl_tally *tally);
/* Counts a row of finest group `group` once. */
void vl_tally_row(vl_tally *tally, int group, int64_t cluster, bool has_partner);
/* Adds one row's metrics [VL_METRIC_COUNT] (NaN: not measured). Its KL must be a number. */
void vl_tally_add(vl_tally *tally, int64_t state, vl_eval_lens lens, int group, int64_t cluster, const float *metric);
/* Adds the prediction depth of one row (after the members of a team have added up: every member adds all rows). */
void vl_tally_add_depth(vl_tally *tally, vl_eval_lens lens, int group, int64_t cluster, int64_t depth);
const double *vl_tally_depth(const vl_tally *tally, vl_eval_lens lens, int group);

/* Sums of all members of a team. Every state is measured by one of them, so that nothing is rounded. */
vl_status vl_tally_add_up(vl_tally *tally, const vl_team *team, vl_error *err);

typedef struct vl_bootstrap {
    int64_t resamples; /* 0: no intervals */
    int64_t seed;
} vl_bootstrap;

/* Per group, the resampled weights of the clusters are drawn once and shared by all states and lenses: [resamples,
 * n_clusters]. Freed by vl_free. */
vl_status vl_bootstrap_draw(uint16_t **out, const vl_bootstrap *bootstrap, int64_t n_clusters, vl_error *err);
/* Mean of `sum` over `rows` ([n_clusters] each) with its percentile interval. `minus` (may be NULL) is subtracted. */
vl_estimate vl_bootstrap_estimate(const double *sum, const double *minus, const int64_t *rows, int64_t n_clusters,
                                  const uint16_t *draws, int64_t resamples, double *scratch);

const int64_t *vl_tally_rows(const vl_tally *tally, int64_t state, vl_eval_lens lens, int group);
const double *vl_tally_kl(const vl_tally *tally, int64_t state, vl_eval_lens lens, int group);
vl_eval_cell vl_tally_cell(const vl_tally *tally, int64_t state, vl_eval_lens lens, int group);

#endif
