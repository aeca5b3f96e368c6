/* Products with frozen weights.
 *
 * A matrix borrows the mapped file. In bf16 mode 16-bit weights go to oneDNN as they are (or rounded block by block
 * from fp16 and fp32); in fp32 mode they are widened block by block, so that no second copy of a weight ever exists. */
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/panel.h"
#include "trainer/base/mem.h"

enum { BLOCK_ELEMENTS = 4 << 20 }; /* of a widened block: 16 MiB of fp32 */

vl_status cpu_matrix_new(void *context, void **data, const vl_matrix_args *args, vl_error *err)
{
    vl_cpu *cpu = context;
    vl_cpu_matrix *matrix = vl_calloc(1, sizeof *matrix);
    if (!matrix)
        return vl_fail_nomem(err, "weight matrix");
    *matrix = (vl_cpu_matrix){.host = args->host, .dtype = args->dtype, .n_out = args->n_out, .n_in = args->n_in};
    matrix->bf16 = cpu->has_bf16_gemm && (args->precision == VL_PRECISION_FAST ||
                                          (args->precision == VL_PRECISION_AUTO && args->dtype == VL_BF16));
    size_t element = vl_dtype_size(args->dtype), count;
    if (!vl_mul_size(&count, (size_t)args->n_out, (size_t)args->n_in)) {
        vl_free(matrix);
        return vl_fail_nomem(err, "weight matrix");
    }
    /* safetensors promises no alignment; vector loads do not care, but elements must not straddle */
    if ((uintptr_t)args->host % element != 0) {
        matrix->owned = vl_alloc_aligned(count, element);
        if (!matrix->owned) {
            vl_free(matrix);
            return vl_fail_nomem(err, "aligned copy of a weight matrix");
        }
        memcpy(matrix->owned, args->host, count * element);
        matrix->host = matrix->owned;
    }
    if (args->resident && matrix->bf16 && cpu->has_avx512_bf16) {
        vl_status status = vl_panels_new(&matrix->forward_panels, &matrix->backward_panels, matrix, err);
        if (status != VL_OK) {
            cpu_matrix_free(context, matrix);
            return status;
        }
    }
    *data = matrix;
    return VL_OK;
}

bool cpu_matrix_is_narrow(const void *data)
{
    return ((const vl_cpu_matrix *)data)->bf16;
}

void cpu_matrix_free(void *context, void *data)
{
    (void)context;
    vl_cpu_matrix *matrix = data;
    if (!matrix)
        return;
    vl_free(matrix->owned);
    vl_free(matrix->forward_panels);
    vl_free(matrix->backward_panels);
    vl_free(matrix);
}

static const void *weight_row(const vl_cpu_matrix *w, int64_t row)
{
    return (const char *)w->host + (size_t)(row * w->n_in) * vl_dtype_size(w->dtype);
}

static void add_bias(const vl_linear_args *a)
{
    const float *bias = a->bias.data;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a->out.shape[0]; i++) {
        float *out = row_of(a->out, i);
        for (int64_t j = 0; j < a->out.shape[1]; j++)
            out[j] += bias[j];
    }
}

/* One block of weight rows as fp32 operand of the product. */
static vl_status multiply_block(const vl_linear_args *a, const float *block, int64_t first, int64_t rows, vl_error *err)
{
    const vl_cpu_matrix *w = a->weight->data;
    vl_tensor weight = vl_tensor_2d((void *)(uintptr_t)block, VL_F32, rows, w->n_in);
    vl_gemm_args product = {.a = a->x, .b = weight, .alpha = 1, .beta = a->accumulate ? 1 : 0};
    if (a->transpose) {
        product.out = a->out;
        product.a = vl_tensor_columns(a->x, first, rows);
        if (first > 0)
            product.beta = 1;
    } else {
        product.out = vl_tensor_columns(a->out, first, rows);
        product.transpose_b = true;
    }
    return vl_cpu_sgemm(&product, err);
}

static vl_status linear_fp32(vl_cpu *cpu, const vl_linear_args *a, vl_error *err)
{
    const vl_cpu_matrix *w = a->weight->data;
    if (w->dtype == VL_F32) {
        VL_TRY(multiply_block(a, w->host, 0, w->n_out, err));
    } else {
        int64_t step = BLOCK_ELEMENTS / w->n_in > 0 ? BLOCK_ELEMENTS / w->n_in : 1;
        step = step < w->n_out ? step : w->n_out;
        float *block = vl_cpu_scratch_get(cpu, SCRATCH_WEIGHT, (size_t)(step * w->n_in), 4);
        if (!block)
            return vl_fail_nomem(err, "widened weights");
        for (int64_t first = 0; first < w->n_out; first += step) {
            int64_t rows = w->n_out - first < step ? w->n_out - first : step;
#pragma omp parallel for schedule(static)
            for (int64_t i = 0; i < rows; i++)
                vl_cpu_widen_row(block + i * w->n_in, weight_row(w, first + i), w->dtype, w->n_in);
            VL_TRY(multiply_block(a, block, first, rows, err));
        }
    }
    if (a->bias.data)
        add_bias(a);
    return VL_OK;
}

static vl_status linear_bf16(vl_cpu *cpu, const vl_linear_args *a, vl_error *err)
{
    const vl_cpu_matrix *w = a->weight->data;
    int64_t m = a->x.shape[0], k = a->x.shape[1];
    uint16_t *source = vl_cpu_scratch_get(cpu, SCRATCH_SOURCE, (size_t)(m * k), 2);
    if (!source)
        return vl_fail_nomem(err, "bf16 activations");
    vl_cpu_to_bf16(source, a->x, cpu->threads);
    bool rounded = w->dtype != VL_BF16;
    int64_t step = rounded ? 2 * BLOCK_ELEMENTS / w->n_in + 1 : w->n_out;
    step = step < w->n_out ? step : w->n_out;
    uint16_t *block = rounded ? vl_cpu_scratch_get(cpu, SCRATCH_WEIGHT, (size_t)(step * w->n_in), 2) : NULL;
    if (rounded && !block)
        return vl_fail_nomem(err, "rounded weights");
    for (int64_t first = 0; first < w->n_out; first += step) {
        int64_t rows = w->n_out - first < step ? w->n_out - first : step;
        if (rounded)
            vl_cpu_round_rows(block, w, first, rows);
        const uint16_t *weight = rounded ? block : weight_row(w, first);
        vl_cpu_bf16_args product = {.m = m,
                                    .k = k,
                                    .n = rows,
                                    .source = source,
                                    .source_row = k,
                                    .source_column = 1,
                                    .weight = weight,
                                    .weight_row = 1,
                                    .weight_column = w->n_in,
                                    .out = (float *)a->out.data + first,
                                    .out_row = a->out.row_stride,
                                    .bias = a->bias.data ? (const float *)a->bias.data + first : NULL,
                                    .alpha = 1,
                                    .beta = a->accumulate ? 1 : 0};
        if (a->transpose) {
            product.k = rows;
            product.n = w->n_in;
            product.source = source + first;
            product.weight_row = w->n_in;
            product.weight_column = 1;
            product.out = a->out.data;
            product.beta = a->accumulate || first > 0 ? 1 : 0;
        }
        VL_TRY(vl_cpu_bf16_gemm(cpu, &product, err));
    }
    return VL_OK;
}

vl_status cpu_linear(void *context, const vl_linear_args *a, vl_error *err)
{
    const vl_cpu_matrix *w = a->weight->data;
    if (w->forward_panels && !a->transpose && !a->accumulate)
        return vl_panel_linear(context, a, err);
    if (vl_panel_streams(context, a))
        return vl_panel_stream(context, a, err);
    return w->bf16 ? linear_bf16(context, a, err) : linear_fp32(context, a, err);
}

vl_status cpu_embed(void *context, const vl_embed_args *a, vl_error *err)
{
    (void)context, (void)err;
    const vl_cpu_matrix *w = a->table->data;
    const int32_t *ids = a->ids.data;
    for (int64_t i = 0; i < a->out.shape[0]; i++) {
        float *out = row_of(a->out, i);
        vl_cpu_widen_row(out, weight_row(w, ids[i]), w->dtype, w->n_in);
        for (int64_t j = 0; a->scale != 0 && a->scale != 1 && j < w->n_in; j++)
            out[j] *= a->scale;
    }
    return VL_OK;
}
