/* cache/settings.h - the record of what a cache was made with: every key that changes a bit of its contents.
 *
 * A JSON object of texts in a fixed order, stored as the attribute `settings` of the index and of each shard. Left out:
 * where the cache lies, cache.max_bytes, cache.batch_tokens, the device and its threads, data.allow_outside. */
#ifndef VL_CACHE_SETTINGS_H
#define VL_CACHE_SETTINGS_H

#include <vlens/config.h>
#include <vlens/model.h>

#include "trainer/base/status.h"

typedef struct vl_settings_source {
    const vl_config *config;
    const vl_model_info *model;
    const char *fingerprint;
    const char *data_sha256; /* of the bytes of data.samples or data.text */
    vl_dtype dtype;          /* of the states */
} vl_settings_source;

/* Freed with vl_free. */
vl_status vl_settings_make(char **out, const vl_settings_source *source, vl_error *err);
/* VL_EMISMATCH names the first key that differs and both values. `stored` may be NULL: not made by vlens cache. */
vl_status vl_settings_compare(const char *stored, const char *current, const char *path, vl_error *err);

#endif
