/* lens.c - opening and checking a lens. */
#include "trainer/lens/lens.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/half.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/config/settings.h"
#include "trainer/model/digest.h"

static const char *text_of(const vl_lens *lens, const char *key)
{
    const char *value = vl_safetensors_metadata(lens->file, key);
    return value ? value : "";
}

static vl_status read_size(int64_t *out, const vl_lens *lens, const char *key, int64_t min, int64_t max, vl_error *err)
{
    const char *text = text_of(lens, key);
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (!text[0] || *end || errno || value < min || value > max)
        return vl_fail(err, VL_EFORMAT, "%s: metadata %s is '%.40s', expected an integer from %lld to %lld", lens->path,
                       key, text, (long long)min, (long long)max);
    *out = value;
    return VL_OK;
}

static vl_status read_heldout(vl_lens *lens, vl_error *err)
{
    const char *text = text_of(lens, "heldout_kl");
    json_t *array;
    if (!text[0])
        return VL_OK;
    VL_TRY(vl_json_parse(&array, text, strlen(text), lens->path, err));
    size_t n = (size_t)lens->info.n_layers;
    vl_status status = VL_OK;
    if (!json_is_array(array) || json_array_size(array) != n) {
        status = vl_fail(err, VL_EFORMAT, "%s: metadata heldout_kl is no list of %zu numbers", lens->path, n);
    } else if (!(lens->heldout_kl = vl_alloc(n, sizeof(double)))) {
        status = vl_fail_nomem(err, lens->path);
    } else {
        for (size_t i = 0; i < n; i++) {
            const json_t *value = json_array_get(array, i);
            lens->heldout_kl[i] = json_is_number(value) ? json_number_value(value) : (double)NAN;
        }
        lens->info.heldout_kl = lens->heldout_kl;
    }
    json_decref(array);
    return status;
}

static vl_status read_header(vl_lens *lens, vl_error *err)
{
    const char *format = text_of(lens, "format"), *version = text_of(lens, "version");
    if (strcmp(format, "vlens-lens") != 0)
        return vl_fail(err, VL_EFORMAT, "%s: no vlens lens: metadata format is '%.40s', expected 'vlens-lens'",
                       lens->path, format);
    if (strcmp(version, "1") != 0)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: lens format version '%.20s', this program reads version 1",
                       lens->path, version);
    vl_lens_info *info = &lens->info;
    VL_TRY(read_size(&info->d_model, lens, "d_model", 1, 1 << 20, err));
    VL_TRY(read_size(&info->n_layers, lens, "n_layers", 1, 1 << 16, err));
    if (vl_safetensors_metadata(lens->file, "tokens_seen"))
        VL_TRY(read_size(&info->tokens_seen, lens, "tokens_seen", 0, INT64_MAX, err));
    info->path = lens->path;
    info->fingerprint = text_of(lens, "fingerprint");
    info->model_digest = text_of(lens, "model_digest");
    info->rules = text_of(lens, "rules");
    info->model_manifest = text_of(lens, "model_manifest");
    info->model_id = text_of(lens, "model_id");
    info->config = text_of(lens, "config");
    info->bias_only = strcmp(text_of(lens, "bias_only"), "true") == 0;
    return read_heldout(lens, err);
}

/* Bit rot in a lens would show as slightly wrong numbers and nothing else, so it is looked for. */
static vl_status check_hash(const vl_lens *lens, vl_error *err)
{
    const char *expected = text_of(lens, "sha256");
    if (!expected[0])
        return VL_OK; /* written by another program */
    vl_sha256 hash;
    uint8_t digest[VL_SHA256_BYTES];
    char hex[VL_SHA256_HEX];
    vl_sha256_init(&hash);
    for (size_t k = 0; k < vl_safetensors_count(lens->file); k++) {
        const vl_weight_view *view = vl_safetensors_at(lens->file, k);
        vl_sha256_update(&hash, view->data, view->bytes);
    }
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, hex);
    if (strcmp(hex, expected) != 0)
        return vl_fail(err, VL_EFORMAT, "%s: damaged: sha256 of the tensors is %s, the file says %.64s", lens->path,
                       hex, expected);
    return VL_OK;
}

/* f32 values of a stored tensor: the map itself, or a widened copy kept in *slot. */
static const float *widen(float **slot, const vl_weight_view *view)
{
    if (view->dtype == VL_F32 && view->aligned)
        return (const float *)(const void *)view->data;
    size_t n = view->bytes / vl_dtype_size(view->dtype);
    float *out = vl_alloc_aligned(n, sizeof *out);
    if (out)
        vl_widen(out, view->data, view->dtype, n);
    return *slot = out;
}

static vl_status read_tensor(vl_lens *lens, const vl_weight_view *view, vl_error *err)
{
    long long layer = -1;
    int used = 0;
    char kind[8] = "", shape[64], wanted[64], name[48];
    int64_t d = lens->info.d_model;
    if (sscanf(view->name, "adapter.%lld.%7s%n", &layer, kind, &used) != 2 || view->name[used] || layer < 0 ||
        layer >= lens->info.n_layers || (strcmp(kind, "weight") != 0 && strcmp(kind, "bias") != 0))
        return vl_fail(err, VL_EFORMAT, "%s: unexpected tensor %.80s (adapters are 0 to %lld)", lens->path, view->name,
                       (long long)lens->info.n_layers - 1);
    bool matrix = kind[0] == 'w';
    snprintf(name, sizeof name, "adapter.%lld.%s", layer, kind);
    if (strcmp(name, view->name) != 0)
        return vl_fail(err, VL_EFORMAT, "%s: tensor %.80s should be called %s", lens->path, view->name, name);
    if (view->raw || (view->dtype != VL_F32 && view->dtype != VL_BF16 && view->dtype != VL_F16))
        return vl_fail(err, VL_EFORMAT, "%s: %s is %s, expected F32, BF16 or F16", lens->path, name, view->dtype_name);
    const int64_t expected[2] = {d, d};
    if (view->ndim != (matrix ? 2 : 1) || view->shape[0] != d || (matrix && view->shape[1] != d))
        return vl_fail(err, VL_ESHAPE, "%s: %s is %s, expected %s", lens->path, name,
                       vl_shape_text(shape, sizeof shape, view->ndim, view->shape),
                       vl_shape_text(wanted, sizeof wanted, matrix ? 2 : 1, expected));
    const float *values = widen(&lens->widened[2 * layer + (matrix ? 0 : 1)], view);
    if (!values)
        return vl_fail_nomem(err, name);
    (matrix ? lens->weight : lens->bias)[layer] = values;
    lens->info.dtype = view->dtype;
    return VL_OK;
}

static vl_status read_tensors(vl_lens *lens, vl_error *err)
{
    size_t n = (size_t)lens->info.n_layers;
    lens->weight = vl_calloc(n, sizeof *lens->weight);
    lens->bias = vl_calloc(n, sizeof *lens->bias);
    lens->widened = vl_calloc(2 * n, sizeof *lens->widened);
    if (!lens->weight || !lens->bias || !lens->widened)
        return vl_fail_nomem(err, lens->path);
    for (size_t k = 0; k < vl_safetensors_count(lens->file); k++)
        VL_TRY(read_tensor(lens, vl_safetensors_at(lens->file, k), err));
    for (size_t i = 0; i < n; i++)
        if (lens->weight[i] && !lens->bias[i])
            return vl_fail(err, VL_EFORMAT, "%s: adapter.%zu.weight is there without its bias", lens->path, i);
    return VL_OK;
}

vl_status vl_lens_open(vl_lens **out, const char *path, vl_error *err)
{
    vl_status status = VL_OK;
    *out = NULL;
    vl_lens *lens = vl_calloc(1, sizeof *lens);
    if (!lens || !(lens->path = vl_lens_file_path(path))) {
        vl_free(lens);
        return vl_fail_nomem(err, path);
    }
    VL_GOTO(vl_safetensors_open(&lens->file, lens->path, err));
    VL_GOTO(read_header(lens, err));
    VL_GOTO(check_hash(lens, err));
    VL_GOTO(read_tensors(lens, err));
done:
    if (status == VL_OK)
        *out = lens;
    else
        vl_lens_close(lens);
    return status;
}

void vl_lens_close(vl_lens *lens)
{
    if (!lens)
        return;
    for (int64_t k = 0; lens->widened && k < 2 * lens->info.n_layers; k++)
        vl_free(lens->widened[k]);
    vl_free(lens->widened);
    vl_free(lens->weight);
    vl_free(lens->bias);
    vl_free(lens->heldout_kl);
    vl_safetensors_close(lens->file);
    vl_free(lens->path);
    vl_free(lens);
}

const vl_lens_info *vl_lens_get_info(const vl_lens *lens)
{
    return &lens->info;
}

const float *vl_lens_weight(const vl_lens *lens, int64_t layer)
{
    return layer >= 0 && layer < lens->info.n_layers ? lens->weight[layer] : NULL;
}

const float *vl_lens_bias(const vl_lens *lens, int64_t layer)
{
    return layer >= 0 && layer < lens->info.n_layers ? lens->bias[layer] : NULL;
}

const char *vl_lens_settings(const vl_lens *lens)
{
    return vl_safetensors_metadata(lens->file, "settings");
}

void vl_lens_describe(vl_lens_content *out, const vl_lens *lens)
{
    const vl_lens_info *info = &lens->info;
    *out = (vl_lens_content){.d_model = info->d_model,
                             .n_layers = info->n_layers,
                             .weight = lens->weight,
                             .bias = lens->bias,
                             .dtype = info->dtype,
                             .bias_only = info->bias_only,
                             .fingerprint = info->fingerprint,
                             .model_id = info->model_id,
                             .model_digest = info->model_digest,
                             .rules = info->rules,
                             .manifest = info->model_manifest,
                             .fitted_samples = vl_safetensors_metadata(lens->file, "fitted_samples"),
                             .fitted_pictures = vl_safetensors_metadata(lens->file, "fitted_pictures"),
                             .config = info->config,
                             .settings = vl_lens_settings(lens),
                             .tokens_seen = info->tokens_seen,
                             .heldout_kl = info->heldout_kl};
}

vl_status vl_lens_check(const vl_lens *lens, const vl_head_info *head, bool allow_other_model, bool *warned,
                        vl_error *err)
{
    const vl_lens_info *info = &lens->info;
    if (warned)
        *warned = false;
    if (info->d_model != head->d_model || info->n_layers != head->n_layers)
        return vl_fail(err, VL_EMISMATCH, "%s: made for %lld layers of width %lld, the model has %lld of width %lld",
                       lens->path, (long long)info->n_layers, (long long)info->d_model, (long long)head->n_layers,
                       (long long)head->d_model);
    if (strcmp(info->fingerprint, head->fingerprint) == 0)
        return VL_OK;
    if (!allow_other_model)
        return vl_fail(err, VL_EMISMATCH, "%s: made for the model with fingerprint %.64s, this one has %.64s",
                       lens->path, info->fingerprint[0] ? info->fingerprint : "(none)", head->fingerprint);
    if (warned)
        *warned = true;
    return VL_OK;
}

vl_status vl_lens_check_model(const vl_lens *lens, const char *digest, const char *manifest, bool allow_other_model,
                              bool *warned, vl_error *err)
{
    const vl_lens_info *info = &lens->info;
    char whose[320];
    bool same = !info->model_digest[0] || !digest[0] || strcmp(info->model_digest, digest) == 0;
    if (warned)
        *warned = !same && allow_other_model;
    if (same || allow_other_model)
        return VL_OK;
    snprintf(whose, sizeof whose, "%.240s: fitted", lens->path);
    return vl_model_compare(whose, info->model_digest, info->model_manifest[0] ? info->model_manifest : NULL, digest,
                            manifest && manifest[0] ? manifest : NULL, err);
}

vl_status vl_lens_check_config(const vl_lens *lens, const vl_config *config, unsigned own, vl_error *err)
{
    const char *settings = vl_lens_settings(lens);
    char *wanted;
    vl_settings_difference d;
    if (!settings)
        return VL_OK;
    VL_TRY(vl_settings_make(&wanted, config, VL_AFFECTS_FIT | VL_SETTINGS_BUT(own), NULL, 0, err));
    vl_status status = vl_settings_compare(&d, settings, wanted, err);
    vl_free(wanted);
    VL_TRY(status);
    if (!d.key[0])
        return VL_OK;
    return vl_fail(err, VL_EMISMATCH,
                   "%s: fitted with %s: \"%s\", the configuration says \"%s\"; set it back, or give the lens by --lens "
                   "to take it as it is",
                   lens->path, d.key, d.then, d.now);
}
