#include "trainer/cli/cli.h"

/* What a study opens, in this order. */
typedef struct opened {
    vl_config *config;
    vl_device *device;
    vl_cache *cache;
    vl_lens *lens;
    vl_model *model;
} opened;

static void close_all(opened *o)
{
    vl_model_close(o->model);
    vl_lens_close(o->lens);
    vl_cache_close(o->cache);
    vl_device_close(o->device);
    vl_config_free(o->config);
}

/* Caches and fits first where that is not done yet: a finished lens of these settings is taken as it is. */
static vl_status prepare(opened *o, const char *path, const char *lens, const cli_common *common, vl_error *err)
{
    vl_fit_result fitted = {0};
    vl_fit_options fit = {.fresh = false};
    const vl_observer *observer = cli_observer(common);
    vl_status status = cli_open(&o->config, &o->device, path, common, err);
    if (status == VL_OK)
        status = cli_ensure_cache(&o->cache, o->config, o->device, observer, err);
    if (status == VL_OK && !lens)
        status = vl_fit_run(&fitted, &(vl_fit_inputs){o->config, o->cache, o->device}, &fit, observer, err);
    vl_fit_result_clear(&fitted);
    if (status == VL_OK)
        status = cli_open_own_lens(&o->lens, lens, o->config, VL_AFFECTS_EVAL, err);
    if (status == VL_OK)
        status = cli_open_model(&o->model, o->config, o->device, err);
    return status;
}

int cmd_study(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    const char *path = NULL, *lens = NULL;
    bool other = false, seen = false;
    const cli_option options[] = {
        {"lens", 'l', CLI_TEXT, &lens, "DIR", "a lens that is there already (default: fit the configuration's)"},
        {"allow-other-model", 0, CLI_FLAG, &other, NULL, "a lens of another model is only a warning"},
        {"allow-seen", 0, CLI_FLAG, &seen, NULL,
         "held-out rows that the lens was fitted on are evaluated, and the result says so"},
        CLI_COMMON_OPTIONS(common),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    vl_error err = VL_ERROR_INIT;
    opened o = {NULL, NULL, NULL, NULL, NULL};
    vl_study_summary summary = {0};
    vl_status status = prepare(&o, path, lens, &common, &err);
    if (status == VL_OK)
        status = vl_study_run(&summary, &(vl_study_inputs){o.config, o.model, o.cache, o.lens, o.device, other, seen},
                              cli_observer(&common), &err);
    if (status != VL_OK)
        code = cli_fail(status, &err);
    else if (common.json)
        printf("{\"questions\": %lld, \"comparisons\": %lld, \"index\": \"%s\"}\n", (long long)summary.n_samples,
               (long long)summary.n_comparisons, summary.index);
    else
        printf("%lld questions, %lld pairs of pictures: %s\n", (long long)summary.n_samples,
               (long long)summary.n_comparisons, summary.index);
    close_all(&o);
    return status == VL_OK ? cli_print("") : code;
}
