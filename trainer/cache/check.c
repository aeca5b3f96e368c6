/* check.c - whether a configuration speaks of the cache at hand: what eval, fidelity and others ask before they read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/cache/open.h"
#include "trainer/config/settings.h"
#include "trainer/hf/directory.h"
#include "trainer/model/digest.h"

static vl_status differs(const vl_cache *cache, const char *key, const char *then, const char *now, vl_error *err)
{
    return vl_fail(
        err, VL_EMISMATCH,
        "%s: this cache was made with %s: \"%.140s\", the configuration says \"%.140s\"; set it back, or run "
        "vlens cache",
        cache->index_path, key, then, now);
}

static vl_status check_keys(const vl_cache *cache, const vl_config *config, unsigned own, vl_error *err)
{
    char *wanted;
    vl_settings_difference d;
    unsigned affects = VL_AFFECTS_FORWARD | VL_AFFECTS_ROWS | VL_SETTINGS_BUT(own);
    vl_config resolved = *config;
    if (cache->meta.version == 1) /* its split is in it */
        affects |= VL_AFFECTS_SPLIT;
    if (resolved.cache.dtype == VL_CACHE_AUTO)
        resolved.cache.dtype = VL_CACHE_BF16;
    VL_TRY(vl_settings_make(&wanted, &resolved, affects, NULL, 0, err));
    vl_status status = vl_settings_compare(&d, cache->meta.settings, wanted, err);
    vl_free(wanted);
    VL_TRY(status);
    return d.key[0] ? differs(cache, d.key, d.then, d.now, err) : VL_OK;
}

/* The file of samples or the corpus, by its contents: where it was moved to does not matter. */
static vl_status check_data(const vl_cache *cache, const vl_config *config, vl_error *err)
{
    bool text = config->data.text && config->data.text[0];
    const char *path = text ? config->data.text : config->data.samples, *key = text ? "data.text" : "data.samples";
    char hash[VL_SHA256_HEX];
    if (!path || !path[0])
        return VL_OK; /* no data are named: those of the cache are meant */
    VL_TRY(vl_sha256_file(path, hash, err));
    char *then = vl_settings_find(cache->meta.settings, key);
    bool same = then && strcmp(then + (strncmp(then, "sha256:", 7) == 0 ? 7 : 0), hash) == 0;
    vl_free(then);
    if (same)
        return VL_OK;
    return vl_fail(err, VL_EMISMATCH,
                   "%s: this cache was made from other samples than %s %s holds now; set it back, or run vlens cache",
                   cache->index_path, key, path);
}

/* The model by its name, since opening it would read all weights; vl_cache_check_model compares what it is. */
static vl_status check_model(const vl_cache *cache, const vl_config *config, const vl_hub_paths *hub, vl_error *err)
{
    const char *id = cache->info.model_id;
    char *now = NULL, *then = NULL;
    if (!config->model || strcmp(config->model, id) == 0)
        return VL_OK;
    vl_status status = vl_hub_resolve(&now, config->model, hub, err);
    if (status == VL_OK && (vl_hub_resolve(&then, id, hub, NULL) != VL_OK || strcmp(now, then) != 0))
        status = differs(cache, "model", id, config->model, err);
    vl_free(now);
    vl_free(then);
    return status;
}

vl_status vl_cache_check_model(const vl_cache *cache, vl_model *model, vl_error *err)
{
    const char *digest, *manifest;
    char whose[320];
    if (!cache->meta.model_digest[0])
        return VL_OK;
    VL_TRY(vl_model_identify(&digest, &manifest, model, err));
    snprintf(whose, sizeof whose, "%.240s: made", cache->index_path);
    return vl_model_compare(whose, cache->meta.model_digest, cache->meta.manifest, digest, manifest, err);
}

/* A cache of the first N lines cannot stand for more of them. */
static vl_status check_count(const vl_cache *cache, const vl_config *config, vl_error *err)
{
    char *text = vl_settings_find(cache->meta.settings, "data.max_samples"), now[24];
    long long had = text ? strtoll(text, NULL, 10) : 0, wants = config->data.max_samples;
    vl_status status = VL_OK;
    snprintf(now, sizeof now, "%lld", wants);
    if (cache->meta.version > 1 && had > 0 && cache->info.n_samples >= had && (wants == 0 || wants > had))
        status = differs(cache, "data.max_samples", text, now, err);
    vl_free(text);
    return status;
}

vl_status vl_cache_check_config(const vl_cache *cache, const vl_config *config, const vl_hub_paths *hub, unsigned own,
                                vl_error *err)
{
    if (!cache->meta.settings) /* of another program: it does not say */
        return VL_OK;
    VL_TRY(check_model(cache, config, hub, err));
    VL_TRY(check_data(cache, config, err));
    VL_TRY(check_count(cache, config, err));
    return check_keys(cache, config, own, err);
}
