#include "trainer/cache/job.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/base/version.h"
#include "trainer/cache/open.h"
#include "trainer/config/settings.h"
#include "trainer/model/digest.h"

static vl_cache_dtype dtype_choice(vl_dtype dtype)
{
    return dtype == VL_F16 ? VL_CACHE_F16 : dtype == VL_F32 ? VL_CACHE_F32 : VL_CACHE_BF16;
}

/* The files that the samples come from: where they are as they were, so is the list of samples. */
static vl_status make_data_settings(vl_cache_job *job, vl_error *err)
{
    const vl_config *config = job->config;
    char hash[VL_SHA256_HEX + 8] = "sha256:", most[24];
    bool text = config->data.text && config->data.text[0];
    const char *path = text ? config->data.text : config->data.samples;
    if (!path || !path[0])
        return vl_fail(err, VL_EINVAL, "data.samples (a JSONL file) or data.text (a corpus) is missing");
    VL_TRY(vl_sha256_file(path, hash + 7, err));
    snprintf(most, sizeof most, "%lld", (long long)config->data.max_samples);
    const vl_fact facts[] = {{text ? "data.text" : "data.samples", hash},
                             {"data.images", config->data.images ? config->data.images : ""},
                             {"data.max_samples", most}};
    return vl_settings_make(&job->data_settings, config, 0, facts, 3, err);
}

static vl_status make_settings(vl_cache_job *job, vl_error *err)
{
    vl_config resolved = *job->config; /* auto and what it means are the same cache */
    resolved.cache.dtype = dtype_choice(job->meta.dtype);
    VL_TRY(make_data_settings(job, err));
    return vl_settings_make(&job->meta.settings, &resolved, VL_AFFECTS_FORWARD | VL_AFFECTS_ROWS, NULL, 0, err);
}

vl_status vl_job_check_settings(const vl_cache_job *job, const char *path, const char *stored, vl_error *err)
{
    vl_settings_difference d;
    if (!stored)
        return vl_fail(err, VL_EMISMATCH,
                       "%s: this cache has no attribute \"settings\": it was not made by vlens cache; --fresh "
                       "moves it aside and makes one here",
                       path);
    VL_TRY(vl_settings_compare(&d, stored, job->meta.settings, err));
    if (!d.key[0])
        return VL_OK;
    return vl_fail(err, VL_EMISMATCH,
                   "%s: this cache was made with %s: \"%s\", the configuration says \"%s\"; --fresh rebuilds it", path,
                   d.key, d.then, d.now);
}

static vl_dtype choose_dtype(vl_cache_dtype dtype)
{
    switch (dtype) {
    case VL_CACHE_F16: return VL_F16;
    case VL_CACHE_F32: return VL_F32;
    case VL_CACHE_BF16:
    case VL_CACHE_AUTO: break;
    }
    return VL_BF16;
}

vl_status vl_job_open(vl_cache_job *out, const vl_config *config, vl_model *model, const vl_observer *observer,
                      vl_error *err)
{
    vl_status status = VL_OK;
    const vl_model_info *info = vl_model_get_info(model);
    *out = (vl_cache_job){.config = config, .model = model, .info = info, .observer = observer};
    if (config->cache.positions[VL_GENERATED] == VL_ALL)
        return vl_fail(err, VL_EINVAL, "cache.positions.generated is all, expected a number of tokens");
    out->meta = (vl_cache_meta){.d_model = info->d_model,
                                .n_layers = info->n_layers,
                                .vocab_size = info->vocab_size,
                                .dtype = choose_dtype(config->cache.dtype)};
    out->meta.model_id = vl_strdup(config->model ? config->model : info->path);
    out->meta.model_type = vl_strdup(info->model_type);
    out->meta.vlens_version = vl_strdup(VLENS_VERSION);
    out->meta.rules = vl_strdup(vl_model_rules());
    if (!out->meta.rules || !out->meta.model_id || !out->meta.model_type || !out->meta.vlens_version)
        VL_GOTO(vl_fail_nomem(err, "cache"));
    VL_GOTO(vl_cache_directory(&out->directory, config, err));
    out->head = vl_head_source_of(model); /* its arrays stay in the model's memory */
    vl_head_fingerprint(out->meta.fingerprint, &out->head);
    VL_GOTO(make_settings(out, err));
    vl_model_digest_start(model);
done:
    if (status != VL_OK)
        vl_job_close(out);
    return status;
}

vl_status vl_job_check_first_version(const vl_cache_job *job, const vl_cache *cache, vl_error *err)
{
    char *wanted;
    vl_settings_difference d;
    VL_TRY(vl_settings_make(&wanted, job->config, VL_AFFECTS_SPLIT, NULL, 0, err));
    vl_status status = vl_settings_compare(&d, cache->meta.settings, wanted, err);
    vl_free(wanted);
    if (status == VL_OK && !d.key[0]) { /* the samples; there was no fact of the folder of pictures */
        char *then = vl_settings_find(cache->meta.settings, "data.samples");
        char *now = vl_settings_find(job->data_settings, "data.samples");
        if (then && now && strcmp(then, now) != 0)
            d = (vl_settings_difference){"data.samples", "other contents", "the file as it is"};
        vl_free(then);
        vl_free(now);
    }
    if (status != VL_OK || !d.key[0])
        return status;
    return vl_fail(err, VL_EMISMATCH,
                   "%s: this cache of an earlier version was made with %s: \"%s\", the configuration says \"%s\"; "
                   "--fresh rebuilds it",
                   cache->index_path, d.key, d.then, d.now);
}

vl_status vl_job_identify(vl_cache_job *job, vl_error *err)
{
    const char *digest, *manifest;
    if (job->meta.model_digest[0])
        return VL_OK;
    VL_TRY(vl_model_identify(&digest, &manifest, job->model, err));
    job->meta.manifest = vl_strdup(manifest);
    if (!job->meta.manifest)
        return vl_fail_nomem(err, "cache");
    snprintf(job->meta.model_digest, sizeof job->meta.model_digest, "%s", digest);
    return VL_OK;
}

vl_status vl_job_check_model(vl_cache_job *job, const char *path, const vl_cache_meta *meta, vl_error *err)
{
    char whose[320];
    VL_TRY(vl_job_identify(job, err));
    snprintf(whose, sizeof whose, "%.240s: this cache was made", path);
    vl_status status =
        vl_model_compare(whose, meta->model_digest, meta->manifest, job->meta.model_digest, job->meta.manifest, err);
    if (status == VL_EMISMATCH && err)
        snprintf(err->message + strlen(err->message), sizeof err->message - strlen(err->message),
                 "; --fresh rebuilds it");
    return status;
}

void vl_job_close(vl_cache_job *job)
{
    vl_meta_clear(&job->meta);
    vl_samples_clear(&job->samples);
    vl_store_clear(&job->store);
    vl_tables_clear(&(vl_tables){.images = job->indexed_images});
    vl_free(job->data_settings);
    vl_free(job->image_bytes);
    vl_free(job->image_mtime);
    vl_free(job->keys);
    vl_free(job->places);
    vl_free(job->missing);
    vl_free(job->directory);
    vl_free(job->hashes);
    vl_free(job->image_hash);
    vl_free(job->first_image);
    vl_free(job->heldout);
    vl_free(job->n_forward);
    vl_free(job->available);
    vl_free(job->shards);
    memset(job, 0, sizeof *job);
}

vl_status vl_job_read(vl_cache_job *job, vl_error *err)
{
    VL_TRY(vl_samples_scan(&job->samples, job->config, vl_model_tokenizer(job->model), err));
    for (int64_t i = 0; i < job->samples.n; i++)
        job->has_answers = job->has_answers || job->samples.items[i].answer;
    if (job->samples.taken_as[0] && vl_team_rank(job->team) == 0)
        vl_job_message(job, false, "%s: taken as %s (data.format)", job->samples.path, job->samples.taken_as);
    return VL_OK;
}

void vl_job_message(const vl_cache_job *job, bool is_warning, const char *format, ...)
{
    char line[512];
    if (!job->observer || !job->observer->message)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    job->observer->message(job->observer->user, is_warning, line);
}

vl_status vl_job_progress(vl_cache_job *job, const char *stage, const char *unit, int64_t done, int64_t total,
                          vl_error *err)
{
    double now = vl_clock();
    if (!job->observer || !job->observer->progress || (done < total && now - job->reported < 0.2))
        return VL_OK;
    job->reported = now;
    vl_progress progress = {stage, unit, done, total, (double)NAN};
    if (job->observer->progress(job->observer->user, &progress) != 0)
        return vl_fail(err, VL_ECANCELLED,
                       "caching was stopped after %lld of %lld %s; the same command goes on from "
                       "the shards that are whole",
                       (long long)done, (long long)total, unit);
    return VL_OK;
}
