/* vlens bench WHAT: a table of subjects, each a small command of its own. */
#include <math.h>
#include <string.h>

#include "trainer/cli/bench.h"

static const cli_command subjects[] = {
    {"bench gemm", "[--size DxV ...]", "matrix products of the device's library and ours",
     "What the other benchmarks are compared with: [rows, D] x [D, V].", bench_gemm},
    {"bench kl", "[--size DxV ...]", "the KL step beside the library's packed product",
     "Teacher, loss, gradient and whole training steps, in flops that the mathematics needs.", bench_kl},
    {"bench forward", "--model DIR [options]", "the frozen forward beside the library's packed product",
     "Random prompts with a picture each, all in one pass over the weights, and one of them alone. Peak anonymous "
     "memory is what the process holds beyond the mapped weights.",
     bench_forward},
    {"bench cache", "CACHE", "reading a cache", "From the system's page cache, where it fits; checksums are verified.",
     bench_cache},
    {"bench train", "CONFIG", "steps of the fit on the cache of a configuration",
     "From the logit lens, without validation, all layers of lens.layers; nothing is kept.", bench_train},
};
enum { N_SUBJECTS = sizeof subjects / sizeof subjects[0] };

static const char *name_of(const cli_command *subject)
{
    return strchr(subject->name, ' ') + 1;
}

static void print_subjects(void)
{
    printf("usage: vlens bench WHAT ...\n\n");
    for (int i = 0; i < N_SUBJECTS; i++)
        printf("  %-8s %s\n", name_of(&subjects[i]), subjects[i].summary);
    printf("\nvlens bench WHAT --help says more.\n");
}

int cmd_bench(const cli_command *self, int argc, char **argv)
{
    (void)self;
    for (int i = 0; cli_is_describing() && i < N_SUBJECTS; i++)
        subjects[i].run(&subjects[i], 0, NULL);
    if (cli_is_describing())
        return EXIT_DONE;
    if (argc > 0 && (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))) {
        print_subjects();
        return EXIT_DONE;
    }
    for (int i = 0; argc > 0 && i < N_SUBJECTS; i++)
        if (!strcmp(argv[0], name_of(&subjects[i])))
            return subjects[i].run(&subjects[i], argc - 1, argv + 1);
    if (argc > 0)
        fprintf(stderr, "vlens bench: \"%s\" is nothing that it measures; vlens bench --help lists what is\n", argv[0]);
    else
        fprintf(stderr, "vlens bench: an argument is missing: WHAT; vlens bench --help lists them\n");
    return EXIT_USAGE;
}

/* ---- printing ---------------------------------------------------------------------------------------------- */

static void print_table(const vl_bench_result *r)
{
    printf("%s\n  %-30s %10s %10s %-9s %6s %10s\n", r->title, "", "median", "best", "", "share", "seconds");
    for (int i = 0; i < r->n; i++) {
        const vl_bench_line *l = &r->line[i];
        printf("  %-30s %10.1f %10.1f %-9s ", l->name, l->work / l->median, l->work / l->best, l->unit);
        if (isnan(l->share))
            printf("%6s", "-");
        else
            printf("%5.1f%%", 100 * l->share);
        printf(" %10.4f\n", l->median);
    }
}

static void print_json(const vl_bench_result *r)
{
    printf("{\"title\": \"%s\", \"lines\": [", r->title);
    for (int i = 0; i < r->n; i++) {
        const vl_bench_line *l = &r->line[i];
        printf(
            "%s{\"name\": \"%s\", \"median_seconds\": %.6g, \"best_seconds\": %.6g, \"median\": %.6g, \"best\": %.6g, "
            "\"unit\": \"%s\", \"share\": ",
            i ? ", " : "", l->name, l->median, l->best, l->work / l->median, l->work / l->best, l->unit);
        if (isnan(l->share))
            printf("null}");
        else
            printf("%.4f}", l->share);
    }
    printf("]}");
}

int bench_print(const vl_device *device, const vl_bench_result *results, int n, bool json)
{
    if (json)
        printf("{\"device\": \"%s\", \"results\": [", vl_device_description(device));
    else
        printf("%s\n", vl_device_description(device));
    for (int i = 0; i < n; i++) {
        if (json && i)
            printf(", ");
        if (json)
            print_json(&results[i]);
        else
            print_table(&results[i]);
    }
    return cli_print(json ? "]}\n" : "");
}
