/* kernels/cuda/loss.h - the loss of rows of student logits, and its gradient in their place. */
#ifndef VL_KERNELS_CUDA_LOSS_H
#define VL_KERNELS_CUDA_LOSS_H

#include "kernels/cuda/context.h"

typedef struct vl_cuda_loss_tile {
    float *logits; /* [rows, V], 16-byte aligned */
    int64_t row;   /* elements from row to row: a multiple of 4, at least V; what is behind V is written over */
    int64_t first; /* row of the arguments that is row 0 of the tile */
    int64_t rows, v;
    bool bf16; /* leave the gradient as bf16: row i begins where its logits began, 2 * row elements from row to row */
} vl_cuda_loss_tile;

/* args->loss[first ..] = loss of the tile's rows, and, where args->dx is asked for, the logits become
 * row_weight * d loss / d logit. The head and x of the arguments are not read. */
vl_status vl_cuda_loss(vl_cuda *cuda, const vl_unembed_loss_args *args, const vl_cuda_loss_tile *tile, vl_error *err);

#endif
