/* view/eval_page.c - an evaluation as one HTML file: its numbers, those of the fit, and what was run. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vlens/version.h>
#include <vlens/view.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/base/version.h"
#include "trainer/view/json_text.h"
#include "trainer/view/template.h"

enum { METRICS_LIMIT = 256 << 20 };

typedef struct page_source {
    const vl_eval_result *result;
    const vl_eval_page_options *options;
} page_source;

static void add(json_t *list, const char *name, const char *value)
{
    if (value && *value)
        json_array_append_new(list, json_pack("[s, o]", name, vl_json_text(value)));
}

/* One hash over what the rows came from: number, split and prompt of each sample, then the pictures' own hashes. */
static void data_hash(char hex[VL_SHA256_HEX], const vl_cache *cache)
{
    const vl_cache_samples *s = vl_cache_get_samples(cache);
    const vl_cache_info *info = vl_cache_get_info(cache);
    uint8_t digest[VL_SHA256_BYTES];
    char line[64];
    vl_sha256 hash;
    vl_sha256_init(&hash);
    for (int64_t i = 0; i < info->n_samples; i++) {
        int n = snprintf(line, sizeof line, "%lld %d ", (long long)s->id[i], s->heldout[i]);
        vl_sha256_update(&hash, line, (size_t)n);
        vl_sha256_update(&hash, s->prompt[i], strlen(s->prompt[i]) + 1);
    }
    for (int64_t i = 0; i < info->n_images; i++)
        vl_sha256_update(&hash, s->image_sha256[i], strlen(s->image_sha256[i]) + 1);
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, hex);
}

static json_t *provenance(const page_source *source)
{
    const vl_cache_info *cache = vl_cache_get_info(source->options->cache);
    const vl_lens_info *lens = vl_lens_get_info(source->options->lens);
    json_t *list = json_array();
    char text[160], hash[VL_SHA256_HEX];
    data_hash(hash, source->options->cache);
    add(list, "fingerprint of the model's head", cache->fingerprint);
    add(list, "fingerprint in the lens", lens->fingerprint);
    snprintf(text, sizeof text, "%lld rows of %lld samples and %lld pictures, %lld states of %lld numbers",
             (long long)cache->n_tokens, (long long)cache->n_samples, (long long)cache->n_images,
             (long long)cache->n_states, (long long)cache->d_model);
    add(list, "cached data", text);
    add(list, "sha256 of prompts and pictures", hash);
    add(list, "cached", cache->created);
    add(list, "cached by vlens", cache->vlens_version);
    snprintf(text, sizeof text, "%lld", (long long)lens->tokens_seen);
    add(list, "rows that the fit took", text);
    add(list, "evaluated by vlens", VLENS_VERSION);
    for (int i = 0; i < vl_component_count(); i++) {
        vl_component part = vl_component_get(i);
        add(list, part.name, part.version);
    }
    return list;
}

/* metrics.json beside the lens; null where there is none (an imported lens) or it cannot be read. */
static json_t *training_metrics(const vl_lens *lens)
{
    char folder[4096], *path;
    json_t *json = NULL;
    snprintf(folder, sizeof folder, "%s", vl_lens_get_info(lens)->path);
    char *slash = strrchr(folder, '/');
    if (slash && !strcmp(slash, "/lens.safetensors"))
        *slash = '\0';
    path = vl_path_join(folder, "metrics.json");
    if (path && vl_json_read(&json, path, METRICS_LIMIT, NULL) != VL_OK)
        json = NULL;
    vl_free(path);
    return json ? json : json_null();
}

static vl_status put_data(vl_str *out, const void *user, vl_error *err)
{
    const page_source *source = user;
    char *result = NULL, *config = NULL;
    json_t *numbers = NULL;
    vl_status status = vl_eval_json(&result, source->result, err);
    if (status == VL_OK)
        status = vl_json_parse(&numbers, result, strlen(result), "result", err);
    if (status == VL_OK)
        status = vl_config_write(&config, source->options->config, err);
    json_t *root = NULL;
    if (status == VL_OK)
        root = json_pack("{s:s, s:i, s:O, s:o, s:o, s:o}", "format", "vlens-eval-page", "version", 1, "eval", numbers,
                         "training", training_metrics(source->options->lens), "config", vl_json_text(config),
                         "provenance", provenance(source));
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (text)
        vl_template_put_json(out, text);
    else if (status == VL_OK)
        status = vl_fail_nomem(err, "page of an evaluation");
    vl_free(text);
    json_decref(root);
    json_decref(numbers);
    vl_release(result);
    vl_release(config);
    return status;
}

vl_status vl_eval_page(char **out, const vl_eval_result *result, const vl_eval_page_options *options, vl_error *err)
{
    page_source source = {result, options};
    return vl_template_fill(out, "report.html", put_data, &source, err);
}

vl_status vl_eval_write_page(const char *path, const vl_eval_result *result, const vl_eval_page_options *options,
                             vl_error *err)
{
    char *text = NULL;
    VL_TRY(vl_eval_page(&text, result, options, err));
    vl_status status = vl_atomic_write(path, text, strlen(text), err);
    vl_release(text);
    return status;
}
