#include <stdlib.h>

#include "trainer/cli/cli.h"

static void print_plan(const vl_cache_plan *plan, const vl_config *config, bool dry_run)
{
    char bytes[32];
    int64_t kept = 0;
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        kept += plan->n_tokens[c];
    printf("samples   %lld, held out %lld\n", (long long)plan->n_samples, (long long)plan->n_heldout);
    if (plan->n_images)
        printf("pictures  %lld, held out %lld\n", (long long)plan->n_images, (long long)plan->n_heldout_images);
    printf("rows      %lld run, %lld kept (", (long long)plan->n_forward_tokens, (long long)kept);
    const char *separator = "";
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        if (plan->n_tokens[c]) {
            printf("%s%s %lld", separator, vl_token_class_name((vl_token_class)c), (long long)plan->n_tokens[c]);
            separator = ", ";
        }
    printf(")\nbytes     %s\n", cli_bytes(bytes, (double)plan->n_bytes));
    printf("%s %.1f s\n", dry_run ? "estimated" : "took     ", plan->seconds);
    char *directory = NULL;
    if (vl_cache_directory(&directory, config, NULL) == VL_OK)
        printf("%s %s\n", dry_run ? "would go to" : "cache    ", directory);
    vl_release(directory);
}

static void print_plan_json(const vl_cache_plan *p, bool dry_run)
{
    printf("{\"dry_run\": %s, \"samples\": %lld, \"heldout_samples\": %lld, \"images\": %lld, \"heldout_images\": "
           "%lld, \"run_samples\": %lld, "
           "\"forward_tokens\": %lld, \"tokens\": {",
           dry_run ? "true" : "false", (long long)p->n_samples, (long long)p->n_heldout, (long long)p->n_images,
           (long long)p->n_heldout_images, (long long)p->n_run_samples, (long long)p->n_forward_tokens);
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        printf("%s\"%s\": %lld", c ? ", " : "", vl_token_class_name((vl_token_class)c), (long long)p->n_tokens[c]);
    printf("}, \"bytes\": %lld, \"seconds\": %.3f, \"resumed_tokens\": %lld}\n", (long long)p->n_bytes, p->seconds,
           (long long)p->n_resumed_tokens);
}

/* What an earlier run left is read, and may have been changed since. */
static vl_status guard_existing(const vl_config *config, vl_error *err)
{
    char *directory = NULL;
    vl_status status = vl_cache_directory(&directory, config, err);
    if (status == VL_OK)
        status = cli_guard(directory, err);
    vl_release(directory);
    return status;
}

int cmd_cache(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    vl_cache_build_options build = {.team = cli_team()};
    bool allow_outside = false;
    const char *path = NULL;
    const cli_option options[] = {
        {"dry-run", 'n', CLI_FLAG, &build.dry_run, NULL, "count tokens, bytes and time; write nothing"},
        {"fresh", 0, CLI_FLAG, &build.fresh, NULL, "throw an existing cache away"},
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
    vl_model *model = NULL;
    vl_cache_plan plan;
    vl_status status = cli_config(&config, path, &common, &err);
    if (status == VL_OK && allow_outside)
        config->data.allow_outside = true;
    if (status == VL_OK && !build.fresh)
        status = guard_existing(config, &err);
    if (status == VL_OK)
        status = cli_open_device(&device, config, &err);
    if (status == VL_OK)
        cli_announce_device(device, cli_observer(&common));
    if (status == VL_OK)
        status = cli_open_model(&model, config, device, &err);
    if (status == VL_OK)
        status = vl_cache_build(&plan, config, model, &build, cli_observer(&common), &err);
    if (status != VL_OK)
        code = cli_fail(status, &err);
    else if (common.json)
        print_plan_json(&plan, build.dry_run);
    else
        print_plan(&plan, config, build.dry_run);
    vl_model_close(model);
    vl_device_close(device);
    vl_config_free(config);
    return status == VL_OK ? cli_print("") : code;
}
