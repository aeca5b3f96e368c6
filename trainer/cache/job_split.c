#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/base/file.h"
#include "trainer/cache/job.h"
#include "trainer/data/key.h"
#include "trainer/data/split.h"

/* One image of one sample; sorted by path so that each file is read once. */
typedef struct use {
    const char *path;
    int64_t sample, slot; /* slot: in job->image_hash */
} use;

static int by_path(const void *a, const void *b)
{
    const use *x = a, *y = b;
    int order = strcmp(x->path, y->path);
    return order ? order : (x->slot > y->slot) - (x->slot < y->slot);
}

/* A picture whose hash is known from before; sorted by path. */
typedef struct known {
    const char *path, *sha256;
    int64_t bytes, mtime;
} known;

static int by_known_path(const void *a, const void *b)
{
    return strcmp(((const known *)a)->path, ((const known *)b)->path);
}

static int64_t list_known(known *out, const vl_image_table *images)
{
    int64_t n = 0;
    for (int64_t i = 0; images->mtime && i < images->n; i++, n++)
        if (out)
            out[n] = (known){images->path[i], images->sha256[i], images->bytes[i], images->mtime[i]};
    return n;
}

/* Those of the shards, and (the latest word on times) of the index. */
static vl_status find_known(known **out, int64_t *n, const vl_cache_job *job, vl_error *err)
{
    int64_t most = list_known(NULL, &job->indexed_images), at = 0;
    for (int64_t i = 0; i < job->store.n; i++)
        most += list_known(NULL, &job->store.shards[i].summary.tables.images);
    *out = vl_alloc((size_t)most + 1, sizeof **out);
    if (!*out)
        return vl_fail_nomem(err, "image hashes");
    at += list_known(*out, &job->indexed_images);
    for (int64_t i = 0; i < job->store.n; i++)
        at += list_known(*out + at, &job->store.shards[i].summary.tables.images);
    *n = at;
    qsort(*out, (size_t)at, sizeof **out, by_known_path);
    return VL_OK;
}

/* The hash of a file: remembered where its size and time are, computed where they are not. */
static vl_status hash_file(char hex[65], const struct stat *info, const char *path, const known *list, int64_t n,
                           vl_error *err)
{
    known key = {.path = path};
    const known *found = bsearch(&key, list, (size_t)n, sizeof *list, by_known_path);
    int64_t mtime = vl_mtime(info);
    while (found && found > list && strcmp(found[-1].path, path) == 0)
        found--;
    for (; found && found < list + n && strcmp(found->path, path) == 0; found++)
        if (found->bytes == (int64_t)info->st_size && found->mtime == mtime) {
            snprintf(hex, 65, "%s", found->sha256);
            return VL_OK;
        }
    return vl_sha256_file(path, hex, err);
}

static vl_status hash_files(vl_cache_job *job, const use *uses, int64_t n, vl_error *err)
{
    int64_t files = 0, n_known = 0;
    known *list = NULL;
    struct stat info = {0};
    vl_status status = find_known(&list, &n_known, job, err);
    for (int64_t i = 0; i < n && status == VL_OK; i++) {
        const char *path = uses[i].path;
        if (i == 0 || strcmp(path, uses[i - 1].path) != 0) {
            status = stat(path, &info) == 0 ? hash_file(job->hashes[files++], &info, path, list, n_known, err)
                                            : vl_fail_errno(err, VL_EIO, "%s: cannot open", path);
            if (status != VL_OK) {
                vl_sample_prefix(err, status, &job->samples, &job->samples.items[uses[i].sample]);
                break;
            }
        }
        job->image_hash[uses[i].slot] = job->hashes[files - 1];
        job->image_bytes[uses[i].slot] = (int64_t)info.st_size;
        job->image_mtime[uses[i].slot] = vl_mtime(&info);
        status = vl_job_progress(job, "images", "images", i + 1, n, err);
    }
    vl_free(list);
    return status;
}

static vl_status hash_images(vl_cache_job *job, vl_error *err)
{
    int64_t n = 0, at = 0;
    for (int64_t i = 0; i < job->samples.n; i++) {
        job->first_image[i] = n;
        n += job->samples.items[i].n_images;
    }
    use *uses = vl_alloc((size_t)n + 1, sizeof *uses);
    job->hashes = vl_alloc((size_t)n + 1, sizeof *job->hashes);
    job->image_hash = vl_calloc((size_t)n + 1, sizeof *job->image_hash);
    job->image_bytes = vl_calloc((size_t)n + 1, sizeof *job->image_bytes);
    job->image_mtime = vl_calloc((size_t)n + 1, sizeof *job->image_mtime);
    bool have = uses && job->hashes && job->image_hash && job->image_bytes && job->image_mtime;
    vl_status status = have ? VL_OK : vl_fail_nomem(err, "image hashes");
    for (int64_t i = 0; status == VL_OK && i < job->samples.n; i++)
        for (int k = 0; k < job->samples.items[i].n_images; k++, at++)
            uses[at] = (use){job->samples.items[i].images[k], i, at};
    if (status == VL_OK) {
        qsort(uses, (size_t)n, sizeof *uses, by_path);
        status = hash_files(job, uses, n, err);
    }
    vl_free(uses);
    return status;
}

/* The key of a window is that of its group: neighbours continue each other's sentences. */
static vl_status assign(vl_cache_job *job, vl_error *err)
{
    int64_t n = job->samples.n;
    char(*keys)[48] = vl_calloc((size_t)n, sizeof *keys);
    vl_split_sample *samples = vl_calloc((size_t)n, sizeof *samples);
    vl_status status = keys && samples ? VL_OK : vl_fail_nomem(err, "split");
    for (int64_t i = 0; status == VL_OK && i < n; i++) {
        const vl_sample *sample = &job->samples.items[i];
        snprintf(keys[i], sizeof keys[i], "text-group:%lld", (long long)(sample->number / VL_TEXT_GROUP));
        samples[i] = (vl_split_sample){job->samples.is_text ? keys[i] : sample->prompt,
                                       job->image_hash + job->first_image[i], sample->n_images};
    }
    if (status == VL_OK)
        status = vl_split_assign(job->heldout, samples, n, job->config->data.seed, job->config->data.heldout, err);
    vl_free(keys);
    vl_free(samples);
    return status;
}

typedef struct side {
    const char *hash;
    uint8_t heldout;
} side;

static int by_hash(const void *a, const void *b)
{
    return strcmp(((const side *)a)->hash, ((const side *)b)->hash);
}

static vl_status count_images(vl_cache_job *job, vl_error *err)
{
    int64_t n = 0;
    for (int64_t i = 0; i < job->samples.n; i++)
        n += job->samples.items[i].n_images;
    side *sides = vl_alloc((size_t)n + 1, sizeof *sides);
    if (!sides)
        return vl_fail_nomem(err, "split");
    for (int64_t i = 0; i < job->samples.n; i++)
        for (int k = 0; k < job->samples.items[i].n_images; k++) {
            int64_t slot = job->first_image[i] + k;
            sides[slot] = (side){job->image_hash[slot], job->heldout[i]};
        }
    qsort(sides, (size_t)n, sizeof *sides, by_hash);
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || strcmp(sides[i].hash, sides[i - 1].hash) != 0) {
            job->n_images++;
            job->n_heldout_images += sides[i].heldout;
        }
    vl_free(sides);
    return VL_OK;
}

static vl_status make_keys(vl_cache_job *job, vl_error *err)
{
    job->keys = vl_alloc((size_t)job->samples.n + 1, sizeof *job->keys);
    if (!job->keys)
        return vl_fail_nomem(err, "keys of the samples");
    for (int64_t i = 0; i < job->samples.n; i++)
        vl_sample_key(job->keys[i], &job->samples.items[i], job->image_hash + job->first_image[i]);
    return VL_OK;
}

vl_status vl_job_split(vl_cache_job *job, vl_error *err)
{
    job->first_image = vl_calloc((size_t)job->samples.n + 1, sizeof *job->first_image);
    job->heldout = vl_calloc((size_t)job->samples.n + 1, 1);
    if (!job->first_image || !job->heldout)
        return vl_fail_nomem(err, "split");
    VL_TRY(hash_images(job, err));
    VL_TRY(make_keys(job, err));
    VL_TRY(assign(job, err));
    return count_images(job, err);
}
