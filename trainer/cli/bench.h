/* cli/bench.h - the parts of `vlens bench`: one function per subject, one way to print. */
#ifndef VL_CLI_BENCH_H
#define VL_CLI_BENCH_H

#include "trainer/bench/bench.h"
#include "trainer/cli/cli.h"

/* Results as aligned tables, or as {"device": ..., "results": [...]}. Returns an exit code. */
int bench_print(const vl_device *device, const vl_bench_result *results, int n, bool json);

int bench_cache(const cli_command *self, int argc, char **argv);
int bench_forward(const cli_command *self, int argc, char **argv);
int bench_gemm(const cli_command *self, int argc, char **argv);
int bench_kl(const cli_command *self, int argc, char **argv);
int bench_train(const cli_command *self, int argc, char **argv);

#endif
