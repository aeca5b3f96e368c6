#include <string.h>

#include "trainer/cli/cli.h"

vl_status cli_head_open(cli_head *out, const char *model, const char *cache, vl_error *err)
{
    /* exact: what is judged by this head must not be blamed for its rounding */
    const cli_common common = {.set = {{"precision=exact"}, 1}, .threads = -1};
    *out = (cli_head){0};
    vl_status status = cli_open(&out->config, &out->device, NULL, &common, err);
    if (status != VL_OK)
        return status;
    vl_precision precision = out->config->precision;
    if (cache) {
        status = cli_open_cache(&out->cache, cache, err);
        return status == VL_OK ? vl_cache_head(&out->head, out->cache, out->device, precision, err) : status;
    }
    vl_model_options options = {model, cli_hub_paths(), out->device, precision};
    status = vl_model_open(&out->model, &options, err);
    return status == VL_OK ? vl_head_from_model(&out->head, out->model, err) : status;
}

void cli_head_close(cli_head *head)
{
    vl_head_close(head->head);
    vl_cache_close(head->cache);
    vl_model_close(head->model);
    vl_device_close(head->device);
    vl_config_free(head->config);
}

int cmd_import(const cli_command *self, int argc, char **argv)
{
    const char *path = NULL, *out = NULL, *model = NULL, *cache = NULL;
    bool allow_other = false, warned = false;
    const cli_option options[] = {
        {"out", 'o', CLI_TEXT, &out, "DIR", "the folder of the new lens"},
        {"model", 0, CLI_TEXT, &model, "DIR", "the model that the lens belongs to"},
        {"cache", 0, CLI_TEXT, &cache, "DIR", "or a cache of it"},
        {"allow-other-model", 0, CLI_FLAG, &allow_other, NULL, "only warn where the file names another model"},
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    if (!out || !model == !cache) {
        fprintf(stderr, "vlens import: --out and one of --model and --cache are needed\n");
        return EXIT_USAGE;
    }
    size_t length = strlen(path);
    bool is_hdf5 =
        (length > 3 && !strcmp(path + length - 3, ".h5")) || (length > 5 && !strcmp(path + length - 5, ".hdf5"));
    if (is_hdf5 && cli_goes_to_child(&code, path, false))
        return code;
    vl_error err = VL_ERROR_INIT;
    cli_head head = {0};
    vl_status status = cli_head_open(&head, model, cache, &err);
    if (status == VL_OK) {
        const char *id = model ? model : vl_cache_get_info(head.cache)->model_id;
        status = vl_lens_import(&(vl_import_options){path, out, head.head, id, allow_other}, &warned, &err);
    }
    cli_head_close(&head);
    if (status != VL_OK)
        return cli_fail(status, &err);
    if (warned)
        fprintf(stderr, "vlens: warning: %s names another model than %s\n", path, model ? model : cache);
    printf("wrote %s\n", out);
    return cli_print("");
}
