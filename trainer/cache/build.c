#include <stdio.h>
#include <string.h>
#include <time.h>

#include "trainer/base/file.h"
#include "trainer/base/lock.h"
#include "trainer/base/mem.h"
#include "trainer/cache/index.h"
#include "trainer/cache/job.h"

/* ---- running ----------------------------------------------------------------------------------------------- */

/* Batches never cross the border of a shard: a run that is resumed there forms the same batches as an unbroken one, so
 * that even sums which depend on the shape of a batch come out with the same bits. */
static vl_status run_batches(vl_cache_job *job, vl_batch *batch, vl_write_queue *queue, int64_t next, vl_error *err)
{
    int64_t shard_rows = 0;
    while (next < job->samples.n) {
        VL_TRY(vl_batch_collect(batch, &next, shard_rows, err));
        int64_t rows = vl_batch_rows(batch);
        VL_TRY(vl_batch_run(batch, queue, shard_rows, err));
        shard_rows += rows;
        if (shard_rows >= job->config->cache.shard_tokens || next == job->samples.n) {
            VL_TRY(vl_queue_finish_shard(queue, err));
            shard_rows = 0;
        }
    }
    return VL_OK;
}

static void report_faults(const vl_cache_job *job, vl_batch_faults faults)
{
    if (faults.overflows > 0)
        vl_job_message(job, true, "%lld values were too large for %s and are stored as infinity%s",
                       (long long)faults.overflows, vl_dtype_name(job->meta.dtype),
                       job->meta.dtype == VL_F16 ? ": use cache.dtype bfloat16" : "");
    if (faults.not_finite > 0)
        vl_job_message(job, true,
                       "%lld values that the model made are no finite numbers, first in state %lld of sample %lld",
                       (long long)faults.not_finite, (long long)faults.state, (long long)faults.sample);
}

static vl_status run(vl_cache_job *job, const vl_resume *resume, vl_error *err)
{
    vl_batch *batch = NULL;
    vl_write_queue *queue = NULL;
    vl_queue_spec spec = {job->directory, &job->meta, resume->n_shards, job->chunk_rows};
    vl_status status = vl_batch_new(&batch, job, err);
    if (status == VL_OK)
        status = vl_queue_open(&queue, &spec, err);
    if (status == VL_OK)
        status = run_batches(job, batch, queue, resume->next_sample, err);
    vl_status closed = vl_queue_close(queue, status == VL_OK ? err : NULL);
    if (batch)
        report_faults(job, vl_batch_get_faults(batch));
    vl_batch_free(batch);
    return status != VL_OK ? status : closed;
}

/* Seconds that all samples from `first` on will take, by the first batch of them; nothing is written. */
static vl_status measure(double *seconds, vl_cache_job *job, int64_t first, vl_error *err)
{
    vl_batch *batch;
    int64_t next = first, left = 0;
    *seconds = 0;
    for (int64_t i = first; i < job->samples.n; i++)
        left += job->n_forward[i];
    if (left == 0)
        return VL_OK;
    VL_TRY(vl_batch_new(&batch, job, err));
    double start = vl_clock();
    vl_status status = vl_batch_collect(batch, &next, 0, err);
    int64_t tokens = vl_batch_tokens(batch);
    if (status == VL_OK)
        status = vl_batch_run(batch, NULL, 0, err);
    if (tokens > 0)
        *seconds = (vl_clock() - start) * (double)left / (double)tokens;
    vl_batch_free(batch);
    return status;
}

/* ---- the index --------------------------------------------------------------------------------------------- */

/* [V] borrowed from the tokenizer; ids beyond it are NULL. Freed with vl_free. */
static const char **find_pieces(const vl_cache_job *job)
{
    const vl_tokenizer *tokenizer = vl_model_tokenizer(job->model);
    int64_t v = job->info->vocab_size, known = vl_tokenizer_size(tokenizer);
    const char **pieces = vl_calloc((size_t)v, sizeof *pieces);
    for (int64_t i = 0; pieces && i < v && i < known; i++)
        pieces[i] = vl_tokenizer_piece(tokenizer, (int32_t)i);
    return pieces;
}

static vl_status write_index(vl_cache_job *job, int64_t n_shards, vl_error *err)
{
    vl_status status = VL_OK;
    char now[32];
    time_t seconds = time(NULL);
    struct tm utc;
    const char **pieces = find_pieces(job);
    gmtime_r(&seconds, &utc);
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &utc);
    vl_cache_meta meta = job->meta; /* shards lack the next two, so that equal runs write equal shards */
    meta.created = now;
    meta.config = NULL;
    if (!pieces)
        VL_GOTO(vl_fail_nomem(err, "vocabulary"));
    VL_GOTO(vl_config_write(&meta.config, job->config, err));
    vl_index_spec spec = {job->directory, &meta, n_shards, &job->head, pieces};
    VL_GOTO(vl_index_write(&spec, err));
done:
    vl_release(meta.config);
    vl_free(pieces);
    return status;
}

/* Shards that the run will have written, as run_batches cuts them. */
static vl_status count_shards(int64_t *n, const vl_cache_job *job, vl_error *err)
{
    char name[VL_SHARD_NAME_SIZE];
    bool there = true;
    for (*n = 0; there; *n += there) {
        vl_shard_name(name, *n);
        char *path = vl_path_join(job->directory, name);
        if (!path)
            return vl_fail_nomem(err, name);
        there = vl_path_exists(path);
        vl_free(path);
    }
    return VL_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------------- */

static vl_status prepare(vl_cache_job *job, vl_cache_plan *plan, vl_error *err)
{
    VL_TRY(vl_job_read(job, err));
    VL_TRY(vl_job_split(job, err));
    VL_TRY(vl_job_count(job, err));
    vl_job_plan(plan, job);
    if (plan->n_images > 0)
        vl_job_message(job, false, "held out %lld of %lld images (%lld of %lld samples)",
                       (long long)plan->n_heldout_images, (long long)plan->n_images, (long long)plan->n_heldout,
                       (long long)plan->n_samples);
    else
        vl_job_message(job, false, "held out %lld of %lld samples", (long long)plan->n_heldout,
                       (long long)plan->n_samples);
    return VL_OK;
}

static vl_status dry_run(vl_cache_job *job, vl_cache_plan *plan, bool fresh, vl_error *err)
{
    vl_resume resume = {0, 0, 0};
    if (!fresh)
        VL_TRY(vl_job_find_shards(&resume, job, err));
    plan->n_resumed_tokens = resume.n_rows;
    VL_TRY(vl_job_check_space(job, resume.next_sample, err));
    return measure(&plan->seconds, job, resume.next_sample, err);
}

/* Removes the index and shards behind the whole ones: an index must never list a shard of another time. */
static vl_status clear_rest(const vl_cache_job *job, const vl_resume *resume, vl_error *err)
{
    int64_t n;
    VL_TRY(count_shards(&n, job, err));
    for (int64_t i = n; i >= resume->n_shards; i--) {
        char name[VL_SHARD_NAME_SIZE];
        snprintf(name, sizeof name, "index.h5");
        if (i < n)
            vl_shard_name(name, i);
        char *path = vl_path_join(job->directory, name);
        if (!path)
            return vl_fail_nomem(err, name);
        remove(path);
        vl_free(path);
    }
    return VL_OK;
}

/* Before the run, tokens to be generated are counted in full; an end token makes them fewer. */
static vl_status count_generated(const vl_cache_job *job, vl_cache_plan *plan, vl_error *err)
{
    vl_cache_plan found;
    bool whole;
    VL_TRY(vl_job_find_whole(&whole, &found, job, err));
    if (whole) {
        memcpy(plan->n_tokens, found.n_tokens, sizeof plan->n_tokens);
        plan->n_bytes = found.n_bytes;
    }
    return VL_OK;
}

static vl_status build(vl_cache_job *job, vl_cache_plan *plan, bool fresh, vl_error *err)
{
    vl_resume resume;
    int64_t n_shards, resumed_tokens = 0;
    double start = vl_clock();
    VL_TRY(vl_cache_remove_files(job->directory, !fresh, err));
    VL_TRY(vl_job_find_shards(&resume, job, err));
    plan->n_resumed_tokens = resume.n_rows;
    VL_TRY(vl_job_check_space(job, resume.next_sample, err));
    if (resume.n_shards > 0)
        vl_job_message(job, false, "going on behind %lld whole shards (%lld tokens)", (long long)resume.n_shards,
                       (long long)resume.n_rows);
    VL_TRY(clear_rest(job, &resume, err));
    for (int64_t i = 0; i < resume.next_sample; i++)
        resumed_tokens += job->n_forward[i];
    job->done = resumed_tokens;
    if (resume.next_sample < job->samples.n)
        VL_TRY(run(job, &resume, err));
    VL_TRY(count_shards(&n_shards, job, err));
    VL_TRY(write_index(job, n_shards, err));
    if (job->config->cache.positions[VL_GENERATED] > 0)
        VL_TRY(count_generated(job, plan, err));
    plan->seconds = vl_clock() - start;
    /* The cache is whole by now: a wish to stop has nothing left to stop. */
    vl_job_progress(job, "cache", "tokens", job->total, job->total, NULL);
    return VL_OK;
}

vl_status vl_cache_build(vl_cache_plan *plan, const vl_config *config, vl_model *model,
                         const vl_cache_build_options *options, const vl_observer *observer, vl_error *err)
{
    vl_cache_job job;
    vl_cache_plan local;
    vl_lock lock = VL_LOCK_NONE;
    bool whole = false, fresh = options && options->fresh, dry = options && options->dry_run;
    if (!plan)
        plan = &local;
    memset(plan, 0, sizeof *plan);
    vl_status status = vl_job_open(&job, config, model, observer, err);
    if (status != VL_OK)
        return status;
    if (!fresh)
        VL_GOTO(vl_job_find_whole(&whole, plan, &job, err));
    if (whole)
        goto done;
    VL_GOTO(prepare(&job, plan, err));
    if (dry) {
        VL_GOTO(dry_run(&job, plan, fresh, err));
        goto done;
    }
    VL_GOTO(vl_make_directories(job.directory, err));
    VL_GOTO(vl_lock_take(&lock, job.directory, err));
    if (lock.stale[0])
        vl_job_message(&job, false, "%s: the run before was cut off (%s)", job.directory, lock.stale);
    VL_GOTO(build(&job, plan, fresh, err));
done:
    vl_lock_release(&lock);
    vl_job_close(&job);
    return status;
}
