/* fit.c - vl_fit_run: from a cache to a lens. The loop of a fit, whole.
 *
 * Layers are trained side by side, as many at once as fit into memory: they share every read of the teacher. Those in
 * flight walk the same rows in the same order as the next ones will, so that how many they are decides memory and time
 * and not a single bit. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/lock.h"
#include "trainer/fit/session.h"

/* Where the last of the layers is; all steps where none has any left to take. */
static int64_t first_step(const vl_fit_session *s, const vl_fit_layer *layers, int64_t n)
{
    int64_t least = s->plan.steps;
    for (int64_t i = 0; i < n; i++)
        if (!vl_fit_is_over(&layers[i]) && layers[i].progress.position < least)
            least = layers[i].progress.position;
    return least;
}

static bool all_over(const vl_fit_layer *layers, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!vl_fit_is_over(&layers[i]))
            return false;
    return true;
}

static vl_status save(vl_fit_session *s, vl_error *err)
{
    return vl_fit_is_root(s) ? vl_fit_checkpoint_save(s, err) : VL_OK;
}

/* The root alone validates; where a layer diverged it goes back, and the others with it. */
static vl_status validate(vl_fit_session *s, vl_error *err)
{
    int64_t n;
    vl_fit_layer *layers = vl_fit_in_flight(s, &n);
    if (vl_fit_is_root(s))
        VL_TRY(vl_fit_validate(s, err));
    for (int64_t i = 0; i < n; i++)
        if (layers[i].progress.phase != VL_FIT_DONE)
            VL_TRY(vl_fit_follow(s, &layers[i], false, err));
    return VL_OK;
}

/* The layers in flight, from the step of the last of them to the end. */
static vl_status train_layers(vl_fit_session *s, vl_error *err)
{
    int64_t n, steps = s->plan.steps;
    vl_fit_layer *layers = vl_fit_in_flight(s, &n);
    VL_TRY(vl_fit_layers_open(s, err));
    VL_TRY(vl_fit_start(s, err));
    s->step = first_step(s, layers, n);
    s->log.progress.done = s->in_flight / s->at_once * steps + s->step;
    vl_sampler_seek(&s->sampler, s->step * s->plan.tokens_per_step);
    for (;;) {
        if (vl_fit_validation_is_due(s))
            VL_TRY(validate(s, err));
        if (s->step == steps || all_over(layers, n))
            break;
        VL_TRY(vl_fit_take_step(s, err));
        s->step++;
        s->log.progress.done++;
        if (s->step < steps)
            VL_TRY(vl_fit_checkpoint_if_due(s, true, err));
        /* The last report of all is made once, when the run is over. */
        if (s->step < steps || s->in_flight + s->at_once < s->share.n)
            VL_TRY(vl_log_poll(&s->log, err));
    }
    VL_TRY(vl_fit_layers_keep(s, err));
    vl_fit_layers_close(s);
    return VL_OK;
}

/* What earlier runs left. All processes have read it before any writes. */
static vl_status resume(vl_fit_session *s, bool fresh, vl_error *err)
{
    if (!fresh) {
        VL_TRY(vl_fit_resume_open(s, err));
        VL_TRY(vl_fit_resume_layers(s, s->share.first, s->share.n, err));
    }
    if (s->resume) {
        s->resumed_from_step = first_step(s, s->layers + s->share.first, s->share.n);
        vl_log_say(&s->log, 0, "going on at step %lld of %lld (%s)", (long long)s->resumed_from_step,
                   (long long)s->plan.steps, s->resume->paths[0]);
    }
    return vl_team_barrier(s->share.team, err);
}

/* Layers of the others reach the first process by their last checkpoints. */
static vl_status gather(vl_fit_session *s, vl_error *err)
{
    if (s->share.n_shares == 1)
        return VL_OK;
    VL_TRY(save(s, err));
    VL_TRY(vl_team_barrier(s->share.team, err));
    if (vl_team_rank(s->share.team) > 0)
        return VL_OK;
    vl_fit_resume_close(s);
    VL_TRY(vl_fit_resume_open(s, err));
    return vl_fit_resume_layers(s, s->share.n, s->n_trained - s->share.n, err);
}

static void say_plan(const vl_fit_session *s)
{
    const vl_plan *p = &s->plan;
    vl_log_say(&s->log, 0, "%lld layers, %lld steps of %lld tokens out of %lld; %lld tokens to choose by",
               (long long)s->n_trained, (long long)p->steps, (long long)p->tokens_per_step, (long long)p->train.n_rows,
               (long long)p->validation.n_rows);
    if (s->config->fit.validation > 0 && p->validation.n_rows == 0)
        vl_log_say(&s->log, 1, "too few samples to set some aside (fit.validation): nothing is chosen by");
}

/* All layers, so many at once as fit. */
static vl_status train_all(vl_fit_session *s, vl_error *err)
{
    int64_t passes = (s->share.n + s->at_once - 1) / s->at_once;
    s->log.progress = (vl_progress){.stage = "fit", .unit = "steps", .total = passes * s->plan.steps, .kl = NAN};
    for (; s->in_flight < s->share.n; s->in_flight += s->at_once) {
        s->step = 0;
        VL_TRY(train_layers(s, err));
    }
    return gather(s, err);
}

/* Trains and writes. An interrupted run is saved. */
static vl_status train(vl_fit_session *s, bool fresh, vl_error *err)
{
    VL_TRY(vl_fit_open_machinery(s, err));
    VL_TRY(resume(s, fresh, err));
    say_plan(s);
    vl_status status = train_all(s, err);
    if (status == VL_ECANCELLED) {
        vl_error quiet = VL_ERROR_INIT;
        vl_status saved = save(s, &quiet);
        if (saved != VL_OK)
            return vl_fail(err, saved, "interrupted, and the checkpoint could not be saved: %s", quiet.message);
        char why[sizeof quiet.message];
        snprintf(why, sizeof why, "%s", err ? err->message : "");
        return vl_fail(err, VL_ECANCELLED, "%.400s; run the same command to go on", why);
    }
    if (status != VL_OK)
        return status;
    if (vl_team_rank(s->share.team) == 0) {
        VL_TRY(vl_fit_write_lens(s, err));
        VL_TRY(vl_fit_resume_remove(s, err));
    }
    s->log.progress.done = s->log.progress.total;
    (void)vl_log_poll(&s->log, NULL); /* too late to stop */
    return vl_team_barrier(s->share.team, err);
}

/* The first process takes the folder for all. */
static vl_status take_output(vl_fit_session *s, vl_lock *lock, bool fresh, vl_error *err)
{
    if (vl_fit_is_root(s))
        vl_atomic_clean(s->checkpoint_path);
    if (vl_team_rank(s->share.team) > 0)
        return VL_OK;
    VL_TRY(vl_lock_take(lock, s->config->output, err));
    VL_TRY(vl_fit_claim(s, fresh, err));
    if (lock->stale[0])
        vl_log_say(&s->log, 0, "%s: the run before was cut off (%s)", s->config->output, lock->stale);
    vl_atomic_clean(s->lens_path);
    vl_atomic_clean(s->metrics_path);
    return fresh ? vl_fit_resume_remove(s, err) : VL_OK;
}

vl_status vl_fit_run(vl_fit_result *result, const vl_fit_inputs *inputs, const vl_fit_options *options,
                     const vl_observer *observer, vl_error *err)
{
    const vl_fit_options none = {.fresh = false};
    vl_status status = VL_OK;
    vl_fit_session s = {
        .config = inputs->config, .cache = inputs->cache, .device = inputs->device, .log = {.observer = observer}};
    vl_lock lock = VL_LOCK_NONE;
    bool finished = false;
    if (!options)
        options = &none;
    memset(result, 0, sizeof *result);
    VL_GOTO(vl_fit_open(&s, options, err));
    /* A lens beside a checkpoint is of an earlier run. */
    if (!options->fresh && !vl_fit_resume_exists(&s))
        VL_GOTO(vl_fit_find_finished(&finished, result, &s, err));
    if (finished) {
        vl_log_say(&s.log, 0, "%s: finished already, with these settings", s.lens_path);
        goto done;
    }
    VL_GOTO(take_output(&s, &lock, options->fresh, err));
    VL_GOTO(train(&s, options->fresh, err));
    VL_GOTO(vl_fit_fill_result(result, &s, err));
done:
    if (status != VL_OK)
        vl_fit_result_clear(result);
    vl_lock_release(&lock);
    vl_fit_close(&s);
    return status;
}
