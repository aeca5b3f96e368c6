/* kernels/cpu/cpu.h - what the files of the CPU backend share. */
#ifndef VL_KERNELS_CPU_H
#define VL_KERNELS_CPU_H

#include <dnnl.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"
#include "trainer/base/half.h"
#include "trainer/base/status.h"

/* Row functions are compiled once per instruction set and chosen at load time. Sanitizers run before the resolver can,
 * and clang has no clones of this kind: those builds take the plain version. Work inside `#pragma omp parallel` is
 * outlined before cloning: keep the loop over rows outside and call a VL_SIMD function for one row. */
#if defined(VL_CPU_MOST) && VL_CPU_MOST == 3 /* tests build the backend once more for each lesser processor */
#define VL_SIMD __attribute__((noinline, target("arch=x86-64-v3")))
#elif defined(VL_CPU_MOST)
#define VL_SIMD __attribute__((noinline))
#elif defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define VL_SIMD __attribute__((noinline, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VL_SIMD __attribute__((noinline))
#endif

/* Growing work areas, kept between calls. */
typedef enum vl_cpu_scratch {
    SCRATCH_SOURCE = 0, /* bf16 copy of the left operand */
    SCRATCH_WEIGHT,     /* widened or rounded block of a weight matrix */
    SCRATCH_SCORES,     /* attention scores, one block per thread */
    SCRATCH_LOGITS,     /* student logits of a row chunk */
    SCRATCH_GRADIENT,   /* bf16 gradient of a row chunk, or partial sums */
    SCRATCH_COUNT
} vl_cpu_scratch;

typedef struct vl_cpu {
    int threads;
    bool has_avx512_bf16; /* our own bf16 micro-kernel runs */
    bool has_bf16_gemm;   /* oneDNN multiplies bf16 (needs AVX-512) */
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct {
        void *memory;
        size_t bytes;
    } scratch[SCRATCH_COUNT];
} vl_cpu;

/* For tests: makes a CPU device behave as on a lesser processor. Call it before matrices are made on the device. */
typedef enum vl_cpu_level { VL_CPU_PLAIN = 0, VL_CPU_AVX512, VL_CPU_AVX512_BF16 } vl_cpu_level;
void vl_cpu_limit(vl_device *device, vl_cpu_level level);

/* As vl_alloc_aligned, on huge pages where the array is large and the system has them; freed with vl_free. Rows of
 * logits lie far apart: with small pages every one of them costs a page walk. */
void *vl_cpu_alloc(size_t count, size_t size);
/* At least `count * size` bytes, 64-byte aligned, valid until the next call for the same slot. NULL: out of memory. */
void *vl_cpu_scratch_get(vl_cpu *cpu, vl_cpu_scratch slot, size_t count, size_t size);

/* A weight matrix on the CPU. */
typedef struct vl_cpu_matrix {
    const void *host; /* [n_out, n_in] as given, or the aligned copy */
    void *owned;      /* an aligned copy, where the original was misaligned */
    vl_dtype dtype;
    int64_t n_out, n_in;
    bool bf16; /* multiply in bf16 */
    /* resident and AVX512-BF16: packed for both directions (kernels/cpu/panel.h), or NULL */
    uint32_t *forward_panels, *backward_panels;
} vl_cpu_matrix;

vl_status cpu_matrix_new(void *context, void **data, const vl_matrix_args *args, vl_error *err);
void cpu_matrix_free(void *context, void *data);
bool cpu_matrix_is_narrow(const void *data);

/* C = alpha op(A) op(B) + beta C, fp32, row-major, through oneDNN. */
vl_status vl_cpu_sgemm(const vl_gemm_args *args, vl_error *err);

/* out[m, n] = alpha * (source[m, k] * weight[k, n] + bias[n]) + beta * out, bf16 x bf16 -> fp32, through oneDNN. */
typedef struct vl_cpu_bf16_args {
    int64_t m, n, k;
    const uint16_t *source; /* element (i, p) at i * source_row + p * source_column */
    int64_t source_row, source_column;
    const uint16_t *weight; /* element (p, j) at p * weight_row + j * weight_column */
    int64_t weight_row, weight_column;
    float *out;
    int64_t out_row;
    const float *bias; /* [n] or NULL */
    float alpha, beta;
} vl_cpu_bf16_args;
vl_status vl_cpu_bf16_gemm(vl_cpu *cpu, const vl_cpu_bf16_args *args, vl_error *err);

/* out[m, n] = rounded x, densely. */
void vl_cpu_to_bf16(uint16_t *out, vl_tensor x, int threads);
/* out[i] = widened, for n elements of a 16-bit or fp32 row. */
void vl_cpu_widen_row(float *out, const void *in, vl_dtype dtype, int64_t n);

/* max and log-sum-exp of a row of V logits. */
float vl_cpu_row_logsumexp(const float *logits, int64_t n);
vl_status cpu_linear(void *context, const vl_linear_args *args, vl_error *err);
vl_status cpu_gemm(void *context, const vl_gemm_args *args, vl_error *err);
vl_status cpu_embed(void *context, const vl_embed_args *args, vl_error *err);
vl_status cpu_norm(void *context, const vl_norm_args *args, vl_error *err);
vl_status cpu_norm_backward(void *context, const vl_norm_backward_args *args, vl_error *err);
vl_status cpu_rope(void *context, const vl_rope_args *args, vl_error *err);
vl_status cpu_attention(void *context, const vl_attention_args *args, vl_error *err);
vl_status cpu_activation(void *context, const vl_activation_args *args, vl_error *err);
vl_status cpu_add(void *context, const vl_add_args *args, vl_error *err);
vl_status cpu_patchify(void *context, const vl_patchify_args *args, vl_error *err);
vl_status cpu_mix_rows(void *context, const vl_mix_rows_args *args, vl_error *err);
vl_status cpu_cast(void *context, const vl_cast_args *args, vl_error *err);
vl_status cpu_logsumexp(void *context, const vl_logsumexp_args *args, vl_error *err);
vl_status cpu_topk(void *context, const vl_topk_args *args, vl_error *err);
vl_status cpu_metrics(void *context, const vl_metrics_args *args, vl_error *err);
vl_status cpu_unembed_loss(void *context, const vl_unembed_loss_args *args, vl_error *err);
vl_status cpu_column_sum(void *context, const vl_column_sum_args *args, vl_error *err);
vl_status cpu_sum_squares(void *context, double *out, vl_tensor x, vl_error *err);
vl_status cpu_pack_rows(void *context, const vl_pack_rows_args *args, vl_error *err);
vl_status cpu_take_rows(void *context, const vl_take_rows_args *args, vl_error *err);
vl_status cpu_normalise(void *context, const vl_normalise_args *args, vl_error *err);
vl_status cpu_loss_total(void *context, const vl_loss_total_args *args, vl_error *err);
vl_status cpu_step_scale(void *context, const vl_step_scale_args *args, vl_error *err);
vl_status cpu_sgd(void *context, const vl_sgd_args *args, vl_error *err);
vl_status cpu_adam(void *context, const vl_adam_args *args, vl_error *err);
vl_status cpu_peak_new(void *context, void **data, const vl_peak_args *args, vl_error *err);
vl_status cpu_peak_run(void *data, vl_error *err);
void cpu_peak_free(void *data);

static inline float *row_of(vl_tensor t, int64_t row)
{
    return (float *)t.data + row * t.row_stride;
}

#endif
