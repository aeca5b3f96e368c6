#include <stdlib.h>

#include "trainer/cli/cli.h"

/* What a run opens, in this order. */
typedef struct opened {
    vl_config *config;
    vl_device *device;
    vl_cache *cache;
    vl_lens *lens, *control;
    vl_model *model;
    vl_fidelity *result;
} opened;

static void close_all(opened *o)
{
    vl_fidelity_free(o->result);
    vl_model_close(o->model);
    vl_lens_close(o->lens);
    vl_lens_close(o->control);
    vl_cache_close(o->cache);
    vl_device_close(o->device);
    vl_config_free(o->config);
}

static vl_status prepare(opened *o, const char *path, const char *lens, const cli_common *common, vl_error *err)
{
    vl_status status = cli_open(&o->config, &o->device, path, common, err);
    if (status == VL_OK)
        status = cli_open_own_cache(&o->cache, o->config, VL_AFFECTS_EVAL, err);
    if (status == VL_OK)
        status = cli_open_own_lens(&o->lens, lens, o->config, VL_AFFECTS_EVAL, err);
    if (status == VL_OK && o->config->fidelity.control)
        status = vl_lens_open(&o->control, o->config->fidelity.control, err);
    if (status == VL_OK)
        status = cli_open_model(&o->model, o->config, o->device, err);
    return status;
}

int cmd_fidelity(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    const char *path = NULL, *lens = NULL, *out = NULL;
    bool other = false, seen = false;
    const cli_option options[] = {
        {"lens", 'l', CLI_TEXT, &lens, "DIR", "the lens (default: the configuration's output)"},
        {"out", 'o', CLI_TEXT, &out, "FILE", "also write the result there, as JSON"},
        {"allow-other-model", 0, CLI_FLAG, &other, NULL,
         "a lens of another model is only a warning, recorded in the result"},
        {"allow-seen", 0, CLI_FLAG, &seen, NULL,
         "held-out rows that the lens was fitted on are evaluated, and the result says so"},
        CLI_COMMON_OPTIONS(common),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    vl_error err = VL_ERROR_INIT;
    opened o = {NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    char *text = NULL;
    vl_status status = prepare(&o, path, lens, &common, &err);
    if (status == VL_OK)
        status = vl_fidelity_run(
            &o.result, &(vl_fidelity_inputs){o.config, o.model, o.cache, o.lens, o.control, o.device, other, seen},
            cli_observer(&common), &err);
    if (status == VL_OK && out)
        status = vl_fidelity_write(o.result, out, &err);
    if (status == VL_OK)
        status = common.json ? vl_fidelity_json(&text, o.result, &err) : vl_fidelity_table(&text, o.result, &err);
    code = status == VL_OK ? cli_print(text) : cli_fail(status, &err);
    if (status == VL_OK && common.json)
        code = code ? code : cli_print("\n");
    vl_release(text);
    close_all(&o);
    return code;
}
