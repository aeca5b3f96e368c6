/* Attention in blocks of queries: scores of one head and one block of queries at a time, never [Tq, Tk] of all heads.
 * The two products of a block go through oneDNN's fp32 GEMM, one thread per (head, block). */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/expf.h"

enum { QUERY_BLOCK = 96 };

/* c tanh(s / c) in place: tanh y = 1 - 2 / (1 + exp(2 y)), whose error stays below 1e-7 of 1 (vl_expf). */
VL_SIMD static void cap_row(float *scores, int64_t n, float cap)
{
    float twice = 2 / cap;
    for (int64_t j = 0; j < n; j++)
        scores[j] = cap * (1.0f - 2.0f / (1.0f + vl_expf(twice * scores[j])));
}

/* Softmax in place over scores first .. first + n - 1; the rest of the row becomes 0. */
VL_SIMD static void softmax_row(float *row, int64_t first, int64_t n, int64_t width)
{
    float max = -INFINITY, sum = 0, *scores = row + first;
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
    for (int64_t j = 0; j < first; j++)
        row[j] = 0;
    for (int64_t j = first + n; j < width; j++)
        row[j] = 0;
}

static void apply_mask(float *scores, int64_t query_mask, const int64_t *key_mask, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        if (!(query_mask & key_mask[j]))
            scores[j] = -INFINITY;
}

/* Weights of one query over all its keys, for the viewer: those of the block begin at key `low`. */
static void show_weights(const vl_attention_args *a, const float *weights, int64_t query, int head, int64_t low,
                         int64_t keys)
{
    int64_t tk = a->k.shape[0];
    float *out = row_of(a->probabilities, query) + head * tk;
    memset(out, 0, (size_t)tk * 4);
    memcpy(out + low, weights, (size_t)(keys - low) * 4);
}

/* Keys below which query i may look: its own place in a causal sequence, or what `ends` adds to that. */
static int64_t keys_of(const vl_attention_args *a, int64_t i)
{
    if (!a->causal)
        return a->k.shape[0];
    int64_t own = i + 1 + a->causal_offset, end = a->ends.data ? ((const int32_t *)a->ends.data)[i] : 0;
    return end > own ? end : own;
}

static int64_t keys_of_block(const vl_attention_args *a, int64_t first, int64_t rows)
{
    int64_t keys = keys_of(a, first + rows - 1);
    for (int64_t i = 0; a->ends.data && i < rows; i++)
        keys = keys_of(a, first + i) > keys ? keys_of(a, first + i) : keys;
    return keys;
}

static dnnl_status_t attend_block(const vl_attention_args *a, float *scores, int head, int64_t first)
{
    int64_t width = a->q.shape[1] / a->n_heads;
    int64_t rows = a->q.shape[0] - first < QUERY_BLOCK ? a->q.shape[0] - first : QUERY_BLOCK;
    int64_t keys = keys_of_block(a, first, rows);
    /* the block's first query looks back the furthest: no key before its window is touched */
    int64_t low = a->window > 0 && first + a->causal_offset >= a->window ? first + a->causal_offset + 1 - a->window : 0;
    int64_t n = keys - low;
    int kv_head = head / (a->n_heads / a->n_kv_heads);
    const float *q = row_of(a->q, first) + head * width;
    const float *k = row_of(a->k, low) + kv_head * width, *v = row_of(a->v, low) + kv_head * width;
    dnnl_status_t status =
        dnnl_sgemm('N', 'T', rows, n, width, a->scale, q, a->q.row_stride, k, a->k.row_stride, 0.0f, scores, n);
    if (status != dnnl_success)
        return status;
    for (int64_t i = 0; i < rows; i++) {
        float *mine = scores + i * n;
        int64_t visible = keys_of(a, first + i) - low, own = first + i + 1 + a->causal_offset - low;
        int64_t hidden = a->window > 0 && own > a->window ? own - a->window : 0;
        if (a->softcap > 0)
            cap_row(mine, visible, a->softcap);
        if (a->q_mask.data)
            apply_mask(mine, ((const int64_t *)a->q_mask.data)[first + i], (const int64_t *)a->k_mask.data + low,
                       visible);
        softmax_row(mine, hidden, visible - hidden, n);
        if (a->probabilities.data)
            show_weights(a, mine, first + i, head, low, keys);
    }
    return dnnl_sgemm('N', 'N', rows, width, n, 1.0f, scores, n, v, a->v.row_stride, 0.0f,
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
