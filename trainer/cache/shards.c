/* shards.c - how samples are cut into shards, which of them are whole, and who makes the others. */
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/cache/index.h"
#include "trainer/cache/job.h"

vl_status vl_job_cut(vl_cache_job *job, vl_error *err)
{
    int64_t rows = 0, first = 0;
    job->shards = vl_calloc((size_t)job->samples.n + 1, sizeof *job->shards);
    if (!job->shards)
        return vl_fail_nomem(err, "list of shards");
    for (int64_t i = 0; i < job->samples.n; i++) {
        rows += vl_job_kept(job, i, job->config->cache.positions);
        if (rows < job->config->cache.shard_tokens && i + 1 < job->samples.n)
            continue;
        job->shards[job->n_shards++] = (vl_shard_range){.first = first, .n = i + 1 - first};
        first = i + 1;
        rows = 0;
    }
    return VL_OK;
}

static vl_status match_sample(const vl_cache_job *job, const vl_shard_summary *shard, int64_t at, int64_t i,
                              int64_t image, vl_error *err)
{
    const vl_sample_table *samples = &shard->tables.samples;
    const vl_image_table *images = &shard->tables.images;
    const vl_sample *expected = &job->samples.items[at];
    if (expected->number != samples->id[i])
        return vl_fail(err, VL_EMISMATCH, "holds sample %lld where sample %lld is expected; --fresh rebuilds the cache",
                       (long long)samples->id[i], (long long)expected->number);
    for (int k = 0; k < expected->n_images; k++)
        if (image + k >= images->n || strcmp(images->sha256[image + k], job->image_hash[job->first_image[at] + k]) != 0)
            return vl_fail(err, VL_EMISMATCH,
                           "the image %s changed since the shard was written; --fresh rebuilds the cache",
                           expected->images[k]);
    if (samples->heldout[i] != job->heldout[at])
        return vl_fail(err, VL_EMISMATCH,
                       "sample %lld is on the other side of the split: images changed since the shard was written; "
                       "--fresh rebuilds the cache",
                       (long long)samples->id[i]);
    return VL_OK;
}

/* The shard must hold the samples of its range, with the same pictures on the same sides. */
static vl_status match_samples(const vl_cache_job *job, const vl_shard_range *range, const vl_shard_summary *shard,
                               vl_error *err)
{
    int64_t n = shard->tables.samples.n, image = 0;
    for (int64_t i = 0; i < n && i < range->n; i++) {
        VL_TRY(match_sample(job, shard, range->first + i, i, image, err));
        image += job->samples.items[range->first + i].n_images;
    }
    if (n != range->n)
        return vl_fail(err, VL_EMISMATCH, "holds %lld samples, expected %lld; --fresh rebuilds the cache", (long long)n,
                       (long long)range->n);
    return VL_OK;
}

static vl_status look_at(vl_cache_job *job, int64_t number, const char *path, vl_error *err)
{
    vl_shard_summary shard;
    vl_error reason = VL_ERROR_INIT;
    vl_shard_range *range = &job->shards[number];
    range->whole = false;
    if (!vl_path_exists(path))
        return VL_OK;
    vl_status status = vl_shard_read(&shard, path, &reason);
    if (status == VL_EBUSY || status == VL_EIO)
        return vl_fail(err, status, "%s", reason.message);
    if (status != VL_OK) {
        if (vl_team_rank(job->team) == 0)
            vl_job_message(job, true, "a shard is damaged and is made again: %s", reason.message);
        return VL_OK;
    }
    status = vl_job_check_model(job, path, &shard.meta, err);
    if (status == VL_OK)
        status = vl_job_check_settings(job, path, shard.meta.settings, err);
    if (status == VL_OK) {
        status = match_samples(job, range, &shard, err);
        if (status != VL_OK)
            status = vl_error_prefix(err, status, "%s: ", path);
    }
    range->whole = status == VL_OK;
    range->rows = shard.n_tokens;
    vl_shard_summary_clear(&shard);
    return status;
}

vl_status vl_job_find_shards(vl_cache_job *job, vl_error *err)
{
    vl_status status = VL_OK;
    for (int64_t i = 0; i < job->n_shards && status == VL_OK; i++) {
        char name[VL_SHARD_NAME_SIZE];
        vl_shard_name(name, i);
        char *path = vl_path_join(job->directory, name);
        status = path ? look_at(job, i, path, err) : vl_fail_nomem(err, name);
        vl_free(path);
    }
    for (int64_t i = 0, turn = 0; i < job->n_shards; i++)
        job->shards[i].maker = job->shards[i].whole ? -1 : (int)(turn++ % vl_team_size(job->team));
    return status;
}

int64_t vl_job_first_missing(const vl_cache_job *job)
{
    for (int64_t i = 0; i < job->n_shards; i++)
        if (!job->shards[i].whole)
            return job->shards[i].first;
    return job->samples.n;
}
