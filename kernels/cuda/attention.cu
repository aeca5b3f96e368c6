/* Attention with an online softmax: a block of threads owns 32 queries of one head and walks over the keys, 32 at a
 * time. Only those tiles are ever stored; the weights stay in registers.
 *
 * Four threads share a query. In the scores, thread c of the four has keys c, c + 4, ...; in the sum over values it
 * has the columns 4 c .. 4 c + 3 of every 16, and gets the others' weights by shuffles. The running maximum m and sum
 * l follow Milakov and Gimelshein, "Online normalizer calculation for softmax" (arXiv 1805.02867). */
#include <math.h>

#include "kernels/cuda/context.h"

enum { QUERIES = 32, KEYS = 32, SHARERS = 4, THREADS = QUERIES * SHARERS, OWN_KEYS = KEYS / SHARERS, PAD = 4 };

typedef struct attention_view {
    const float *q, *k, *v;
    float *out, *probabilities;                                          /* probabilities may be NULL */
    const int64_t *q_mask, *k_mask;                                      /* or NULL */
    const int32_t *ends;                                                 /* or NULL */
    int64_t q_row, k_row, v_row, out_row, p_row, tq, tk, offset, window; /* window 0: none */
    int width, heads_per_kv;
    float scale, softcap; /* softcap 0: none */
    bool causal, vector;  /* vector: rows allow 16-byte loads */
} attention_view;

/* What a thread knows of its query. */
typedef struct query {
    int64_t row, mask;
    int64_t first, keys; /* it may see keys first .. keys - 1 */
    int local, sharer;
} query;

/* Rows first.. of a head as [32][16 GROUPS + PAD]; what does not exist is 0. */
template <int GROUPS>
__device__ static void load_tile(float *tile, const float *from, int64_t row_stride, int64_t first, int64_t rows,
                                 const attention_view &a)
{
    const int quads = 4 * GROUPS;
    for (int i = (int)threadIdx.x; i < KEYS * quads; i += THREADS) {
        int row = i / quads, column = i % quads * 4;
        float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (first + row < rows && column < a.width)
            x = vl_load_some(from + (first + row) * row_stride + column, a.width - column, a.vector);
        vl_store4(tile + row * (16 * GROUPS + PAD) + column, x);
    }
}

/* Scaled scores of the thread's keys of a tile that begins at key `first`; -infinity where the query must not look. */
template <int GROUPS>
__device__ static void score(float (&scores)[OWN_KEYS], const float *queries, const float *keys, int64_t first,
                             const query &q, const attention_view &a)
{
    const int stride = 16 * GROUPS + PAD;
    const float *mine = queries + q.local * stride, *others = keys + q.sharer * stride;
#pragma unroll
    for (int i = 0; i < OWN_KEYS; i++)
        scores[i] = 0.0f;
#pragma unroll 2
    for (int e = 0; e < 16 * GROUPS; e += 4) {
        float4 x = vl_load4(mine + e);
#pragma unroll
        for (int i = 0; i < OWN_KEYS; i++) {
            float4 y = vl_load4(others + i * SHARERS * stride + e);
            scores[i] += x.x * y.x;
            scores[i] += x.y * y.y;
            scores[i] += x.z * y.z;
            scores[i] += x.w * y.w;
        }
    }
#pragma unroll
    for (int i = 0; i < OWN_KEYS; i++) {
        int64_t key = first + q.sharer + i * SHARERS;
        bool seen = key >= q.first && key < q.keys && (!a.k_mask || (q.mask & a.k_mask[key]));
        float x = a.scale * scores[i];
        if (a.softcap > 0.0f)
            x = a.softcap * tanhf(x / a.softcap);
        scores[i] = seen ? x : -INFINITY;
    }
}

__device__ static inline float largest_of_four(float value)
{
    value = fmaxf(value, __shfl_xor_sync(VL_ALL_LANES, value, 1));
    return fmaxf(value, __shfl_xor_sync(VL_ALL_LANES, value, 2));
}

__device__ static inline float sum_of_four(float value)
{
    value += __shfl_xor_sync(VL_ALL_LANES, value, 1);
    return value + __shfl_xor_sync(VL_ALL_LANES, value, 2);
}

/* Scores become weights relative to the new maximum; returns the factor of everything summed before. */
__device__ static inline float reweigh(float (&scores)[OWN_KEYS], float *m, float *l)
{
    float largest = scores[0], sum = 0.0f;
#pragma unroll
    for (int i = 1; i < OWN_KEYS; i++)
        largest = fmaxf(largest, scores[i]);
    largest = fmaxf(*m, largest_of_four(largest));
    float base = largest == -INFINITY ? 0.0f : largest; /* nothing seen so far: all weights 0, not NaN */
    float factor = expf(*m - base);
#pragma unroll
    for (int i = 0; i < OWN_KEYS; i++) {
        scores[i] = expf(scores[i] - base);
        sum += scores[i];
    }
    *m = largest;
    *l = *l * factor + sum;
    return factor;
}

template <int GROUPS>
__device__ static void add_values(float4 (&out)[GROUPS], const float (&weights)[OWN_KEYS], const float *values,
                                  const query &q)
{
    const int stride = 16 * GROUPS + PAD;
    int first_sharer = (int)threadIdx.x % VL_WARP / SHARERS * SHARERS;
#pragma unroll
    for (int i = 0; i < OWN_KEYS; i++)
#pragma unroll
        for (int c = 0; c < SHARERS; c++) {
            float weight = __shfl_sync(VL_ALL_LANES, weights[i], first_sharer + c);
            const float *value = values + (i * SHARERS + c) * stride + 4 * q.sharer;
#pragma unroll
            for (int g = 0; g < GROUPS; g++) {
                float4 x = vl_load4(value + 16 * g);
                out[g].x += weight * x.x;
                out[g].y += weight * x.y;
                out[g].z += weight * x.z;
                out[g].w += weight * x.w;
            }
        }
}

/* For the viewer: the same scores again, now that the sum is known. */
template <int GROUPS>
__device__ static void write_probabilities(float *queries, float *tile, const float *k, const query &q, float m,
                                           float l, const attention_view &a)
{
    float scores[OWN_KEYS];
    for (int64_t first = 0; first < a.tk; first += KEYS) {
        __syncthreads();
        load_tile<GROUPS>(tile, k, a.k_row, first, a.tk, a);
        __syncthreads();
        score<GROUPS>(scores, queries, tile, first, q, a);
#pragma unroll
        for (int i = 0; i < OWN_KEYS; i++) {
            int64_t key = first + q.sharer + i * SHARERS;
            if (q.row < a.tq && key < a.tk)
                a.probabilities[q.row * a.p_row + (int64_t)blockIdx.y * a.tk + key] = expf(scores[i] - m) / l;
        }
    }
}

/* Keys below which a query of the sequence may look. */
__device__ static int64_t keys_of(const attention_view &a, int64_t row)
{
    if (!a.causal)
        return a.tk;
    int64_t own = row + a.offset + 1, end = a.ends ? a.ends[row] : 0;
    return end > own ? end : own;
}

/* The same of the queries first .. last - 1 together. */
__device__ static int64_t keys_of_block(const attention_view &a, int64_t first, int64_t last)
{
    int64_t keys = keys_of(a, last - 1);
    for (int64_t row = first; a.ends && row < last; row++)
        keys = keys_of(a, row) > keys ? keys_of(a, row) : keys;
    return keys;
}

template <int GROUPS> static __global__ void __launch_bounds__(THREADS) attend(attention_view a)
{
    VL_DYNAMIC_SHARED(float, queries); /* [32][16 GROUPS + PAD], then the tile of keys or values, likewise */
    float *tile = queries + QUERIES * (16 * GROUPS + PAD);
    int64_t head = blockIdx.y, kv = head / a.heads_per_kv;
    /* the longest rows of a causal sequence first, so that the last block does not wait on one */
    int64_t first_query = (int64_t)(gridDim.x - 1 - blockIdx.x) * QUERIES;
    const float *k = a.k + kv * a.width, *v = a.v + kv * a.width;
    query q;
    q.local = (int)threadIdx.x / SHARERS, q.sharer = (int)threadIdx.x % SHARERS;
    q.row = first_query + q.local;
    q.keys = q.row >= a.tq ? 0 : keys_of(a, q.row);
    q.first = a.window > 0 && q.row + a.offset + 1 > a.window ? q.row + a.offset + 1 - a.window : 0;
    q.mask = a.q_mask && q.row < a.tq ? a.q_mask[q.row] : 0;
    int64_t last = first_query + QUERIES < a.tq ? first_query + QUERIES : a.tq;
    int64_t keys = keys_of_block(a, first_query, last);
    /* the block's first query looks back the furthest; whole tiles before its window are passed over */
    int64_t furthest = first_query + a.offset + 1 - a.window;
    int64_t begin = a.window > 0 && furthest > 0 ? furthest / KEYS * KEYS : 0;
    float m = -INFINITY, l = 0.0f, scores[OWN_KEYS];
    float4 out[GROUPS];
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
        out[g] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    load_tile<GROUPS>(queries, a.q + head * a.width, a.q_row, first_query, a.tq, a);
    for (int64_t first = begin; first < keys; first += KEYS) {
        __syncthreads();
        load_tile<GROUPS>(tile, k, a.k_row, first, keys, a);
        __syncthreads();
        score<GROUPS>(scores, queries, tile, first, q, a);
        float factor = reweigh(scores, &m, &l);
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
            out[g].x *= factor, out[g].y *= factor, out[g].z *= factor, out[g].w *= factor;
        __syncthreads();
        load_tile<GROUPS>(tile, v, a.v_row, first, keys, a);
        __syncthreads();
        add_values<GROUPS>(out, scores, tile, q);
    }
    l = sum_of_four(l);
    if (a.probabilities)
        write_probabilities<GROUPS>(queries, tile, k, q, m, l, a);
    if (q.row >= a.tq)
        return;
    float scale = 1.0f / l;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        int column = 16 * g + 4 * q.sharer;
        float4 x = make_float4(out[g].x * scale, out[g].y * scale, out[g].z * scale, out[g].w * scale);
        if (column < a.width)
            vl_store_some(a.out + q.row * a.out_row + head * a.width + column, x, a.width - column, a.vector);
    }
}

template <int GROUPS> static vl_status launch(vl_cuda *cuda, const attention_view &view, int heads, vl_error *err)
{
    size_t shared = (size_t)(QUERIES + KEYS) * (16 * GROUPS + PAD) * sizeof(float);
    if (shared > (size_t)cuda->shared_limit)
        return vl_fail(err, VL_EUNSUPPORTED,
                       "attention heads of width %d need %zu bytes of shared memory, this device "
                       "has %d",
                       view.width, shared, cuda->shared_limit);
    if (shared > 48 * 1024)
        VL_TRY(vl_cuda_check(cudaFuncSetAttribute((const void *)attend<GROUPS>,
                                                  cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
                             "attention", err));
    VL_LAUNCH((attend<GROUPS>), dim3((unsigned)((view.tq + QUERIES - 1) / QUERIES), (unsigned)heads, 1),
              dim3(THREADS, 1, 1), shared, cuda->stream, view);
    return vl_cuda_check(cudaGetLastError(), "attention", err);
}

static attention_view view_of(const vl_attention_args *a)
{
    attention_view v;
    v.q = (const float *)a->q.data, v.k = (const float *)a->k.data, v.v = (const float *)a->v.data;
    v.out = (float *)a->out.data, v.probabilities = (float *)a->probabilities.data;
    v.q_mask = (const int64_t *)a->q_mask.data, v.k_mask = (const int64_t *)a->k_mask.data;
    v.ends = (const int32_t *)a->ends.data;
    v.q_row = a->q.row_stride, v.k_row = a->k.row_stride, v.v_row = a->v.row_stride;
    v.out_row = a->out.row_stride, v.p_row = a->probabilities.row_stride;
    v.tq = a->q.shape[0], v.tk = a->k.shape[0], v.offset = a->causal_offset;
    v.width = (int)(a->q.shape[1] / a->n_heads), v.heads_per_kv = a->n_heads / a->n_kv_heads;
    v.window = a->causal ? a->window : 0, v.softcap = a->softcap;
    v.scale = a->scale, v.causal = a->causal;
    v.vector = v.width % 4 == 0 && vl_aligned16(v.q, v.q_row, 4) && vl_aligned16(v.k, v.k_row, 4) &&
               vl_aligned16(v.v, v.v_row, 4) && vl_aligned16(v.out, v.out_row, 4);
    return v;
}

vl_status vl_cuda_attention(void *context, const vl_attention_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    attention_view view = view_of(a);
    if (view.width <= 64)
        return launch<4>(cuda, view, a->n_heads, err);
    if (view.width <= 80)
        return launch<5>(cuda, view, a->n_heads, err);
    if (view.width <= 128)
        return launch<8>(cuda, view, a->n_heads, err);
    if (view.width <= 256)
        return launch<16>(cuda, view, a->n_heads, err);
    return vl_fail(err, VL_EUNSUPPORTED, "attention heads of width %d, at most 256 on a CUDA device", view.width);
}
