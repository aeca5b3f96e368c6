/* vlens/fit.h - from a cache to a lens. */
#ifndef VLENS_FIT_H
#define VLENS_FIT_H

#include <vlens/lens.h>
#include <vlens/team.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_fit_options {
    bool fresh; /* start over although a checkpoint lies in the output folder */
    bool allow_other_model;
    const vl_team *team; /* NULL: one process. Members own layers; the first writes the lens and has the whole result */
} vl_fit_options;

typedef struct vl_fit_result {
    int64_t steps, tokens;     /* taken in all, over resumes */
    int64_t resumed_from_step; /* 0 for a new run */
    double seconds;            /* of this run */
    int64_t n_layers;
    int64_t n_stopped; /* layers that did not take all their steps, or came out without parameters: messages say why */
    double *train_kl;  /* [n_layers] mean objective over the last tenth of the steps */
    double *validation_kl; /* [n_layers] of the parameters that were kept; NaN without a validation part */
    double *start_kl;      /* [n_layers] validation KL of the initialisation */
} vl_fit_result;
VL_API void vl_fit_result_clear(vl_fit_result *result);

typedef struct vl_fit_inputs { /* all borrowed */
    const vl_config *config;
    vl_cache *cache; /* with the model's head in it */
    vl_device *device;
} vl_fit_inputs;

/* Fits the adapters on the training part of a cache and writes config->output. Goes on from the checkpoint in
 * <output>/checkpoint*.safetensors with the same bits as an unbroken run, also with a team of another size. `options`
 * and `observer` may be NULL. Errors: VL_ECANCELLED (a checkpoint was saved), VL_EINVAL (nothing to train on, a cache
 * without a head), VL_EMISMATCH (the output is of other settings, or the head of another model), VL_ENOMEM, VL_EIO. */
VL_API vl_status vl_fit_run(vl_fit_result *result, const vl_fit_inputs *inputs, const vl_fit_options *options,
                            const vl_observer *observer, vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
