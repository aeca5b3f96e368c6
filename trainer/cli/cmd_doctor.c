#include <unistd.h>

#include "trainer/cli/cli.h"

static const char *hub_cache(void)
{
    vl_hub_paths hub = cli_hub_paths();
    return hub.hf_hub_cache ? hub.hf_hub_cache : hub.hf_home ? hub.hf_home : "~/.cache/huggingface";
}

static double memory_bytes(void)
{
    return (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
}

static void print_text(const vl_device *device)
{
    char bytes[32];
    printf("vlens      %s\n", vl_version());
    printf("device     %s: %s\n", vl_device_name(device), vl_device_description(device));
    if (*vl_device_note(device))
        printf("           %s\n", vl_device_note(device));
    printf("processors %ld online, %d threads in use\n", sysconf(_SC_NPROCESSORS_ONLN), vl_device_threads(device));
    printf("memory     %s\n", cli_bytes(bytes, memory_bytes()));
    for (int i = 0; i < vl_component_count(); i++) {
        vl_component c = vl_component_get(i);
        printf("%-10s %-10s %s\n", c.name, c.version, c.purpose);
    }
    printf("hub cache  %s\n", hub_cache());
}

static void print_json(const vl_device *device)
{
    printf("{\"version\": ");
    cli_put_json(vl_version());
    printf(", \"device\": ");
    cli_put_json(vl_device_name(device));
    printf(", \"description\": ");
    cli_put_json(vl_device_description(device));
    printf(", \"note\": ");
    cli_put_json(vl_device_note(device));
    printf(", \"processors\": %ld, \"threads\": %d, \"memory_bytes\": %.0f, \"libraries\": {",
           sysconf(_SC_NPROCESSORS_ONLN), vl_device_threads(device), memory_bytes());
    for (int i = 0; i < vl_component_count(); i++) {
        vl_component c = vl_component_get(i);
        printf("%s", i ? ", " : "");
        cli_put_json(c.name);
        printf(": ");
        cli_put_json(c.version);
    }
    printf("}, \"hub_cache\": ");
    cli_put_json(hub_cache());
    printf("}\n");
}

int cmd_doctor(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    const cli_option options[] = {
        {"device", 0, CLI_TEXT, &common.device, "NAME", "auto | cpu | cuda | cuda:N"},
        {"threads", 0, CLI_INT, &common.threads, "N", "processor threads (0: all)"},
        {"json", 0, CLI_FLAG, &common.json, NULL, "print the result as JSON on stdout"},
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
        if (common.json)
            print_json(device);
        else
            print_text(device);
    }
    vl_device_close(device);
    vl_config_free(config);
    return status == VL_OK ? cli_print("") : cli_fail(status, &err);
}
