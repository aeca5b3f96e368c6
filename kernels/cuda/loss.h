/* kernels/cuda/loss.h - the loss of rows of student logits, and its gradient in their place. */
#ifndef VL_KERNELS_CUDA_LOSS_H
#define VL_KERNELS_CUDA_LOSS_H

#include "kernels/cuda/context.h"

typedef struct vl_cuda_loss_tile {
    float *logits; /* [rows, V], 16-byte aligned */
    int64_t row;   /* elements from row to row: a multiple of 4, at least V; what is behind V is written over */
    int64_t first; /* row of the arguments that is row 0 of the tile */
    int64_t rows, v;
    /* of the gradient: f32, or a 16-bit type, in which row i begins where its logits began, 2 * row elements from row
     * to row */
    vl_dtype gradient;
} vl_cuda_loss_tile;

/* What a gradient in fp16 is multiplied by in the place of its row weight: weights of 1 / rows would leave nearly all
 * of it below the smallest number of that type. Entries are at most 1, but for the reverse KL, where they are nats. */
static inline float vl_cuda_loss_scale(vl_loss kind)
{
    return kind == VL_LOSS_REVERSE_KL ? 256.0f : 16384.0f;
}

/* args->loss[first ..] = loss of the tile's rows, and, where args->dx is asked for, the logits become
 * row_weight * d loss / d logit, or in fp16 vl_cuda_loss_scale * d loss / d logit. The head and x of the arguments are
 * not read. */
vl_status vl_cuda_loss(vl_cuda *cuda, const vl_unembed_loss_args *args, const vl_cuda_loss_tile *tile, vl_error *err);

#endif
