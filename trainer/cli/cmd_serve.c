#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trainer/cli/cli.h"

/* What a server stands on, opened in this order. */
typedef struct opened {
    vl_config *config;
    vl_device *device;
    vl_lens *lenses[CLI_LIST_MAX];
    int n_lenses;
    vl_model *model;
    vl_server *server;
} opened;

static void close_all(opened *o)
{
    vl_server_stop(o->server);
    vl_model_close(o->model);
    for (int i = 0; i < o->n_lenses; i++)
        vl_lens_close(o->lenses[i]);
    vl_device_close(o->device);
    vl_config_free(o->config);
}

static vl_status prepare(opened *o, const char *model, const cli_list *lenses, const cli_common *common, vl_error *err)
{
    char text[4200];
    snprintf(text, sizeof text, "model=%s", model);
    vl_status status = cli_config(&o->config, NULL, common, err);
    if (status == VL_OK)
        status = vl_config_set(o->config, text, err);
    if (status == VL_OK)
        status = cli_open_device(&o->device, o->config, err);
    for (int i = 0; i < lenses->n && status == VL_OK; i++) {
        status = vl_lens_open(&o->lenses[i], lenses->items[i], err);
        o->n_lenses += status == VL_OK;
    }
    return status == VL_OK ? cli_open_model(&o->model, o->config, o->device, err) : status;
}

/* The address, so that a script can read it; then nothing until a signal. */
static int wait_for_signal(const vl_server *server, const cli_common *common)
{
    const struct timespec nap = {0, 50000000};
    if (common->json)
        printf("{\"url\": \"%s\"}\n", vl_server_url(server));
    else
        printf("%s\n", vl_server_url(server));
    fflush(stdout);
    if (!common->quiet && !common->json)
        fprintf(stderr, "open this address in a browser; Ctrl-C stops\n");
    while (!cli_is_interrupted())
        nanosleep(&nap, NULL);
    return EXIT_DONE;
}

int cmd_serve(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    cli_list lenses = {{NULL}, 0};
    const char *model = NULL, *address = NULL, *folder = getenv("TMPDIR");
    int64_t port = 8765, keep = 8, upload = 32;
    bool other = false;
    const cli_option options[] = {
        {"model", 'm', CLI_TEXT, &model, "DIR", "a Hugging Face directory, or a hub id in the local cache"},
        {"lens", 'l', CLI_LIST, &lenses, "DIR", "a tuned lens that can be chosen (repeatable)"},
        {"port", 0, CLI_INT, &port, "N", "where to listen (default 8765; 0: any that is free)"},
        {"address", 0, CLI_TEXT, &address, "IPV4",
         "listen on another address than 127.0.0.1: whoever reaches it and has the token can ask"},
        {"keep", 0, CLI_INT, &keep, "N", "readings that stay (default 8, at most 64)"},
        {"max-upload", 0, CLI_INT, &upload, "MIB", "largest picture that is taken (default 32)"},
        {"allow-other-model", 0, CLI_FLAG, &other, NULL, "a lens of another model is only a warning"},
        CLI_COMMON_OPTIONS(common),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, NULL, 0, 0);
    if (code >= 0)
        return code;
    if (!model || port < 0 || port > 65535 || keep < 1 || keep > 64 || upload < 1 || upload > 4096) {
        fprintf(stderr, "vlens serve: %s\n",
                !model ? "--model is missing" : "--port is 0 to 65535, --keep 1 to 64, --max-upload 1 to 4096");
        return EXIT_USAGE;
    }
    vl_error err = VL_ERROR_INIT;
    opened o = {.n_lenses = 0};
    vl_status status = prepare(&o, model, &lenses, &common, &err);
    vl_serve_options serve = {.model = o.model,
                              .lenses = o.lenses,
                              .lens_names = lenses.items,
                              .n_lenses = o.n_lenses,
                              .allow_other_model = other,
                              .address = address,
                              .port = (int)port,
                              .folder = folder && *folder ? folder : NULL,
                              .max_upload = upload << 20,
                              .keep = (int)keep};
    if (status == VL_OK)
        status = vl_server_start(&o.server, &serve, &err);
    code = status == VL_OK ? wait_for_signal(o.server, &common) : cli_fail(status, &err);
    close_all(&o);
    return status == VL_OK ? cli_print("") : code;
}
