#include <stdio.h>
#include <string.h>
#include <time.h>

#include "trainer/base/file.h"
#include "trainer/base/lock.h"
#include "trainer/base/mem.h"
#include "trainer/base/str.h"
#include "trainer/cache/index.h"
#include "trainer/cache/job.h"
#include "trainer/model/model.h"

/* ---- running ----------------------------------------------------------------------------------------------- */

static vl_status put_away_shard(const vl_cache_job *job, int64_t number, vl_error *err)
{
    char name[VL_SHARD_NAME_SIZE];
    vl_shard_name(name, number);
    char *path = vl_path_join(job->directory, name);
    vl_status status = path ? vl_job_put_away(job, path, err) : vl_fail_nomem(err, name);
    vl_free(path);
    return status;
}

/* Batches never cross the border of a shard: a run that is resumed there, or shared out, forms the same batches as an
 * unbroken one, so that even sums which depend on the shape of a batch come out with the same bits. */
static vl_status run_shard(vl_cache_job *job, vl_batch *batch, vl_write_queue *queue, const vl_shard_range *range,
                           vl_error *err)
{
    int64_t rows = 0, next = range->first, end = range->first + range->n;
    VL_TRY(put_away_shard(job, range->number, err)); /* a damaged one, or another program's */
    vl_queue_start_shard(queue, range->number);
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
            status = run_shard(job, batch, queue, &job->shards[i], err);
    vl_status closed = vl_queue_close(queue, status == VL_OK ? err : NULL);
    if (batch)
        report_faults(job, vl_batch_get_faults(batch));
    vl_batch_free(batch);
    return status != VL_OK ? status : closed;
}

/* Rows that the shards of one maker take to run. */
static int64_t count_rows(const vl_cache_job *job, int maker)
{
    int64_t rows = 0;
    for (int64_t k = 0; k < job->n_shards; k++)
        for (int64_t i = 0; i < job->shards[k].n && job->shards[k].maker == maker; i++)
            rows += job->n_forward[job->missing[job->shards[k].first + i]];
    return rows;
}

/* Seconds that the missing samples will take, by the first batch of them; nothing is written. */
static vl_status measure(double *seconds, vl_cache_job *job, vl_error *err)
{
    vl_batch *batch;
    int64_t next = 0;
    *seconds = 0;
    if (job->n_missing == 0)
        return VL_OK;
    VL_TRY(vl_batch_new(&batch, job, err));
    double start = vl_clock();
    vl_status status = vl_batch_collect(batch, &next, job->n_missing, err);
    int64_t tokens = vl_batch_tokens(batch);
    if (status == VL_OK)
        status = vl_batch_run(batch, NULL, 0, err);
    if (tokens > 0)
        *seconds = (vl_clock() - start) * (double)job->total / (double)tokens;
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

/* Where the pictures lie now, and when they were written last. */
static vl_status refresh_images(vl_image_table *images, const vl_cache_job *job, int64_t sample, vl_error *err)
{
    const vl_sample *item = &job->samples.items[sample];
    for (int k = 0; k < item->n_images; k++) {
        int64_t to = images->n - item->n_images + k, slot = job->first_image[sample] + k;
        char *path = vl_strdup(item->images[k]);
        if (!path)
            return vl_fail_nomem(err, "tables");
        vl_free(images->path[to]);
        images->path[to] = path;
        images->bytes[to] = job->image_bytes[slot];
        images->mtime[to] = job->image_mtime[slot];
    }
    return VL_OK;
}

/* The samples in the order of the data, wherever they lie. */
static vl_status collect_rows(vl_index_rows *out, const vl_cache_job *job, vl_error *err)
{
    for (int64_t i = 0; i < job->samples.n; i++) {
        const vl_sample_place *p = &job->places[i];
        if (p->shard < 0)
            return vl_fail(err, VL_EINTERNAL, "sample %lld is in no shard", (long long)job->samples.items[i].number);
        const vl_store_shard *shard = &job->store.shards[p->shard];
        const vl_tables_slice slice = {p->sample, p->first_row, p->n_rows, p->first_image, p->n_images};
        VL_TRY(
            vl_tables_append_sample(&out->tables, &shard->summary.tables, &slice, job->samples.items[i].number, err));
        VL_TRY(refresh_images(&out->tables.images, job, i, err));
        vl_index_run run = {
            .shard = shard->number, .first = p->first_row, .n = p->n_rows, .total = shard->summary.n_tokens};
        memcpy(run.uuid, shard->summary.meta.uuid, sizeof run.uuid);
        if (p->n_rows > 0)
            VL_TRY(vl_index_add_run(out, &run, err));
    }
    return VL_OK;
}

/* What the index says beyond the shards. */
static vl_status describe_index(vl_cache_meta *meta, char now[32], const vl_cache_job *job, vl_error *err)
{
    vl_str settings = VL_STR_INIT;
    time_t seconds = time(NULL);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(now, 32, "%Y-%m-%dT%H:%M:%SZ", &utc);
    *meta = job->meta;
    meta->created = now;
    meta->n_skipped = job->samples.n_faults;
    meta->config = meta->settings = NULL;
    vl_str_printf(&settings, "%s%s", job->meta.settings, job->data_settings);
    if (settings.failed) {
        vl_str_clear(&settings);
        return vl_fail_nomem(err, "settings");
    }
    meta->settings = settings.data;
    return vl_config_write(&meta->config, job->config, err);
}

static vl_status write_index(vl_cache_job *job, vl_error *err)
{
    vl_status status = VL_OK;
    char now[32];
    vl_cache_meta meta = {.d_model = 0};
    vl_index_rows rows = {.n = 0};
    const char **pieces = find_pieces(job);
    if (!pieces)
        VL_GOTO(vl_fail_nomem(err, "vocabulary"));
    VL_GOTO(vl_job_identify(job, err));
    VL_GOTO(describe_index(&meta, now, job, err));
    VL_GOTO(collect_rows(&rows, job, err));
    VL_GOTO(vl_index_write(&(vl_index_spec){job->directory, &meta, 0, &job->head, pieces, &rows}, err));
done:
    vl_index_rows_clear(&rows);
    vl_release(meta.config);
    vl_free(meta.settings);
    vl_free(pieces);
    return status;
}

/* ---- steps ------------------------------------------------------------------------------------------------- */

/* What lies in shards already, and how the rest is cut. Again when the folder has been taken: another run may have been
 * there before. */
static vl_status plan_shards(vl_cache_job *job, bool fresh, vl_error *err)
{
    if (fresh)
        VL_TRY(vl_store_sort(&job->store, err)); /* as if nothing were there */
    else
        VL_TRY(vl_job_open_store(job, err));
    if (!job->keys)
        VL_TRY(vl_job_split(job, err));
    VL_TRY(vl_job_match(job, err));
    VL_TRY(vl_job_count(job, err));
    return vl_job_cut(job, err);
}

static vl_status prepare(vl_cache_job *job, vl_cache_plan *plan, bool fresh, vl_error *err)
{
    VL_TRY(vl_job_read(job, err));
    VL_TRY(vl_job_check(job, err));
    VL_TRY(plan_shards(job, fresh, err));
    vl_job_plan(plan, job);
    VL_TRY(vl_job_check_space(job, err));
    if (plan->n_images > 0)
        vl_job_message(job, false, "held out %lld of %lld images (%lld of %lld samples)",
                       (long long)plan->n_heldout_images, (long long)plan->n_images, (long long)plan->n_heldout,
                       (long long)plan->n_samples);
    else
        vl_job_message(job, false, "held out %lld of %lld samples", (long long)plan->n_heldout,
                       (long long)plan->n_samples);
    return VL_OK;
}

static vl_status dry_run(vl_cache_job *job, vl_cache_plan *plan, vl_error *err)
{
    return vl_team_rank(job->team) > 0 ? VL_OK : measure(&plan->seconds, job, err);
}

/* The first member takes the folder for all and makes it ready while the others wait. The old index stays until the new
 * one takes its name: the shards that it lists stay too. */
static vl_status make_ready(const vl_cache_job *job, bool fresh, vl_lock *lock, vl_error *err)
{
    if (vl_team_rank(job->team) > 0)
        return VL_OK;
    VL_TRY(vl_make_directories(job->directory, err));
    VL_TRY(vl_lock_take(lock, job->directory, err));
    if (lock->stale[0])
        vl_job_message(job, false, "%s: the run before was cut off (%s)", job->directory, lock->stale);
    VL_TRY(vl_job_clear_folder(job, !fresh, err));
    return vl_job_write_skipped(job, err);
}

/* The index that lies there, where it is not one to be replaced without a trace. */
static vl_status put_away_index(const vl_cache_job *job, vl_error *err)
{
    bool ours = true;
    char *path = vl_path_join(job->directory, "index.h5");
    vl_status status = path ? VL_OK : vl_fail_nomem(err, "index.h5");
    if (status == VL_OK && vl_path_exists(path))
        status = vl_cache_is_ours(&ours, path, err);
    if (status == VL_OK && !ours)
        status = vl_job_put_away(job, path, err);
    vl_free(path);
    return status;
}

/* Before the run, tokens to be generated are counted in full; an end token makes them fewer. */
static void count_rows_made(const vl_cache_job *job, vl_cache_plan *plan)
{
    vl_cache_plan now;
    vl_job_plan(&now, job);
    memcpy(plan->n_tokens, now.n_tokens, sizeof plan->n_tokens);
    plan->n_bytes = now.n_bytes;
}

static void say_start(const vl_cache_job *job, const vl_cache_plan *plan)
{
    if (vl_team_rank(job->team) > 0)
        return;
    if (plan->n_resumed_tokens > 0)
        vl_job_message(job, false, "going on with %lld whole shards (%lld tokens); %lld of %lld samples are to be run",
                       (long long)job->store.n, (long long)plan->n_resumed_tokens, (long long)job->n_missing,
                       (long long)job->samples.n);
    if (vl_team_size(job->team) > 1)
        vl_job_message(job, job->n_shards < vl_team_size(job->team), "%lld shards to make for %d processes%s",
                       (long long)job->n_shards, vl_team_size(job->team),
                       job->n_shards < vl_team_size(job->team) ? ": lower cache.shard_tokens to employ all" : "");
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
    VL_TRY(plan_shards(job, false, err));
    vl_job_plan(plan, job);
    VL_TRY(vl_team_barrier(job->team, err)); /* all share out the same shards */
    say_start(job, plan);
    if (vl_team_rank(job->team) == 0)
        say_memory(job);
    job->done = 0;
    job->total = count_rows(job, vl_team_rank(job->team));
    VL_TRY(run(job, err));
    VL_TRY(vl_team_barrier(job->team, err));
    VL_TRY(vl_job_open_store(job, err));
    VL_TRY(vl_job_match(job, err));
    job->n_rows = 0; /* nothing is missing now */
    if (vl_team_rank(job->team) == 0) {
        VL_TRY(put_away_index(job, err));
        VL_TRY(write_index(job, err));
    }
    VL_TRY(vl_team_barrier(job->team, err));
    count_rows_made(job, plan);
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
    VL_GOTO(prepare(&job, plan, fresh, err));
    if (dry) {
        VL_GOTO(dry_run(&job, plan, err));
        goto done;
    }
    VL_GOTO(build(&job, plan, fresh, &lock, err));
done:
    vl_lock_release(&lock);
    vl_job_close(&job);
    return status;
}
