/* The objective's inner step on the CPU: unembed, compare with the teacher, and bring the gradient back.
 *
 * Two paths with one meaning. Where the head was packed for our bf16 micro-kernel (panel.c), that runs. Elsewhere rows
 * go in chunks: logits by GEMM, loss and gradient in place, gradient times head by GEMM. */
#include "kernels/cpu/loss.h"
#include "kernels/cpu/panel.h"

enum { CHUNK_ELEMENTS = 8 << 20 }; /* student logits held at once: 32 MiB */

vl_loss_row vl_cpu_loss_row(const vl_unembed_loss_args *a, int64_t row)
{
    return (vl_loss_row){
        .teacher = a->teacher_logits.data ? row_of(a->teacher_logits, row) : NULL,
        .teacher_lse = a->teacher_lse.data ? ((const float *)a->teacher_lse.data)[row] : 0,
        .target = a->targets.data ? ((const int32_t *)a->targets.data)[row] : -1,
        .weight = a->row_weight.data ? ((const float *)a->row_weight.data)[row] : 1,
        .kind = a->kind,
    };
}

static vl_status chunk_loss(vl_cpu *cpu, const vl_unembed_loss_args *a, vl_tensor logits, int64_t first, vl_error *err)
{
    int64_t rows = logits.shape[0], v = logits.shape[1];
    vl_linear_args forward = {
        .out = logits, .x = vl_tensor_rows(a->x, first, rows), .weight = a->head, .bias = a->head_bias};
    VL_TRY(cpu_linear(cpu, &forward, err));
    bool gradient = a->dx.data != NULL;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        vl_loss_row row = vl_cpu_loss_row(a, first + i);
        row.lse = vl_cpu_row_logsumexp(row_of(logits, i), v);
        if (gradient)
            vl_loss_prepare(&row, row_of(logits, i), v);
        ((float *)a->loss.data)[first + i] = (float)vl_loss_piece(&row, row_of(logits, i), 0, v, gradient);
    }
    if (!gradient)
        return VL_OK;
    vl_linear_args backward = {
        .out = vl_tensor_rows(a->dx, first, rows), .x = logits, .weight = a->head, .transpose = true};
    return cpu_linear(cpu, &backward, err);
}

vl_status cpu_unembed_loss(void *context, const vl_unembed_loss_args *a, vl_error *err)
{
    vl_cpu *cpu = context;
    const vl_cpu_matrix *head = a->head->data;
    if (head->forward_panels)
        return vl_panel_unembed_loss(cpu, a, err);
    int64_t m = a->x.shape[0], v = head->n_out, chunk = CHUNK_ELEMENTS / v;
    chunk = chunk < 64 ? 64 : chunk;
    chunk = chunk < m ? chunk : m;
    float *memory = vl_cpu_scratch_get(cpu, SCRATCH_LOGITS, (size_t)(chunk * v), 4);
    if (!memory)
        return vl_fail(err, VL_ENOMEM, "out of memory: a tile of logits");
    for (int64_t first = 0; first < m; first += chunk) {
        int64_t rows = m - first < chunk ? m - first : chunk;
        VL_TRY(chunk_loss(cpu, a, vl_tensor_2d(memory, VL_F32, rows, v), first, err));
    }
    return VL_OK;
}
