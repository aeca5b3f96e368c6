/* Products with frozen weights.
 *
 * A matrix lies on the device as it is stored, or, where it does not fit, stays in the mapped file and travels through
 * the stages (transfer.cu) block by block on every use: while one block is multiplied the next is on its way.
 * fp16 and bf16 weights multiply in their own type, with fp32 accumulation; what is asked for exactly multiplies in
 * fp32. Weights of another type than that of the product are converted block by block. */
#include <string.h>

#include "kernels/cuda/context.h"

enum { STREAM_BYTES = 32 << 20, CONVERT_ELEMENTS = 16 << 20 };

static int64_t rows_of_block(int64_t limit, int64_t row, int64_t rows)
{
    int64_t n = limit / row > 0 ? limit / row : 1;
    return n < rows ? n : rows;
}

/* Rows first.. of the host matrix, through a stage. The caller releases *out when it has queued what reads it. */
static vl_status upload_rows(vl_cuda *cuda, vl_cuda_stage **out, const vl_cuda_matrix *w, int64_t first, int64_t rows,
                             vl_error *err)
{
    size_t row = (size_t)w->n_in * vl_dtype_size(w->host_dtype);
    VL_TRY(vl_cuda_stage_get(cuda, (size_t)rows * row, out, err));
    memcpy((*out)->host, (const char *)w->host + (size_t)first * row, (size_t)rows * row);
    return vl_cuda_stage_upload(cuda, *out, (size_t)rows * row, err);
}

size_t vl_cuda_conversion_bytes(const vl_cuda_matrix *w)
{
    if ((w->device ? w->dtype : w->host_dtype) == w->product)
        return 0;
    return (size_t)(rows_of_block(CONVERT_ELEMENTS, w->n_in, w->n_out) * w->n_in) * vl_dtype_size(w->product);
}

static vl_status fill_device_copy(vl_cuda *cuda, vl_cuda_matrix *w, vl_error *err)
{
    int64_t step = rows_of_block(STREAM_BYTES, w->n_in * (int64_t)vl_dtype_size(w->host_dtype), w->n_out);
    size_t row = (size_t)w->n_in * vl_dtype_size(w->dtype);
    for (int64_t first = 0; first < w->n_out; first += step) {
        int64_t rows = w->n_out - first < step ? w->n_out - first : step;
        vl_cuda_stage *stage;
        VL_TRY(upload_rows(cuda, &stage, w, first, rows, err));
        vl_tensor out = vl_tensor_2d((char *)w->device + (size_t)first * row, w->dtype, rows, w->n_in);
        VL_TRY(vl_cuda_convert(cuda, out, vl_tensor_2d(stage->device, w->host_dtype, rows, w->n_in), err));
        VL_TRY(vl_cuda_stage_release(cuda, stage, err));
    }
    return VL_OK;
}

/* Devices without bf16 multiply such weights in fp32: fp16 would lose their range. */
static vl_dtype product_type(const vl_cuda *cuda, const vl_matrix_args *args)
{
    bool as_stored = args->precision == VL_PRECISION_AUTO;
    if (as_stored && args->dtype == VL_F16)
        return VL_F16;
    bool bf16 = args->precision == VL_PRECISION_FAST || (as_stored && args->dtype == VL_BF16);
    return bf16 && cuda->has_bf16 ? VL_BF16 : VL_F32;
}

bool vl_cuda_matrix_is_narrow(const void *data)
{
    return ((const vl_cuda_matrix *)data)->product != VL_F32;
}

vl_status vl_cuda_matrix_new(void *context, void **data, const vl_matrix_args *args, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    size_t bytes = 0;
    vl_cuda_matrix *w = (vl_cuda_matrix *)vl_calloc(1, sizeof *w);
    if (!w)
        return vl_fail_nomem(err, "weight matrix");
    w->host = args->host, w->host_dtype = w->dtype = args->dtype, w->n_out = args->n_out, w->n_in = args->n_in;
    w->product = product_type(cuda, args);
    if (w->product == VL_BF16 && args->resident) /* rounded once, for many uses */
        w->dtype = VL_BF16;
    vl_status status = VL_OK;
    if (!vl_mul_size(&bytes, (size_t)w->n_out, (size_t)w->n_in) || !vl_mul_size(&bytes, bytes, vl_dtype_size(w->dtype)))
        status = vl_fail_nomem(err, "weight matrix");
    else if (args->resident || vl_cuda_has_room(cuda, bytes))
        status = vl_cuda_alloc(cuda, &w->device, bytes, err);
    if (w->device)
        cuda->weights += w->bytes = bytes;
    else
        cuda->streamed += w->bytes = bytes;
    if (vl_cuda_conversion_bytes(w) > cuda->conversion)
        cuda->conversion = vl_cuda_conversion_bytes(w);
    if (status == VL_OK && w->device)
        status = fill_device_copy(cuda, w, err);
    if (status == VL_OK)
        *data = w;
    else
        vl_cuda_matrix_free(context, w);
    return status;
}

void vl_cuda_matrix_free(void *context, void *data)
{
    vl_cuda *cuda = (vl_cuda *)context;
    vl_cuda_matrix *w = (vl_cuda_matrix *)data;
    if (!w)
        return;
    *(w->device ? &cuda->weights : &cuda->streamed) -= w->bytes;
    vl_cuda_free(context, w->device);
    vl_free(w);
}

/* ---- linear ------------------------------------------------------------------------------------------------ */

/* What stays the same over the blocks of a matrix. */
typedef struct work {
    vl_cuda *cuda;
    const vl_linear_args *args;
    const vl_cuda_matrix *w;
    const void *x; /* in the type of the product */
    int64_t x_row;
    vl_dtype dtype; /* of the product */
    float alpha;
} work;

static vl_status multiply_block(const work *k, const void *weight, int64_t first, int64_t rows, vl_error *err)
{
    const vl_linear_args *a = k->args;
    size_t element = vl_dtype_size(k->dtype);
    vl_cuda_product p;
    memset(&p, 0, sizeof p);
    p.m = a->x.shape[0], p.a = k->x, p.a_row = k->x_row, p.b = weight, p.b_row = k->w->n_in;
    p.type = k->dtype, p.out_type = VL_F32, p.alpha = k->alpha, p.out_row = a->out.row_stride;
    if (a->transpose) { /* out += x[:, first..] W[first.., :] */
        p.n = k->w->n_in, p.k = rows, p.a = (const char *)k->x + (size_t)first * element;
        p.out = (float *)a->out.data, p.beta = a->accumulate || first > 0 ? 1.0f : 0.0f;
    } else { /* out[:, first..] = x W[first.., :]^T */
        p.n = rows, p.k = k->w->n_in, p.transpose_b = true;
        p.out = (float *)a->out.data + first, p.beta = a->accumulate ? 1.0f : 0.0f;
        p.bias = a->bias.data ? (const float *)a->bias.data + first : NULL;
    }
    return vl_cuda_multiply(k->cuda, &p, err);
}

/* A block as it lies on the device, converted first where its type is not the product's. */
static vl_status use_block(const work *k, void *block, vl_dtype dtype, int64_t first, int64_t rows, vl_error *err)
{
    void *weight = block;
    if (dtype != k->dtype) {
        int64_t n = rows * k->w->n_in;
        VL_TRY(vl_cuda_area_get(k->cuda, VL_CUDA_AREA_RIGHT, (size_t)n * vl_dtype_size(k->dtype), &weight, err));
        VL_TRY(vl_cuda_convert(k->cuda, vl_tensor_2d(weight, k->dtype, rows, k->w->n_in),
                               vl_tensor_2d(block, dtype, rows, k->w->n_in), err));
    }
    return multiply_block(k, weight, first, rows, err);
}

static vl_status run_blocks(const work *k, vl_error *err)
{
    const vl_cuda_matrix *w = k->w;
    int64_t row = w->n_in * (int64_t)vl_dtype_size(w->dtype), step = w->n_out;
    if (!w->device)
        step = rows_of_block(STREAM_BYTES, row, w->n_out);
    else if (w->dtype != k->dtype)
        step = rows_of_block(CONVERT_ELEMENTS, w->n_in, w->n_out);
    for (int64_t first = 0; first < w->n_out; first += step) {
        int64_t rows = w->n_out - first < step ? w->n_out - first : step;
        if (w->device) {
            VL_TRY(use_block(k, (char *)w->device + (size_t)(first * row), w->dtype, first, rows, err));
            continue;
        }
        vl_cuda_stage *stage;
        VL_TRY(upload_rows(k->cuda, &stage, w, first, rows, err));
        VL_TRY(use_block(k, stage->device, w->host_dtype, first, rows, err));
        VL_TRY(vl_cuda_stage_release(k->cuda, stage, err));
    }
    return VL_OK;
}

static work work_of(vl_cuda *cuda, const vl_linear_args *a, vl_tensor x, vl_dtype dtype)
{
    work k;
    k.cuda = cuda, k.args = a, k.w = (const vl_cuda_matrix *)a->weight->data;
    k.x = x.data, k.x_row = x.row_stride, k.dtype = dtype, k.alpha = 1;
    return k;
}

vl_status vl_cuda_linear_narrow(vl_cuda *cuda, const vl_linear_args *a, float alpha, vl_error *err)
{
    work k = work_of(cuda, a, a->x, ((const vl_cuda_matrix *)a->weight->data)->product);
    k.alpha = alpha;
    return run_blocks(&k, err);
}

/* fp16 cannot hold every activation: rows with large ones are scaled, before and after. */
static vl_status linear_fp16(vl_cuda *cuda, const vl_linear_args *a, vl_error *err)
{
    vl_tensor x;
    float *growth;
    VL_TRY(vl_cuda_narrow_rows(cuda, a->x, &x, &growth, err));
    work k = work_of(cuda, a, x, VL_F16);
    VL_TRY(run_blocks(&k, err));
    return vl_cuda_grow_rows(cuda, a->out, growth, (const float *)a->bias.data, err);
}

vl_status vl_cuda_linear(void *context, const vl_linear_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    vl_dtype product = ((const vl_cuda_matrix *)a->weight->data)->product;
    vl_tensor x = a->x;
    if (product == VL_F16 && !a->accumulate)
        return linear_fp16(cuda, a, err);
    if (product == VL_F16) /* what is there already must not be scaled */
        product = VL_F32;
    if (product == VL_BF16)
        VL_TRY(vl_cuda_narrow(cuda, VL_CUDA_AREA_LEFT, VL_BF16, a->x, &x, err));
    work k = work_of(cuda, a, x, product);
    return run_blocks(&k, err);
}

/* ---- gemm -------------------------------------------------------------------------------------------------- */

vl_status vl_cuda_gemm(void *context, const vl_gemm_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    vl_cuda_product p;
    memset(&p, 0, sizeof p);
    p.m = a->out.shape[0], p.n = a->out.shape[1], p.k = a->a.shape[a->transpose_a ? 0 : 1];
    p.a = a->a.data, p.a_row = a->a.row_stride, p.transpose_a = a->transpose_a;
    p.b = a->b.data, p.b_row = a->b.row_stride, p.transpose_b = a->transpose_b;
    p.out = a->out.data, p.out_row = a->out.row_stride, p.out_type = a->out.dtype;
    p.c = a->c.data, p.c_row = a->c.row_stride, p.alpha = a->alpha, p.beta = a->beta;
    p.type = a->a.dtype == VL_BF16 || (a->fast && cuda->has_bf16) ? VL_BF16 : VL_F32;
    if (p.type == VL_BF16) {
        vl_tensor left, right;
        VL_TRY(vl_cuda_narrow(cuda, VL_CUDA_AREA_LEFT, VL_BF16, a->a, &left, err));
        bool same = a->b.data == a->a.data && a->b.row_stride == a->a.row_stride; /* a Gram matrix */
        right = left;
        if (!same)
            VL_TRY(vl_cuda_narrow(cuda, VL_CUDA_AREA_RIGHT, VL_BF16, a->b, &right, err));
        p.a = left.data, p.a_row = left.row_stride, p.b = right.data, p.b_row = right.row_stride;
    }
    return vl_cuda_multiply(cuda, &p, err);
}

vl_dtype vl_cuda_gemm_dtype(void *context)
{
    return ((vl_cuda *)context)->has_bf16 ? VL_BF16 : VL_F32;
}
