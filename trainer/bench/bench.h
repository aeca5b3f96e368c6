/* how fast the heart of the fit runs here, beside what this machine's matrix products reach. */
#ifndef VLENS_BENCH_H
#define VLENS_BENCH_H

#include <stdbool.h>

#include <vlens/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One measurement: how long a round took, and what it did. */
typedef struct vl_bench_line {
    char name[64];
    double median, best; /* seconds */
    double work;         /* of a round; work / median is the speed in `unit` */
    const char *unit;    /* "GFLOP/s", "tokens/s", ...: static string */
    double share;        /* median speed over that of the first line; NaN where the two do not compare */
} vl_bench_line;

enum { VL_BENCH_LINES = 12 };
typedef struct vl_bench_result {
    char title[96];
    int n;
    vl_bench_line line[VL_BENCH_LINES];
} vl_bench_result;

typedef struct vl_bench_options {
    int64_t rows;                /* tokens of a tile; 0: 2016 */
    int64_t d_model, vocab_size; /* of the head */
    int rounds;                  /* 0: 7 */
    vl_precision precision;      /* of the adapter's products */
    bool cpu_time;               /* the time that threads ran and not the time that passed: for a busy machine */
} vl_bench_options;

/* The first line is the device library's own product [rows, D] x [D, V], packed beforehand: in bf16 where the device
 * has that, in fp32 elsewhere. What is compared runs in turn in the same rounds, so that noise meets all alike.
 * Flops are those that the mathematics needs. Errors: VL_EINVAL, VL_ENOMEM, VL_EUNSUPPORTED. */
/* Products alone: bf16 and fp32, packed and not. */
VL_API vl_status vl_bench_gemm(vl_bench_result *out, vl_device *device, const vl_bench_options *options, vl_error *err);
/* The steps of the fit: teacher, loss, loss with gradient (4 D V a row), and whole steps of layers with their adapter
 * ((4 D V + 4 D^2) L + 2 D V a row). */
VL_API vl_status vl_bench_kl(vl_bench_result *out, vl_device *device, const vl_bench_options *options, vl_error *err);

typedef struct vl_bench_forward_options {
    int64_t samples; /* prompts that share one pass over the weights; 0: 4 */
    int64_t tokens;  /* rows of each, those of its picture included; 0: 600 */
    int blocks;      /* run the first so many blocks only; 0: all */
    int rounds;      /* behind each median; 0: 3 */
    bool cpu_time;   /* the time that threads ran and not the time that passed: for a busy machine */
} vl_bench_forward_options;

/* Random prompts, each with a picture where the model sees pictures and the rows suffice. Lines: the device library's
 * own packed product [samples * tokens, D] x [D, d_ff]; all prompts in one pass, and the first of them alone, in flops
 * of products and attention (vision tower included) and in tokens; the first pass, which may read the weights from
 * disk. Errors: VL_EINVAL, and those of vl_model_forward. */
VL_API vl_status vl_bench_forward(vl_bench_result *out, vl_model *model, const vl_bench_forward_options *options,
                                  vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
