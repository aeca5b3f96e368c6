#include <stdlib.h>

#include "trainer/cli/cli.h"

/* What an evaluation opens, and keeps open until its page is written. */
typedef struct eval_run {
    vl_cache *cache;
    vl_lens *lens;
    vl_eval_result *result;
} eval_run;

static vl_status run(eval_run *out, const vl_config *config, vl_device *device, const char *lens_path,
                     const vl_eval_options *options, const vl_observer *observer, vl_error *err)
{
    vl_status status = cli_open_own_cache(&out->cache, config, err);
    if (status == VL_OK)
        status = vl_lens_open(&out->lens, lens_path, err);
    if (status == VL_OK)
        status = vl_eval_run(&out->result, config, out->cache, out->lens, device, options, observer, err);
    return status;
}

int cmd_eval(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    vl_eval_options eval = {.team = cli_team()};
    const char *path = NULL, *lens = NULL, *out = NULL, *report = NULL;
    const cli_option options[] = {
        {"lens", 'l', CLI_TEXT, &lens, "DIR", "the lens (default: the configuration's output)"},
        {"out", 'o', CLI_TEXT, &out, "FILE", "also write the result there, as JSON"},
        {"report", 0, CLI_TEXT, &report, "FILE", "also write a page: charts, the fit, what was run"},
        {"allow-other-model", 0, CLI_FLAG, &eval.allow_other_model, NULL,
         "a lens of another model is only a warning, recorded in the result"},
        CLI_COMMON_OPTIONS(common),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    vl_error err = VL_ERROR_INIT;
    vl_config *config = NULL;
    vl_device *device = NULL;
    eval_run done = {NULL, NULL, NULL};
    char *text = NULL;
    vl_status status = cli_open(&config, &device, path, &common, &err);
    if (status == VL_OK)
        cli_announce_device(device, cli_observer(&common));
    const char *lens_path = lens || !config ? lens : config->output;
    if (status == VL_OK)
        status = run(&done, config, device, lens_path, &eval, cli_observer(&common), &err);
    /* A lens carries its held-out KL with it, unless it was measured on another model's states or on
     * what it was fitted on. */
    bool writes = !cli_team_is_silent(); /* the others have the same result */
    if (status == VL_OK && writes && !eval.allow_other_model && config->eval.split == VL_SPLIT_HELDOUT)
        status = vl_eval_record(done.result, lens_path, &err);
    if (status == VL_OK && writes && out)
        status = vl_eval_write(done.result, out, &err);
    if (status == VL_OK && writes && report)
        status = vl_eval_write_page(report, done.result, &(vl_eval_page_options){config, done.cache, done.lens}, &err);
    if (status == VL_OK)
        status = common.json ? vl_eval_json(&text, done.result, &err) : vl_eval_table(&text, done.result, &err);
    code = status == VL_OK ? cli_print(text) : cli_fail(status, &err);
    if (status == VL_OK && common.json)
        code = code ? code : cli_print("\n");
    vl_release(text);
    vl_eval_free(done.result);
    vl_lens_close(done.lens);
    vl_cache_close(done.cache);
    vl_device_close(device);
    vl_config_free(config);
    return code;
}
