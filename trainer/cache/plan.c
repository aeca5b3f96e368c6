#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/str.h"
#include "trainer/cache/job.h"
#include "trainer/data/positions.h"
#include "trainer/model/model.h"

/* ---- counting ---------------------------------------------------------------------------------------------- */

vl_status vl_job_count_sample(vl_cache_job *job, int64_t i, vl_error *err)
{
    const vl_sample *sample = &job->samples.items[i];
    int64_t *available = job->available[i], generated = job->config->cache.positions[VL_GENERATED];
    vl_sequence *sequence = NULL;
    VL_TRY(vl_sample_outline(&sequence, job->model, job->config, sample, err));
    for (int64_t t = 0; t < sequence->n_tokens; t++)
        available[sequence->token_class[t]]++;
    if (sequence->answered)
        generated = 0;
    job->n_forward[i] = sequence->n_tokens + generated;
    vl_sequence_free(sequence);
    available[VL_GENERATED] = generated;
    return VL_OK;
}

int64_t vl_job_kept(const vl_cache_job *job, int64_t sample, const int64_t limits[VL_CLASS_COUNT])
{
    int64_t rows = 0;
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        rows += vl_positions_count(limits[c], job->available[sample][c]);
    return rows;
}

/* About 256 rows, but no more than a shard or the whole run holds, and at most 64 MiB. */
static int64_t choose_chunk(const vl_cache_job *job, int64_t all_rows)
{
    int64_t bytes = job->info->d_model * (int64_t)vl_dtype_size(job->meta.dtype), rows = 256;
    int64_t limits[] = {job->config->cache.shard_tokens, all_rows, (64 << 20) / bytes};
    for (int i = 0; i < 3; i++)
        rows = limits[i] < rows ? limits[i] : rows;
    return rows > 1 ? rows : 1;
}

vl_status vl_job_count(vl_cache_job *job, vl_error *err)
{
    int64_t kept = 0;
    job->total = job->n_rows = 0;
    for (int64_t i = 0; i < job->n_missing; i++) {
        job->total += job->n_forward[job->missing[i]];
        job->n_rows += vl_job_kept(job, job->missing[i], job->config->cache.positions);
    }
    for (int64_t i = 0; i < job->samples.n; i++)
        kept += job->places[i].shard >= 0 ? job->places[i].n_rows : 0;
    if (job->n_rows + kept == 0)
        return vl_fail(err, VL_EINVAL, "cache.positions keeps no token of any sample");
    job->chunk_rows = choose_chunk(job, job->n_rows + kept); /* the same, however much is there already */
    return VL_OK;
}

static int64_t row_bytes(const vl_cache_job *job)
{
    return (job->info->n_layers + 1) * job->info->d_model * (int64_t)vl_dtype_size(job->meta.dtype);
}

/* Rows of a stored sample, by class. */
static void add_stored(vl_cache_plan *out, const vl_cache_job *job, const vl_sample_place *place)
{
    const vl_rows *rows = &job->store.shards[place->shard].summary.tables.rows;
    for (int64_t i = 0; i < place->n_rows; i++)
        out->n_tokens[rows->token_class[place->first_row + i]]++;
    out->n_resumed_tokens += place->n_rows;
}

void vl_job_plan(vl_cache_plan *out, const vl_cache_job *job)
{
    *out = (vl_cache_plan){.n_samples = job->samples.n,
                           .n_images = job->n_images,
                           .n_heldout_images = job->n_heldout_images,
                           .n_run_samples = job->n_missing,
                           .n_forward_tokens = job->total};
    for (int64_t i = 0; i < job->samples.n; i++) {
        out->n_heldout += job->heldout[i];
        if (job->places[i].shard >= 0)
            add_stored(out, job, &job->places[i]);
        else
            for (int c = 0; c < VL_CLASS_COUNT; c++)
                out->n_tokens[c] += vl_positions_count(job->config->cache.positions[c], job->available[i][c]);
    }
    out->n_bytes = (job->n_rows + out->n_resumed_tokens) * row_bytes(job);
}

/* ---- space ------------------------------------------------------------------------------------------------- */

/* Of the model's manifest, which every file of the cache holds: a line for each tensor, and the configuration. */
static double manifest_bytes(const vl_cache_job *job)
{
    return 24576.0 + 160.0 * (double)job->model->directory->n_tensors;
}

/* An upper bound of the bytes on disk that are still to be written: chunks are stored whole, the tables twice. */
static double bytes_needed(const vl_cache_job *job, const int64_t limits[VL_CLASS_COUNT])
{
    double bytes = manifest_bytes(job), texts = 160 << 10, chunk = (double)job->chunk_rows;
    bool visible = job->info->sees_images && !job->info->patches_in_stream;
    double per_row = visible ? 2 * 38 : 2 * 30; /* of /tokens */
    int64_t rows = 0;
    for (int64_t i = 0; i < job->n_missing; i++) {
        const vl_sample *sample = &job->samples.items[job->missing[i]];
        rows += vl_job_kept(job, job->missing[i], limits);
        texts += 2.0 * (double)(strlen(sample->prompt) + (sample->answer ? strlen(sample->answer) : 0) + 128);
        for (int k = 0; k < sample->n_images; k++)
            texts += 2.0 * (double)(strlen(sample->images[k]) + 192);
        if (rows < job->config->cache.shard_tokens && i + 1 < job->n_missing)
            continue;
        double chunks = (double)((rows + job->chunk_rows - 1) / job->chunk_rows);
        bytes += chunks * (chunk * (double)row_bytes(job) + 64.0 * (double)(job->info->n_layers + 1)) + 32768 +
                 manifest_bytes(job);
        texts += per_row * (double)rows;
        rows = 0;
    }
    double head = (double)job->info->vocab_size *
                  (double)(job->info->d_model * (int64_t)vl_dtype_size(job->head.weight_dtype) + 48);
    return bytes + texts + head;
}

static const char *bytes_text(char *out, size_t size, double bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    int unit = 0;
    for (; bytes >= 1024 && unit < 5; unit++)
        bytes /= 1024;
    snprintf(out, size, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return out;
}

/* Rows of the shards that are there, used or not. */
static double bytes_stored(const vl_cache_job *job)
{
    double bytes = 0;
    for (int64_t i = 0; i < job->store.n; i++)
        bytes += (double)job->store.shards[i].summary.n_tokens * (double)row_bytes(job);
    return bytes;
}

/* The largest common limit of text and image positions that fits. */
static int64_t find_limit(const vl_cache_job *job, double most)
{
    int64_t low = 0, high = (int64_t)1 << 24;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2, limits[VL_CLASS_COUNT];
        memcpy(limits, job->config->cache.positions, sizeof limits);
        for (int c = VL_TEXT; c <= VL_IMAGE; c++)
            if (limits[c] == VL_ALL || limits[c] > middle)
                limits[c] = middle;
        if (bytes_needed(job, limits) <= most)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static vl_status check_bound(const vl_cache_job *job, vl_error *err)
{
    char need[32], have[32];
    double bytes = bytes_stored(job) + bytes_needed(job, job->config->cache.positions);
    double most = (double)job->config->cache.max_bytes;
    if (most <= 0 || bytes <= most)
        return VL_OK;
    bytes_text(need, sizeof need, bytes);
    bytes_text(have, sizeof have, most);
    int64_t limit = find_limit(job, most);
    if (limit > 0)
        return vl_fail(err, VL_EINVAL,
                       "the cache needs %.0f bytes (%s) for %lld tokens, cache.max_bytes allows %.0f (%s); "
                       "cache.positions {text: %lld, image: %lld} would fit",
                       bytes, need, (long long)job->n_rows, most, have, (long long)limit, (long long)limit);
    return vl_fail(err, VL_EINVAL,
                   "the cache needs %.0f bytes (%s) for %lld tokens, cache.max_bytes allows %.0f (%s); no "
                   "choice of cache.positions {text: N, image: N} fits: lower data.max_samples",
                   bytes, need, (long long)job->n_rows, most, have);
}

/* The file system of the nearest folder that exists. */
static bool free_bytes(double *out, const char *directory)
{
    struct statvfs info;
    char *path = vl_strdup(directory);
    while (path && statvfs(path, &info) != 0) {
        char *parent = vl_path_parent(path);
        bool end = parent && strcmp(parent, path) == 0;
        vl_free(path);
        path = parent;
        if (end)
            break;
    }
    bool found = path && statvfs(path, &info) == 0;
    if (found)
        *out = (double)info.f_bavail * (double)info.f_frsize;
    vl_free(path);
    return found;
}

vl_status vl_job_check_space(const vl_cache_job *job, vl_error *err)
{
    char need[32], have[32];
    double available, bytes = bytes_needed(job, job->config->cache.positions);
    VL_TRY(check_bound(job, err));
    if (!free_bytes(&available, job->directory)) {
        vl_job_message(job, true, "%s: cannot tell how much room the disk has", job->directory);
    } else if (bytes > available) {
        bytes_text(need, sizeof need, bytes);
        bytes_text(have, sizeof have, available);
        return vl_fail(err, VL_EIO, "%s: the cache needs %s more, the disk has %s free", job->directory, need, have);
    }
    return VL_OK;
}
