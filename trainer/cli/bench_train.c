/* vlens bench cache, vlens bench train: on a cache that is there. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "trainer/cli/bench.h"

enum { ROUNDS = 5, RUN_ROWS = 128, LONG_ROWS = 2048, MOST_BYTES = 256 << 20 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void add_line(vl_bench_result *out, const char *name, double *seconds, double work, const char *unit)
{
    vl_bench_line *line = &out->line[out->n++];
    qsort(seconds, ROUNDS, sizeof *seconds, by_value);
    snprintf(line->name, sizeof line->name, "%s", name);
    line->median = seconds[ROUNDS / 2];
    line->best = seconds[0];
    line->work = work;
    line->unit = unit;
    line->share = NAN;
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

/* Reads about MOST_BYTES of all states, `rows` at a time: neighbours one after the other, or `stride` reads apart. */
static vl_status read_round(double *bytes, vl_cache *cache, void *to, int64_t rows, int64_t stride, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    double read_bytes = (double)(rows * info->d_model) * (double)vl_dtype_size(info->dtype);
    int64_t places = info->n_tokens / rows, wanted = (int64_t)(MOST_BYTES / read_bytes / (double)info->n_states) + 1;
    vl_status status = VL_OK;
    *bytes = 0;
    for (int64_t i = 0; i < wanted && i < places; i++)
        for (int64_t state = 0; status == VL_OK && state < info->n_states; state++) {
            status = vl_cache_read(to, cache, state, i * stride % places * rows, rows, err);
            *bytes += read_bytes;
        }
    return status;
}

static vl_status measure_reads(vl_bench_result *out, vl_cache *cache, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    const struct {
        const char *name;
        int64_t rows, stride;
    } ways[] = {{"in order, 2048 rows at a time", LONG_ROWS, 1}, {"runs of 128 rows, far apart", RUN_ROWS, 7919}};
    vl_status status = VL_OK;
    void *to = malloc((size_t)(LONG_ROWS * info->d_model) * vl_dtype_size(info->dtype));
    if (!to)
        return err->status = VL_ENOMEM;
    snprintf(out->title, sizeof out->title, "reading, %lld states of %lld rows, D=%lld", (long long)info->n_states,
             (long long)info->n_tokens, (long long)info->d_model);
    for (size_t w = 0; status == VL_OK && w < sizeof ways / sizeof *ways; w++) {
        double seconds[ROUNDS], bytes = 0;
        int64_t rows = ways[w].rows < info->n_tokens ? ways[w].rows : info->n_tokens;
        status = read_round(&bytes, cache, to, rows, ways[w].stride, err); /* from here on in the page cache */
        for (int r = 0; status == VL_OK && r < ROUNDS; r++) {
            double began = now();
            status = read_round(&bytes, cache, to, rows, ways[w].stride, err);
            seconds[r] = now() - began;
        }
        if (status == VL_OK)
            add_line(out, ways[w].name, seconds, bytes / 1e9, "GB/s");
    }
    free(to);
    return status;
}

int bench_cache(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    const char *path = NULL;
    const cli_option options[] = {
        {"json", 0, CLI_FLAG, &common.json, NULL, "print the result as JSON on stdout"},
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    vl_error err = VL_ERROR_INIT;
    vl_device *device = NULL;
    vl_cache *cache = NULL;
    vl_bench_result result = {.n = 0};
    vl_status status = vl_device_open(&device, "cpu", 0, &err);
    if (status == VL_OK)
        status = vl_cache_open(&cache, path, &err);
    if (status == VL_OK)
        status = measure_reads(&result, cache, &err);
    code = status == VL_OK ? bench_print(device, &result, 1, common.json) : cli_fail(status, &err);
    vl_cache_close(cache);
    vl_device_close(device);
    return code;
}

/* ---- training ---------------------------------------------------------------------------------------------- */

/* Steps from the logit lens, without validation: what a step costs by itself. */
static vl_status measure_fit(vl_bench_result *out, const char *name, vl_config *config, vl_cache *cache,
                             vl_device *device, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    double seconds[ROUNDS], tokens = 0;
    vl_head *head;
    vl_status status = vl_cache_head(&head, cache, device, config->precision, err);
    if (status != VL_OK)
        return status;
    double d = (double)vl_head_get_info(head)->d_model, v = (double)vl_head_get_info(head)->vocab_size;
    vl_head_close(head);
    double first = (double)config->lens.first_layer;
    double last = config->lens.last_layer == VL_ALL ? (double)info->n_states - 2 : (double)config->lens.last_layer;
    double layers = last - first + 1;
    for (int r = 0; r < ROUNDS; r++) {
        vl_fit_result fit = {0};
        status = vl_fit_run(&fit, &(vl_fit_inputs){config, cache, device}, &(vl_fit_options){.fresh = true}, NULL, err);
        if (status != VL_OK)
            return status;
        seconds[r] = fit.seconds;
        tokens = (double)fit.tokens;
        vl_fit_result_clear(&fit);
    }
    char text[64];
    snprintf(text, sizeof text, "%s, tokens x layers", name);
    add_line(out, text, seconds, tokens * layers, "/s");
    snprintf(text, sizeof text, "%s", name);
    add_line(out, text, seconds, tokens * ((4 * d * v + 4 * d * d) * layers + 2 * d * v) / 1e9, "GFLOP/s");
    return VL_OK;
}

static void remove_folder(const char *folder)
{
    static const char *const files[] = {"lens.safetensors", "metrics.json"};
    char path[300];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
}

static vl_status measure_training(vl_bench_result *out, vl_config *config, vl_device *device, vl_error *err)
{
    static const char *const fixed[] = {"lens.init=zero", "fit.validation=0", "fit.early_stop=false"};
    char *directory = NULL, text[200];
    vl_cache *cache = NULL;
    char folder[] = "/tmp/vlens-bench-XXXXXX";
    if (!mkdtemp(folder)) {
        snprintf(err->message, sizeof err->message, "%s: cannot make a folder", folder);
        return err->status = VL_EIO;
    }
    snprintf(text, sizeof text, "output=%s", folder);
    vl_status status = vl_cache_directory(&directory, config, err);
    if (status == VL_OK)
        status = vl_cache_open(&cache, directory, err);
    for (size_t i = 0; status == VL_OK && i < sizeof fixed / sizeof *fixed; i++)
        status = vl_config_set(config, fixed[i], err);
    if (status == VL_OK)
        status = vl_config_set(config, text, err);
    if (status == VL_OK)
        snprintf(out->title, sizeof out->title, "training, %lld steps of %lld tokens", (long long)config->fit.steps,
                 (long long)config->fit.tokens_per_step);
    for (int ahead = 1; status == VL_OK && ahead >= 0; ahead--) {
        status = vl_config_set(config, ahead ? "fit.read_ahead=true" : "fit.read_ahead=false", err);
        if (status == VL_OK)
            status = measure_fit(out, ahead ? "reading ahead" : "no reading ahead", config, cache, device, err);
    }
    remove_folder(folder);
    vl_cache_close(cache);
    vl_release(directory);
    return status;
}

int bench_train(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    const char *path = NULL;
    int64_t steps = 4;
    const cli_option options[] = {
        {"steps", 0, CLI_INT, &steps, "N", "steps of a round (default 4)"},
        CLI_COMMON_OPTIONS(common),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    vl_error err = VL_ERROR_INIT;
    vl_config *config = NULL;
    vl_device *device = NULL;
    vl_bench_result result = {.n = 0};
    char text[64];
    snprintf(text, sizeof text, "fit.steps=%lld", (long long)steps);
    vl_status status = cli_config(&config, path, &common, &err);
    if (status == VL_OK)
        status = vl_config_set(config, text, &err);
    if (status == VL_OK)
        status = cli_open_device(&device, config, &err);
    if (status == VL_OK)
        status = measure_training(&result, config, device, &err);
    code = status == VL_OK ? bench_print(device, &result, 1, common.json) : cli_fail(status, &err);
    vl_device_close(device);
    vl_config_free(config);
    return code;
}
