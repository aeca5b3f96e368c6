/* bench.c - speed of the products and of the KL step on random numbers of a head's size. */
#include "trainer/bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/peak.h"
#include "trainer/base/file.h"
#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/readout/objective.h"

enum { MAX_ROUNDS = 64, STEP_LAYERS = 4 };

/* What a benchmark works on. */
typedef struct bench {
    vl_device *device;
    vl_bench_options options;
    int64_t m, d, v;
    vl_peak *peak, *peak_f32; /* bf16 where the device has it; fp32 */
    uint16_t *weight;         /* [V, D] bf16 */
    float *norm;              /* [D] of ones */
    vl_matrix *plain;         /* not resident */
    vl_head *head;
    vl_objective objective;
    vl_tensor h, logits; /* [m, D], [m, V] */
    vl_adapter adapter;
    vl_adapter_gradient gradient;
} bench;

typedef vl_status (*round_fn)(bench *b, vl_error *err);

/* A measurement in the making. */
typedef struct measurement {
    const char *name;
    round_fn run;
    double flops; /* of a round */
    double seconds[MAX_ROUNDS];
} measurement;

/* ---- what is measured -------------------------------------------------------------------------------------- */

static vl_status run_peak(bench *b, vl_error *err)
{
    return vl_peak_run(b->peak, err);
}

static vl_status run_peak_f32(bench *b, vl_error *err)
{
    return vl_peak_run(b->peak_f32, err);
}

static vl_status run_plain(bench *b, vl_error *err)
{
    return vl_op_linear(b->device, &(vl_linear_args){.out = b->logits, .x = b->h, .weight = b->plain}, err);
}

static vl_status run_resident(bench *b, vl_error *err)
{
    vl_linear_args args = {.out = b->logits, .x = b->h, .weight = vl_head_matrix(b->head)};
    return vl_op_linear(b->device, &args, err);
}

static vl_status run_teacher(bench *b, vl_error *err)
{
    return vl_objective_teacher(&b->objective, b->h, err);
}

static vl_status run_op(bench *b, vl_loss kind, bool gradient, vl_error *err)
{
    vl_objective *o = &b->objective;
    vl_unembed_loss_args args = {.loss = o->loss,
                                 .x = o->x,
                                 .head = vl_head_matrix(b->head),
                                 .teacher_logits = o->teacher.logits,
                                 .teacher_lse = o->teacher.lse,
                                 .kind = kind};
    if (gradient)
        args.dx = o->dx;
    return vl_op_unembed_loss(b->device, &args, err);
}

static vl_status run_loss(bench *b, vl_error *err)
{
    return run_op(b, VL_LOSS_KL, false, err);
}

static vl_status run_gradient(bench *b, vl_error *err)
{
    return run_op(b, VL_LOSS_KL, true, err);
}

static vl_status run_reverse(bench *b, vl_error *err)
{
    return run_op(b, VL_LOSS_REVERSE_KL, true, err);
}

static vl_status run_layer(bench *b, vl_error *err)
{
    b->gradient.fresh = true;
    return vl_objective_layer(&b->objective, &(vl_objective_tile){.h = b->h}, &b->adapter, &b->gradient, err);
}

static vl_status run_step(bench *b, vl_error *err)
{
    VL_TRY(run_teacher(b, err));
    for (int i = 0; i < STEP_LAYERS; i++)
        VL_TRY(run_layer(b, err));
    return VL_OK;
}

/* ---- rounds ------------------------------------------------------------------------------------------------ */

static double now(const bench *b)
{
    struct timespec t;
    if (!b->options.cpu_time)
        return vl_clock();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return ((double)t.tv_sec + 1e-9 * (double)t.tv_nsec) / vl_device_threads(b->device);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static vl_status run_rounds(bench *b, measurement *all, int n, vl_error *err)
{
    /* The first round warms caches and kernels up. */
    for (int round = -1; round < b->options.rounds; round++)
        for (int i = 0; i < n; i++) {
            double began = now(b);
            VL_TRY(all[i].run(b, err));
            VL_TRY(vl_device_sync(b->device, err));
            if (round >= 0)
                all[i].seconds[round] = now(b) - began;
        }
    return VL_OK;
}

static void fill_result(vl_bench_result *out, const bench *b, measurement *all, int n)
{
    int rounds = b->options.rounds;
    for (int i = 0; i < n; i++) {
        vl_bench_line *line = &out->line[out->n++];
        qsort(all[i].seconds, (size_t)rounds, sizeof(double), by_value);
        snprintf(line->name, sizeof line->name, "%s", all[i].name);
        line->median = all[i].seconds[rounds / 2];
        line->best = all[i].seconds[0];
        line->work = all[i].flops / 1e9;
        line->unit = "GFLOP/s";
        double first = out->line[0].work / out->line[0].median;
        line->share = line->work / line->median / first;
    }
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

static vl_status random_tensor(vl_tensor *out, vl_device *device, int64_t rows, int64_t columns, float scale,
                               vl_error *err)
{
    uint32_t state = 1;
    VL_TRY(vl_tensor_new(out, device, VL_F32, rows, columns, err));
    float *host = vl_alloc((size_t)(rows * columns), sizeof *host);
    if (!host)
        return vl_fail_nomem(err, "benchmark");
    for (int64_t i = 0; i < rows * columns; i++)
        host[i] = vl_peak_uniform(&state, scale);
    vl_status status = vl_device_write(device, out, host, err);
    vl_free(host);
    return status;
}

static vl_status make_weight(bench *b, vl_error *err)
{
    uint32_t state = 12345;
    b->weight = vl_alloc_aligned((size_t)(b->v * b->d), sizeof *b->weight);
    b->norm = vl_alloc((size_t)b->d, sizeof *b->norm);
    if (!b->weight || !b->norm)
        return vl_fail_nomem(err, "benchmark");
    for (int64_t i = 0; i < b->v * b->d; i++) {
        float value = vl_peak_uniform(&state, 0.1f);
        vl_narrow(&b->weight[i], &value, VL_BF16, 1);
    }
    for (int64_t i = 0; i < b->d; i++)
        b->norm[i] = 1;
    vl_head_source source = {.d_model = b->d,
                             .vocab_size = b->v,
                             .n_layers = 1,
                             .norm = VL_NORM_RMS,
                             .eps = 1e-5,
                             .weight_dtype = VL_BF16,
                             .weight = b->weight,
                             .norm_dtype = VL_F32,
                             .norm_weight = b->norm};
    return vl_head_new(&b->head, b->device, &source, b->options.precision, NULL, err);
}

/* The reference: bf16, or fp32 where the device has no other. */
static vl_status make_peak(bench *b, bool *bf16, vl_error *err)
{
    vl_peak_args args = {VL_BF16, b->m, b->v, b->d};
    vl_status status = vl_peak_new(&b->peak, b->device, &args, err);
    *bf16 = status == VL_OK;
    if (status != VL_EUNSUPPORTED)
        return status;
    args.dtype = VL_F32;
    return vl_peak_new(&b->peak, b->device, &args, err);
}

static vl_status bench_open(bench *b, vl_device *device, const vl_bench_options *options, vl_error *err)
{
    *b = (bench){.device = device, .options = *options, .d = options->d_model, .v = options->vocab_size};
    b->m = options->rows > 0 ? options->rows : 2016;
    b->options.rounds = options->rounds > 0 ? options->rounds : 7;
    if (b->options.rounds > MAX_ROUNDS)
        return vl_fail(err, VL_EINVAL, "benchmark: %d rounds, at most %d", b->options.rounds, MAX_ROUNDS);
    if (b->d < 1 || b->v < 2 || b->d > 1 << 20 || b->v > 1 << 24 || b->m > 1 << 20)
        return vl_fail(err, VL_EINVAL, "benchmark: a head of %lld x %lld with %lld rows", (long long)b->d,
                       (long long)b->v, (long long)b->m);
    return make_weight(b, err);
}

static void bench_close(bench *b)
{
    vl_objective_clear(&b->objective);
    vl_tensor *tensors[] = {
        &b->h, &b->logits, &b->adapter.weight, &b->adapter.bias, &b->gradient.weight, &b->gradient.bias};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        vl_device_free(b->device, tensors[i]->data);
    vl_matrix_free(b->device, b->plain);
    vl_head_close(b->head);
    vl_peak_free(b->peak);
    vl_peak_free(b->peak_f32);
    vl_free(b->weight);
    vl_free(b->norm);
}

/* ---- the benchmarks ---------------------------------------------------------------------------------------- */

static void set_title(vl_bench_result *out, const bench *b, const char *what)
{
    out->n = 0;
    snprintf(out->title, sizeof out->title, "%s, d=%lld V=%lld, %lld rows", what, (long long)b->d, (long long)b->v,
             (long long)b->m);
}

vl_status vl_bench_gemm(vl_bench_result *out, vl_device *device, const vl_bench_options *options, vl_error *err)
{
    bench b;
    vl_status status = VL_OK;
    bool bf16;
    VL_GOTO(bench_open(&b, device, options, err));
    VL_GOTO(make_peak(&b, &bf16, err));
    if (bf16)
        VL_GOTO(vl_peak_new(&b.peak_f32, device, &(vl_peak_args){VL_F32, b.m, b.v, b.d}, err));
    vl_matrix_args plain = {b.weight, VL_BF16, b.v, b.d, b.options.precision, false};
    VL_GOTO(vl_matrix_new(&b.plain, device, &plain, err));
    VL_GOTO(random_tensor(&b.h, device, b.m, b.d, 1, err));
    VL_GOTO(vl_tensor_new(&b.logits, device, VL_F32, b.m, b.v, err));
    double flops = 2.0 * (double)b.m * (double)b.d * (double)b.v;
    measurement all[] = {{bf16 ? "library, bf16, packed" : "library, fp32, packed", run_peak, flops, {0}},
                         {"x W^T, W as in its file", run_plain, flops, {0}},
                         {"x W^T, W resident", run_resident, flops, {0}},
                         {"library, fp32, packed", run_peak_f32, flops, {0}}};
    int n = bf16 ? 4 : 3;
    VL_GOTO(run_rounds(&b, all, n, err));
    set_title(out, &b, "matrix product");
    fill_result(out, &b, all, n);
done:
    bench_close(&b);
    return status;
}

vl_status vl_bench_kl(vl_bench_result *out, vl_device *device, const vl_bench_options *options, vl_error *err)
{
    bench b;
    vl_status status = VL_OK;
    bool bf16;
    vl_tensor teacher = {.data = NULL};
    VL_GOTO(bench_open(&b, device, options, err));
    VL_GOTO(make_peak(&b, &bf16, err));
    VL_GOTO(vl_objective_new(&b.objective, b.head, VL_LOSS_KL, b.m, err));
    b.objective.precision = options->precision;
    VL_GOTO(random_tensor(&b.h, device, b.m, b.d, 1, err));
    VL_GOTO(random_tensor(&teacher, device, b.m, b.d, 1.1f, err));
    VL_GOTO(random_tensor(&b.adapter.weight, device, b.d, b.d, 0.3f / sqrtf((float)b.d), err));
    VL_GOTO(random_tensor(&b.adapter.bias, device, 1, b.d, 0.1f, err));
    VL_GOTO(vl_tensor_new(&b.gradient.weight, device, VL_F32, b.d, b.d, err));
    VL_GOTO(vl_tensor_new(&b.gradient.bias, device, VL_F32, 1, b.d, err));
    b.adapter.bias = vl_tensor_1d(b.adapter.bias.data, VL_F32, b.d);
    b.gradient.bias = vl_tensor_1d(b.gradient.bias.data, VL_F32, b.d);
    VL_GOTO(vl_objective_teacher(&b.objective, teacher, err));
    VL_GOTO(run_layer(&b, err)); /* leaves normed states for the operations alone */
    double dv = (double)b.m * (double)b.d * (double)b.v, dd = (double)b.m * (double)b.d * (double)b.d;
    measurement all[] = {{bf16 ? "library, bf16, packed" : "library, fp32, packed", run_peak, 2 * dv, {0}},
                         {"teacher", run_teacher, 2 * dv, {0}},
                         {"KL", run_loss, 2 * dv, {0}},
                         {"KL and gradient", run_gradient, 4 * dv, {0}},
                         {"reverse KL and gradient", run_reverse, 4 * dv, {0}},
                         {"layer: adapter, KL, gradients", run_layer, 4 * dv + 4 * dd, {0}},
                         {"teacher and 4 layers", run_step, STEP_LAYERS * (4 * dv + 4 * dd) + 2 * dv, {0}}};
    VL_GOTO(run_rounds(&b, all, (int)(sizeof all / sizeof *all), err));
    set_title(out, &b, "KL step");
    fill_result(out, &b, all, (int)(sizeof all / sizeof *all));
done:
    vl_device_free(device, teacher.data);
    bench_close(&b);
    return status;
}
