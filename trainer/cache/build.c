#include <stdio.h>
#include <string.h>
#include <time.h>

#include "trainer/base/file.h"
#include "trainer/base/lock.h"
#include "trainer/base/mem.h"
#include "trainer/cache/index.h"
#include "trainer/cache/job.h"
#include "trainer/model/model.h"

/* ---- running ----------------------------------------------------------------------------------------------- */

static vl_status put_away(const vl_cache_job *job, const char *name, bool *found, vl_error *err)
{
    char *path = vl_path_join(job->directory, name);
    if (!path)
        return vl_fail_nomem(err, name);
    *found = vl_path_exists(path);
    vl_status status = vl_job_put_away(job, path, err);
    vl_free(path);
    return status;
}

static vl_status put_away_shard(const vl_cache_job *job, int64_t number, bool *found, vl_error *err)
{
    char name[VL_SHARD_NAME_SIZE];
    vl_shard_name(name, number);
    return put_away(job, name, found, err);
}

/* Batches never cross the border of a shard: a run that is resumed there, or shared out, forms the same batches as an
 * unbroken one, so that even sums which depend on the shape of a batch come out with the same bits. */
static vl_status run_shard(vl_cache_job *job, vl_batch *batch, vl_write_queue *queue, int64_t number, vl_error *err)
{
    const vl_shard_range *range = &job->shards[number];
    int64_t rows = 0, next = range->first, end = range->first + range->n;
    bool found;
    VL_TRY(put_away_shard(job, number, &found, err)); /* a damaged one, or another program's */
    vl_queue_start_shard(queue, number);
    while (next < end) {
        VL_TRY(vl_batch_collect(batch, &next, end, err));
        int64_t more = vl_batch_rows(batch);
        VL_TRY(vl_batch_run(batch, queue, rows, err));
        rows += more;
    }
    VL_TRY(vl_job_identify(job, err)); /* hashed meanwhile */
    return vl_queue_finish_shard(queue, err);
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

static vl_status run(vl_cache_job *job, vl_error *err)
{
    vl_batch *batch = NULL;
    vl_write_queue *queue = NULL;
    vl_queue_spec spec = {job->directory, &job->meta, job->chunk_rows};
    vl_status status = vl_batch_new(&batch, job, err);
    if (status == VL_OK)
        status = vl_queue_open(&queue, &spec, err);
    for (int64_t i = 0; i < job->n_shards && status == VL_OK; i++)
        if (job->shards[i].maker == vl_team_rank(job->team))
            status = run_shard(job, batch, queue, i, err);
    vl_status closed = vl_queue_close(queue, status == VL_OK ? err : NULL);
    if (batch)
        report_faults(job, vl_batch_get_faults(batch));
    vl_batch_free(batch);
    return status != VL_OK ? status : closed;
}

/* Rows that the shards of one maker take to run; of whole shards (-1). */
static int64_t count_rows(const vl_cache_job *job, int maker)
{
    int64_t rows = 0;
    for (int64_t k = 0; k < job->n_shards; k++)
        for (int64_t i = 0; i < job->shards[k].n && job->shards[k].maker == maker; i++)
            rows += job->n_forward[job->shards[k].first + i];
    return rows;
}

/* Seconds that the missing shards will take, by the first batch of them; nothing is written. */
static vl_status measure(double *seconds, vl_cache_job *job, vl_error *err)
{
    vl_batch *batch;
    int64_t next = vl_job_first_missing(job), left = job->total - count_rows(job, -1);
    *seconds = 0;
    if (left == 0)
        return VL_OK;
    VL_TRY(vl_batch_new(&batch, job, err));
    double start = vl_clock();
    vl_status status = vl_batch_collect(batch, &next, job->samples.n, err);
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

static vl_status write_index(vl_cache_job *job, vl_error *err)
{
    vl_status status = VL_OK;
    char now[32];
    time_t seconds = time(NULL);
    struct tm utc;
    const char **pieces = find_pieces(job);
    gmtime_r(&seconds, &utc);
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &utc);
    VL_TRY(vl_job_identify(job, err));
    vl_cache_meta meta = job->meta; /* shards lack the next two, so that equal runs write equal shards */
    meta.created = now;
    meta.config = NULL;
    if (!pieces)
        VL_GOTO(vl_fail_nomem(err, "vocabulary"));
    VL_GOTO(vl_config_write(&meta.config, job->config, err));
    vl_index_spec spec = {job->directory, &meta, job->n_shards, &job->head, pieces};
    VL_GOTO(vl_index_write(&spec, err));
done:
    vl_release(meta.config);
    vl_free(pieces);
    return status;
}

/* ---- steps ------------------------------------------------------------------------------------------------- */

static vl_status prepare(vl_cache_job *job, vl_cache_plan *plan, vl_error *err)
{
    VL_TRY(vl_job_read(job, err));
    VL_TRY(vl_job_split(job, err));
    VL_TRY(vl_job_count(job, err));
    VL_TRY(vl_job_cut(job, err));
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

/* The rows of whole shards, and room for the others. */
static vl_status look_at_disk(vl_cache_job *job, vl_cache_plan *plan, vl_error *err)
{
    VL_TRY(vl_job_find_shards(job, err));
    for (int64_t i = 0; i < job->n_shards; i++)
        plan->n_resumed_tokens += job->shards[i].whole ? job->shards[i].rows : 0;
    return vl_job_check_space(job, vl_job_first_missing(job), err);
}

static vl_status dry_run(vl_cache_job *job, vl_cache_plan *plan, bool fresh, vl_error *err)
{
    if (vl_team_rank(job->team) > 0)
        return VL_OK;
    if (fresh)
        VL_TRY(vl_job_check_space(job, 0, err));
    else
        VL_TRY(look_at_disk(job, plan, err));
    return measure(&plan->seconds, job, err);
}

/* The first member takes the folder for all and makes it ready while the others wait: no index (it must never list a
 * shard of another time), and no shards behind the last. */
static vl_status make_ready(const vl_cache_job *job, bool fresh, vl_lock *lock, vl_error *err)
{
    bool found;
    if (vl_team_rank(job->team) > 0)
        return VL_OK;
    VL_TRY(vl_make_directories(job->directory, err));
    VL_TRY(vl_lock_take(lock, job->directory, err));
    if (lock->stale[0])
        vl_job_message(job, false, "%s: the run before was cut off (%s)", job->directory, lock->stale);
    VL_TRY(vl_job_clear_folder(job, !fresh, err));
    VL_TRY(put_away(job, "index.h5", &found, err));
    for (int64_t i = job->n_shards; found || i == job->n_shards; i++)
        VL_TRY(put_away_shard(job, i, &found, err));
    return VL_OK;
}

/* Before the run, tokens to be generated are counted in full; an end token makes them fewer. */
static vl_status count_generated(vl_cache_job *job, vl_cache_plan *plan, vl_error *err)
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

static void say_start(const vl_cache_job *job, const vl_cache_plan *plan)
{
    int64_t whole = 0, missing;
    if (vl_team_rank(job->team) > 0)
        return;
    for (int64_t i = 0; i < job->n_shards; i++)
        whole += job->shards[i].whole;
    missing = job->n_shards - whole;
    if (whole > 0)
        vl_job_message(job, false, "going on with %lld whole shards (%lld tokens)", (long long)whole,
                       (long long)plan->n_resumed_tokens);
    if (vl_team_size(job->team) > 1)
        vl_job_message(job, missing < vl_team_size(job->team), "%lld shards to make for %d processes%s",
                       (long long)missing, vl_team_size(job->team),
                       missing < vl_team_size(job->team) ? ": lower cache.shard_tokens to employ all" : "");
}

/* On a device with memory of its own: what of the weights lies there. */
static void say_memory(const vl_cache_job *job)
{
    const double gib = 1 << 30;
    vl_device_memory memory;
    if (vl_device_get_memory(job->model->device, &memory))
        vl_job_message(job, false,
                       "device memory: %.2f GiB: weights %.2f (%.2f more are read from their file on every use), %.2f "
                       "left for activations",
                       (double)memory.total / gib, (double)memory.weights / gib, (double)memory.streamed / gib,
                       (double)memory.available / gib);
}

static vl_status build(vl_cache_job *job, vl_cache_plan *plan, bool fresh, vl_lock *lock, vl_error *err)
{
    double start = vl_clock();
    VL_TRY(vl_team_barrier(job->team, err)); /* all have seen what was there */
    VL_TRY(make_ready(job, fresh, lock, err));
    VL_TRY(vl_team_barrier(job->team, err));
    VL_TRY(look_at_disk(job, plan, err));
    VL_TRY(vl_team_barrier(job->team, err)); /* all share out the same shards */
    say_start(job, plan);
    if (vl_team_rank(job->team) == 0)
        say_memory(job);
    job->done = count_rows(job, -1);
    job->total = job->done + count_rows(job, vl_team_rank(job->team));
    VL_TRY(run(job, err));
    VL_TRY(vl_team_barrier(job->team, err));
    if (vl_team_rank(job->team) == 0)
        VL_TRY(write_index(job, err));
    VL_TRY(vl_team_barrier(job->team, err));
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
    job.team = options ? options->team : NULL;
    if (!fresh)
        VL_GOTO(vl_job_find_whole(&whole, plan, &job, err));
    if (whole)
        goto done;
    VL_GOTO(prepare(&job, plan, err));
    if (dry) {
        VL_GOTO(dry_run(&job, plan, fresh, err));
        goto done;
    }
    VL_GOTO(build(&job, plan, fresh, &lock, err));
done:
    vl_lock_release(&lock);
    vl_job_close(&job);
    return status;
}
