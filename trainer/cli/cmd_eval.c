#include <stdlib.h>

#include "trainer/cli/cli.h"

static vl_status run(vl_eval_result **out, const vl_config *config, vl_device *device, const char *lens_path,
                     const vl_eval_options *options, const vl_observer *observer, vl_error *err)
{
    char *directory = NULL;
    vl_cache *cache = NULL;
    vl_lens *lens = NULL;
    vl_status status = vl_cache_directory(&directory, config, err);
    if (status == VL_OK)
        status = vl_cache_open(&cache, directory, err);
    if (status == VL_OK)
        status = vl_lens_open(&lens, lens_path, err);
    if (status == VL_OK)
        status = vl_eval_run(out, config, cache, lens, device, options, observer, err);
    vl_lens_close(lens);
    vl_cache_close(cache);
    vl_release(directory);
    return status;
}

int cmd_eval(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    vl_eval_options eval = {false};
    const char *path = NULL, *lens = NULL, *out = NULL;
    const cli_option options[] = {
        {"lens", 'l', CLI_TEXT, &lens, "DIR", "the lens (default: the configuration's output)"},
        {"out", 'o', CLI_TEXT, &out, "FILE", "also write the result there, as JSON"},
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
    vl_eval_result *result = NULL;
    char *text = NULL;
    vl_status status = cli_config(&config, path, &common, &err);
    if (status == VL_OK)
        status = cli_open_device(&device, config, &err);
    const char *lens_path = lens || !config ? lens : config->output;
    if (status == VL_OK)
        status = run(&result, config, device, lens_path, &eval, cli_observer(&common), &err);
    /* A lens carries its held-out KL with it, unless it was measured on another model's states. */
    if (status == VL_OK && !eval.allow_other_model)
        status = vl_eval_record(result, lens_path, &err);
    if (status == VL_OK && out)
        status = vl_eval_write(result, out, &err);
    if (status == VL_OK)
        status = common.json ? vl_eval_json(&text, result, &err) : vl_eval_table(&text, result, &err);
    code = status == VL_OK ? cli_print(text) : cli_fail(status, &err);
    if (status == VL_OK && common.json)
        code = code ? code : cli_print("\n");
    vl_release(text);
    vl_eval_free(result);
    vl_device_close(device);
    vl_config_free(config);
    return code;
}
