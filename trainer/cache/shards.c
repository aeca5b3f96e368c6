/* shards.c - which shards of the folder are whole, which samples they hold, how the others are cut into new ones, and
 * who makes those. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/cache/job.h"

/* ---- what is there ----------------------------------------------------------------------------------------- */

/* One file of the folder. What is no whole shard is passed over: it is made again under its number, or left alone. */
static vl_status look_at(vl_cache_job *job, int64_t number, const char *path, vl_error *err)
{
    vl_shard_summary shard;
    vl_error reason = VL_ERROR_INIT;
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
    if (status == VL_OK)
        status = vl_store_add(&job->store, number, &shard, path, err);
    vl_shard_summary_clear(&shard);
    return status;
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The numbers of the folder's shards, rising; freed with vl_free. */
static vl_status list_numbers(int64_t **out, int64_t *n, const char *directory, vl_error *err)
{
    vl_status status = VL_OK;
    int64_t *numbers = NULL;
    DIR *dir = opendir(directory);
    *out = NULL;
    *n = 0;
    if (!dir)
        return errno == ENOENT ? VL_OK : vl_fail_errno(err, VL_EIO, "%s: cannot list", directory);
    for (struct dirent *e; status == VL_OK && (e = readdir(dir)) != NULL;) {
        char name[VL_SHARD_NAME_SIZE];
        long long number;
        if (sscanf(e->d_name, "shard-%lld.h5", &number) != 1 || number < 0)
            continue;
        vl_shard_name(name, number);
        if (strcmp(name, e->d_name) != 0)
            continue;
        int64_t *grown = vl_realloc(numbers, (size_t)*n + 1, sizeof *numbers);
        if (grown) {
            numbers = grown;
            numbers[(*n)++] = number;
        } else {
            status = vl_fail_nomem(err, "list of shards");
        }
    }
    closedir(dir);
    if (*n > 0)
        qsort(numbers, (size_t)*n, sizeof *numbers, by_number);
    *out = numbers;
    return status;
}

vl_status vl_job_open_store(vl_cache_job *job, vl_error *err)
{
    int64_t *numbers, n;
    vl_store_clear(&job->store);
    vl_status status = list_numbers(&numbers, &n, job->directory, err);
    for (int64_t i = 0; i < n && status == VL_OK; i++) {
        char name[VL_SHARD_NAME_SIZE];
        vl_shard_name(name, numbers[i]);
        char *path = vl_path_join(job->directory, name);
        status = path ? look_at(job, numbers[i], path, err) : vl_fail_nomem(err, name);
        vl_free(path);
    }
    vl_free(numbers);
    return status == VL_OK ? vl_store_sort(&job->store, err) : status;
}

vl_status vl_job_match(vl_cache_job *job, vl_error *err)
{
    size_t n = (size_t)job->samples.n + 1;
    job->places = job->places ? job->places : vl_alloc(n, sizeof *job->places);
    job->missing = job->missing ? job->missing : vl_alloc(n, sizeof *job->missing);
    if (!job->places || !job->missing)
        return vl_fail_nomem(err, "plan");
    job->n_missing = 0;
    for (int64_t i = 0; i < job->samples.n; i++) {
        const vl_sample_place *place = vl_store_find(&job->store, job->keys[i]);
        job->places[i] = place ? *place : (vl_sample_place){.shard = -1};
        if (!place)
            job->missing[job->n_missing++] = i;
    }
    return VL_OK;
}

/* ---- what is to be made ------------------------------------------------------------------------------------ */

vl_status vl_job_cut(vl_cache_job *job, vl_error *err)
{
    int64_t rows = 0, first = 0, number = 0;
    vl_free(job->shards);
    job->n_shards = 0;
    job->shards = vl_calloc((size_t)job->n_missing + 1, sizeof *job->shards);
    if (!job->shards)
        return vl_fail_nomem(err, "list of shards");
    for (int64_t i = 0; i < job->n_missing; i++) {
        rows += vl_job_kept(job, job->missing[i], job->config->cache.positions);
        if (rows < job->config->cache.shard_tokens && i + 1 < job->n_missing)
            continue;
        while (vl_store_has(&job->store, number)) /* the numbers that are free: a gap is filled with what it held */
            number++;
        job->shards[job->n_shards] = (vl_shard_range){.first = first,
                                                      .n = i + 1 - first,
                                                      .number = number++,
                                                      .maker = (int)(job->n_shards % vl_team_size(job->team))};
        job->n_shards++;
        first = i + 1;
        rows = 0;
    }
    return VL_OK;
}
