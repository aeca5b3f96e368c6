/* vlens/fidelity.h - does a lens read what the model uses, or does it invent?
 *
 * Causal basis extraction (Belrose et al., "Eliciting Latent Predictions from Transformers with the Tuned Lens", 2023,
 * section 4): directions v of one state, each orthogonal to those before, along which ablation changes the lens'
 * prediction most, E KL(lens(h) || lens(r(h, v))). The same directions are then ablated in the model at that state, and
 * the change of its final distribution is measured, E KL(model || model with r(h, v)). A faithful lens ranks the
 * directions as the model does (Spearman's rank correlation). r replaces what h has along v by that of the mean row of
 * the same kind (text, image), or of another row of that kind (resample).
 *
 * Both changes grow with how far ablation moves the rows along a direction, whatever the lens knows: any lens then
 * ranks somewhat like the model. The partial rank correlation holds that displacement fixed (ranks of both, less what
 * the ranks of the displacement explain: Marino et al., J. Theor. Biol. 254, 2008). Dividing both by it would not do:
 * ratios with a common denominator are correlated by themselves (Pearson, Proc. R. Soc. 60, 1897).
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
    vl_estimate correlation;    /* Spearman, with a 95 % bootstrap interval over directions and samples */
    vl_estimate partial;        /* the same with the displacement held fixed */
    vl_estimate alignment;      /* -1..1, with an interval over samples */
    const double *lens_kl;      /* [n_directions] nats: change of the lens, in the order found */
    const double *model_kl;     /* [n_directions] nats: change of the model */
    const double *displacement; /* [n_directions] mean squared length by which a measured row was moved */
} vl_fidelity_cell;

/* Token ablation at the input: rows of patches replaced where the picture enters the decoder (state 0), and what
 * becomes of the first token that the model answers with the whole picture (Neo et al., "Towards Interpreting Visual
 * Information Processing in Vision-Language Models", 2024). Asked are held-out samples whose prompt names one object of
 * their picture, by fidelity.objects. */
typedef enum vl_patch_set {
    VL_PATCHES_OBJECT = 0, /* the patches listed for the object that is asked about */
    VL_PATCHES_RING,       /* those beside them, also diagonally */
    VL_PATCHES_BOTH,
    VL_PATCH_SET_COUNT
} vl_patch_set;
typedef enum vl_patch_value {
    VL_PATCH_MEAN = 0, /* the mean row of all patches of the pictures that are asked about */
    VL_PATCH_ZERO,
    VL_PATCH_VALUE_COUNT
} vl_patch_value;
/* "object", "ring", "both"; "mean", "zero". */
VL_API const char *vl_patch_set_name(vl_patch_set set);
VL_API const char *vl_patch_value_name(vl_patch_value value);

/* Means over pictures with 95 % bootstrap intervals. Elsewhere: as many patches, drawn at random from those that are in
 * neither the object nor its ring. */
typedef struct vl_patch_effect {
    double patches;          /* mean number that is replaced */
    vl_estimate probability; /* of the model's own answer */
    vl_estimate kept;        /* share of pictures where it is still the first token */
    vl_estimate probability_elsewhere, kept_elsewhere;
    vl_estimate beyond_elsewhere; /* probability_elsewhere - probability, paired by picture */
} vl_patch_effect;

typedef struct vl_fidelity vl_fidelity;

typedef struct vl_fidelity_info {
    int n_layers, n_directions;
    int64_t n_samples, n_rows; /* held-out samples, and their rows that are measured (text, not the first position) */
    const char *ablation;      /* "mean", "resample" */
    const char *lens, *control, *model; /* paths; "" without a control */
    bool other_model;
    vl_lens_seen seen;       /* of what is held out */
    int64_t n_pictures;      /* of the token ablation; 0 without fidelity.objects */
    vl_estimate probability; /* of the model's answer there, with the whole picture */
} vl_fidelity_info;

typedef struct vl_fidelity_inputs { /* all borrowed */
    const vl_config *config;        /* fidelity.*, eval.bootstrap, eval.seed, data.* */
    vl_model *model;
    vl_cache *cache;         /* says which samples are held out */
    vl_lens *lens, *control; /* control may be NULL */
    vl_device *device;
    bool allow_other_model;
    bool allow_seen; /* held-out samples that the lens was fitted on */
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
/* NULL without fidelity.objects. */
VL_API const vl_patch_effect *vl_fidelity_patches(const vl_fidelity *fidelity, vl_patch_set set, vl_patch_value value);

/* Aligned text, and JSON (docs/reference/formats.md). vl_release. */
VL_API vl_status vl_fidelity_table(char **out, const vl_fidelity *fidelity, vl_error *err);
VL_API vl_status vl_fidelity_json(char **out, const vl_fidelity *fidelity, vl_error *err);
VL_API vl_status vl_fidelity_write(const vl_fidelity *fidelity, const char *path, vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
