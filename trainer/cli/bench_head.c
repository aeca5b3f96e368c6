/* vlens bench gemm, vlens bench kl: on random numbers of a head's size. */
#include <stdlib.h>

#include "trainer/cli/bench.h"

typedef vl_status (*measure_fn)(vl_bench_result *out, vl_device *device, const vl_bench_options *options,
                                vl_error *err);

/* SmolLM2-135M, a 1.7B model, Llama-2-7B; Llama-3-8B (4096x128256, 7 GiB) only where it is asked for. */
static const char *const usual_sizes[] = {"576x49152", "2048x49152", "4096x32000"};

static bool parse_size(vl_bench_options *options, const char *text)
{
    char *end;
    options->d_model = strtoll(text, &end, 10);
    if (end == text || *end != 'x')
        return false;
    const char *second = end + 1;
    options->vocab_size = strtoll(second, &end, 10);
    return end != second && !*end && options->d_model > 0 && options->vocab_size > 1;
}

static int run(const cli_command *self, measure_fn measure, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    cli_list sizes = {{NULL}, 0};
    int64_t rounds = 0;
    vl_bench_options bench = {.rows = 0};
    const cli_option options[] = {
        {"size", 0, CLI_LIST, &sizes, "DxV", "a head's width and vocabulary (repeatable)"},
        {"rows", 0, CLI_INT, &bench.rows, "N", "tokens of a tile (default 2016)"},
        {"rounds", 0, CLI_INT, &rounds, "N", "rounds behind each median (default 7)"},
        {"cpu-time", 0, CLI_FLAG, &bench.cpu_time, NULL, "count the time that threads ran: for a busy machine"},
        CLI_COMMON_OPTIONS(common),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, NULL, 0, 0);
    if (code >= 0)
        return code;
    for (int i = 0; sizes.n == 0 && i < (int)(sizeof usual_sizes / sizeof *usual_sizes); i++)
        sizes.items[i] = usual_sizes[i];
    int n = sizes.n > 0 ? sizes.n : (int)(sizeof usual_sizes / sizeof *usual_sizes);
    for (int i = 0; i < n; i++)
        if (!parse_size(&bench, sizes.items[i]) || bench.rows < 0 || rounds < 0 || rounds > 1000) {
            fprintf(stderr, "vlens: --size %s --rows %lld --rounds %lld: expected a size like 576x49152 and counts\n",
                    sizes.items[i], (long long)bench.rows, (long long)rounds);
            return EXIT_USAGE;
        }
    bench.rounds = (int)rounds;
    vl_error err = VL_ERROR_INIT;
    vl_config *config = NULL;
    vl_device *device = NULL;
    vl_bench_result results[CLI_LIST_MAX];
    vl_status status = cli_open(&config, &device, NULL, &common, &err);
    for (int i = 0; status == VL_OK && i < n; i++) {
        bench.precision = config->precision;
        parse_size(&bench, sizes.items[i]);
        status = measure(&results[i], device, &bench, &err);
    }
    code = status == VL_OK ? bench_print(device, results, n, common.json) : cli_fail(status, &err);
    vl_device_close(device);
    vl_config_free(config);
    return code;
}

int bench_gemm(const cli_command *self, int argc, char **argv)
{
    return run(self, vl_bench_gemm, argc, argv);
}

int bench_kl(const cli_command *self, int argc, char **argv)
{
    return run(self, vl_bench_kl, argc, argv);
}
