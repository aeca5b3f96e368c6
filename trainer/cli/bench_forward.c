/* vlens bench forward: tokens a second, and what the process holds beyond the mapped weights. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trainer/cli/bench.h"

/* ---- memory ------------------------------------------------------------------------------------------------ */

/* KiB behind `key` in a file of /proc; -1 where the system has none. */
static long read_kib(const char *path, const char *key)
{
    char line[256];
    long value = -1;
    FILE *file = fopen(path, "r");
    while (file && value < 0 && fgets(line, sizeof line, file))
        if (!strncmp(line, key, strlen(key)))
            value = strtol(line + strlen(key), NULL, 10);
    if (file)
        fclose(file);
    return value;
}

/* Watches the process's anonymous memory. RssAnon is the kernel's running count of what smaps_rollup adds up page by
 * page: reading it stops nobody. */
typedef struct watch {
    pthread_t thread;
    atomic_bool stop;
    bool started;
    long peak; /* KiB */
} watch;

static void *watch_memory(void *user)
{
    watch *w = user;
    const struct timespec pause = {0, 5000000};
    for (bool last = false; !last;) {
        last = w->stop;
        long now = read_kib("/proc/self/status", "RssAnon:");
        w->peak = now > w->peak ? now : w->peak;
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void watch_start(watch *w)
{
    w->peak = -1;
    w->started = pthread_create(&w->thread, NULL, watch_memory, w) == 0;
}

static void watch_stop(watch *w)
{
    w->stop = true;
    if (w->started)
        pthread_join(w->thread, NULL);
    w->started = false;
}

/* ---- the command ------------------------------------------------------------------------------------------- */

/* {"memory": {...}, "forward": what bench_print gives}, or a line below its table. */
static int print(const vl_device *device, const vl_bench_result *result, const watch *w, bool json)
{
    char peak[32], now[32], mapped[32];
    double bytes[] = {(double)w->peak * 1024, (double)read_kib("/proc/self/smaps_rollup", "Anonymous:") * 1024,
                      (double)read_kib("/proc/self/status", "RssFile:") * 1024};
    if (json)
        printf("{\"memory\": {\"peak_anonymous_bytes\": %.0f, \"anonymous_bytes\": %.0f, \"mapped_bytes\": %.0f}, "
               "\"forward\": ",
               bytes[0], bytes[1], bytes[2]);
    bench_print(device, result, 1, json);
    if (json)
        printf("}\n");
    else
        printf("  anonymous memory: peak %s, now %s (smaps_rollup); mapped files: %s\n", cli_bytes(peak, bytes[0]),
               cli_bytes(now, bytes[1]), cli_bytes(mapped, bytes[2]));
    return cli_print("");
}

int bench_forward(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    const char *model_path = NULL;
    int64_t rounds = 0, blocks = 0;
    vl_bench_forward_options bench = {.samples = 0};
    const cli_option options[] = {
        {"model", 'm', CLI_TEXT, &model_path, "DIR", "a Hugging Face directory, or a hub id in the local cache"},
        {"samples", 0, CLI_INT, &bench.samples, "N", "prompts in one pass over the weights (default 4)"},
        {"tokens", 0, CLI_INT, &bench.tokens, "N", "rows of each, its picture's included (default 600)"},
        {"blocks", 0, CLI_INT, &blocks, "N", "run the first N blocks of the decoder only (default all)"},
        {"rounds", 0, CLI_INT, &rounds, "N", "rounds behind each median (default 3)"},
        {"cpu-time", 0, CLI_FLAG, &bench.cpu_time, NULL, "count the time that threads ran: for a busy machine"},
        CLI_COMMON_OPTIONS(common),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, NULL, 0, 0);
    if (code >= 0)
        return code;
    if (!model_path || rounds < 0 || rounds > 1000 || blocks < 0 || blocks > 100000 || bench.samples < 0 ||
        bench.tokens < 0) {
        fprintf(stderr, "vlens bench forward: expected --model DIR, and counts that are not negative\n");
        return EXIT_USAGE;
    }
    bench.rounds = (int)rounds;
    bench.blocks = (int)blocks;
    vl_error err = VL_ERROR_INIT;
    vl_config *config = NULL;
    vl_device *device = NULL;
    vl_model *model = NULL;
    vl_bench_result result;
    watch memory = {.peak = -1};
    watch_start(&memory);
    vl_status status = cli_open(&config, &device, NULL, &common, &err);
    if (status == VL_OK) {
        vl_model_options model_options = {model_path, cli_hub_paths(), device, config->precision};
        status = vl_model_open(&model, &model_options, &err);
    }
    if (status == VL_OK)
        status = vl_bench_forward(&result, model, &bench, &err);
    watch_stop(&memory);
    code = status == VL_OK ? print(device, &result, &memory, common.json) : cli_fail(status, &err);
    vl_model_close(model);
    vl_device_close(device);
    vl_config_free(config);
    return code;
}
