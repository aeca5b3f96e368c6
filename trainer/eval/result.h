/* eval/result.h - a finished evaluation, ready to be read and written. */
#ifndef VL_EVAL_RESULT_H
#define VL_EVAL_RESULT_H

#include "trainer/eval/pooled.h"
#include "trainer/eval/tally.h"

enum { VL_EVAL_TEXT = 256 };

struct vl_eval_result {
    int64_t n_layers;
    vl_tally tally;
    vl_pooled pooled;
    int64_t wrong_rows; /* in all */
    int64_t n_skipped;  /* samples of the data that the cache leaves out */
    int64_t *left_out;  /* [n_layers + 1, VL_EVAL_LENS_COUNT] rows whose numbers are not finite */
    bool has_baseline, has_pictures;
    bool heldout;      /* eval.split */
    bool other_model;  /* the lens was made for another head: recorded in every output */
    vl_lens_seen seen; /* of what is held out */
    unsigned metrics;  /* columns shown */
    vl_bootstrap bootstrap;
    int n_groups;
    int group[VL_GROUP_COUNT];                /* the groups that have rows */
    vl_eval_group group_info[VL_GROUP_COUNT]; /* by position in `group` */
    vl_eval_cell *cell;                       /* [n_groups, n_layers + 1, VL_EVAL_LENS_COUNT] */
    vl_estimate *gain;                        /* the same shape: of the tuned lens over that one */
    vl_estimate *depth;                       /* [n_groups, VL_EVAL_LENS_COUNT] */
    char model_id[VL_EVAL_TEXT], fingerprint[65], lens_fingerprint[65];
    char model_digest[33], lens_model_digest[33]; /* "": unknown */
    char rules[VL_EVAL_TEXT];
    char lens_path[1024], cache_path[1024], baseline_path[1024];
    char version[32];
    char digest[17]; /* what was measured, on what, and how: hex */
};

typedef struct vl_eval_identity {
    const vl_config *config;
    const vl_cache *cache;
    const vl_lens *lens, *baseline; /* the second may be NULL */
    const vl_eval_rows *rows;
} vl_eval_identity;
/* Sets result->digest (identity.c). */
vl_status vl_eval_identify(vl_eval_result *result, const vl_eval_identity *what, vl_error *err);

/* Turns the sums into means and intervals. */
vl_status vl_eval_result_finish(vl_eval_result *result, vl_error *err);

#endif
