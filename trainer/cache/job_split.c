#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/cache/job.h"
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

static vl_status hash_files(vl_cache_job *job, const use *uses, int64_t n, vl_error *err)
{
    int64_t files = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(uses[i].path, uses[i - 1].path) != 0) {
            vl_status status = vl_sha256_file(uses[i].path, job->hashes[files++], err);
            if (status != VL_OK)
                return vl_sample_prefix(err, status, &job->samples, &job->samples.items[uses[i].sample]);
        }
        job->image_hash[uses[i].slot] = job->hashes[files - 1];
        VL_TRY(vl_job_progress(job, "images", "images", i + 1, n, err));
    }
    return VL_OK;
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
    vl_status status = uses && job->hashes && job->image_hash ? VL_OK : vl_fail_nomem(err, "image hashes");
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

vl_status vl_job_split(vl_cache_job *job, vl_error *err)
{
    job->first_image = vl_calloc((size_t)job->samples.n, sizeof *job->first_image);
    job->heldout = vl_calloc((size_t)job->samples.n, 1);
    if (!job->first_image || !job->heldout)
        return vl_fail_nomem(err, "split");
    VL_TRY(hash_images(job, err));
    VL_TRY(assign(job, err));
    return count_images(job, err);
}
