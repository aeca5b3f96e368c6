/* How fast the pieces of the CPU backend are on this machine; `vlens bench` measures what they make up.
 *
 * Usage: bench_ops [cpu-time] [name ...]: kernel, attention, rows, products (default all). Each figure is the median of
 * several rounds with the best one in brackets. On a machine that is busy with other work, `OMP_WAIT_POLICY=passive
 * bench_ops cpu-time` counts the time that the threads ran and not the time that passed. */
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/backend.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/panel.h"
#include "kernels/peak.h"
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

/* `work` in giga-units. */
static void report(timing *t, double work, const char *unit)
{
    double middle = work / median(t);
    printf("  %-34s %8.1f [%8.1f] %s\n", t->name, middle, work / t->seconds[0], unit);
    fflush(stdout);
}

static vl_tensor new_tensor(vl_dtype dtype, int64_t rows, int64_t columns)
{
    vl_tensor t;
    require(vl_tensor_new(&t, device, dtype, rows, columns, &error));
    return t;
}

static void fill(vl_tensor t, float scale)
{
    uint32_t state = 12345;
    for (int64_t i = 0; i < t.shape[0]; i++)
        for (int64_t j = 0; j < t.shape[1]; j++) {
            float value = vl_peak_uniform(&state, scale);
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
    report(&t, flops / 1e9, "GF/s");
}

static void bench_kernel(void)
{
    printf("micro-kernel, %d threads\n", THREADS);
    kernel_rounds("right panels in L1 (32 KiB)", 128, 32 << 10);
    kernel_rounds("right panels in L2 (512 KiB)", 288, 512 << 10);
    kernel_rounds("right panels in L3 (8 MiB)", 288, 8 << 20);
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
    report(&t, 4e-9 * pairs * (double)heads * (double)width, "GF/s");
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
        report(&t[f], 1e-9 * M * N, "Gelem/s");
    vl_tensor all[] = {x, y, half, weight, lse, other};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        vl_device_free(device, all[i].data);
}

/* The adapter's own products: from which width on bf16 is worth its conversions. */
static void bench_products(void)
{
    static const int widths[] = {64, 128, 192, 256, 384, 512, 768, 1024, 2048};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        int64_t d = widths[i];
        vl_tensor x = random_tensor(VL_F32, d, d, 1), y = random_tensor(VL_F32, d, d, 1);
        vl_tensor out = new_tensor(VL_F32, d, d);
        timing t[2] = {{.name = "fp32"}, {.name = "bf16"}};
        int calls = 1 + (int)(400000000 / (d * d * d));
        for (int round = -1; round < ROUNDS; round++)
            for (int fast = 0; fast < 2; fast++) {
                double start = now();
                for (int call = 0; call < calls; call++)
                    require(vl_op_gemm(
                        device,
                        &(vl_gemm_args){.out = out, .a = x, .b = y, .transpose_b = true, .alpha = 1, .fast = fast},
                        &error));
                if (round >= 0)
                    t[fast].seconds[t[fast].n++] = now() - start;
            }
        printf("product of two %d x %d\n", (int)d, (int)d);
        for (int fast = 0; fast < 2; fast++)
            report(&t[fast], 2e-9 * (double)calls * (double)(d * d * d), "GFLOP/s");
        vl_device_free(device, x.data);
        vl_device_free(device, y.data);
        vl_device_free(device, out.data);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {
        {"kernel", bench_kernel}, {"attention", bench_attention}, {"rows", bench_rows}, {"products", bench_products}};
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
