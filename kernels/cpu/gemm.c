/* Matrix products, by oneDNN: fp32, and bf16 x bf16 -> fp32 on the processor's bf16 instructions. */
#include <stdio.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

vl_status vl_cpu_sgemm(const vl_gemm_args *a, vl_error *err)
{
    int64_t m = a->out.shape[0], n = a->out.shape[1], k = a->a.shape[a->transpose_a ? 0 : 1];
    dnnl_status_t status =
        dnnl_sgemm(a->transpose_a ? 'T' : 'N', a->transpose_b ? 'T' : 'N', m, n, k, a->alpha, a->a.data,
                   a->a.row_stride, a->b.data, a->b.row_stride, a->beta, a->out.data, a->out.row_stride);
    return status == dnnl_success ? VL_OK : vl_fail(err, VL_EDEVICE, "oneDNN sgemm failed (%d)", status);
}

/* Owns what one matmul needs; freed in one place. */
typedef struct matmul_parts {
    dnnl_primitive_attr_t attributes;
    dnnl_post_ops_t post_ops;
    dnnl_primitive_desc_t description;
    dnnl_primitive_t primitive;
    dnnl_memory_t source, weight, bias, out;
} matmul_parts;

static void matmul_clear(matmul_parts *p)
{
    dnnl_memory_destroy(p->source);
    dnnl_memory_destroy(p->weight);
    dnnl_memory_destroy(p->bias);
    dnnl_memory_destroy(p->out);
    dnnl_primitive_destroy(p->primitive);
    dnnl_primitive_desc_destroy(p->description);
    dnnl_post_ops_destroy(p->post_ops);
    dnnl_primitive_attr_destroy(p->attributes);
}

static dnnl_status_t describe(dnnl_memory_desc_t *out, int64_t rows, int64_t columns, dnnl_data_type_t type,
                              int64_t row_stride, int64_t column_stride)
{
    dnnl_dims_t dims = {rows, columns}, strides = {row_stride, column_stride};
    return dnnl_memory_desc_init_by_strides(out, 2, dims, type, strides);
}

#define DNNL_TRY(call)                                                                                                 \
    do {                                                                                                               \
        status = (call);                                                                                               \
        if (status != dnnl_success)                                                                                    \
            goto done;                                                                                                 \
    } while (0)

vl_status vl_cpu_bf16_gemm(vl_cpu *cpu, const vl_cpu_bf16_args *a, vl_error *err)
{
    matmul_parts p = {0};
    dnnl_memory_desc_t source, weight, out, bias;
    dnnl_matmul_desc_t operation;
    dnnl_status_t status;
    DNNL_TRY(describe(&source, a->m, a->k, dnnl_bf16, a->source_row, a->source_column));
    DNNL_TRY(describe(&weight, a->k, a->n, dnnl_bf16, a->weight_row, a->weight_column));
    DNNL_TRY(describe(&out, a->m, a->n, dnnl_f32, a->out_row, 1));
    DNNL_TRY(describe(&bias, 1, a->n, dnnl_f32, a->n, 1));
    DNNL_TRY(dnnl_matmul_desc_init(&operation, &source, &weight, a->bias ? &bias : NULL, &out));
    DNNL_TRY(dnnl_primitive_attr_create(&p.attributes));
    if (a->alpha != 1)
        DNNL_TRY(dnnl_primitive_attr_set_output_scales(p.attributes, 1, 0, &a->alpha));
    if (a->beta != 0) {
        DNNL_TRY(dnnl_post_ops_create(&p.post_ops));
        DNNL_TRY(dnnl_post_ops_append_sum(p.post_ops, a->beta));
        DNNL_TRY(dnnl_primitive_attr_set_post_ops(p.attributes, p.post_ops));
    }
    /* Created anew on every call: oneDNN keeps the compiled kernels in a cache of its own. */
    DNNL_TRY(dnnl_primitive_desc_create(&p.description, &operation, p.attributes, cpu->engine, NULL));
    DNNL_TRY(dnnl_primitive_create(&p.primitive, p.description));
    DNNL_TRY(dnnl_memory_create(&p.source, &source, cpu->engine, (void *)(uintptr_t)a->source));
    DNNL_TRY(dnnl_memory_create(&p.weight, &weight, cpu->engine, (void *)(uintptr_t)a->weight));
    DNNL_TRY(dnnl_memory_create(&p.out, &out, cpu->engine, a->out));
    dnnl_exec_arg_t arguments[4] = {
        {DNNL_ARG_SRC, p.source}, {DNNL_ARG_WEIGHTS, p.weight}, {DNNL_ARG_DST, p.out}, {0, NULL}};
    if (a->bias) {
        DNNL_TRY(dnnl_memory_create(&p.bias, &bias, cpu->engine, (void *)(uintptr_t)a->bias));
        arguments[3] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, p.bias};
    }
    DNNL_TRY(dnnl_primitive_execute(p.primitive, cpu->stream, a->bias ? 4 : 3, arguments));
    DNNL_TRY(dnnl_stream_wait(cpu->stream));
done:
    matmul_clear(&p);
    return status == dnnl_success ? VL_OK
                                  : vl_fail(err, status == dnnl_out_of_memory ? VL_ENOMEM : VL_EDEVICE,
                                            "oneDNN bf16 matmul failed (%d)", status);
}

/* What beta multiplies, in the place of the result. */
static void copy_c(const vl_gemm_args *a)
{
    for (int64_t i = 0; a->c.data && a->beta != 0 && i < a->out.shape[0]; i++)
        memcpy(row_of(a->out, i), row_of(a->c, i), (size_t)a->out.shape[1] * sizeof(float));
}

vl_status cpu_gemm(void *context, const vl_gemm_args *a, vl_error *err)
{
    vl_cpu *cpu = context;
    copy_c(a);
    if (!a->fast || !cpu->has_bf16_gemm)
        return vl_cpu_sgemm(a, err);
    int64_t m = a->out.shape[0], n = a->out.shape[1], k = a->a.shape[a->transpose_a ? 0 : 1];
    uint16_t *left = vl_cpu_scratch_get(cpu, SCRATCH_SOURCE, (size_t)(m * k), 2);
    uint16_t *right = vl_cpu_scratch_get(cpu, SCRATCH_WEIGHT, (size_t)(k * n), 2);
    if (!left || !right)
        return vl_fail(err, VL_ENOMEM, "out of memory: bf16 operands of a product");
    vl_cpu_to_bf16(left, a->a, cpu->threads);
    vl_cpu_to_bf16(right, a->b, cpu->threads);
    vl_cpu_bf16_args product = {
        .m = m,
        .n = n,
        .k = k,
        .source = left,
        .weight = right,
        .out = a->out.data,
        .out_row = a->out.row_stride,
        .source_row = a->transpose_a ? 1 : k,
        .source_column = a->transpose_a ? m : 1,
        .weight_row = a->transpose_b ? 1 : n,
        .weight_column = a->transpose_b ? k : 1,
        .alpha = a->alpha,
        .beta = a->beta,
    };
    return vl_cpu_bf16_gemm(cpu, &product, err);
}
