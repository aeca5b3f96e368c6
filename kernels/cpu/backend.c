/* The CPU backend: its context and its table. */
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/cpu/cpu.h"
#include "trainer/base/mem.h"

void *vl_cpu_alloc(size_t count, size_t size)
{
    void *memory = vl_alloc_aligned(count, size);
#ifdef MADV_HUGEPAGE
    size_t page = (size_t)2 << 20, bytes = memory ? count * size / page * page : 0;
    if (bytes > 0 && (uintptr_t)memory % page == 0)
        madvise(memory, bytes, MADV_HUGEPAGE); /* advice: refusing it does no harm */
#endif
    return memory;
}

void *vl_cpu_scratch_get(vl_cpu *cpu, vl_cpu_scratch slot, size_t count, size_t size)
{
    size_t bytes;
    if (!vl_mul_size(&bytes, count, size))
        return NULL;
    if (bytes > cpu->scratch[slot].bytes) {
        vl_free(cpu->scratch[slot].memory);
        cpu->scratch[slot].memory = vl_cpu_alloc(bytes, 1);
        cpu->scratch[slot].bytes = cpu->scratch[slot].memory ? bytes : 0;
    }
    return cpu->scratch[slot].memory;
}

static void cpu_close(void *context)
{
    vl_cpu *cpu = context;
    if (cpu->stream)
        dnnl_stream_destroy(cpu->stream);
    if (cpu->engine)
        dnnl_engine_destroy(cpu->engine);
    for (int i = 0; i < SCRATCH_COUNT; i++)
        vl_free(cpu->scratch[i].memory);
    vl_free(cpu);
}

static vl_status cpu_open(void **context, int index, int threads, vl_error *err)
{
    (void)index;
    vl_cpu *cpu = vl_calloc(1, sizeof *cpu);
    if (!cpu)
        return vl_fail_nomem(err, "CPU device");
    int available = omp_get_num_procs();
    cpu->threads = threads > 0 ? threads : available;
    /* One OpenMP pool serves our loops, oneDNN and OpenBLAS: its size is the process's. */
    omp_set_num_threads(cpu->threads);
#if defined(__x86_64__) && !defined(VL_CPU_MOST)
    cpu->has_bf16_gemm =
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    cpu->has_avx512_bf16 = cpu->has_bf16_gemm && __builtin_cpu_supports("avx512bf16");
#endif
    if (dnnl_engine_create(&cpu->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&cpu->stream, cpu->engine, dnnl_stream_default_flags) != dnnl_success) {
        cpu_close(cpu);
        return vl_fail(err, VL_EDEVICE, "oneDNN cannot start on this processor");
    }
    *context = cpu;
    return VL_OK;
}

void vl_cpu_limit(vl_device *device, vl_cpu_level level)
{
    vl_cpu *cpu = device->context;
    cpu->has_bf16_gemm = cpu->has_bf16_gemm && level >= VL_CPU_AVX512;
    cpu->has_avx512_bf16 = cpu->has_avx512_bf16 && level >= VL_CPU_AVX512_BF16;
}

static void cpu_describe(void *context, char *text, size_t size, int *threads)
{
    const vl_cpu *cpu = context;
    const dnnl_version_t *version = dnnl_version();
    const char *isa = cpu->has_avx512_bf16 ? "AVX-512 with BF16" : cpu->has_bf16_gemm ? "AVX-512" : "no AVX-512";
    snprintf(text, size, "CPU, %d threads, %s, oneDNN %d.%d.%d", cpu->threads, isa, version->major, version->minor,
             version->patch);
    *threads = cpu->threads;
}

static vl_status cpu_alloc(void *context, void **out, size_t bytes, vl_error *err)
{
    (void)context;
    *out = vl_cpu_alloc(bytes, 1);
    return *out ? VL_OK : vl_fail(err, VL_ENOMEM, "out of memory: %zu bytes on the CPU", bytes);
}

static void cpu_free(void *context, void *memory)
{
    (void)context;
    vl_free(memory);
}

static void copy_rows(void *to, size_t to_stride, const void *from, size_t from_stride, size_t rows, size_t width)
{
    if (to_stride == width && from_stride == width)
        memcpy(to, from, rows * width);
    else
        for (size_t i = 0; i < rows; i++)
            memcpy((char *)to + i * to_stride, (const char *)from + i * from_stride, width);
}

static vl_status cpu_read(void *context, void *host, const vl_tensor *t, vl_error *err)
{
    (void)context, (void)err;
    size_t element = vl_dtype_size(t->dtype), width = (size_t)t->shape[t->ndim - 1] * element;
    copy_rows(host, width, t->data, (size_t)t->row_stride * element, t->ndim == 2 ? (size_t)t->shape[0] : 1, width);
    return VL_OK;
}

static vl_status cpu_write(void *context, const vl_tensor *t, const void *host, vl_error *err)
{
    (void)context, (void)err;
    size_t element = vl_dtype_size(t->dtype), width = (size_t)t->shape[t->ndim - 1] * element;
    copy_rows(t->data, (size_t)t->row_stride * element, host, width, t->ndim == 2 ? (size_t)t->shape[0] : 1, width);
    return VL_OK;
}

static vl_status cpu_sync(void *context, vl_error *err)
{
    (void)context, (void)err;
    return VL_OK;
}

static vl_status cpu_zero(void *context, vl_tensor out, vl_error *err)
{
    (void)context, (void)err;
    size_t element = vl_dtype_size(out.dtype), width = (size_t)out.shape[out.ndim - 1] * element;
    size_t rows = out.ndim == 2 ? (size_t)out.shape[0] : 1;
    for (size_t i = 0; i < rows; i++)
        memset((char *)out.data + i * (size_t)out.row_stride * element, 0, width);
    return VL_OK;
}

const vl_backend vl_backend_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .read = cpu_read,
    .write = cpu_write,
    .sync = cpu_sync,
    .zero = cpu_zero,
    .matrix_new = cpu_matrix_new,
    .matrix_free = cpu_matrix_free,
    .matrix_is_narrow = cpu_matrix_is_narrow,
    .linear = cpu_linear,
    .gemm = cpu_gemm,
    .embed = cpu_embed,
    .norm = cpu_norm,
    .norm_backward = cpu_norm_backward,
    .rope = cpu_rope,
    .attention = cpu_attention,
    .activation = cpu_activation,
    .add = cpu_add,
    .patchify = cpu_patchify,
    .mix_rows = cpu_mix_rows,
    .cast = cpu_cast,
    .logsumexp = cpu_logsumexp,
    .topk = cpu_topk,
    .metrics = cpu_metrics,
    .unembed_loss = cpu_unembed_loss,
    .column_sum = cpu_column_sum,
    .sum_squares = cpu_sum_squares,
    .take_rows = cpu_take_rows,
    .pack_rows = cpu_pack_rows,
    .normalise = cpu_normalise,
    .loss_total = cpu_loss_total,
    .step_scale = cpu_step_scale,
    .sgd = cpu_sgd,
    .adam = cpu_adam,
    .peak_new = cpu_peak_new,
    .peak_run = cpu_peak_run,
    .peak_free = cpu_peak_free,
};
