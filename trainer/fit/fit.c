/* fit.c - vl_fit_run: from a cache to a lens.
 *
 * Layers are trained in groups that share every read of the teacher. Groups follow one another; each walks the same
 * rows in the same order, so that how many layers are in flight decides memory and time and not a single bit. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/lock.h"
#include "trainer/base/mem.h"
#include "trainer/fit/session.h"

static vl_status check_config(const vl_config *config, int64_t n_layers, vl_error *err)
{
    int64_t first = config->lens.first_layer, last = config->lens.last_layer;
    last = last == VL_ALL ? n_layers - 1 : last;
    if (first < 0 || last < first || last >= n_layers)
        return vl_fail(err, VL_EINVAL, "lens.layers: %lld-%lld, the cache has adapters for 0-%lld", (long long)first,
                       (long long)last, (long long)n_layers - 1);
    if (config->fit.tokens_per_step < 1 || config->fit.tile_tokens < 1)
        return vl_fail(err, VL_EINVAL, "fit.tokens_per_step %lld and fit.tile_tokens %lld must be above 0",
                       (long long)config->fit.tokens_per_step, (long long)config->fit.tile_tokens);
    if (!(config->fit.validation >= 0 && config->fit.validation < 1))
        return vl_fail(err, VL_EINVAL, "fit.validation: %g, expected 0 or more and less than 1",
                       config->fit.validation);
    if (!config->output)
        return vl_fail(err, VL_EINVAL, "output: no folder is given for the lens");
    return VL_OK;
}

/* The head of the cache must be the one that the cache says it was made with. */
static vl_status open_head(vl_fit_session *s, const vl_fit_options *options, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(s->cache);
    if (!info->has_head)
        return vl_fail(err, VL_EINVAL, "%s: no /head in this cache: it cannot be trained on", info->path);
    VL_TRY(vl_cache_head(&s->head, s->cache, s->device, s->config->precision, err));
    const vl_head_info *head = vl_head_get_info(s->head);
    if (head->d_model != info->d_model || head->n_layers != info->n_states - 1)
        return vl_fail(err, VL_EMISMATCH, "%s: states of %lld layers of width %lld, a head of %lld of width %lld",
                       info->path, (long long)info->n_states - 1, (long long)info->d_model, (long long)head->n_layers,
                       (long long)head->d_model);
    if (strcmp(head->fingerprint, info->fingerprint) == 0)
        return VL_OK;
    if (!options->allow_other_model)
        return vl_fail(err, VL_EMISMATCH, "%s: fingerprint %.64s, its head has %.64s", info->path, info->fingerprint,
                       head->fingerprint);
    vl_notice_say(&s->notice, 1, "%s: fingerprint %.64s, its head has %.64s: going on with the head", info->path,
                  info->fingerprint, head->fingerprint);
    return VL_OK;
}

static vl_status make_layers(vl_fit_session *s, vl_error *err)
{
    int64_t first = s->config->lens.first_layer, last = s->config->lens.last_layer;
    int64_t steps = s->plan.steps;
    last = last == VL_ALL ? s->n_layers - 1 : last;
    s->n_trained = last - first + 1;
    s->layers = vl_calloc((size_t)s->n_trained, sizeof *s->layers);
    if (!s->layers)
        return vl_fail_nomem(err, "layers");
    for (int64_t k = 0; k < s->n_trained; k++) {
        vl_fit_layer *layer = &s->layers[k];
        layer->index = first + k;
        layer->numbers = (vl_fit_numbers){.validated = -1,
                                          .stopped_step = -1,
                                          .ridge = NAN,
                                          .start_loss = NAN,
                                          .best_loss = NAN,
                                          .best_step = NAN,
                                          .last_loss = NAN};
        for (int c = 0; c < VL_CLASS_COUNT; c++)
            layer->numbers.class_loss[c] = NAN;
        layer->history = vl_alloc((size_t)steps + 1, sizeof(double));
        if (!layer->history)
            return vl_fail_nomem(err, "loss history");
        for (int64_t i = 0; i < steps; i++)
            layer->history[i] = NAN;
    }
    return VL_OK;
}

static vl_status share_out(vl_fit_session *s, const vl_team *team, vl_error *err)
{
    int64_t in_flight = s->config->fit.layers_in_flight;
    VL_TRY(vl_fit_share_out(s, team, err));
    s->per_group = in_flight > 0 && in_flight < s->share.n ? in_flight : s->share.n;
    s->n_groups = (s->share.n + s->per_group - 1) / s->per_group;
    return VL_OK;
}

static vl_status make_paths(vl_fit_session *s, vl_error *err)
{
    VL_TRY(vl_make_directories(s->config->output, err));
    char name[64] = "checkpoint.safetensors";
    if (s->share.n_parts > 1)
        snprintf(name, sizeof name, "checkpoint-%d-of-%d.safetensors", s->share.part + 1, s->share.n_parts);
    s->lens_path = vl_path_join(s->config->output, "lens.safetensors");
    s->checkpoint_path = vl_path_join(s->config->output, name);
    s->metrics_path = vl_path_join(s->config->output, "metrics.json");
    if (!s->lens_path || !s->checkpoint_path || !s->metrics_path)
        return vl_fail_nomem(err, s->config->output);
    return VL_OK;
}

/* Everything but what is needed only when there is something to do. */
static vl_status open_session(vl_fit_session *s, const vl_fit_options *options, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(s->cache);
    s->began = vl_clock();
    s->d_model = info->d_model;
    s->n_layers = info->n_states - 1;
    VL_TRY(check_config(s->config, s->n_layers, err));
    VL_TRY(open_head(s, options, err));
    VL_TRY(vl_plan_new(&s->plan, s->config, s->cache, err));
    VL_TRY(vl_fit_settings_make(s, err));
    VL_TRY(make_layers(s, err));
    VL_TRY(share_out(s, options->team, err));
    return make_paths(s, err);
}

static vl_status open_machinery(vl_fit_session *s, vl_error *err)
{
    enum { LEAST_TILE = 1024 }; /* worth having for the closed form, however small a step is */
    int64_t most = s->plan.tokens_per_step > LEAST_TILE ? s->plan.tokens_per_step : LEAST_TILE;
    int64_t tile = s->config->fit.tile_tokens < most ? s->config->fit.tile_tokens : most;
    VL_TRY(vl_fit_plan_memory(s, tile, err));
    VL_TRY(vl_feeder_new(&s->feeder, s->cache, s->device, tile, s->config->fit.read_ahead, err));
    if (s->config->lens.targets == VL_TARGETS_SHUFFLED)
        s->feeder.shuffled_state = s->n_layers;
    s->feeder.notice = &s->notice;
    VL_TRY(vl_objective_new(&s->objective, s->device, s->head, s->config->lens.loss, tile, err));
    vl_objective_set_precision(&s->objective, s->config->precision);
    vl_optimizer_rule rule = vl_optimizer_rule_of(s->config, s->d_model, s->plan.steps);
    rule.fast = s->objective.fast_step;
    VL_TRY(vl_optimizer_new(&s->optimizer, s->device, &rule, s->config->lens.kind == VL_LENS_AFFINE ? s->d_model : 0,
                            err));
    return vl_sampler_shuffled(&s->sampler, &s->plan.train, (uint64_t)s->config->fit.seed, err);
}

static void close_session(vl_fit_session *s)
{
    if (s->layers && s->group < s->n_groups)
        vl_fit_group_close(s);
    for (int64_t k = 0; s->layers && k < s->n_trained; k++) {
        vl_free(s->layers[k].history);
        vl_fit_kept_clear(s, &s->layers[k]);
    }
    vl_free(s->layers);
    vl_free(s->share.exchange);
    vl_fit_resume_close(s);
    vl_optimizer_clear(&s->optimizer);
    vl_objective_clear(&s->objective);
    vl_feeder_clear(&s->feeder);
    vl_sampler_clear(&s->sampler);
    vl_plan_clear(&s->plan);
    vl_head_close(s->head);
    vl_free(s->settings);
    vl_free(s->lens_path);
    vl_free(s->checkpoint_path);
    vl_free(s->metrics_path);
}

/* Ten times a run, or as often as it costs a tenth of a short run: a row that is looked at costs half of one that is
 * trained on, which also has its way back. */
static int64_t validate_every(const vl_fit_session *s)
{
    const vl_plan *p = &s->plan;
    int64_t often = p->steps / 10, cheap = 10 * p->validation.n_rows / (2 * p->tokens_per_step);
    int64_t every = often > cheap ? often : cheap < p->steps ? cheap : p->steps;
    if (s->config->fit.validate_every > 0)
        every = s->config->fit.validate_every;
    return every > 0 ? every : 1;
}

static bool validation_is_due(const vl_fit_session *s)
{
    int64_t every = validate_every(s);
    return s->plan.validation.n_rows > 0 && (s->step == s->plan.steps || s->step % every == 0);
}

/* Where the last layer is; all steps where none has any left to take. */
static int64_t first_step(const vl_fit_session *s, const vl_fit_layer *layers, int64_t n)
{
    int64_t least = s->plan.steps;
    for (int64_t i = 0; i < n; i++)
        if (!vl_fit_is_stopped(&layers[i]) && (int64_t)layers[i].numbers.position < least)
            least = (int64_t)layers[i].numbers.position;
    return least;
}

static bool all_stopped(const vl_fit_session *s)
{
    int64_t n;
    const vl_fit_layer *layers = vl_fit_group(s, &n);
    for (int64_t i = 0; i < n; i++)
        if (!vl_fit_is_stopped(&layers[i]))
            return false;
    return true;
}

static vl_status save(vl_fit_session *s, vl_error *err)
{
    return vl_fit_is_leader(s) ? vl_fit_checkpoint_save(s, err) : VL_OK;
}

/* The leader alone validates; where a layer diverged it goes back, and the others with it. */
static vl_status validate(vl_fit_session *s, vl_error *err)
{
    int64_t n;
    vl_fit_layer *layers = vl_fit_group(s, &n);
    if (vl_fit_is_leader(s))
        VL_TRY(vl_fit_validate(s, err));
    for (int64_t i = 0; i < n; i++)
        if (!(layers[i].numbers.kept > 0))
            VL_TRY(vl_fit_follow(s, &layers[i], false, err));
    return VL_OK;
}

/* The group in flight, from the step of its last layer to the end. */
static vl_status run_group(vl_fit_session *s, vl_error *err)
{
    int64_t n, every = s->config->fit.checkpoint_every;
    const vl_fit_layer *layers = vl_fit_group(s, &n);
    VL_TRY(vl_fit_start_group(s, err));
    s->step = first_step(s, layers, n);
    s->notice.progress.done = s->group * s->plan.steps + s->step;
    vl_sampler_seek(&s->sampler, s->step * s->plan.tokens_per_step);
    for (;;) {
        if (validation_is_due(s))
            VL_TRY(validate(s, err));
        if (s->step == s->plan.steps || all_stopped(s))
            break;
        VL_TRY(vl_fit_take_step(s, err));
        if (every > 0 && s->step % every == 0 && s->step < s->plan.steps)
            VL_TRY(save(s, err));
        /* The last report of all is made once, when the run is over. */
        if (s->step < s->plan.steps || s->group + 1 < s->n_groups)
            VL_TRY(vl_notice_poll(&s->notice, err));
    }
    VL_TRY(vl_fit_group_keep(s, err));
    vl_fit_group_close(s);
    return VL_OK;
}

/* What earlier runs left. All members have read it before any writes. */
static vl_status resume(vl_fit_session *s, bool fresh, vl_error *err)
{
    if (!fresh) {
        VL_TRY(vl_fit_resume_open(s, err));
        VL_TRY(vl_fit_resume_layers(s, s->share.first, s->share.n, err));
    }
    if (s->resume) {
        s->resumed_from_step = first_step(s, s->layers + s->share.first, s->share.n);
        vl_notice_say(&s->notice, 0, "going on at step %lld of %lld (%s)", (long long)s->resumed_from_step,
                      (long long)s->plan.steps, s->resume->paths[0]);
    }
    return vl_team_barrier(s->share.team, err);
}

static vl_status run_groups(vl_fit_session *s, vl_error *err)
{
    s->notice.progress =
        (vl_progress){.stage = "fit", .unit = "steps", .total = s->n_groups * s->plan.steps, .kl = NAN};
    for (; s->group < s->n_groups; s->group++) {
        s->step = 0;
        VL_TRY(vl_fit_group_open(s, err));
        VL_TRY(run_group(s, err));
    }
    return VL_OK;
}

/* Layers of the others reach the first member by their last checkpoints. */
static vl_status gather(vl_fit_session *s, vl_error *err)
{
    if (s->share.n_parts == 1)
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
    vl_notice_say(&s->notice, 0, "%lld layers, %lld steps of %lld tokens out of %lld; %lld tokens to choose by",
                  (long long)s->n_trained, (long long)p->steps, (long long)p->tokens_per_step,
                  (long long)p->train.n_rows, (long long)p->validation.n_rows);
    if (s->config->fit.validation > 0 && p->validation.n_rows == 0)
        vl_notice_say(&s->notice, 1, "too few samples to set some aside (fit.validation): nothing is chosen by");
}

/* Trains and writes. An interrupted run is saved. */
static vl_status train(vl_fit_session *s, bool fresh, vl_error *err)
{
    VL_TRY(open_machinery(s, err));
    VL_TRY(resume(s, fresh, err));
    say_plan(s);
    vl_status status = run_groups(s, err);
    if (status == VL_OK)
        status = gather(s, err);
    if (status == VL_ECANCELLED) {
        vl_error quiet = VL_ERROR_INIT;
        vl_status saved = save(s, &quiet);
        if (saved != VL_OK)
            return vl_fail(err, saved, "interrupted, and the checkpoint could not be saved: %s", quiet.message);
    }
    if (status != VL_OK)
        return status;
    if (vl_team_rank(s->share.team) == 0) {
        VL_TRY(vl_fit_write_lens(s, err));
        VL_TRY(vl_fit_resume_remove(s, err));
    }
    s->notice.progress.done = s->notice.progress.total;
    (void)vl_notice_poll(&s->notice, NULL); /* too late to stop */
    return vl_team_barrier(s->share.team, err);
}

/* The first member takes the folder for all. */
static vl_status take_output(vl_fit_session *s, vl_lock *lock, bool fresh, vl_error *err)
{
    if (vl_fit_is_leader(s))
        vl_atomic_clean(s->checkpoint_path);
    if (vl_team_rank(s->share.team) > 0)
        return VL_OK;
    VL_TRY(vl_lock_take(lock, s->config->output, err));
    VL_TRY(vl_fit_claim(s, fresh, err));
    if (lock->stale[0])
        vl_notice_say(&s->notice, 0, "%s: the run before was cut off (%s)", s->config->output, lock->stale);
    vl_atomic_clean(s->lens_path);
    vl_atomic_clean(s->metrics_path);
    return fresh ? vl_fit_resume_remove(s, err) : VL_OK;
}

vl_status vl_fit_run(vl_fit_result *result, const vl_config *config, vl_cache *cache, vl_device *device,
                     const vl_fit_options *options, const vl_observer *observer, vl_error *err)
{
    const vl_fit_options none = {.fresh = false};
    vl_status status = VL_OK;
    vl_fit_session s = {.config = config, .cache = cache, .device = device, .notice = {.observer = observer}};
    vl_lock lock = VL_LOCK_NONE;
    bool finished = false;
    if (!options)
        options = &none;
    memset(result, 0, sizeof *result);
    VL_GOTO(open_session(&s, options, err));
    /* A lens beside a checkpoint is of an earlier run. */
    if (!options->fresh && !vl_fit_resume_exists(&s))
        VL_GOTO(vl_fit_find_finished(&finished, result, &s, err));
    if (finished) {
        vl_notice_say(&s.notice, 0, "%s: finished already, with these settings", s.lens_path);
        goto done;
    }
    VL_GOTO(take_output(&s, &lock, options->fresh, err));
    VL_GOTO(train(&s, options->fresh, err));
    VL_GOTO(vl_fit_fill_result(result, &s, err));
done:
    if (status != VL_OK)
        vl_fit_result_clear(result);
    vl_lock_release(&lock);
    close_session(&s);
    return status;
}
