#include "trainer/serve/jobs.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "trainer/base/mem.h"
#include "trainer/view/json_text.h"

static vl_job *find(vl_jobs *jobs, int64_t id)
{
    vl_job *job = &jobs->jobs[(id > 0 ? id : 0) % VL_JOBS_KEPT];
    return id > 0 && job->id == id ? job : NULL;
}

/* ---- one question ------------------------------------------------------------------------------------------ */

/* What a job reports to while it runs. */
typedef struct running {
    vl_jobs *jobs;
    vl_job *job;
} running;

static int report(void *user, const vl_progress *p)
{
    const running *r = user;
    pthread_mutex_lock(&r->jobs->lock);
    snprintf(r->job->stage, sizeof r->job->stage, "%s", p->stage);
    r->job->done = p->done;
    r->job->total = p->total;
    r->job->version++;
    pthread_cond_broadcast(&r->jobs->changed);
    pthread_mutex_unlock(&r->jobs->lock);
    return atomic_load(&r->job->cancel);
}

static vl_status stage(running *r, const char *name, vl_error *err)
{
    vl_progress p = {name, "", 0, 0, 0};
    return report(r, &p) ? vl_fail(err, VL_ECANCELLED, "cancelled") : VL_OK;
}

static vl_status encode(vl_sequence **out, running *r, vl_error *err)
{
    const vl_ask *ask = &r->job->ask;
    char paths[VL_ASK_PICTURES][4200];
    const char *list[VL_ASK_PICTURES];
    for (int i = 0; i < ask->n_pictures; i++) {
        if (!vl_shelf_has_picture(r->jobs->shelf, ask->pictures[i]))
            return vl_fail(err, VL_EINVAL, "picture %lld is no longer here: upload it again",
                           (long long)ask->pictures[i]);
        vl_shelf_picture_path(paths[i], r->jobs->shelf, ask->pictures[i]);
        list[i] = paths[i];
    }
    vl_prompt prompt = {.text = ask->prompt,
                        .image_paths = list,
                        .n_images = ask->n_pictures,
                        .raw = ask->raw,
                        .max_pixels = r->jobs->options->max_pixels};
    return vl_model_encode(out, r->jobs->options->model, &prompt, err);
}

static vl_status generate(vl_sequence *sequence, running *r, vl_error *err)
{
    int32_t *ids = NULL;
    int64_t n = 0;
    if (!r->job->ask.generate)
        return VL_OK;
    VL_TRY(stage(r, "generate", err));
    VL_TRY(vl_model_generate(r->jobs->options->model, sequence, r->job->ask.generate, &ids, &n, err));
    vl_status status = n > 0 ? vl_sequence_append(sequence, ids, n, err) : VL_OK;
    vl_release(ids);
    return status;
}

static vl_status keep(running *r, const vl_reading *reading, vl_error *err)
{
    char *page = NULL, *json = NULL, *title = vl_strdup(r->job->ask.prompt);
    vl_status status = title ? VL_OK : vl_fail_nomem(err, "reading");
    if (status == VL_OK)
        status = vl_reading_page(&page, reading, err);
    if (status == VL_OK)
        status = vl_reading_json(&json, reading, err);
    if (status == VL_OK) {
        r->job->reading = vl_shelf_put(r->jobs->shelf, title, page, json);
        return VL_OK;
    }
    vl_free(title);
    vl_release(page);
    vl_release(json);
    return status;
}

static vl_status answer(running *r, vl_error *err)
{
    const vl_ask *ask = &r->job->ask;
    const vl_observer observer = {.progress = report, .user = r};
    vl_reading_options options = {.lens = ask->lens < 0 ? NULL : r->jobs->options->lenses[ask->lens],
                                  .allow_other_model = r->jobs->options->allow_other_model,
                                  .k = ask->k,
                                  .prompt = ask->prompt,
                                  .track = (const char *const *)ask->words,
                                  .n_track = ask->n_words,
                                  .observer = &observer};
    vl_sequence *sequence = NULL;
    vl_reading *reading = NULL;
    vl_status status = VL_OK;
    VL_GOTO(stage(r, "picture", err));
    VL_GOTO(encode(&sequence, r, err));
    VL_GOTO(generate(sequence, r, err));
    VL_GOTO(stage(r, "forward", err));
    VL_GOTO(vl_reading_from_model(&reading, r->jobs->options->model, sequence, &options, err));
    VL_GOTO(stage(r, "page", err));
    VL_GOTO(keep(r, reading, err));
done:
    vl_sequence_free(sequence);
    vl_reading_free(reading);
    return status;
}

/* ---- the thread -------------------------------------------------------------------------------------------- */

static void finish(vl_jobs *jobs, vl_job *job, vl_status status, const vl_error *err)
{
    pthread_mutex_lock(&jobs->lock);
    bool cancelled = status == VL_ECANCELLED || (status != VL_OK && atomic_load(&job->cancel));
    job->state = status == VL_OK ? VL_JOB_DONE : cancelled ? VL_JOB_CANCELLED : VL_JOB_FAILED;
    snprintf(job->message, sizeof job->message, "%s", status == VL_OK ? "" : cancelled ? "cancelled" : err->message);
    job->version++;
    jobs->n_finished = job->id;
    vl_ask_clear(&job->ask);
    pthread_cond_broadcast(&jobs->changed);
    pthread_mutex_unlock(&jobs->lock);
}

static void *work(void *user)
{
    vl_jobs *jobs = user;
    for (;;) {
        pthread_mutex_lock(&jobs->lock);
        while (!jobs->stopping && jobs->n_finished == jobs->n_asked)
            pthread_cond_wait(&jobs->changed, &jobs->lock);
        vl_job *job = find(jobs, jobs->n_finished + 1);
        if (job && !jobs->stopping)
            job->state = VL_JOB_RUNNING;
        bool stopping = jobs->stopping;
        pthread_mutex_unlock(&jobs->lock);
        if (stopping || !job)
            return NULL;
        vl_error err = VL_ERROR_INIT;
        running r = {jobs, job};
        finish(jobs, job, atomic_load(&job->cancel) ? VL_ECANCELLED : answer(&r, &err), &err);
    }
}

vl_status vl_jobs_start(vl_jobs *jobs, const vl_serve_options *options, vl_shelf *shelf, vl_error *err)
{
    pthread_condattr_t attributes;
    jobs->options = options;
    jobs->shelf = shelf;
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&jobs->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&jobs->thread, NULL, work, jobs) != 0)
        return vl_fail(err, VL_EIO, "no thread could be started");
    jobs->started = true;
    return VL_OK;
}

void vl_jobs_stop(vl_jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->stopping = true;
    for (int i = 0; i < VL_JOBS_KEPT; i++)
        atomic_store(&jobs->jobs[i].cancel, true);
    pthread_cond_broadcast(&jobs->changed);
    pthread_mutex_unlock(&jobs->lock);
    if (jobs->started)
        pthread_join(jobs->thread, NULL);
    for (int i = 0; i < VL_JOBS_KEPT; i++)
        vl_ask_clear(&jobs->jobs[i].ask);
}

/* ---- from the connections ---------------------------------------------------------------------------------- */

int64_t vl_jobs_add(vl_jobs *jobs, vl_ask *ask)
{
    int64_t id = 0;
    pthread_mutex_lock(&jobs->lock);
    if (jobs->n_asked - jobs->n_finished <= VL_JOBS_WAITING && !jobs->stopping) {
        id = ++jobs->n_asked;
        vl_job *job = find(jobs, id);
        job = job ? job : &jobs->jobs[id % VL_JOBS_KEPT];
        *job = (vl_job){.id = id, .state = VL_JOB_WAITING, .ask = *ask, .version = 1};
        *ask = (vl_ask){0};
        pthread_cond_broadcast(&jobs->changed);
    }
    pthread_mutex_unlock(&jobs->lock);
    return id;
}

bool vl_jobs_cancel(vl_jobs *jobs, int64_t id)
{
    pthread_mutex_lock(&jobs->lock);
    vl_job *job = find(jobs, id);
    if (job)
        atomic_store(&job->cancel, true);
    pthread_mutex_unlock(&jobs->lock);
    return job != NULL;
}

static void put_state(vl_str *out, const vl_job *job)
{
    static const char *const names[] = {"waiting", "running", "done", "failed", "cancelled"};
    json_t *json =
        json_pack("{s:I, s:s, s:s, s:I, s:I, s:o, s:I}", "job", (json_int_t)job->id, "state", names[job->state],
                  "stage", job->stage, "done", (json_int_t)job->done, "total", (json_int_t)job->total, "message",
                  vl_json_text(job->message), "reading", (json_int_t)job->reading);
    char *text = json_dumps(json, JSON_COMPACT);
    vl_str_puts(out, text ? text : "{}");
    vl_free(text);
    json_decref(json);
}

int vl_jobs_wait(vl_str *out, bool *final, vl_jobs *jobs, int64_t id, int64_t *version, int milliseconds)
{
    struct timespec until;
    int result = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += milliseconds / 1000;
    until.tv_nsec += milliseconds % 1000 * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    *final = false;
    pthread_mutex_lock(&jobs->lock);
    const vl_job *job = find(jobs, id);
    while (job && !jobs->stopping && job->version == *version)
        if (pthread_cond_timedwait(&jobs->changed, &jobs->lock, &until) != 0)
            break;
        else
            job = find(jobs, id);
    job = find(jobs, id);
    if (!job || jobs->stopping) {
        result = -1;
    } else if (job->version != *version) {
        *version = job->version;
        *final = job->state >= VL_JOB_DONE;
        put_state(out, job);
        result = 1;
    }
    pthread_mutex_unlock(&jobs->lock);
    return result;
}
