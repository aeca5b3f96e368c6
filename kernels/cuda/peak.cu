/* cuBLASLt's product of operands that lie dense on the device, for benchmarks to compare with. */
#include "kernels/cuda/context.h"

typedef struct cuda_peak {
    vl_cuda *cuda;
    vl_cuda_product product;
    void *a, *b, *out;
} cuda_peak;

void vl_cuda_peak_free(void *data)
{
    cuda_peak *p = (cuda_peak *)data;
    if (!p)
        return;
    vl_cuda_free(p->cuda, p->a);
    vl_cuda_free(p->cuda, p->b);
    vl_cuda_free(p->cuda, p->out);
    vl_free(p);
}

/* Rows of numbers, rounded to `dtype`. */
static vl_status operand(cuda_peak *p, void **out, vl_dtype dtype, int64_t rows, int64_t columns, vl_error *err)
{
    size_t n = (size_t)(rows * columns);
    uint32_t state = 12345;
    float *values = (float *)vl_calloc(n, sizeof *values);
    if (!values)
        return vl_fail_nomem(err, "operands of a product");
    for (size_t i = 0; i < n; i++)
        values[i] = vl_peak_uniform(&state, 0.1f);
    void *wide = NULL;
    vl_status status = vl_cuda_alloc(p->cuda, out, n * vl_dtype_size(dtype), err);
    if (status == VL_OK)
        status = vl_cuda_alloc(p->cuda, &wide, n * sizeof *values, err);
    vl_tensor from = vl_tensor_2d(wide, VL_F32, rows, columns);
    if (status == VL_OK)
        status = vl_cuda_write(p->cuda, &from, values, err);
    if (status == VL_OK)
        status = vl_cuda_convert(p->cuda, vl_tensor_2d(*out, dtype, rows, columns), from, err);
    if (wide)
        vl_cuda_free(p->cuda, wide);
    vl_free(values);
    return status;
}

static vl_status prepare(cuda_peak *p, const vl_peak_args *args, vl_error *err)
{
    VL_TRY(operand(p, &p->a, args->dtype, args->m, args->k, err));
    VL_TRY(operand(p, &p->b, args->dtype, args->n, args->k, err));
    VL_TRY(vl_cuda_alloc(p->cuda, &p->out, (size_t)(args->m * args->n) * sizeof(float), err));
    p->product.m = args->m, p->product.n = args->n, p->product.k = args->k;
    p->product.a = p->a, p->product.b = p->b, p->product.out = (float *)p->out;
    p->product.a_row = p->product.b_row = args->k, p->product.out_row = args->n;
    p->product.transpose_b = true; /* as a head lies in its file */
    p->product.type = args->dtype, p->product.out_type = VL_F32, p->product.alpha = 1.0f;
    return VL_OK;
}

vl_status vl_cuda_peak_new(void *context, void **out, const vl_peak_args *args, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    if (args->dtype == VL_BF16 && !cuda->has_bf16)
        return vl_fail(err, VL_EUNSUPPORTED, "this device multiplies no bfloat16");
    cuda_peak *p = (cuda_peak *)vl_calloc(1, sizeof *p);
    if (!p)
        return vl_fail_nomem(err, "operands of a product");
    p->cuda = cuda;
    vl_status status = prepare(p, args, err);
    if (status == VL_OK)
        *out = p;
    else
        vl_cuda_peak_free(p);
    return status;
}

vl_status vl_cuda_peak_run(void *data, vl_error *err)
{
    cuda_peak *p = (cuda_peak *)data;
    VL_TRY(vl_cuda_multiply(p->cuda, &p->product, err));
    return vl_cuda_check(cudaStreamSynchronize(p->cuda->stream), "a product", err);
}
