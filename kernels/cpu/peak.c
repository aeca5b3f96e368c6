/* oneDNN's matrix product with operands in its favourite layouts, for benchmarks to compare with. */
#include "kernels/cpu/cpu.h"
#include "kernels/peak.h"
#include "trainer/base/mem.h"

typedef struct cpu_peak {
    vl_cpu *cpu;
    dnnl_primitive_desc_t description;
    dnnl_primitive_t primitive;
    dnnl_memory_t source, weight, out;
} cpu_peak;

void cpu_peak_free(void *data)
{
    cpu_peak *p = data;
    if (!p)
        return;
    dnnl_memory_destroy(p->source);
    dnnl_memory_destroy(p->weight);
    dnnl_memory_destroy(p->out);
    dnnl_primitive_destroy(p->primitive);
    dnnl_primitive_desc_destroy(p->description);
    vl_free(p);
}

static dnnl_status_t fill(dnnl_memory_t memory, vl_dtype dtype)
{
    const dnnl_memory_desc_t *description;
    void *data;
    uint32_t state = 12345;
    dnnl_status_t status = dnnl_memory_get_memory_desc(memory, &description);
    if (status == dnnl_success)
        status = dnnl_memory_get_data_handle(memory, &data);
    size_t n = status == dnnl_success ? dnnl_memory_desc_get_size(description) / vl_dtype_size(dtype) : 0;
    for (size_t i = 0; i < n; i++) {
        float value = vl_peak_uniform(&state, 0.1f);
        if (dtype == VL_BF16)
            ((uint16_t *)data)[i] = vl_f32_to_bf16(value);
        else
            ((float *)data)[i] = value;
    }
    return status;
}

#define DNNL_TRY(call)                                                                                                 \
    do {                                                                                                               \
        dnnl_status_t status_ = (call);                                                                                \
        if (status_ != dnnl_success)                                                                                   \
            return status_;                                                                                            \
    } while (0)

static dnnl_status_t prepare(cpu_peak *p, const vl_peak_args *a)
{
    dnnl_memory_desc_t source, weight, out;
    dnnl_matmul_desc_t operation;
    dnnl_data_type_t type = a->dtype == VL_BF16 ? dnnl_bf16 : dnnl_f32;
    DNNL_TRY(dnnl_memory_desc_init_by_tag(&source, 2, (dnnl_dims_t){a->m, a->k}, type, dnnl_ab));
    DNNL_TRY(dnnl_memory_desc_init_by_tag(&weight, 2, (dnnl_dims_t){a->k, a->n}, type, dnnl_format_tag_any));
    DNNL_TRY(dnnl_memory_desc_init_by_tag(&out, 2, (dnnl_dims_t){a->m, a->n}, dnnl_f32, dnnl_ab));
    DNNL_TRY(dnnl_matmul_desc_init(&operation, &source, &weight, NULL, &out));
    DNNL_TRY(dnnl_primitive_desc_create(&p->description, &operation, NULL, p->cpu->engine, NULL));
    DNNL_TRY(dnnl_primitive_create(&p->primitive, p->description));
    const dnnl_memory_desc_t *best = dnnl_primitive_desc_query_md(p->description, dnnl_query_weights_md, 0);
    DNNL_TRY(dnnl_memory_create(&p->source, &source, p->cpu->engine, DNNL_MEMORY_ALLOCATE));
    DNNL_TRY(dnnl_memory_create(&p->weight, best, p->cpu->engine, DNNL_MEMORY_ALLOCATE));
    DNNL_TRY(dnnl_memory_create(&p->out, &out, p->cpu->engine, DNNL_MEMORY_ALLOCATE));
    DNNL_TRY(fill(p->source, a->dtype));
    return fill(p->weight, a->dtype);
}

vl_status cpu_peak_new(void *context, void **out, const vl_peak_args *args, vl_error *err)
{
    vl_cpu *cpu = context;
    if (args->dtype == VL_BF16 && !cpu->has_bf16_gemm)
        return vl_fail(err, VL_EUNSUPPORTED, "this processor multiplies no bfloat16");
    cpu_peak *p = vl_calloc(1, sizeof *p);
    if (!p)
        return vl_fail_nomem(err, "operands of a product");
    p->cpu = cpu;
    dnnl_status_t status = prepare(p, args);
    if (status != dnnl_success) {
        cpu_peak_free(p);
        return vl_fail(err, status == dnnl_out_of_memory ? VL_ENOMEM : VL_EDEVICE, "oneDNN matmul failed (%d)", status);
    }
    *out = p;
    return VL_OK;
}

vl_status cpu_peak_run(void *data, vl_error *err)
{
    cpu_peak *p = data;
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, p->source}, {DNNL_ARG_WEIGHTS, p->weight}, {DNNL_ARG_DST, p->out}};
    dnnl_status_t status = dnnl_primitive_execute(p->primitive, p->cpu->stream, 3, arguments);
    if (status == dnnl_success)
        status = dnnl_stream_wait(p->cpu->stream);
    return status == dnnl_success ? VL_OK : vl_fail(err, VL_EDEVICE, "oneDNN matmul failed (%d)", status);
}
