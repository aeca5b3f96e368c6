/* vlens/fidelity.h - does a lens read what the model uses, or does it invent?
 *
 * Causal basis extraction (Belrose et al., "Eliciting Latent Predictions from Transformers with the Tuned Lens", 2023,
 * section 4): directions v of one state, each orthogonal to those before, along which ablation changes the lens'
 * prediction most, E KL(lens(h) || lens(r(h, v))). The same directions are then ablated in the model at that state, and
 * the change of its final distribution is measured, E KL(model || model with r(h, v)). A faithful lens ranks the
 * directions as the model does (Spearman's rank correlation). r replaces what h has along v by that of the mean row of
 * the same kind (text, image), or of another row of that kind (resample).
 *
 * Stimulus-response alignment (the same section): with the whole basis ablated, the mean over rows of the Aitchison
 * cosine, weighted by the model's distribution, between the change of the lens' log-probabilities and the model's. */
#ifndef VLENS_FIDELITY_H
#define VLENS_FIDELITY_H

#include <vlens/eval.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum vl_fidelity_lens {
    VL_FIDELITY_TUNED = 0,
    VL_FIDELITY_LOGIT,
    VL_FIDELITY_RANDOM,  /* the tuned lens on random orthonormal directions in the place of its basis */
    VL_FIDELITY_CONTROL, /* fidelity.control: e.g. a lens fitted on shuffled targets */
    VL_FIDELITY_LENS_COUNT
} vl_fidelity_lens;
/* "tuned", "logit", "random", "control". */
VL_API const char *vl_fidelity_lens_name(vl_fidelity_lens lens);

typedef struct vl_fidelity_cell {
    bool measured;
    vl_estimate correlation; /* Spearman, with a 95 % bootstrap interval over directions and samples */
    vl_estimate alignment;   /* -1..1, with an interval over samples */
    const double *lens_kl;   /* [n_directions] nats: change of the lens, in the order found */
    const double *model_kl;  /* [n_directions] nats: change of the model */
} vl_fidelity_cell;

typedef struct vl_fidelity vl_fidelity;

typedef struct vl_fidelity_info {
    int n_layers, n_directions;
    int64_t n_samples, n_rows; /* held-out samples, and their rows that are measured (text, not the first position) */
    const char *ablation;      /* "mean", "resample" */
    const char *lens, *control, *model; /* paths; "" without a control */
    bool other_model;
} vl_fidelity_info;

typedef struct vl_fidelity_inputs { /* all borrowed */
    const vl_config *config; /* fidelity.*, eval.bootstrap, eval.seed, data.* */
    vl_model *model;
    vl_cache *cache; /* says which samples are held out */
    vl_lens *lens, *control; /* control may be NULL */
    vl_device *device;
    bool allow_other_model;
} vl_fidelity_inputs;

/* The caller frees *out. Errors: VL_EMISMATCH (fingerprints), VL_EINVAL (no held-out sample with two text rows). */
VL_API vl_status vl_fidelity_run(vl_fidelity **out, const vl_fidelity_inputs *inputs, const vl_observer *observer,
                                 vl_error *err);
VL_API void vl_fidelity_free(vl_fidelity *fidelity);
VL_API vl_fidelity_info vl_fidelity_get_info(const vl_fidelity *fidelity);
/* The state that entry `index` of the layers is about. */
VL_API int64_t vl_fidelity_state(const vl_fidelity *fidelity, int index);
VL_API vl_fidelity_cell vl_fidelity_get_cell(const vl_fidelity *fidelity, int index, vl_fidelity_lens lens);
/* Mean KL in nats of each state through the adapter of each (transfer): [L, L], row: the state that is read, column:
 * whose adapter; NULL where fidelity.transfer_rows is 0. */
VL_API const double *vl_fidelity_transfer(const vl_fidelity *fidelity, int64_t *n_layers);

/* Aligned text, and JSON (docs/FORMATS.md). vl_release. */
VL_API vl_status vl_fidelity_table(char **out, const vl_fidelity *fidelity, vl_error *err);
VL_API vl_status vl_fidelity_json(char **out, const vl_fidelity *fidelity, vl_error *err);
VL_API vl_status vl_fidelity_write(const vl_fidelity *fidelity, const char *path, vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
