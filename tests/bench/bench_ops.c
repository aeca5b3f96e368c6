/* How fast the operations of the fit are on this machine, beside what its matrix products reach.
 *
 * Usage: bench_ops [cpu-time] [name ...]: kernel, head-576, head-2048,
 * head-4096, head-128k, attention, rows (default all). Each figure is the
 * median of several rounds with the best one in brackets; what is compared runs
 * in the same rounds, in turn, so that noise meets all alike. On a machine that
 * is busy with other work, `OMP_WAIT_POLICY=passive bench_ops cpu-time` counts
 * the time that the threads ran and not the time that passed. */
#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/backend.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/panel.h"
#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/rng.h"

enum { THREADS = 2, ROUNDS = 7, MAX_ROUNDS = 32 };

static vl_device *device;
static vl_error error = VL_ERROR_INIT;

static bool cpu_time;

static double now(void)
{
    struct timespec t;
    if (!cpu_time)
        return vl_clock();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return ((double)t.tv_sec + 1e-9 * (double)t.tv_nsec) / THREADS;
}

static void require(vl_status status)
{
    if (status != VL_OK) {
        fprintf(stderr, "%s\n", error.message);
        exit(1);
    }
}

/* Seconds of the rounds of one measurement. */
typedef struct timing {
    const char *name;
    double seconds[MAX_ROUNDS];
    int n;
} timing;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(timing *t)
{
    qsort(t->seconds, (size_t)t->n, sizeof t->seconds[0], by_value);
    return t->seconds[t->n / 2];
}

/* `work` in giga-units; `reference` (may be NULL) is what 100 % means. */
static void report(timing *t, double work, const char *unit, timing *reference, double reference_work)
{
    double middle = work / median(t), best = work / t->seconds[0];
    printf("  %-34s %8.1f [%8.1f] %s", t->name, middle, best, unit);
    if (reference)
        printf("  %5.1f %% [%5.1f %%]", 100 * middle / (reference_work / median(reference)),
               100 * best / (reference_work / reference->seconds[0]));
    printf("\n");
    fflush(stdout);
}

static vl_tensor new_tensor(vl_dtype dtype, int64_t rows, int64_t columns)
{
    vl_tensor t;
    require(vl_tensor_new(&t, device, dtype, rows, columns, &error));
    return t;
}

/* Uniform in [-scale, scale): cheap, as the arrays are large. */
static void fill(vl_tensor t, float scale)
{
    uint32_t state = 12345;
    for (int64_t i = 0; i < t.shape[0]; i++)
        for (int64_t j = 0; j < t.shape[1]; j++) {
            state = state * 1664525u + 1013904223u;
            float value = scale * ((float)(state >> 8) * 0x1p-23f - 1);
            if (t.dtype == VL_BF16)
                ((uint16_t *)t.data)[i * t.row_stride + j] = vl_f32_to_bf16(value);
            else
                ((float *)t.data)[i * t.row_stride + j] = value;
        }
}

static vl_tensor random_tensor(vl_dtype dtype, int64_t rows, int64_t columns, float scale)
{
    vl_tensor t = new_tensor(dtype, rows, columns);
    fill(t, scale);
    return t;
}

/* ---- the micro-kernel ---- */

/* Multiplies one left panel with right panels that fill `bytes` of cache, on
 * every thread. */
static void kernel_rounds(const char *name, int64_t pairs, size_t bytes)
{
    int64_t panels = (int64_t)bytes / (pairs * PANEL_COLUMNS * 4), repeats = 40000000 / (pairs * panels) + 1;
    size_t left_size = (size_t)(pairs * PANEL_ROWS), right_size = (size_t)(pairs * PANEL_COLUMNS * panels + 512);
    uint32_t *left = vl_alloc_aligned(left_size, 4 * THREADS), *right = vl_alloc_aligned(right_size, 4 * THREADS);
    memset(left, 0, left_size * 4 * THREADS);
    memset(right, 0, right_size * 4 * THREADS);
    timing t = {.name = name};
    while (t.n < MAX_ROUNDS) {
        double start = now();
#pragma omp parallel num_threads(THREADS)
        {
            float out[PANEL_ROWS * PANEL_COLUMNS];
            const uint32_t *a = left + left_size * (size_t)omp_get_thread_num();
            const uint32_t *b = right + right_size * (size_t)omp_get_thread_num();
            for (int64_t r = 0; r < repeats; r++)
                for (int64_t p = 0; p < panels; p++)
                    vl_panel_kernel(out, PANEL_COLUMNS, a, b + p * pairs * PANEL_COLUMNS, pairs, PANEL_ROWS, r > 0);
        }
        t.seconds[t.n++] = now() - start;
    }
    vl_free(left);
    vl_free(right);
    double flops = 4.0 * PANEL_ROWS * PANEL_COLUMNS * (double)(pairs * panels * repeats) * THREADS;
    report(&t, flops / 1e9, "GF/s", NULL, 0);
}

static void bench_kernel(void)
{
    printf("micro-kernel, %d threads\n", THREADS);
    kernel_rounds("right panels in L1 (32 KiB)", 128, 32 << 10);
    kernel_rounds("right panels in L2 (512 KiB)", 288, 512 << 10);
    kernel_rounds("right panels in L3 (8 MiB)", 288, 8 << 20);
}

/* ---- the head: teacher and student ---- */

typedef struct head_arrays {
    vl_tensor x, dx, w, teacher, lse, loss, logits;
    vl_matrix *resident, *plain;
} head_arrays;

static head_arrays head_new(int64_t m, int64_t d, int64_t v)
{
    head_arrays h = {.x = random_tensor(VL_F32, m, d, 20 / sqrtf((float)d)), .dx = new_tensor(VL_F32, m, d)};
    h.w = random_tensor(VL_BF16, v, d, 0.1f);
    h.teacher = new_tensor(VL_F32, m, v);
    h.logits = new_tensor(VL_F32, m, v);
    h.lse = new_tensor(VL_F32, 1, m);
    h.loss = new_tensor(VL_F32, 1, m);
    vl_matrix_args args = {h.w.data, VL_BF16, v, d, VL_PRECISION_AUTO, true};
    require(vl_matrix_new(&h.resident, device, &args, &error));
    args.resident = false;
    require(vl_matrix_new(&h.plain, device, &args, &error));
    require(vl_op_linear(device, &(vl_linear_args){.out = h.teacher, .x = h.x, .weight = h.resident}, &error));
    require(vl_op_logsumexp(device, &(vl_logsumexp_args){h.lse, h.teacher}, &error));
    fill(h.x, 22 / sqrtf((float)d));
    return h;
}

static void head_free(head_arrays *h)
{
    vl_matrix_free(device, h->resident);
    vl_matrix_free(device, h->plain);
    vl_tensor all[] = {h->x, h->dx, h->w, h->teacher, h->lse, h->loss, h->logits};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        vl_device_free(device, all[i].data);
}

static void time_linear(timing *t, const head_arrays *h, const vl_matrix *weight)
{
    double start = now();
    require(vl_op_linear(device, &(vl_linear_args){.out = h->logits, .x = h->x, .weight = weight}, &error));
    t->seconds[t->n++] = now() - start;
}

/* oneDNN with the weights in the layout that it likes best, made beforehand: the most that it can do. */
typedef struct packed_product {
    dnnl_primitive_desc_t description;
    dnnl_primitive_t primitive;
    dnnl_memory_t source, weight, out;
} packed_product;

static void require_dnnl(dnnl_status_t status)
{
    if (status != dnnl_success) {
        fprintf(stderr, "oneDNN status %d\n", (int)status);
        exit(1);
    }
}

static packed_product packed_new(const vl_cpu *cpu, const head_arrays *h)
{
    packed_product p;
    int64_t m = h->x.shape[0], d = h->x.shape[1], v = h->w.shape[0];
    dnnl_memory_desc_t source, weight, plain, out;
    dnnl_matmul_desc_t operation;
    require_dnnl(dnnl_memory_desc_init_by_tag(&source, 2, (dnnl_dims_t){m, d}, dnnl_bf16, dnnl_ab));
    require_dnnl(dnnl_memory_desc_init_by_tag(&plain, 2, (dnnl_dims_t){d, v}, dnnl_bf16, dnnl_ba));
    require_dnnl(dnnl_memory_desc_init_by_tag(&weight, 2, (dnnl_dims_t){d, v}, dnnl_bf16, dnnl_format_tag_any));
    require_dnnl(dnnl_memory_desc_init_by_tag(&out, 2, (dnnl_dims_t){m, v}, dnnl_f32, dnnl_ab));
    require_dnnl(dnnl_matmul_desc_init(&operation, &source, &weight, NULL, &out));
    require_dnnl(dnnl_primitive_desc_create(&p.description, &operation, NULL, cpu->engine, NULL));
    require_dnnl(dnnl_primitive_create(&p.primitive, p.description));
    const dnnl_memory_desc_t *best = dnnl_primitive_desc_query_md(p.description, dnnl_query_weights_md, 0);
    dnnl_memory_t from;
    dnnl_primitive_desc_t reorder_description;
    dnnl_primitive_t reorder;
    require_dnnl(dnnl_memory_create(&from, &plain, cpu->engine, h->w.data));
    require_dnnl(dnnl_memory_create(&p.weight, best, cpu->engine, DNNL_MEMORY_ALLOCATE));
    require_dnnl(
        dnnl_reorder_primitive_desc_create(&reorder_description, &plain, cpu->engine, best, cpu->engine, NULL));
    require_dnnl(dnnl_primitive_create(&reorder, reorder_description));
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, p.weight}};
    require_dnnl(dnnl_primitive_execute(reorder, cpu->stream, 2, arguments));
    require_dnnl(dnnl_stream_wait(cpu->stream));
    require_dnnl(dnnl_memory_create(&p.source, &source, cpu->engine, DNNL_MEMORY_ALLOCATE));
    require_dnnl(dnnl_memory_create(&p.out, &out, cpu->engine, h->logits.data));
    void *rounded;
    require_dnnl(dnnl_memory_get_data_handle(p.source, &rounded));
    vl_cpu_to_bf16(rounded, h->x, THREADS);
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(reorder_description);
    dnnl_memory_destroy(from);
    return p;
}

static void packed_free(packed_product *p)
{
    dnnl_primitive_destroy(p->primitive);
    dnnl_primitive_desc_destroy(p->description);
    dnnl_memory_destroy(p->source);
    dnnl_memory_destroy(p->weight);
    dnnl_memory_destroy(p->out);
}

static void time_packed(timing *t, const vl_cpu *cpu, const packed_product *p)
{
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, p->source}, {DNNL_ARG_WEIGHTS, p->weight}, {DNNL_ARG_DST, p->out}};
    double start = now();
    require_dnnl(dnnl_primitive_execute(p->primitive, cpu->stream, 3, arguments));
    require_dnnl(dnnl_stream_wait(cpu->stream));
    t->seconds[t->n++] = now() - start;
}

static void time_loss(timing *t, const head_arrays *h, vl_loss kind, bool gradient)
{
    vl_unembed_loss_args args = {.loss = h->loss,
                                 .x = h->x,
                                 .head = h->resident,
                                 .teacher_logits = h->teacher,
                                 .teacher_lse = h->lse,
                                 .kind = kind};
    if (gradient)
        args.dx = h->dx;
    double start = now();
    require(vl_op_unembed_loss(device, &args, &error));
    t->seconds[t->n++] = now() - start;
}

static void bench_shape(int64_t m, int64_t d, int64_t v)
{
    printf("head d=%lld V=%lld, %lld rows, %d threads\n", (long long)d, (long long)v, (long long)m, THREADS);
    head_arrays h = head_new(m, d, v);
    /* the peak: oneDNN on the shape where it does best */
    head_arrays peak = head_new(2048, 4096, 32000);
    const vl_cpu *cpu = device->context;
    packed_product packed_peak = packed_new(cpu, &peak), packed_here = packed_new(cpu, &h);
    enum { PEAK, PEAK_PACKED, PLAIN, PACKED, TEACHER, LOSS, GRADIENT, REVERSE, N_MEASURED };
    timing t[N_MEASURED] = {{.name = "oneDNN 2048x4096x32000"}, {.name = "  the same, packed weights"},
                            {.name = "oneDNN x W^T"},           {.name = "  the same, packed weights"},
                            {.name = "panels x W^T (teacher)"}, {.name = "KL loss alone"},
                            {.name = "KL loss and gradient"},   {.name = "reverse KL and gradient"}};
    for (int round = 0; round < ROUNDS; round++) {
        time_linear(&t[PEAK], &peak, peak.plain);
        time_packed(&t[PEAK_PACKED], cpu, &packed_peak);
        time_loss(&t[GRADIENT], &h, VL_LOSS_KL, true);
        time_linear(&t[PLAIN], &h, h.plain);
        time_packed(&t[PACKED], cpu, &packed_here);
        time_linear(&t[TEACHER], &h, h.resident);
        time_loss(&t[LOSS], &h, VL_LOSS_KL, false);
        time_loss(&t[REVERSE], &h, VL_LOSS_REVERSE_KL, true);
    }
    double peak_work = 2e-9 * 2048 * 4096.0 * 32000, forward = 2e-9 * (double)m * (double)d * (double)v;
    for (int i = 0; i < N_MEASURED; i++) {
        double work = i == PEAK || i == PEAK_PACKED ? peak_work : i == GRADIENT || i == REVERSE ? 2 * forward : forward;
        report(&t[i], work, "GF/s", i == PEAK ? NULL : &t[PEAK], peak_work);
    }
    packed_free(&packed_peak);
    packed_free(&packed_here);
    head_free(&peak);
    head_free(&h);
}

static void bench_head_576(void)
{
    bench_shape(2016, 576, 49152);
}

static void bench_head_2048(void)
{
    bench_shape(2016, 2048, 49152);
}

static void bench_head_4096(void)
{
    bench_shape(2016, 4096, 32000);
}

static void bench_head_128k(void)
{
    bench_shape(2016, 4096, 128256);
}

/* ---- attention ---- */

static void bench_attention_of(int64_t tq, int64_t tk, int heads, int kv_heads, int64_t width, bool causal)
{
    vl_tensor q = random_tensor(VL_F32, tq, heads * width, 1), k = random_tensor(VL_F32, tk, kv_heads * width, 1);
    vl_tensor v = random_tensor(VL_F32, tk, kv_heads * width, 1), out = new_tensor(VL_F32, tq, heads * width);
    vl_attention_args args = {.out = out,
                              .q = q,
                              .k = k,
                              .v = v,
                              .n_heads = heads,
                              .n_kv_heads = kv_heads,
                              .scale = 0.1f,
                              .causal = causal,
                              .causal_offset = causal ? tk - tq : 0};
    char name[64];
    snprintf(name, sizeof name, "%lldx%lld H=%d K=%d E=%lld%s", (long long)tq, (long long)tk, heads, kv_heads,
             (long long)width, causal ? " causal" : "");
    timing t = {.name = name};
    for (int round = 0; round < 3 * ROUNDS; round++) {
        double start = now();
        require(vl_op_attention(device, &args, &error));
        t.seconds[t.n++] = now() - start;
    }
    double pairs = causal ? (double)tq * ((double)tk - (double)(tq - 1) / 2) : (double)tq * (double)tk;
    report(&t, 4e-9 * pairs * (double)heads * (double)width, "GF/s", NULL, 0);
    vl_tensor all[] = {q, k, v, out};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        vl_device_free(device, all[i].data);
}

static void bench_attention(void)
{
    printf("attention, fp32, %d threads\n", THREADS);
    bench_attention_of(600, 600, 32, 32, 128, true);
    bench_attention_of(600, 600, 32, 8, 128, true);
    bench_attention_of(577, 577, 16, 16, 64, false);
    bench_attention_of(1, 1024, 32, 32, 128, true);
}

/* ---- row functions ---- */

static void bench_rows(void)
{
    enum { M = 512, N = 4096 };
    printf("row functions, %d x %d in L3, %d threads, per element\n", M, N, THREADS);
    vl_tensor x = random_tensor(VL_F32, M, N, 4), y = random_tensor(VL_F32, M, N, 4), half = new_tensor(VL_BF16, M, N);
    vl_tensor weight = random_tensor(VL_F32, 1, N, 1), lse = new_tensor(VL_F32, 1, M), other = new_tensor(VL_F16, M, N);
    timing t[] = {{.name = "silu * up"},
                  {.name = "gelu_tanh"},
                  {.name = "gelu (erf)"},
                  {.name = "rms norm"},
                  {.name = "layer norm backward"},
                  {.name = "logsumexp"},
                  {.name = "to bf16"},
                  {.name = "from bf16"},
                  {.name = "to f16"},
                  {.name = "from f16"},
                  {.name = "add"}};
    enum { N_FUNCTIONS = sizeof t / sizeof t[0] };
    for (int round = 0; round < 3 * ROUNDS; round++)
        for (int f = 0; f < N_FUNCTIONS; f++) {
            vl_activation_args act = {.out = y, .x = x};
            if (f == 0)
                act.up = y;
            act.kind = f == 0 ? VL_ACT_SILU : f == 1 ? VL_ACT_GELU_TANH : VL_ACT_GELU;
            double start = now();
            switch (f) {
            case 0:
            case 1:
            case 2: require(vl_op_activation(device, &act, &error)); break;
            case 3: require(vl_op_norm(device, &(vl_norm_args){.out = y, .x = x, .weight = weight}, &error)); break;
            case 4:
                require(vl_op_norm_backward(device, &(vl_norm_backward_args){y, y, x, weight, VL_NORM_LAYER, 1e-5},
                                            &error));
                break;
            case 5: require(vl_op_logsumexp(device, &(vl_logsumexp_args){lse, x}, &error)); break;
            case 6: require(vl_op_cast(device, &(vl_cast_args){half, x}, &error)); break;
            case 7: require(vl_op_cast(device, &(vl_cast_args){y, half}, &error)); break;
            case 8: require(vl_op_cast(device, &(vl_cast_args){other, x}, &error)); break;
            case 9: require(vl_op_cast(device, &(vl_cast_args){y, other}, &error)); break;
            default: require(vl_op_add(device, &(vl_add_args){.out = y, .x = x, .y = x, .scale = 1}, &error));
            }
            t[f].seconds[t[f].n++] = now() - start;
        }
    for (int f = 0; f < N_FUNCTIONS; f++)
        report(&t[f], 1e-9 * M * N, "Gelem/s", NULL, 0);
    vl_tensor all[] = {x, y, half, weight, lse, other};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        vl_device_free(device, all[i].data);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {{"kernel", bench_kernel},
               {"head-576", bench_head_576},
               {"head-2048", bench_head_2048},
               {"head-4096", bench_head_4096},
               {"head-128k", bench_head_128k},
               {"attention", bench_attention},
               {"rows", bench_rows}};
    cpu_time = argc > 1 && strcmp(argv[1], "cpu-time") == 0;
    require(vl_device_open(&device, "cpu", THREADS, &error));
    printf("%s\n", vl_device_description(device));
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        bool wanted = argc == 1 + cpu_time;
        for (int a = 1; a < argc; a++)
            wanted |= strcmp(argv[a], all[i].name) == 0;
        if (wanted)
            all[i].run();
    }
    vl_device_close(device);
    return 0;
}
