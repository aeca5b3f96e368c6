/* vlens/cache.h - the activation cache: every state of every kept token, on disk (docs/reference/formats.md).
 *
 * A directory of HDF5 shards and an index that presents them as one. The residual stream of state i (0..L) of row n
 * is states[i][n]. State L is the teacher's: it is stored before the final norm like all others. */
#ifndef VLENS_CACHE_H
#define VLENS_CACHE_H

#include <stdbool.h>

#include <vlens/config.h>
#include <vlens/model.h>
#include <vlens/progress.h>
#include <vlens/team.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a caching run will do or has done. */
typedef struct vl_cache_plan {
    int64_t n_samples, n_heldout; /* samples in all, and held out */
    int64_t n_images, n_heldout_images;
    int64_t n_run_samples;            /* samples that the model runs: those that no shard holds yet */
    int64_t n_forward_tokens;         /* rows that it runs for them */
    int64_t n_tokens[VL_CLASS_COUNT]; /* rows that are kept, by class */
    int64_t n_bytes;                  /* on disk, states only */
    double seconds;                   /* estimated from the first batch (dry run: one measured batch), or taken */
    int64_t n_resumed_tokens;         /* rows found in whole shards of an earlier run */
} vl_cache_plan;

typedef struct vl_cache_build_options {
    bool dry_run;        /* count and estimate; write nothing */
    bool fresh;          /* throw an existing cache away */
    const vl_team *team; /* NULL: one process. Members make shards of their own, the first writes the index */
} vl_cache_build_options;

/* Runs the model over config->data and writes config->cache.dir. Goes on from whole shards of an interrupted run.
 * Errors: VL_EMISMATCH names the key whose setting differs from that of an existing cache; VL_EIO (disk full) keeps
 * all whole shards; VL_ECANCELLED likewise. *plan may be NULL. */
VL_API vl_status vl_cache_build(vl_cache_plan *plan, const vl_config *config, vl_model *model,
                                const vl_cache_build_options *options, const vl_observer *observer, vl_error *err);
/* The directory that a configuration caches to: cache.dir, or <output>/cache. Freed by vl_release. */
VL_API vl_status vl_cache_directory(char **out, const vl_config *config, vl_error *err);
/* Whether a complete cache lies there. */
VL_API bool vl_cache_exists(const char *directory);

typedef struct vl_cache vl_cache;

typedef struct vl_cache_info {
    const char *path;
    int64_t n_tokens; /* N */
    int64_t n_states; /* L + 1 */
    int64_t d_model;  /* D */
    int64_t vocab_size;
    vl_dtype dtype; /* of /states */
    int64_t n_samples, n_images, n_shards;
    int64_t n_skipped;                /* samples of the data that were left out (data.bad_samples, data.too_long) */
    const char *fingerprint;          /* computed from /head where the file lacks it */
    const char *model_digest, *rules; /* vl_model_digest, vl_model_rules; "" where the file does not say */
    const char *model_manifest;       /* what the digest is of: a line for each tensor and key; "" */
    const char *model_id, *model_type, *created, *vlens_version, *config; /* "" where absent */
    bool has_head, has_vocabulary;
} vl_cache_info;

/* Opens a cache directory (or its index.h5) and checks it: format, version, complete, every shard present with the
 * right uuid and size, all arrays of the right length and range. The caller closes. */
VL_API vl_status vl_cache_open(vl_cache **out, const char *path, vl_error *err);
VL_API void vl_cache_close(vl_cache *cache);
/* Whether a configuration speaks of this cache: model, samples, and every key that affects its rows. `own`: vl_affects
 * bits of the stage that asks; keys that affect it too (precision) are its own matter. VL_EMISMATCH names the first key
 * that differs. A cache that vlens did not make does not say what it was made with: VL_OK. */
VL_API vl_status vl_cache_check_config(const vl_cache *cache, const vl_config *config, const vl_hub_paths *hub,
                                       unsigned own, vl_error *err);
VL_API const vl_cache_info *vl_cache_get_info(const vl_cache *cache);
/* Whether a model is the one that made the cache. VL_EMISMATCH names the first tensor or key that differs. A cache that
 * does not know: VL_OK. Reads all weights of the model once. */
VL_API vl_status vl_cache_check_model(const vl_cache *cache, vl_model *model, vl_error *err);

/* Per-row columns, read at open; borrowed. */
typedef struct vl_cache_tokens {
    const int32_t *id, *next_id, *position, *sample, *image; /* [N]; `sample` is a number found in samples.id */
    const int32_t *sample_row;                               /* [N] the row of /samples that `sample` names */
    const uint8_t *token_class;                              /* [N] vl_token_class */
    const int16_t (*patch)[3];                               /* [N] tile, row, column; -1 for text */
    const int16_t *turn;                                     /* [N] turn of the conversation, from 0; -1: none */
    const uint64_t *visible;                                 /* [N] or NULL */
} vl_cache_tokens;
VL_API const vl_cache_tokens *vl_cache_get_tokens(const vl_cache *cache);
/* What a sample is for. */
typedef enum vl_sample_side {
    VL_SAMPLE_TRAIN = 0,
    VL_SAMPLE_HELDOUT,
    VL_SAMPLE_LEFT_OUT /* beyond data.max_samples */
} vl_sample_side;
typedef struct vl_cache_samples {
    const int64_t *id;               /* [S] */
    const uint8_t *heldout;          /* [S] vl_sample_side, as vl_cache_split chose; before that all are trained on */
    const char *const *key;          /* [S] sha256 of the content; or NULL */
    const char *const *prompt;       /* [S] */
    const char *const *answer;       /* [S] or NULL */
    const char *const *image_path;   /* [n_images] */
    const char *const *image_sha256; /* [n_images] */
    const int32_t *image_sample;     /* [n_images] the sample's number, as in /images/sample */
} vl_cache_samples;
VL_API const vl_cache_samples *vl_cache_get_samples(const vl_cache *cache);
/* Chooses the split: data.heldout, data.seed and data.max_samples of a configuration. A cache whose file has a split of
 * its own keeps it. Fitting and evaluating do this themselves. Errors: VL_ENOMEM. */
VL_API vl_status vl_cache_split(vl_cache *cache, const vl_config *config, vl_error *err);
/* Text of token `id` where the cache holds a vocabulary; NULL otherwise. */
VL_API const char *vl_cache_piece(const vl_cache *cache, int32_t id);

/* Rows [first, first + n) of one state into out [n, D], in the stored dtype. Safe to call from one thread at a
 * time. Checksums are verified by HDF5. */
VL_API vl_status vl_cache_read(void *out, vl_cache *cache, int64_t state, int64_t first, int64_t n, vl_error *err);
/* The head that travels with the cache, prepared on a device. The caller closes it before the cache. */
VL_API vl_status vl_cache_head(vl_head **out, vl_cache *cache, vl_device *device, vl_precision precision,
                               vl_error *err);
/* Reads every byte of every shard; errors name the shard and the first bad dataset. */
VL_API vl_status vl_cache_verify(const char *path, const vl_observer *observer, vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
