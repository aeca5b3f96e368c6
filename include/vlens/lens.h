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
    const char *model_digest, *rules; /* of the model that it was fitted on; "" where unknown (imports) */
    const char *model_manifest;       /* what the digest is of; "" */
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
/* Checks that a lens belongs to a head, by its fingerprint, d_model and n_layers: VL_EMISMATCH names both sides. With
 * allow_other_model only the shape must fit and *warned is set. `warned` may be NULL. */
VL_API vl_status vl_lens_check(const vl_lens *lens, const vl_head_info *head, bool allow_other_model, bool *warned,
                               vl_error *err);

/* Checks that a lens was fitted on the model of this digest and manifest (those of a cache, or of vl_model_digest; the
 * manifest may be NULL). VL_EMISMATCH names the first tensor or key that differs; with allow_other_model it is VL_OK
 * and *warned is set. VL_OK where either side does not know. `warned` may be NULL. */
VL_API vl_status vl_lens_check_model(const vl_lens *lens, const char *digest, const char *manifest,
                                     bool allow_other_model, bool *warned, vl_error *err);
/* How much of what a cache holds out a lens was fitted on. */
typedef struct vl_lens_seen {
    bool known;       /* the lens remembers; imports do not */
    bool pictures;    /* counted in pictures; else in samples */
    int64_t seen, of; /* held-out ones in its training split, of all that are held out */
} vl_lens_seen;
/* Counts them, after vl_cache_split. VL_EMISMATCH names both numbers where any was seen, unless allow_seen. */
VL_API vl_status vl_lens_check_seen(vl_lens_seen *out, const vl_lens *lens, const vl_cache *cache, bool allow_seen,
                                    vl_error *err);
/* Whether a lens was fitted as a configuration says: every key that affects a fit, but those that also affect `own`
 * (vl_affects bits). VL_EMISMATCH names the first that differs. A lens that was imported does not say: VL_OK. */
VL_API vl_status vl_lens_check_config(const vl_lens *lens, const vl_config *config, unsigned own, vl_error *err);

/* A lens on a device: adapters are uploaded when they are first used, and stay until it is freed, which is before the
 * lens is closed and before the device is. Errors: VL_ENOMEM. */
typedef struct vl_device_lens vl_device_lens;
VL_API vl_status vl_device_lens_new(vl_device_lens **out, const vl_lens *lens, vl_device *device, vl_error *err);
VL_API void vl_device_lens_free(vl_device_lens *lens);
/* out[M, D] = h + A_i h + b_i, all f32 on the device and not overlapping. `layer` == n_layers, and a layer that was not
 * trained, copies. Errors: VL_EINVAL (no such layer), VL_ENOMEM, VL_EDEVICE. */
VL_API vl_status vl_device_lens_transform(vl_device_lens *lens, int64_t layer, vl_tensor out, vl_tensor h,
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

#ifdef __cplusplus
}
#endif
#endif
