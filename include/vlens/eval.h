/* vlens/eval.h - how well a lens predicts the model's own final distribution, on rows it never saw.
 *
 * For every state, lens and token class: mean KL with a 95 % bootstrap interval over images (over samples where there
 * are none), and the other metrics. A mean over everything hides two different things in a VLM (it never trains its
 * predictions at image positions): read the classes. */
#ifndef VLENS_EVAL_H
#define VLENS_EVAL_H

#include <vlens/lens.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum vl_eval_lens {
    VL_EVAL_LOGIT = 0,     /* the logit lens: A = 0, b = 0 */
    VL_EVAL_TUNED,         /* the lens under test */
    VL_EVAL_BASELINE,      /* eval.baseline, e.g. a bias-only lens */
    VL_EVAL_WRONG_PICTURE, /* the lens under test on states of one picture, against the model's distribution for
                            * another with the same prompt: what it knows from the text alone */
    VL_EVAL_LENS_COUNT
} vl_eval_lens;
/* "logit", "tuned", "baseline", "wrong_picture". */
VL_API const char *vl_eval_lens_name(vl_eval_lens lens);
/* "kl", "ce", ... as in eval.metrics. */
VL_API const char *vl_metric_name(vl_metric metric);

typedef struct vl_estimate {
    double mean, low, high; /* 95 % interval; NaN where there is none */
} vl_estimate;

typedef struct vl_eval_cell {
    int64_t rows;
    double metric[VL_METRIC_COLUMNS]; /* means over rows, then bias and ece; NaN where not measured */
    vl_estimate kl;
} vl_eval_cell;

typedef struct vl_eval_group {
    const char *name;       /* "text", "image", "last", "generated", "all-text", "all", "first" */
    int64_t rows, clusters; /* clusters: images, or samples without one */
    int64_t wrong_picture_rows;
} vl_eval_group;

typedef struct vl_eval_result vl_eval_result;

typedef struct vl_eval_options {
    bool allow_other_model;
    const vl_team *team; /* NULL: one process. Members measure states of their own; each gets the whole result */
    bool allow_seen;     /* held-out rows that the lens was fitted on are evaluated, and counted in the result */
} vl_eval_options;

typedef struct vl_eval_inputs { /* all borrowed */
    const vl_config *config;
    vl_cache *cache;
    const vl_lens *lens; /* the lens under test */
    vl_device *device;
} vl_eval_inputs;

/* Evaluates a lens on the rows of a cache that eval.split names: the held-out ones. The caller frees *out. `options`
 * and `observer` may be NULL. Errors: VL_EMISMATCH (fingerprint), VL_EINVAL (no such rows), VL_ECANCELLED, VL_ENOMEM,
 * VL_EIO. */
VL_API vl_status vl_eval_run(vl_eval_result **out, const vl_eval_inputs *inputs, const vl_eval_options *options,
                             const vl_observer *observer, vl_error *err);
VL_API void vl_eval_free(vl_eval_result *result);
VL_API int64_t vl_eval_n_layers(const vl_eval_result *result); /* L; states 0..L, where L is the model itself */
VL_API int vl_eval_n_groups(const vl_eval_result *result);
VL_API vl_eval_group vl_eval_get_group(const vl_eval_result *result, int group);
VL_API vl_eval_cell vl_eval_get_cell(const vl_eval_result *result, int group, int64_t state, vl_eval_lens lens);
/* KL of `other` minus KL of the lens under test, on the same rows, with its paired interval: above 0 is better. */
VL_API vl_estimate vl_eval_get_gain(const vl_eval_result *result, int group, int64_t state, vl_eval_lens other);
/* Prediction depth: the mean over rows of the first state from which on the lens' first token is the model's at every
 * state (0..L). Not for VL_EVAL_WRONG_PICTURE; NaN where there is none. */
VL_API vl_estimate vl_eval_get_depth(const vl_eval_result *result, int group, vl_eval_lens lens);

/* The result as aligned text (metrics of the configuration), and as JSON (docs/reference/formats.md).
 * Freed by vl_release. Error: VL_ENOMEM. */
VL_API vl_status vl_eval_table(char **out, const vl_eval_result *result, vl_error *err);
VL_API vl_status vl_eval_json(char **out, const vl_eval_result *result, vl_error *err);
/* Of what was measured, on which rows, and how, as 16 hexadecimal digits: equal digests, equal numbers. Borrowed. */
VL_API const char *vl_eval_digest(const vl_eval_result *result);
/* The JSON as a file, whole or not at all. */
VL_API vl_status vl_eval_write(const vl_eval_result *result, const char *path, vl_error *err);
/* Records the held-out KL per layer (class "all") in the lens' own file: `train` does so once, when it has fitted it.
 */
VL_API vl_status vl_eval_record(const vl_eval_result *result, const char *lens_path, vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
