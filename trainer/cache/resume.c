#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/cache/index.h"
#include "trainer/cache/job.h"
#include "trainer/cache/open.h"
#include "trainer/config/settings.h"

/* ---- names ------------------------------------------------------------------------------------------------- */

static const char *skip_digits(const char *text)
{
    const char *at = text;
    while (isdigit((unsigned char)*at))
        at++;
    return at;
}

/* Is this a name that vlens gives: index.h5 or shard-<digits>.h5, with or without .tmp-<digits>? */
static bool is_ours(const char *name, bool *temporary)
{
    const char *at = NULL;
    if (strncmp(name, "index.h5", 8) == 0)
        at = name + 8;
    else if (strncmp(name, "shard-", 6) == 0 && isdigit((unsigned char)name[6]))
        at = strncmp(skip_digits(name + 6), ".h5", 3) == 0 ? skip_digits(name + 6) + 3 : NULL;
    *temporary = at && strncmp(at, ".tmp-", 5) == 0 && at[5] && *skip_digits(at + 5) == 0;
    return at && (*at == 0 || *temporary);
}

static vl_status remove_temporary(DIR *dir, const char *directory, const char *name, vl_error *err)
{
    if (unlinkat(dirfd(dir), name, 0) != 0 && errno != ENOENT)
        return vl_fail_errno(err, VL_EIO, "%s/%s: cannot remove", directory, name);
    return VL_OK;
}

static vl_status put_away(const vl_cache_job *job, const char *name, vl_error *err)
{
    char *path = vl_path_join(job->directory, name);
    vl_status status = path ? vl_job_put_away(job, path, err) : vl_fail_nomem(err, name);
    vl_free(path);
    return status;
}

vl_status vl_job_clear_folder(const vl_cache_job *job, bool only_temporary, vl_error *err)
{
    const char *directory = job->directory;
    vl_status status = VL_OK;
    DIR *dir = opendir(directory);
    if (!dir)
        return errno == ENOENT ? VL_OK : vl_fail_errno(err, VL_EIO, "%s: cannot list", directory);
    for (struct dirent *e; status == VL_OK && (e = readdir(dir)) != NULL;) {
        bool temporary;
        if (!is_ours(e->d_name, &temporary) || (only_temporary && !temporary))
            continue;
        status = temporary ? remove_temporary(dir, directory, e->d_name, err) : put_away(job, e->d_name, err);
    }
    closedir(dir);
    return status;
}

/* ---- a whole cache ----------------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Distinct pictures, and those of held-out samples: an image is never on both sides. */
static vl_status count_images(vl_cache_plan *plan, const vl_cache *cache, vl_error *err)
{
    const vl_image_table *images = &cache->tables.images;
    const char **hashes[2] = {vl_alloc((size_t)images->n + 1, sizeof(char *)),
                              vl_alloc((size_t)images->n + 1, sizeof(char *))};
    int32_t *rows = vl_alloc((size_t)images->n + 1, sizeof *rows);
    int64_t n[2] = {0, 0}, distinct[2] = {0, 0};
    vl_status status = hashes[0] && hashes[1] && rows ? VL_OK : vl_fail_nomem(err, "image hashes");
    if (status == VL_OK)
        status = vl_tables_find_samples(rows, cache->index, &cache->tables.samples, images->sample, images->n,
                                        "/images/sample", err);
    for (int64_t i = 0; status == VL_OK && i < images->n; i++) {
        int side = cache->heldout[rows[i]] == VL_SAMPLE_HELDOUT;
        hashes[side][n[side]++] = images->sha256[i];
    }
    for (int side = 0; status == VL_OK && side < 2; side++) {
        qsort(hashes[side], (size_t)n[side], sizeof *hashes[side], by_text);
        for (int64_t i = 0; i < n[side]; i++)
            distinct[side] += i == 0 || strcmp(hashes[side][i], hashes[side][i - 1]) != 0;
    }
    plan->n_images = distinct[0] + distinct[1];
    plan->n_heldout_images = distinct[1];
    vl_free(hashes[0]);
    vl_free(hashes[1]);
    vl_free(rows);
    return status;
}

static vl_status describe(vl_cache_plan *plan, vl_cache *cache, const vl_config *config, vl_error *err)
{
    VL_TRY(vl_cache_split(cache, config, err));
    const vl_cache_info *info = &cache->info;
    *plan = (vl_cache_plan){.n_samples = info->n_samples, .n_resumed_tokens = info->n_tokens};
    plan->n_bytes = info->n_tokens * info->n_states * info->d_model * (int64_t)vl_dtype_size(info->dtype);
    for (int64_t i = 0; i < info->n_samples; i++)
        plan->n_heldout += cache->samples.heldout[i] == VL_SAMPLE_HELDOUT;
    for (int64_t i = 0; i < info->n_tokens; i++)
        plan->n_tokens[cache->tokens.token_class[i]]++;
    return count_images(plan, cache, err);
}

/* An index that cannot be read: mended where the shards beside it are of vlens, refused where nothing says whose it is.
 * A file that is only locked or may not be read is neither. */
static vl_status judge_unreadable(const vl_cache_job *job, vl_status status, const vl_error *reason, vl_error *err)
{
    bool ours;
    if (status != VL_EFORMAT && status != VL_EUNSUPPORTED)
        return vl_fail(err, status, "%s", reason->message);
    VL_TRY(vl_job_folder_is_ours(&ours, job, err));
    if (status == VL_EUNSUPPORTED || !ours)
        return vl_fail(err, status,
                       "%.380s; nothing says that vlens wrote it: --fresh moves it aside and makes a cache here",
                       reason->message);
    vl_job_message(job, true, "the cache is damaged and is mended: %s", reason->message);
    return VL_OK;
}

/* The settings first: a cache with other settings is an error whether or not it is whole. */
static vl_status check_index(bool *readable, vl_cache_job *job, const char *path, vl_error *err)
{
    vl_h5 file = -1;
    vl_cache_meta meta;
    vl_error reason = VL_ERROR_INIT;
    vl_status status = vl_h5_open(&file, path, &reason);
    if (status == VL_OK)
        status = vl_meta_read(&meta, file, &reason);
    vl_h5_close(&file);
    *readable = status == VL_OK;
    if (status != VL_OK)
        return judge_unreadable(job, status, &reason, err);
    status = vl_job_check_model(job, path, &meta, err);
    if (status == VL_OK)
        status = vl_job_check_settings(job, path, meta.settings, err);
    vl_meta_clear(&meta);
    return status;
}

/* Whether the files that the samples come from are as they were, and the model still has its name. An index of version
 * 1 has its split in it, and is either what is asked for or not. */
static vl_status is_current(bool *current, const vl_cache_job *job, const vl_cache *cache, vl_error *err)
{
    vl_settings_difference d;
    *current = true;
    if (cache->meta.version == 1)
        return vl_job_check_first_version(job, cache, err);
    VL_TRY(vl_settings_compare(&d, cache->meta.settings, job->data_settings, err));
    *current = !d.key[0] && strcmp(cache->info.model_id, job->meta.model_id) == 0;
    const vl_image_table *images = &cache->tables.images;
    for (int64_t i = 0; *current && i < images->n; i++) {
        struct stat info;
        *current = images->mtime && stat(images->path[i], &info) == 0 && images->bytes[i] == (int64_t)info.st_size &&
                   images->mtime[i] == vl_mtime(&info);
    }
    return VL_OK;
}

/* An open cache: *found where it is what is asked for. Otherwise its pictures' hashes are taken over. */
static vl_status judge_open(bool *found, vl_cache_plan *plan, vl_cache_job *job, vl_cache *cache, vl_error *err)
{
    VL_TRY(is_current(found, job, cache, err));
    if (*found)
        return plan ? describe(plan, cache, job->config, err) : VL_OK;
    job->indexed_images = cache->tables.images;
    cache->tables.images = (vl_image_table){.n = 0};
    cache->info.n_images = 0;
    return VL_OK;
}

vl_status vl_job_find_whole(bool *found, vl_cache_plan *plan, vl_cache_job *job, vl_error *err)
{
    vl_cache *cache;
    vl_error reason = VL_ERROR_INIT;
    bool readable = false;
    *found = false;
    char *path = vl_path_join(job->directory, "index.h5");
    vl_status status = path ? VL_OK : vl_fail_nomem(err, "cache");
    if (status == VL_OK && vl_path_exists(path))
        status = check_index(&readable, job, path, err);
    vl_free(path);
    if (status != VL_OK || !readable)
        return status;
    status = vl_cache_open(&cache, job->directory, &reason);
    if (status == VL_EBUSY)
        return vl_fail(err, status, "%s", reason.message);
    if (status != VL_OK) {
        vl_job_message(job, true, "the cache is damaged and is mended: %s", reason.message);
        return VL_OK;
    }
    status = judge_open(found, plan, job, cache, err);
    vl_cache_close(cache);
    return status;
}
