/* kernels/cuda/rows.cuh - what the kernels of one block per row share: padded reads, and log-sum-exp in one pass. */
#ifndef VL_KERNELS_CUDA_ROWS_CUH
#define VL_KERNELS_CUDA_ROWS_CUH

#include <float.h>
#include <math.h>

#include "kernels/cuda/device.cuh"

/* Threads of the block of a row of n elements: whole warps, four elements a thread, at most `limit`. */
static inline unsigned vl_row_threads(int64_t n, unsigned limit)
{
    int64_t threads = (n + 4 * VL_WARP - 1) / (4 * VL_WARP) * VL_WARP;
    return threads < (int64_t)limit ? (unsigned)threads : limit;
}

/* The first n >= 1 (at most 4) of four elements, `pad` in the place of the others. */
__device__ inline float4 vl_load_padded(const float *at, int64_t n, bool vector, float pad)
{
    if (vector && n >= 4)
        return vl_load4(at);
    return make_float4(at[0], n > 1 ? at[1] : pad, n > 2 ? at[2] : pad, n > 3 ? at[3] : pad);
}

/* The largest value so far, and the sum of exp(value - largest): Milakov and Gimelshein, "Online normalizer calculation
 * for softmax" (arXiv 1805.02867). Empty: {-FLT_MAX, 0}, so that -infinity adds nothing. */
typedef struct vl_online_sum {
    float largest, sum;
} vl_online_sum;

__device__ inline void vl_online_add(vl_online_sum *s, float4 x)
{
    float largest = fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w));
    if (largest > s->largest) {
        s->sum *= expf(s->largest - largest);
        s->largest = largest;
    }
    s->sum += (expf(x.x - s->largest) + expf(x.y - s->largest)) + (expf(x.z - s->largest) + expf(x.w - s->largest));
}

/* log-sum-exp over the threads of a block; every thread takes part and gets the result. */
__device__ inline float vl_online_finish(vl_online_sum s, float *shared_float, double *shared_double)
{
    float largest = vl_block_max(s.largest, shared_float);
    double sum = vl_block_sum((double)(s.sum * expf(s.largest - largest)), shared_double);
    return largest + logf((float)sum);
}

#endif
