/* kernels/cpu/loss.h - the loss of one row of student logits, and its gradient in place. */
#ifndef VL_KERNELS_CPU_LOSS_H
#define VL_KERNELS_CPU_LOSS_H

#include "kernels/cpu/cpu.h"

typedef struct vl_loss_row {
    const float *teacher; /* [V] logits; unused by CE */
    float lse, teacher_lse;
    float weight;   /* multiplies the gradient */
    float total;    /* reverse KL and JS: the inner expectation over the whole row, from vl_loss_prepare */
    int32_t target; /* CE */
    vl_loss kind;
} vl_loss_row;

/* What the gradient of reverse KL and JS needs to know of the whole row; sets row->total. */
void vl_loss_prepare(vl_loss_row *row, const float *logits, int64_t n);
/* Loss over logits [first, first + n) of the row; with `gradient`, they are replaced by weight * dloss/dlogit. */
double vl_loss_piece(const vl_loss_row *row, float *logits, int64_t first, int64_t n, bool gradient);

#endif
