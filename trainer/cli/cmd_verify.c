#include <string.h>

#include "trainer/cli/cli.h"

/* Opens everything that opening checks: shards, shapes, tokenizer, preprocessing. */
static vl_status open_model(vl_head_info *out, const char *path, vl_device *device, const vl_config *config,
                            vl_error *err)
{
    vl_model *model = NULL;
    vl_head *head = NULL;
    vl_model_options options = {path, cli_hub_paths(), device, config->precision};
    vl_status status = vl_model_open(&model, &options, err);
    if (status == VL_OK)
        status = vl_head_from_model(&head, model, err);
    if (status == VL_OK)
        *out = *vl_head_get_info(head);
    vl_head_close(head);
    vl_model_close(model);
    return status;
}

static vl_status identity_of(vl_head_info *out, const char *path, vl_device *device, const vl_config *config,
                             vl_error *err)
{
    if (cli_kind_of(path) != CLI_CACHE)
        return open_model(out, path, device, config, err);
    vl_cache *cache = NULL;
    vl_status status = vl_cache_open(&cache, path, err);
    if (status == VL_OK) {
        const vl_cache_info *info = vl_cache_get_info(cache);
        *out = (vl_head_info){.d_model = info->d_model, .vocab_size = info->vocab_size, .n_layers = info->n_states - 1};
        snprintf(out->fingerprint, sizeof out->fingerprint, "%s", info->fingerprint);
    }
    vl_cache_close(cache);
    return status;
}

static vl_status verify_lens(const char *path, const char *against, vl_device *device, const vl_config *config,
                             vl_error *err)
{
    vl_lens *lens = NULL;
    vl_head_info head = {0};
    vl_status status = vl_lens_open(&lens, path, err);
    if (status == VL_OK && against)
        status = identity_of(&head, against, device, config, err);
    if (status == VL_OK && against)
        status = vl_lens_check(lens, head.fingerprint, head.d_model, head.n_layers, false, NULL, err);
    vl_lens_close(lens);
    return status;
}

int cmd_verify(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    const char *path = NULL, *against = NULL;
    const cli_option options[] = {
        {"against", 0, CLI_TEXT, &against, "PATH", "a model or cache that a lens must belong to"},
        {"quiet", 'q', CLI_FLAG, &common.quiet, NULL, "no progress and no information on stderr"},
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    vl_error err = VL_ERROR_INIT;
    vl_config *config = NULL;
    vl_device *device = NULL;
    vl_head_info head;
    cli_kind kind = cli_kind_of(path);
    if (against && kind != CLI_LENS) {
        fprintf(stderr, "vlens verify: --against goes with a lens, and %s is none\n", path);
        return EXIT_USAGE;
    }
    vl_status status = cli_config(&config, NULL, &common, &err);
    if (status == VL_OK)
        status = cli_open_device(&device, config, &err);
    if (status == VL_OK)
        status = kind == CLI_CACHE  ? vl_cache_verify(path, cli_observer(&common), &err)
                 : kind == CLI_LENS ? verify_lens(path, against, device, config, &err)
                                    : open_model(&head, path, device, config, &err);
    if (status == VL_OK)
        printf("%s: whole%s%s\n", path, against ? ", and belongs to " : "", against ? against : "");
    vl_device_close(device);
    vl_config_free(config);
    return status == VL_OK ? cli_print("") : cli_fail(status, &err);
}
