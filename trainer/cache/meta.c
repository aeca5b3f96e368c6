#include "trainer/cache/meta.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"

typedef struct text_attribute {
    const char *name;
    size_t offset;
} text_attribute;

static const text_attribute texts[] = {
    {"model_id", offsetof(vl_cache_meta, model_id)}, {"model_type", offsetof(vl_cache_meta, model_type)},
    {"created", offsetof(vl_cache_meta, created)},   {"vlens_version", offsetof(vl_cache_meta, vlens_version)},
    {"config", offsetof(vl_cache_meta, config)},     {"settings", offsetof(vl_cache_meta, settings)},
    {"rules", offsetof(vl_cache_meta, rules)},
};
enum { TEXTS = sizeof texts / sizeof *texts };

static char **text_of(const vl_cache_meta *meta, int i)
{
    return (char **)(void *)((char *)(uintptr_t)meta + texts[i].offset);
}

vl_status vl_meta_write(vl_h5 file, const vl_cache_meta *meta, vl_error *err)
{
    VL_TRY(vl_h5_put_text(file, "/", "format", "vlens-cache", err));
    VL_TRY(vl_h5_put_int(file, "/", "version", VL_CACHE_VERSION, err));
    VL_TRY(vl_h5_put_int(file, "/", "d_model", meta->d_model, err));
    VL_TRY(vl_h5_put_int(file, "/", "n_layers", meta->n_layers, err));
    VL_TRY(vl_h5_put_int(file, "/", "vocab_size", meta->vocab_size, err));
    if (meta->n_skipped > 0)
        VL_TRY(vl_h5_put_int(file, "/", "n_skipped", meta->n_skipped, err));
    if (meta->fingerprint[0])
        VL_TRY(vl_h5_put_text(file, "/", "fingerprint", meta->fingerprint, err));
    for (int i = 0; i < TEXTS; i++)
        if (*text_of(meta, i))
            VL_TRY(vl_h5_put_text(file, "/", texts[i].name, *text_of(meta, i), err));
    return VL_OK;
}

/* A dataset: an attribute holds 64 KiB at most, and a large model has more. */
static vl_status write_manifest(vl_h5 file, const char *manifest, vl_error *err)
{
    VL_TRY(vl_h5_make_group(file, "/model", err));
    return vl_h5_write(file, "/model/manifest", VL_H5_TEXT, (vl_h5_shape){1, {1}}, &manifest, err);
}

vl_status vl_meta_complete(vl_h5 file, const vl_cache_meta *meta, vl_error *err)
{
    if (meta->uuid[0])
        VL_TRY(vl_h5_put_text(file, "/", "uuid", meta->uuid, err));
    if (meta->model_digest[0])
        VL_TRY(vl_h5_put_text(file, "/", "model_digest", meta->model_digest, err));
    if (meta->manifest)
        VL_TRY(write_manifest(file, meta->manifest, err));
    return vl_h5_put_int(file, "/", "complete", 1, err);
}

/* Which file this is, before anything else in it is believed. */
static vl_status check_identity(int64_t *version, vl_h5 file, vl_error *err)
{
    char *format = NULL;
    int64_t complete = 0;
    VL_TRY(vl_h5_get_text(&format, file, "/", "format", err));
    bool ours = strcmp(format, "vlens-cache") == 0;
    vl_status status = ours ? VL_OK
                            : vl_h5_refuse(err, VL_EFORMAT, file,
                                           "attribute \"format\" is \"%.40s\", expected "
                                           "\"vlens-cache\"",
                                           format);
    vl_free(format);
    VL_TRY(status);
    VL_TRY(vl_h5_get_int(version, file, "/", "version", err));
    if (*version < 1 || *version > VL_CACHE_VERSION)
        return vl_h5_refuse(err, VL_EUNSUPPORTED, file, "version %lld, this vlens reads versions 1 to %d",
                            (long long)*version, VL_CACHE_VERSION);
    if (vl_h5_has_attribute(file, "/", "complete"))
        VL_TRY(vl_h5_get_int(&complete, file, "/", "complete", err));
    if (complete != 1)
        return vl_h5_refuse(err, VL_EFORMAT, file,
                            "not complete (attribute \"complete\" is %s): its writing was "
                            "interrupted",
                            vl_h5_has_attribute(file, "/", "complete") ? "not 1" : "missing");
    return VL_OK;
}

static vl_status read_size(int64_t *out, vl_h5 file, const char *name, int64_t max, vl_error *err)
{
    VL_TRY(vl_h5_get_int(out, file, "/", name, err));
    if (*out < 1 || *out > max)
        return vl_h5_refuse(err, VL_EFORMAT, file, "attribute \"%s\" is %lld, expected 1 to %lld", name,
                            (long long)*out, (long long)max);
    return VL_OK;
}

static vl_status read_short(char *out, size_t size, vl_h5 file, const char *name, vl_error *err)
{
    char *text;
    if (!vl_h5_has_attribute(file, "/", name))
        return VL_OK;
    VL_TRY(vl_h5_get_text(&text, file, "/", name, err));
    bool fits = strlen(text) < size;
    if (fits)
        snprintf(out, size, "%s", text);
    vl_free(text);
    return fits ? VL_OK
                : vl_h5_refuse(err, VL_EFORMAT, file, "attribute \"%s\" has more than %zu bytes", name, size - 1);
}

vl_status vl_meta_read(vl_cache_meta *out, vl_h5 file, vl_error *err)
{
    vl_status status = VL_OK;
    memset(out, 0, sizeof *out);
    VL_GOTO(check_identity(&out->version, file, err));
    VL_GOTO(read_size(&out->d_model, file, "d_model", 1 << 24, err));
    VL_GOTO(read_size(&out->n_layers, file, "n_layers", 1 << 16, err));
    VL_GOTO(read_size(&out->vocab_size, file, "vocab_size", INT32_MAX, err));
    if (vl_h5_has_attribute(file, "/", "n_skipped"))
        VL_GOTO(read_size(&out->n_skipped, file, "n_skipped", INT32_MAX, err));
    VL_GOTO(read_short(out->fingerprint, sizeof out->fingerprint, file, "fingerprint", err));
    VL_GOTO(read_short(out->uuid, sizeof out->uuid, file, "uuid", err));
    VL_GOTO(read_short(out->model_digest, sizeof out->model_digest, file, "model_digest", err));
    for (int i = 0; i < TEXTS; i++)
        if (vl_h5_has_attribute(file, "/", texts[i].name))
            VL_GOTO(vl_h5_get_text(text_of(out, i), file, "/", texts[i].name, err));
    vl_h5_column manifest = {"/model/manifest", VL_H5_TEXT, {1, {1}}, 0, 0};
    if (vl_h5_has(file, manifest.name))
        VL_GOTO(vl_h5_read(&out->manifest, file, &manifest, err));
done:
    if (status != VL_OK)
        vl_meta_clear(out);
    return status;
}

void vl_meta_clear(vl_cache_meta *meta)
{
    for (int i = 0; i < TEXTS; i++)
        vl_free(*text_of(meta, i));
    vl_free(meta->manifest);
    memset(meta, 0, sizeof *meta);
}

void vl_shard_name(char out[VL_SHARD_NAME_SIZE], int64_t number)
{
    snprintf(out, VL_SHARD_NAME_SIZE, "shard-%05lld.h5", (long long)number);
}

void vl_shard_uuid(char out[VL_UUID_SIZE], const char *settings, int64_t number, char *const *keys, int64_t n_keys)
{
    char text[32], hex[VL_SHA256_HEX];
    uint8_t digest[VL_SHA256_BYTES];
    vl_sha256 hash;
    vl_sha256_init(&hash);
    vl_sha256_update(&hash, settings, strlen(settings));
    snprintf(text, sizeof text, ":shard:%lld", (long long)number);
    vl_sha256_update(&hash, text, strlen(text));
    for (int64_t i = 0; keys && i < n_keys; i++)
        vl_sha256_update(&hash, keys[i] ? keys[i] : "", strlen(keys[i] ? keys[i] : "") + 1);
    vl_sha256_final(&hash, digest);
    digest[6] = (uint8_t)((digest[6] & 0x0f) | 0x80); /* RFC 9562: version 8, made by the application */
    digest[8] = (uint8_t)((digest[8] & 0x3f) | 0x80);
    vl_sha256_hex(digest, hex);
    snprintf(out, VL_UUID_SIZE, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}
