/* Which keys of the configuration a command uses: a --set of any other would do nothing, and is refused. */
#include <string.h>

#include "trainer/cli/cli.h"

#define ANY_RUN "model precision device device_memory threads output data. cache."

/* Keys, and groups of keys that end with a dot. Commands that are not listed use all. */
static const struct {
    const char *command, *keys;
} uses[] = {
    {"cache", ANY_RUN},
    {"samples", ANY_RUN},
    {"train", ANY_RUN " lens. fit."},
    {"eval", ANY_RUN " lens. fit. eval."},
    {"fidelity", ANY_RUN " lens. fit. fidelity. eval.seed eval.bootstrap"},
    {"study", ANY_RUN " lens. fit. eval. fidelity. study. view."},
    {"figure", "model precision device device_memory threads data.template data.exif data.max_pixels view."},
    {"serve", "model precision device device_memory threads data.max_pixels"},
    {"topk", "model precision device device_memory threads data.template data.exif data.max_pixels view."},
    {"view", "model precision device device_memory threads data.template data.exif data.max_pixels view."},
};

/* Whether `list` holds the key, or a group that it is in. */
static bool holds(const char *list, const char *key, size_t length)
{
    for (size_t n; *list; list += n + (list[n] == ' ')) {
        n = strcspn(list, " ");
        bool group = list[n - 1] == '.';
        if ((group ? length > n : length == n) && memcmp(list, key, n) == 0)
            return true;
    }
    return false;
}

vl_status cli_check_use(const char *assignment, vl_error *err)
{
    const char *command = cli_command_name();
    size_t length = strcspn(assignment, "=");
    for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++) {
        if (strcmp(uses[i].command, command) != 0 || holds(uses[i].keys, assignment, length))
            continue;
        snprintf(err->message, sizeof err->message, "--set %.*s: vlens %s does not use this key", (int)length,
                 assignment, command);
        return err->status = VL_EINVAL;
    }
    return VL_OK;
}
