#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer/cli/cli.h"

int cmd_init(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    bool force = false;
    const char *path = NULL;
    const cli_option options[] = {
        {"set", 0, CLI_LIST, &common.set, "KEY=VALUE", "write this value in the place of the default (repeatable)"},
        {"force", 'f', CLI_FLAG, &force, NULL, "overwrite FILE"},
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 0, 1);
    if (code >= 0)
        return code;
    vl_error err = VL_ERROR_INIT;
    vl_config *config;
    char *text = NULL;
    vl_status status = cli_config(&config, NULL, &common, &err);
    if (status == VL_OK)
        status = vl_config_write(&text, config, &err);
    vl_config_free(config);
    if (status != VL_OK)
        return cli_fail(status, &err);
    static const char heading[] = "# A configuration of vlens. Every key stands here with its default.\n"
                                  "# Set model, and data.samples (JSONL) or data.text (a plain corpus).\n";
    if (!path) {
        code = cli_print(heading) || cli_print(text) ? EXIT_FAILED : EXIT_DONE;
    } else if (!force && access(path, F_OK) == 0) {
        fprintf(stderr, "vlens: %s exists; --force overwrites it\n", path);
        code = EXIT_FAILED;
    } else {
        FILE *file = fopen(path, "w");
        bool good = file && fputs(heading, file) >= 0 && fputs(text, file) >= 0;
        good = file && fclose(file) == 0 && good;
        if (!good)
            perror(path);
        else
            printf("wrote %s: next, set model and data, then: vlens train %s\n", path, path);
        code = good ? EXIT_DONE : EXIT_FAILED;
    }
    vl_release(text);
    return code;
}
