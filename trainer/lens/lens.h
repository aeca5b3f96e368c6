/* lens/lens.h - a lens in memory and its file, as fit, eval and export share it. The file: docs/reference/formats.md.
 */
#ifndef VL_LENS_LENS_H
#define VL_LENS_LENS_H

#include <vlens/lens.h>

#include "trainer/hf/safetensors.h"

struct vl_lens {
    vl_lens_info info; /* its texts are borrowed from `file` */
    vl_safetensors *file;
    char *path;
    const float **weight; /* [n_layers] of [D, D], into the map or into `widened`; NULL: A = 0 */
    const float **bias;   /* [n_layers] of [D]; NULL: the layer was not trained */
    float **widened;      /* [2 * n_layers] what was stored in 16 bit, as f32 */
    double *heldout_kl;   /* [n_layers] */
};

/* Everything that a lens file holds. Borrowed. */
typedef struct vl_lens_content {
    int64_t d_model, n_layers;
    const float *const *weight; /* [n_layers] of [D, D] or NULL */
    const float *const *bias;   /* [n_layers] of [D]; NULL where the layer was not trained */
    vl_dtype dtype;             /* VL_F32, VL_BF16 or VL_F16: as it will be stored */
    bool bias_only;
    const char *fingerprint, *model_id;
    const char *config;   /* YAML of the run, or NULL */
    const char *settings; /* what decides the result, line by line (config/settings.h), or NULL */
    const char *model_digest, *rules, *manifest;  /* of the cache that it was fitted on (model/digest.h), or NULL */
    const char *fitted_samples, *fitted_pictures; /* what it was fitted on (seen.c), or NULL: unknown */
    int64_t tokens_seen;
    const double *heldout_kl; /* [n_layers], NaN where unknown; or NULL */
} vl_lens_content;

/* Whether a file is a lens, or the metrics.json of a fit, that vlens wrote. What cannot be read is not. */
bool vl_lens_is_ours(const char *path);
bool vl_metrics_is_ours(const char *path);
/* VL_EMISMATCH where lens.safetensors or metrics.json of a folder (which need not exist) is of another program. */
vl_status vl_lens_claim(const char *folder, vl_error *err);
/* <path>/lens.safetensors where `path` is a folder, otherwise `path` itself. NULL when out of memory. */
char *vl_lens_file_path(const char *path);
/* The training split of a cache (after vl_cache_split), as a lens remembers it. Freed with vl_free. */
vl_status vl_lens_remember(char **samples, char **pictures, const vl_cache *cache, vl_error *err);
/* Writes the file at `path` whole or not at all. */
vl_status vl_lens_write(const char *path, const vl_lens_content *content, vl_error *err);
/* What an open lens holds, ready to be written again. Borrowed from the lens. */
void vl_lens_describe(vl_lens_content *out, const vl_lens *lens);
/* Records the held-out KL per layer (eval) in the file of a lens; all else stays as it is. */
vl_status vl_lens_record_heldout(const char *path, const double *heldout_kl, vl_error *err);
/* The settings of the run that made it, or NULL. */
const char *vl_lens_settings(const vl_lens *lens);

#endif
