#include <unistd.h>

#include "trainer/cli/cli.h"

int cmd_doctor(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    const cli_option options[] = {
        {"device", 0, CLI_TEXT, &common.device, "NAME", "auto | cpu | cuda | cuda:N"},
        {"threads", 0, CLI_INT, &common.threads, "N", "processor threads (0: all)"},
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, NULL, 0, 0);
    if (code >= 0)
        return code;
    vl_error err = VL_ERROR_INIT;
    vl_config *config = NULL;
    vl_device *device = NULL;
    vl_status status = cli_open(&config, &device, NULL, &common, &err);
    if (status == VL_OK) {
        printf("vlens      %s\n", vl_version());
        printf("device     %s: %s\n", vl_device_name(device), vl_device_description(device));
        if (*vl_device_note(device))
            printf("           %s\n", vl_device_note(device));
        printf("processors %ld online, %d threads in use\n", sysconf(_SC_NPROCESSORS_ONLN), vl_device_threads(device));
        char bytes[32];
        printf("memory     %s\n", cli_bytes(bytes, (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE)));
        for (int i = 0; i < vl_component_count(); i++) {
            vl_component c = vl_component_get(i);
            printf("%-10s %-10s %s\n", c.name, c.version, c.purpose);
        }
        vl_hub_paths hub = cli_hub_paths();
        printf("hub cache  %s\n", hub.hf_hub_cache ? hub.hf_hub_cache
                                  : hub.hf_home    ? hub.hf_home
                                                   : "~/.cache/huggingface");
    }
    vl_device_close(device);
    vl_config_free(config);
    return status == VL_OK ? cli_print("") : cli_fail(status, &err);
}
