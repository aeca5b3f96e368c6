/* Attention in blocks of queries: scores of one head and one block of queries at a time, never [Tq, Tk] of all heads.
 * The two products of a block go through oneDNN's fp32 GEMM, one thread per (head, block). */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/expf.h"

enum { QUERY_BLOCK = 96 };

/* Softmax in place over the first n scores; the rest of the row becomes 0. */
VL_SIMD static void softmax_row(float *scores, int64_t n, int64_t width)
{
    float max = -INFINITY, sum = 0;
#pragma omp simd reduction(max : max)
    for (int64_t j = 0; j < n; j++)
        max = scores[j] > max ? scores[j] : max;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        float e = vl_expf(scores[j] - max);
        scores[j] = e;
        sum += e;
    }
    float scale = 1.0f / sum;
    for (int64_t j = 0; j < n; j++)
        scores[j] *= scale;
    for (int64_t j = n; j < width; j++)
        scores[j] = 0;
}

static void apply_mask(float *scores, int64_t query_mask, const int64_t *key_mask, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        if (!(query_mask & key_mask[j]))
            scores[j] = -INFINITY;
}

static dnnl_status_t attend_block(const vl_attention_args *a, float *scores, int head, int64_t first)
{
    int64_t width = a->q.shape[1] / a->n_heads, tk = a->k.shape[0];
    int64_t rows = a->q.shape[0] - first < QUERY_BLOCK ? a->q.shape[0] - first : QUERY_BLOCK;
    int64_t keys = a->causal ? first + rows + a->causal_offset : tk;
    int kv_head = head / (a->n_heads / a->n_kv_heads);
    const float *q = row_of(a->q, first) + head * width;
    const float *k = (const float *)a->k.data + kv_head * width, *v = (const float *)a->v.data + kv_head * width;
    dnnl_status_t status =
        dnnl_sgemm('N', 'T', rows, keys, width, a->scale, q, a->q.row_stride, k, a->k.row_stride, 0.0f, scores, keys);
    if (status != dnnl_success)
        return status;
    for (int64_t i = 0; i < rows; i++) {
        int64_t visible = a->causal ? first + i + 1 + a->causal_offset : keys;
        if (a->q_mask.data)
            apply_mask(scores + i * keys, ((const int64_t *)a->q_mask.data)[first + i], a->k_mask.data, visible);
        softmax_row(scores + i * keys, visible, keys);
        if (a->probabilities.data) {
            float *out = row_of(a->probabilities, first + i) + head * tk;
            memcpy(out, scores + i * keys, (size_t)keys * 4);
            memset(out + keys, 0, (size_t)(tk - keys) * 4);
        }
    }
    return dnnl_sgemm('N', 'N', rows, width, keys, 1.0f, scores, keys, v, a->v.row_stride, 0.0f,
                      row_of(a->out, first) + head * width, a->out.row_stride);
}

vl_status cpu_attention(void *context, const vl_attention_args *a, vl_error *err)
{
    vl_cpu *cpu = context;
    int64_t blocks = (a->q.shape[0] + QUERY_BLOCK - 1) / QUERY_BLOCK, items = blocks * a->n_heads;
    size_t per_thread = (size_t)QUERY_BLOCK * (size_t)a->k.shape[0];
    float *scores = vl_cpu_scratch_get(cpu, SCRATCH_SCORES, per_thread * (size_t)cpu->threads, 4);
    if (!scores)
        return vl_fail(err, VL_ENOMEM, "out of memory: attention scores");
    int failed = 0;
#pragma omp parallel for schedule(dynamic, 1) reduction(| : failed) num_threads(cpu->threads)
    for (int64_t item = 0; item < items; item++) {
        /* the longest causal blocks first, so that the last thread does not wait on one */
        int64_t block = blocks - 1 - item / a->n_heads;
        float *mine = scores + per_thread * (size_t)omp_get_thread_num();
        failed |= attend_block(a, mine, (int)(item % a->n_heads), block * QUERY_BLOCK) != dnnl_success;
    }
    return failed ? vl_fail(err, VL_EDEVICE, "oneDNN sgemm failed inside attention") : VL_OK;
}
