#include <math.h>
#include <stdlib.h>

#include "trainer/cli/cli.h"

vl_status cli_ensure_cache(vl_cache **out, const vl_config *config, vl_device *device, const vl_observer *observer,
                           vl_error *err)
{
    char *directory = NULL;
    vl_model *model = NULL;
    vl_status status = vl_cache_directory(&directory, config, err);
    /* With a model at hand, building also checks that an existing cache has these settings; without one (caches from
     * elsewhere) the cache is taken as it is. */
    if (status == VL_OK)
        status = cli_guard(directory, err);
    if (status == VL_OK && (config->model || !cli_holds(directory, "index.h5"))) {
        status = cli_open_model(&model, config, device, err);
        vl_cache_build_options build = {.team = cli_team()};
        if (status == VL_OK)
            status = vl_cache_build(NULL, config, model, &build, observer, err);
        vl_model_close(model);
    }
    if (status == VL_OK)
        status = vl_cache_open(out, directory, err);
    vl_release(directory);
    const vl_hub_paths hub = cli_hub_paths();
    if (status == VL_OK)
        status = vl_cache_check_config(*out, config, &hub, VL_AFFECTS_FIT, err);
    return status;
}

static void print_value(double value)
{
    if (isnan(value))
        printf(" %12s", "-");
    else
        printf(" %12.4f", value);
}

static void print_result(const vl_fit_result *r, const vl_config *config)
{
    printf("%5s %12s %12s %12s\n", "state", "start", "validation", "train");
    for (int64_t i = 0; i < r->n_layers; i++) {
        printf("%5lld", (long long)i);
        print_value(r->start_kl[i]);
        print_value(r->validation_kl[i]);
        print_value(r->train_kl[i]);
        printf("\n");
    }
    printf("start and validation: mean loss in nats on rows kept back from training, before and after the fit\n");
    printf("%lld steps, %lld tokens, %.1f s", (long long)r->steps, (long long)r->tokens, r->seconds);
    if (r->resumed_from_step)
        printf(" (resumed at step %lld)", (long long)r->resumed_from_step);
    printf("\nlens: %s\n", config->output);
}

static void print_json_list(const char *name, const double *values, int64_t n)
{
    printf(", \"%s\": [", name);
    for (int64_t i = 0; i < n; i++)
        if (isnan(values[i]))
            printf("%snull", i ? ", " : "");
        else
            printf("%s%.9g", i ? ", " : "", values[i]);
    printf("]");
}

static void print_result_json(const vl_fit_result *r)
{
    printf("{\"steps\": %lld, \"tokens\": %lld, \"resumed_from_step\": %lld, \"seconds\": %.3f", (long long)r->steps,
           (long long)r->tokens, (long long)r->resumed_from_step, r->seconds);
    print_json_list("start_kl", r->start_kl, r->n_layers);
    print_json_list("validation_kl", r->validation_kl, r->n_layers);
    print_json_list("train_kl", r->train_kl, r->n_layers);
    printf(", \"stopped_layers\": %lld}\n", (long long)r->n_stopped);
}

/* A lens with layers that stopped early is written, but it is not what was asked for. */
static int complain(const vl_fit_result *r, const vl_config *config)
{
    if (r->n_stopped == 0 || cli_team_is_silent())
        return EXIT_DONE;
    fprintf(stderr,
            "vlens: %s: %lld of the layers stopped early: messages of the fit say why, stopped_step in metrics.json "
            "says where; train again with --fresh\n",
            config->output, (long long)r->n_stopped);
    return EXIT_FAILED;
}

static bool has_heldout(const vl_cache *cache)
{
    const vl_cache_samples *samples = vl_cache_get_samples(cache);
    for (int64_t i = 0; i < vl_cache_get_info(cache)->n_samples; i++)
        if (samples->heldout[i] == VL_SAMPLE_HELDOUT)
            return true;
    return false;
}

/* A lens carries its held-out KL with it, measured once: when it has been fitted. */
static vl_status record_heldout(const vl_config *config, vl_cache *cache, vl_device *device,
                                const vl_observer *observer, vl_error *err)
{
    vl_lens *lens = NULL;
    vl_eval_result *result = NULL;
    vl_config plain = *config; /* every held-out row, and nothing but KL */
    plain.eval.split = VL_SPLIT_HELDOUT;
    plain.eval.metrics = 1u << VL_METRIC_KL;
    plain.eval.bootstrap = plain.eval.max_tokens = plain.eval.first_positions = 0;
    plain.eval.wrong_picture = false;
    plain.eval.baseline = NULL;
    vl_status status = vl_lens_open(&lens, config->output, err);
    if (status != VL_OK || vl_lens_get_info(lens)->heldout_kl) {
        vl_lens_close(lens);
        return status;
    }
    if (!has_heldout(cache)) {
        observer->message(observer->user, 1,
                          "nothing is held out: there is no row to judge the lens by (data.heldout)");
        vl_lens_close(lens);
        return VL_OK;
    }
    status = vl_eval_run(&result, &(vl_eval_inputs){&plain, cache, lens, device},
                         &(vl_eval_options){.team = cli_team()}, observer, err);
    vl_lens_close(lens);
    if (status == VL_OK && !cli_team_is_silent())
        status = vl_eval_record(result, config->output, err);
    vl_eval_free(result);
    return status;
}

int cmd_train(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    vl_fit_options fit = {.team = cli_team()};
    bool allow_outside = false;
    const char *path = NULL;
    const cli_option options[] = {
        {"fresh", 0, CLI_FLAG, &fit.fresh, NULL,
         "start over although a checkpoint or a lens lies in the output folder"},
        {"allow-other-model", 0, CLI_FLAG, &fit.allow_other_model, NULL, "a cache of another model is only a warning"},
        {"allow-outside", 0, CLI_FLAG, &allow_outside, NULL, "pictures may lie outside of data.images"},
        CLI_COMMON_OPTIONS(common),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    vl_error err = VL_ERROR_INIT;
    vl_config *config = NULL;
    vl_device *device = NULL;
    vl_cache *cache = NULL;
    vl_fit_result result = {0};
    vl_status status = cli_open(&config, &device, path, &common, &err);
    if (status == VL_OK && allow_outside)
        config->data.allow_outside = true;
    if (status == VL_OK)
        cli_announce_device(device, cli_observer(&common));
    if (status == VL_OK)
        status = cli_ensure_cache(&cache, config, device, cli_observer(&common), &err);
    if (status == VL_OK)
        status = vl_fit_run(&result, &(vl_fit_inputs){config, cache, device}, &fit, cli_observer(&common), &err);
    if (status == VL_OK)
        status = record_heldout(config, cache, device, cli_observer(&common), &err);
    if (status != VL_OK)
        code = cli_fail(status, &err);
    else if (common.json)
        print_result_json(&result);
    else
        print_result(&result, config);
    int complaint = status == VL_OK ? complain(&result, config) : EXIT_DONE;
    vl_fit_result_clear(&result);
    vl_cache_close(cache);
    vl_device_close(device);
    vl_config_free(config);
    if (status == VL_OK && complaint == EXIT_DONE)
        return cli_print("");
    return status == VL_OK ? complaint : code;
}
