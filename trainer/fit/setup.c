/* setup.c - all that a run of a fit needs, made and freed. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
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
    vl_log_say(&s->log, 1, "%s: fingerprint %.64s, its head has %.64s: going on with the head", info->path,
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
        layer->progress = vl_fit_progress_new();
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
    s->at_once = in_flight > 0 && in_flight < s->share.n ? in_flight : s->share.n;
    return VL_OK;
}

static vl_status make_paths(vl_fit_session *s, vl_error *err)
{
    VL_TRY(vl_make_directories(s->config->output, err));
    char name[64] = "checkpoint.safetensors";
    if (s->share.n_shares > 1)
        snprintf(name, sizeof name, "checkpoint-%d-of-%d.safetensors", s->share.share + 1, s->share.n_shares);
    s->lens_path = vl_path_join(s->config->output, "lens.safetensors");
    s->checkpoint_path = vl_path_join(s->config->output, name);
    s->metrics_path = vl_path_join(s->config->output, "metrics.json");
    if (!s->lens_path || !s->checkpoint_path || !s->metrics_path)
        return vl_fail_nomem(err, s->config->output);
    return VL_OK;
}

vl_status vl_fit_open(vl_fit_session *s, const vl_fit_options *options, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(s->cache);
    s->began = s->saved_at = vl_clock();
    s->d_model = info->d_model;
    s->n_layers = info->n_states - 1;
    VL_TRY(check_config(s->config, s->n_layers, err));
    VL_TRY(open_head(s, options, err));
    VL_TRY(vl_cache_split(s->cache, s->config, err));
    VL_TRY(vl_plan_new(&s->plan, s->config, s->cache, err));
    VL_TRY(vl_fit_settings_make(s, err));
    VL_TRY(make_layers(s, err));
    VL_TRY(share_out(s, options->team, err));
    return make_paths(s, err);
}

vl_status vl_fit_open_machinery(vl_fit_session *s, vl_error *err)
{
    enum { LEAST_TILE = 1024 }; /* worth having for the closed form, however small a step is */
    int64_t most = s->plan.tokens_per_step > LEAST_TILE ? s->plan.tokens_per_step : LEAST_TILE;
    int64_t tile = s->config->fit.tile_tokens < most ? s->config->fit.tile_tokens : most;
    VL_TRY(vl_fit_plan_memory(s, tile, err));
    VL_TRY(vl_fit_watch_new(s, err));
    vl_loader_source source = {.cache = s->cache, .capacity = tile, .background = s->config->fit.read_ahead};
    VL_TRY(vl_readout_new(&s->readout, s->head, s->device, &source, err));
    if (s->config->lens.targets == VL_TARGETS_SHUFFLED)
        s->readout.loader.shuffled_state = s->n_layers;
    s->readout.loader.log = &s->log;
    VL_TRY(vl_objective_new(&s->objective, s->head, s->config->lens.loss, tile, err));
    s->objective.precision = s->config->precision;
    vl_optimizer_rule rule = vl_optimizer_rule_of(s->config, s->d_model, s->plan.steps);
    rule.fast = vl_adapter_in_bf16(s->config->precision, s->head, true);
    VL_TRY(vl_optimizer_new(&s->optimizer, s->device, &rule, s->config->lens.kind == VL_LENS_AFFINE ? s->d_model : 0,
                            err));
    return vl_sampler_shuffled(&s->sampler, &s->plan.train, (uint64_t)s->config->fit.seed, err);
}

void vl_fit_close(vl_fit_session *s)
{
    if (s->layers && s->in_flight < s->share.n)
        vl_fit_layers_close(s);
    for (int64_t k = 0; s->layers && k < s->n_trained; k++) {
        vl_free(s->layers[k].history);
        vl_fit_kept_clear(s, &s->layers[k]);
    }
    vl_free(s->layers);
    vl_free(s->share.exchange);
    vl_fit_resume_close(s);
    vl_fit_watch_clear(s);
    vl_optimizer_clear(&s->optimizer);
    vl_objective_clear(&s->objective);
    vl_readout_clear(&s->readout);
    vl_sampler_clear(&s->sampler);
    vl_plan_clear(&s->plan);
    vl_head_close(s->head);
    vl_free(s->settings);
    vl_free(s->lens_path);
    vl_free(s->checkpoint_path);
    vl_free(s->metrics_path);
}
