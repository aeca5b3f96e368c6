/* What several commands do the same way. */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "trainer/cli/cli.h"

int cli_fail(vl_status status, const vl_error *err)
{
    cli_progress_end();
    if (cli_team_is_silent() && status != VL_ECANCELLED) {
        sleep(1); /* where the first process fails too, it says so, and ends the job */
        cli_team_aside("vlens: ", err->message[0] ? err->message : vl_status_name(status));
    }
    if (status == VL_ECANCELLED) {
        fprintf(stderr, "vlens: interrupted: %s\n", err->message);
        return cli_interrupt_code();
    }
    fprintf(stderr, "vlens: %s\n", err->message[0] ? err->message : vl_status_name(status));
    return status == VL_EINVAL ? EXIT_USAGE : EXIT_FAILED;
}

vl_status cli_config(vl_config **out, const char *path, const cli_common *common, vl_error *err)
{
    vl_config *config = NULL;
    vl_status status = path ? vl_config_read(&config, path, err) : vl_config_new(&config, err);
    char text[300];
    *out = NULL;
    for (int i = 0; status == VL_OK && i < common->set.n; i++)
        if ((status = vl_config_set(config, common->set.items[i], err)) == VL_OK)
            status = cli_check_use(common->set.items[i], err);
    if (status == VL_OK && common->device) {
        snprintf(text, sizeof text, "device=%s", common->device);
        status = vl_config_set(config, text, err);
    }
    if (status == VL_OK && common->threads != -1) {
        snprintf(text, sizeof text, "threads=%lld", (long long)common->threads);
        status = vl_config_set(config, text, err);
    }
    if (status == VL_OK)
        status = vl_config_check(config, err);
    if (status == VL_OK)
        *out = config;
    else
        vl_config_free(config);
    return status;
}

vl_hub_paths cli_hub_paths(void)
{
    return (vl_hub_paths){getenv("HF_HUB_CACHE"), getenv("HF_HOME"), getenv("XDG_CACHE_HOME"), getenv("HOME")};
}

/* The rank of this process among those of its machine, as MPI and Slurm tell it; NULL: it is alone. */
static const char *local_rank(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"};
    const char *rank = NULL;
    for (size_t i = 0; !rank && i < sizeof names / sizeof *names; i++)
        rank = getenv(names[i]);
    return rank;
}

vl_status cli_open_device(vl_device **out, const vl_config *config, vl_error *err)
{
    const char *name = config->device ? config->device : "auto", *rank = local_rank();
    bool any = !strcmp(name, "auto") || !strcmp(name, "cuda") || !strcmp(name, "cuda_on_cpu");
    char full[64];
    if (any && rank) { /* a GPU for each process, in turn */
        snprintf(full, sizeof full, "%s@%s", name, rank);
        name = full;
    }
    vl_status status = vl_device_open(out, name, (int)config->threads, err);
    if (status == VL_OK)
        vl_device_limit_memory(*out, (size_t)config->device_memory);
    return status;
}

vl_status cli_open(vl_config **config, vl_device **device, const char *path, const cli_common *common, vl_error *err)
{
    *device = NULL;
    vl_status status = cli_config(config, path, common, err);
    return status == VL_OK ? cli_open_device(device, *config, err) : status;
}

vl_status cli_open_own_lens(vl_lens **out, const char *path, const vl_config *config, unsigned own, vl_error *err)
{
    vl_status status = vl_lens_open(out, path ? path : config->output, err);
    return status == VL_OK && !path ? vl_lens_check_config(*out, config, own, err) : status;
}

void cli_announce_device(const vl_device *device, const vl_observer *observer)
{
    char line[1024];
    const char *note = vl_device_note(device);
    snprintf(line, sizeof line, "device %s: %s%s%s", vl_device_name(device), vl_device_description(device),
             *note ? "; " : "", note);
    observer->message(observer->user, 0, line);
}

vl_status cli_open_model(vl_model **out, const vl_config *config, vl_device *device, vl_error *err)
{
    *out = NULL;
    if (!config->model) {
        snprintf(err->message, sizeof err->message, "no model is given: set the key model, or --set model=DIR");
        return err->status = VL_EINVAL;
    }
    vl_model_options options = {config->model, cli_hub_paths(), device, config->precision};
    return vl_model_open(out, &options, err);
}

int cli_print(const char *text)
{
    if (fputs(text, stdout) < 0 || fflush(stdout) != 0) {
        fprintf(stderr, "vlens: cannot write to stdout\n");
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}

void cli_put_json(const char *text)
{
    putchar('"');
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\')
            putchar('\\');
        if (*c < 0x20)
            printf("\\u%04x", *c);
        else
            putchar(*c);
    }
    putchar('"');
}

const char *cli_bytes(char out[32], double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    for (; bytes >= 1024 && unit < 4; unit++)
        bytes /= 1024;
    snprintf(out, 32, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return out;
}

int cli_columns(void)
{
    struct winsize size;
    return isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

bool cli_has_colour(void)
{
    const char *no = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(no && *no) && terminal && strcmp(terminal, "dumb") != 0;
}
