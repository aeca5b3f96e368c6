/* vlens/lens.h - a lens: one affine adapter for each state 0..L-1.
 *
 * lens_i(h) = unembed(final_norm(h + A_i h + b_i)). A = 0, b = 0 is the logit lens. On disk a directory with
 * lens.safetensors (adapter.{i}.weight [D, D], adapter.{i}.bias [D], metadata) and metrics.json. */
#ifndef VLENS_LENS_H
#define VLENS_LENS_H

#include <stdbool.h>

#include <vlens/cache.h>
#include <vlens/config.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_lens vl_lens;

typedef struct vl_lens_info {
    const char *path;
    int64_t d_model, n_layers; /* n_layers adapters, for states 0..n_layers-1 */
    const char *fingerprint;
    const char *model_id;
    const char *config; /* YAML text of the run, "" where unknown */
    int64_t tokens_seen;
    const double *heldout_kl; /* [n_layers] or NULL: all kept classes, as eval prints them */
    bool bias_only;
    vl_dtype dtype; /* as stored */
} vl_lens_info;

/* Opens and checks a lens directory (or its lens.safetensors). The caller closes. */
VL_API vl_status vl_lens_open(vl_lens **out, const char *path, vl_error *err);
VL_API void vl_lens_close(vl_lens *lens);
VL_API const vl_lens_info *vl_lens_get_info(const vl_lens *lens);
/* [D, D] f32 row-major (out, in) and [D]; borrowed; NULL where that layer was not trained (identity). */
VL_API const float *vl_lens_weight(const vl_lens *lens, int64_t layer);
VL_API const float *vl_lens_bias(const vl_lens *lens, int64_t layer);
/* Checks that a lens belongs to a head: VL_EMISMATCH names both fingerprints. With allow_other_model only the shape
 * must fit and *warned is set. */
VL_API vl_status vl_lens_check(const vl_lens *lens, const char *fingerprint, int64_t d_model, int64_t n_layers,
                               bool allow_other_model, bool *warned, vl_error *err);

/* Whether a lens was fitted as a configuration says: every key that affects a fit, but those that also affect `own`
 * (vl_affects bits). VL_EMISMATCH names the first that differs. A lens that was imported does not say: VL_OK. */
VL_API vl_status vl_lens_check_config(const vl_lens *lens, const vl_config *config, unsigned own, vl_error *err);

/* out[M, D] = h + A_i h + b_i on the device, all f32. `layer` == n_layers copies. */
VL_API vl_status vl_lens_transform(vl_lens *lens, vl_device *device, int64_t layer, vl_tensor out, vl_tensor h,
                                   vl_error *err);

/* What an adapter does to a state, in numbers. */
typedef struct vl_lens_diagnosis {
    bool fitted;           /* false: identity, the logit lens; the rest is 0, condition 1 */
    double weight_norm;    /* ||A||, Frobenius */
    double bias_norm;      /* ||b|| */
    double to_next;        /* ||A_i - A_{i+1}|| / sqrt(||A_i|| ||A_{i+1}||); NaN without a fitted neighbour */
    bool has_spectrum;     /* the rest: singular values of A and of I + A */
    double spectral_norm;  /* the largest singular value of A */
    double effective_rank; /* exp of the entropy of the singular values' shares (Roy and Vetterli, 2007) */
    double condition;      /* of I + A: the largest singular value over the smallest */
} vl_lens_diagnosis;
/* `spectrum` asks for singular values: some 4 D^3 flops a layer. `singular` [D] or NULL: those of A, falling.
 * Errors: VL_ENOMEM, VL_EINVAL (no such layer), VL_EFORMAT (a value that is not finite). */
VL_API vl_status vl_lens_diagnose(vl_lens_diagnosis *out, const vl_lens *lens, int64_t layer, bool spectrum,
                                  float *singular, vl_error *err);

/* ---- fitting ----------------------------------------------------------------------------------------------- */

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
    double *train_kl;      /* [n_layers] mean objective over the last tenth of the steps */
    double *validation_kl; /* [n_layers] of the parameters that were kept; NaN without a validation part */
    double *start_kl;      /* [n_layers] validation KL of the initialisation */
} vl_fit_result;
VL_API void vl_fit_result_clear(vl_fit_result *result);

/* Fits the adapters on the training part of a cache and writes config->output. Goes on from the checkpoint in
 * <output>/checkpoint*.safetensors with the same bits as an unbroken run, also with a team of another size.
 * VL_ECANCELLED: a checkpoint was saved. */
VL_API vl_status vl_fit_run(vl_fit_result *result, const vl_config *config, vl_cache *cache, vl_device *device,
                            const vl_fit_options *options, const vl_observer *observer, vl_error *err);

/* ---- export and import ------------------------------------------------------------------------------------- */

typedef struct vl_export_options {
    const char *format; /* one of vl_export_formats() */
    const char *path;
    vl_dtype dtype;
    const vl_head *head; /* of the model that the lens belongs to, or NULL: checked, and hashed for "tuned-lens" */
} vl_export_options;

/* Writes a lens as "safetensors" (a file, or a folder with lens.safetensors), "npz" (one array per tensor, float32
 * only), "tuned-lens" (a folder with config.json and params.pt, for the Python package of that name; unembed_hash is
 * null without a head), "hdf5" (one file) or "jlens" (the artifact of that package: without biases, and without the
 * adapter of state 0). Every file appears whole or not at all. The formats that exist: vl_export_formats(), separated
 * by ", ". Errors: VL_EUNSUPPORTED where a value does not fit `dtype`. */
VL_API vl_status vl_lens_export(const vl_lens *lens, const vl_export_options *options, vl_error *err);
VL_API const char *vl_export_formats(void);

typedef struct vl_import_options {
    const char *path;     /* a folder of tuned-lens; a .npz, .h5 or .hdf5; a lens.safetensors or its folder */
    const char *out;      /* the folder of the new lens */
    const vl_head *head;  /* of the model that it belongs to: gives shapes and fingerprint */
    const char *model_id; /* where the file names none; may be NULL */
    bool allow_other_model;
} vl_import_options;

/* Reads a lens that another program wrote and writes it as one of ours, in the element type that was stored. What a
 * file says about its model (fingerprint or unembed_hash) must fit the head: VL_EMISMATCH, or *warned with
 * allow_other_model. params.pt is read as data: a pickle that needs more than tensors is refused, and nothing in it is
 * ever run. `warned` may be NULL. */
VL_API vl_status vl_lens_import(const vl_import_options *options, bool *warned, vl_error *err);

/* ---- the same logits ---------------------------------------------------------------------------------------- */

typedef struct vl_agree_args {
    vl_lens *lens;
    vl_lens *other; /* the lens that it should be, or NULL */
    vl_head *head;  /* of the model that both belong to, prepared on `device` */
    vl_device *device;
    vl_cache *cache; /* rows are taken from here, */
    vl_model *model; /* or from one sentence that this runs; one of them is NULL */
} vl_agree_args;

typedef struct vl_agreement { /* KL in nats over a few rows of every layer; NaN where logits are no numbers */
    int64_t rows;
    double worst;                   /* KL(float64 from the lens's numbers || as computed everywhere), the largest */
    double other_worst, other_mean; /* KL(other || lens); 0 without another */
    int64_t worst_layer, other_layer;
} vl_agreement;

/* Recomputes logits from the numbers of a lens and compares them. */
VL_API vl_status vl_lens_agree(vl_agreement *out, const vl_agree_args *args, vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
