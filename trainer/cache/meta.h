/* cache/meta.h - the attributes of a cache file (index or shard). */
#ifndef VL_CACHE_META_H
#define VL_CACHE_META_H

#include "trainer/cache/h5.h"

enum { VL_CACHE_VERSION = 2, VL_UUID_SIZE = 37 };

typedef struct vl_cache_meta {
    int64_t d_model, n_layers, vocab_size;
    int64_t version;         /* of the file that was read */
    int64_t n_skipped;       /* samples of the data that were left out (index alone) */
    vl_dtype dtype;          /* of /states; no attribute */
    char fingerprint[65];    /* "" where the file has none */
    char uuid[VL_UUID_SIZE]; /* of a shard; "" elsewhere */
    char model_digest[33];   /* "" where the file has none */
    /* Owned; NULL where the file has none. */
    char *model_id, *model_type, *created, *vlens_version, *config;
    char *rules;    /* conventions of the forward */
    char *manifest; /* /model/manifest: what model_digest is the digest of (model/digest.h) */
    char *settings; /* config/settings.h: what the cache was made with */
} vl_cache_meta;

/* Everything but the model's identity and `complete`. */
vl_status vl_meta_write(vl_h5 file, const vl_cache_meta *meta, vl_error *err);
/* The model's identity, which may be known last, and `complete`. */
vl_status vl_meta_complete(vl_h5 file, const vl_cache_meta *meta, vl_error *err);
/* Checks format, version, complete and the ranges of the sizes. */
vl_status vl_meta_read(vl_cache_meta *out, vl_h5 file, vl_error *err);
void vl_meta_clear(vl_cache_meta *meta);

/* "shard-00007.h5". */
enum { VL_SHARD_NAME_SIZE = 32 };
void vl_shard_name(char out[VL_SHARD_NAME_SIZE], int64_t number);
/* The same for the same settings, number and samples (keys may be NULL), so that a resumed run ends with the same files
 * as an unbroken one. */
void vl_shard_uuid(char out[VL_UUID_SIZE], const char *settings, int64_t number, char *const *keys, int64_t n_keys);

#endif
