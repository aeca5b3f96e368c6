/* The objective's inner step on the CPU: unembed, compare with the teacher, and bring the gradient back.
 *
 * Two paths with one meaning. Where the head was packed for our bf16 micro-kernel (panel.c), that runs. Elsewhere rows
 * go in chunks: logits by GEMM, loss and gradient in place, gradient times head by GEMM. */
#include <string.h>

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

/* Loss of a row whose logits are behind a soft cap c; d cap(z) / dz = 1 - (cap(z) / c)^2. */
static double capped_loss(const vl_loss_row *row, float *logits, int64_t n, float cap, bool gradient)
{
    enum { PIECE = 1024 };
    float kept[PIECE];
    double loss = 0;
    for (int64_t first = 0; first < n; first += PIECE) {
        int64_t width = n - first < PIECE ? n - first : PIECE;
        float *z = logits + first;
        memcpy(kept, z, (size_t)width * sizeof *kept);
        loss += vl_loss_piece(row, z, first, width, gradient);
        for (int64_t i = 0; gradient && i < width; i++)
            z[i] *= 1.0f - kept[i] / cap * (kept[i] / cap);
    }
    return loss;
}

static vl_status chunk_loss(vl_cpu *cpu, const vl_unembed_loss_args *a, vl_tensor logits, int64_t first, vl_error *err)
{
    int64_t rows = logits.shape[0], v = logits.shape[1];
    vl_linear_args forward = {
        .out = logits, .x = vl_tensor_rows(a->x, first, rows), .weight = a->head, .bias = a->head_bias};
    VL_TRY(cpu_linear(cpu, &forward, err));
    bool gradient = a->dx.data != NULL;
    vl_activation_args cap = {.out = logits, .x = logits, .kind = VL_ACT_CAP, .cap = a->softcap};
    if (a->softcap > 0)
        VL_TRY(cpu_activation(cpu, &cap, err));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        vl_loss_row row = vl_cpu_loss_row(a, first + i);
        row.lse = vl_cpu_row_logsumexp(row_of(logits, i), v);
        if (gradient)
            vl_loss_prepare(&row, row_of(logits, i), v);
        double loss = a->softcap > 0 ? capped_loss(&row, row_of(logits, i), v, a->softcap, gradient)
                                     : vl_loss_piece(&row, row_of(logits, i), 0, v, gradient);
        ((float *)a->loss.data)[first + i] = (float)loss;
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
    if (head->forward_panels && a->softcap == 0) /* the kernel takes logits as they come from the product */
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
