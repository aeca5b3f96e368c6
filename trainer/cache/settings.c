#include "trainer/cache/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/json.h"
#include "trainer/base/mem.h"

static void put(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, json_string(text ? text : ""));
}

static void put_int(json_t *object, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    put(object, key, text);
}

/* The shortest text that gives the same number again. */
static void put_double(json_t *object, const char *key, double value)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    put(object, key, text);
}

static void put_data(json_t *object, const vl_settings_source *source)
{
    const vl_config *config = source->config;
    bool text = config->data.text && config->data.text[0];
    char hash[80];
    snprintf(hash, sizeof hash, "sha256:%s", source->data_sha256);
    put(object, text ? "data.text" : "data.samples", hash);
    if (!text)
        put(object, "data.images", config->data.images);
    put_int(object, "data.max_tokens", config->data.max_tokens);
    put_int(object, "data.max_samples", config->data.max_samples);
    put_double(object, "data.heldout", config->data.heldout);
    put_int(object, "data.seed", config->data.seed);
    put(object, "data.template", config->data.chat_template == VL_TEMPLATE_NONE ? "none" : "auto");
    put(object, "data.exif", config->data.exif ? "true" : "false");
}

vl_status vl_settings_make(char **out, const vl_settings_source *source, vl_error *err)
{
    static const char *const precisions[] = {"auto", "exact", "fast"};
    const vl_config *config = source->config;
    json_t *object = json_object();
    *out = NULL;
    if (!object)
        return vl_fail_nomem(err, "settings");
    put(object, "model", source->model->path);
    put(object, "fingerprint", source->fingerprint);
    put(object, "precision", precisions[config->precision]);
    put_data(object, source);
    put(object, "cache.dtype", vl_dtype_name(source->dtype));
    for (int i = 0; i < VL_CLASS_COUNT; i++) {
        char key[48];
        snprintf(key, sizeof key, "cache.positions.%s", vl_token_class_name((vl_token_class)i));
        if (config->cache.positions[i] == VL_ALL)
            put(object, key, "all");
        else
            put_int(object, key, config->cache.positions[i]);
    }
    put_int(object, "cache.shard_tokens", config->cache.shard_tokens);
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (text)
        *out = vl_strdup(text);
    vl_free(text);
    return *out ? VL_OK : vl_fail_nomem(err, "settings");
}

static vl_status compare(const json_t *stored, const json_t *current, const char *path, vl_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)current, key, value)
    {
        const char *now = json_string_value(value), *then = json_string_value(json_object_get(stored, key));
        if (!then || strcmp(now, then) != 0)
            return vl_fail(err, VL_EMISMATCH,
                           "%s: this cache was made with %s: \"%.140s\", the configuration says "
                           "\"%.140s\"; --fresh rebuilds it",
                           path, key, then ? then : "(nothing)", now);
    }
    json_object_foreach((json_t *)(uintptr_t)stored, key, value) if (!json_object_get(current, key)) return vl_fail(
        err, VL_EMISMATCH,
        "%s: this cache was made with %.60s: \"%.140s\", which the configuration "
        "does not have; --fresh rebuilds it",
        path, key, json_is_string(value) ? json_string_value(value) : "?");
    return VL_OK;
}

vl_status vl_settings_compare(const char *stored, const char *current, const char *path, vl_error *err)
{
    json_t *then = NULL, *now = NULL;
    if (!stored)
        return vl_fail(err, VL_EMISMATCH,
                       "%s: this cache has no attribute \"settings\": it was not made by vlens cache; "
                       "--fresh replaces it",
                       path);
    vl_status status = vl_json_parse(&then, stored, strlen(stored), path, err);
    if (status == VL_OK)
        status = vl_json_parse(&now, current, strlen(current), path, err);
    if (status == VL_OK)
        status = compare(then, now, path, err);
    json_decref(then);
    json_decref(now);
    return status;
}
