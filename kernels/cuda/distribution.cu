/* Rows of logits: log-sum-exp, the largest entries, and how two distributions compare. A block owns a row. */
#include "kernels/cuda/context.h"
#include "kernels/cuda/rows.cuh"

enum { THREADS = 512 };

typedef struct rows_view {
    const float *z, *t, *z_lse, *t_lse; /* t: the teacher; metrics only */
    const int32_t *targets;             /* metrics; may be NULL */
    float *out;
    int64_t z_row, t_row, out_row, v;
    bool z_vector, t_vector;
} rows_view;

static __global__ void __launch_bounds__(THREADS) logsumexp_rows(rows_view v)
{
    __shared__ float shared_float[VL_MAX_WARPS];
    __shared__ double shared_double[VL_MAX_WARPS];
    const float *z = v.z + blockIdx.x * v.z_row;
    vl_online_sum online = {-FLT_MAX, 0.0f};
    for (int64_t j = 4 * threadIdx.x; j < v.v; j += 4 * blockDim.x)
        vl_online_add(&online, vl_load_padded(z + j, v.v - j, v.z_vector, -INFINITY));
    float lse = vl_online_finish(online, shared_float, shared_double);
    if (threadIdx.x == 0)
        v.out[blockIdx.x] = lse;
}

vl_status vl_cuda_logsumexp(void *context, const vl_logsumexp_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    rows_view v = {};
    v.z = (const float *)a->logits.data, v.z_row = a->logits.row_stride, v.v = a->logits.shape[1];
    v.out = (float *)a->lse.data, v.z_vector = vl_aligned16(v.z, v.z_row, 4);
    VL_LAUNCH(logsumexp_rows, (unsigned)a->logits.shape[0], vl_row_threads(v.v, THREADS), 0, cuda->stream, v);
    return vl_cuda_check(cudaGetLastError(), "logsumexp", err);
}

/* ---- metrics ----------------------------------------------------------------------------------------------- */

/* An unsigned key whose order is that of the numbers, NaN below all of them; in the low half, that of falling ids: so
 * of equal logits the one with the lower id is the larger key, and all keys of a row differ. */
__device__ inline unsigned long long key_of(float x, int64_t id)
{
    unsigned bits = __float_as_uint((isnan(x) ? -INFINITY : x) + 0.0f); /* -0 becomes 0, which it equals */
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (unsigned long long)bits << 32 | (0xffffffffu - (unsigned)id);
}

__device__ inline int64_t id_of(unsigned long long key)
{
    return (int64_t)(0xffffffffu - (unsigned)key);
}

typedef struct metric_sums {
    double kl, entropy, js, tv;
} metric_sums;

__device__ inline void compare(float z, float t, float z_lse, float t_lse, float4 *sums)
{
    float log_q = z - z_lse, log_p = t - t_lse, difference = log_p - log_q;
    float q = expf(log_q), p = expf(log_p), gap = p - q;
    /* 0 * log 0 is 0, also where log q is -inf. Adding q - p, which sums to 0, makes every term at least 0 and cancels
     * the rounding of both log-sum-exps to first order. */
    sums->x += (p > 0.0f ? p * difference : 0.0f) - gap;
    sums->y -= q > 0.0f ? q * log_q : 0.0f;
    sums->w += fabsf(gap);
    /* p log(p/m) + q log(q/m) with m = (p + q) / 2: the larger over m is 2 / (1 + smaller / larger) */
    float big = fabsf(difference), larger = 0.69314718f - log1pf(expf(-big)), smaller = larger - big;
    float p_part = difference > 0.0f ? larger : smaller, q_part = difference > 0.0f ? smaller : larger;
    sums->z += (p > 0.0f ? p * p_part : 0.0f) + (q > 0.0f ? q * q_part : 0.0f);
}

/* The thread's share of the sums of its row, and the largest key of the teacher's logits that it has seen. */
__device__ static metric_sums compare_row(const float *z, const float *t, const rows_view &v, unsigned long long *best)
{
    metric_sums sums = {0, 0, 0, 0};
    float z_lse = v.z_lse[blockIdx.x], t_lse = v.t_lse[blockIdx.x];
    *best = 0;
    for (int64_t j = 4 * threadIdx.x; j < v.v; j += 4 * blockDim.x) {
        float4 a = vl_load_padded(z + j, v.v - j, v.z_vector, -INFINITY), part = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        float4 b = vl_load_padded(t + j, v.v - j, v.t_vector, -INFINITY);
        compare(a.x, b.x, z_lse, t_lse, &part);
        compare(a.y, b.y, z_lse, t_lse, &part);
        compare(a.z, b.z, z_lse, t_lse, &part);
        compare(a.w, b.w, z_lse, t_lse, &part);
        sums.kl += (double)part.x, sums.entropy += (double)part.y, sums.js += (double)part.z, sums.tv += (double)part.w;
        unsigned long long keys[4] = {key_of(b.x, j), key_of(b.y, j + 1), key_of(b.z, j + 2), key_of(b.w, j + 3)};
        for (int i = 0; i < 4; i++)
            *best = keys[i] > *best ? keys[i] : *best;
    }
    return sums;
}

/* How many entries stand before `id`. */
__device__ static int64_t rank_of(const float *z, int64_t id, const rows_view &v)
{
    unsigned long long key = key_of(z[id], id);
    int64_t rank = 0;
    for (int64_t j = 4 * threadIdx.x; j < v.v; j += 4 * blockDim.x) {
        float4 a = vl_load_padded(z + j, v.v - j, v.z_vector, -INFINITY);
        rank += (key_of(a.x, j) > key) + (key_of(a.y, j + 1) > key) + (key_of(a.z, j + 2) > key) +
                (key_of(a.w, j + 3) > key);
    }
    return rank;
}

static __global__ void __launch_bounds__(THREADS) metrics_rows(rows_view v)
{
    __shared__ double shared_double[VL_MAX_WARPS];
    __shared__ unsigned long long shared_key[VL_MAX_WARPS];
    __shared__ long long shared_count[VL_MAX_WARPS];
    int64_t row = blockIdx.x;
    const float *z = v.z + row * v.z_row, *t = v.t + row * v.t_row;
    unsigned long long best;
    metric_sums sums = compare_row(z, t, v, &best);
    best = vl_block_max(best, shared_key);
    long long rank = vl_block_sum((long long)rank_of(z, id_of(best), v), shared_count);
    double kl = vl_block_sum(sums.kl, shared_double), entropy = vl_block_sum(sums.entropy, shared_double);
    double js = vl_block_sum(sums.js, shared_double), tv = vl_block_sum(sums.tv, shared_double);
    if (threadIdx.x > 0)
        return;
    int32_t target = v.targets ? v.targets[row] : -1;
    float *out = v.out + row * v.out_row;
    out[VL_METRIC_KL] = (float)kl;
    out[VL_METRIC_CE] = target >= 0 && target < v.v ? v.z_lse[row] - z[target] : NAN;
    out[VL_METRIC_ENTROPY] = (float)entropy;
    out[VL_METRIC_TOP1] = rank == 0;
    out[VL_METRIC_TOP5] = rank < 5;
    out[VL_METRIC_RANK] = (float)rank;
    out[VL_METRIC_JS] = (float)(js / 2);
    out[VL_METRIC_TV] = (float)(tv / 2);
}

vl_status vl_cuda_metrics(void *context, const vl_metrics_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    rows_view v;
    v.z = (const float *)a->logits.data, v.z_row = a->logits.row_stride, v.z_lse = (const float *)a->lse.data;
    v.t = (const float *)a->teacher_logits.data, v.t_row = a->teacher_logits.row_stride;
    v.t_lse = (const float *)a->teacher_lse.data, v.targets = (const int32_t *)a->targets.data;
    v.out = (float *)a->out.data, v.out_row = a->out.row_stride, v.v = a->logits.shape[1];
    v.z_vector = vl_aligned16(v.z, v.z_row, 4), v.t_vector = vl_aligned16(v.t, v.t_row, 4);
    VL_LAUNCH(metrics_rows, (unsigned)a->logits.shape[0], vl_row_threads(v.v, THREADS), 0, cuda->stream, v);
    return vl_cuda_check(cudaGetLastError(), "metrics", err);
}

/* ---- the largest entries ----------------------------------------------------------------------------------- */

enum { DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS };

typedef struct topk_view {
    const float *logits;
    float *values;
    int32_t *ids;
    unsigned long long *found; /* [M, k]: keys of the k largest, in any order */
    int64_t row, values_row, ids_row, v, k;
} topk_view;

/* What the threads agree on while they look for the k-th largest key, digit by digit from the top. */
typedef struct selection {
    unsigned counts[DIGITS];   /* of the next digit, among keys that begin with the prefix */
    unsigned long long prefix; /* the digits known so far; those below are 0 */
    int64_t wanted;            /* the k-th of the row is the wanted-th among those keys */
    unsigned matching;         /* how many begin with the prefix */
    unsigned n_found;
} selection;

__device__ static void count_digits(selection *s, const float *logits, int shift, int64_t v)
{
    for (int i = (int)threadIdx.x; i < DIGITS; i += blockDim.x)
        s->counts[i] = 0;
    __syncthreads();
    for (int64_t j = threadIdx.x; j < v; j += blockDim.x) {
        unsigned long long key = key_of(logits[j], j);
        int above = shift + DIGIT_BITS;
        if (above == 64 || key >> above == s->prefix >> above)
            atomicAdd(&s->counts[key >> shift & (DIGITS - 1)], 1u);
    }
    __syncthreads();
}

/* One thread: the digit that holds the wanted key joins the prefix. */
__device__ static void choose_digit(selection *s, int shift)
{
    int digit = DIGITS - 1;
    for (; digit > 0 && s->counts[digit] < s->wanted; digit--)
        s->wanted -= s->counts[digit];
    s->prefix |= (unsigned long long)digit << shift;
    s->matching = s->counts[digit];
}

/* A block: the keys of the k largest, by radix selection. Which thread finds which place is left open here. */
static __global__ void __launch_bounds__(THREADS) topk_select(topk_view v)
{
    __shared__ selection s;
    const float *logits = v.logits + blockIdx.x * v.row;
    if (threadIdx.x == 0)
        s.prefix = 0, s.wanted = v.k, s.n_found = 0;
    for (int shift = 64 - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        count_digits(&s, logits, shift, v.v);
        if (threadIdx.x == 0)
            choose_digit(&s, shift);
        __syncthreads();
        if (s.matching == s.wanted) /* all that begin like this are among the k largest */
            break;
    }
    for (int64_t j = threadIdx.x; j < v.v; j += blockDim.x) {
        unsigned long long key = key_of(logits[j], j);
        if (key >= s.prefix)
            v.found[blockIdx.x * v.k + atomicAdd(&s.n_found, 1u)] = key;
    }
}

/* Each found key goes to the place that is the number of larger ones. */
static __global__ void __launch_bounds__(THREADS) topk_sort(topk_view v)
{
    const unsigned long long *found = v.found + blockIdx.x * v.k;
    for (int64_t i = threadIdx.x; i < v.k; i += blockDim.x) {
        int64_t place = 0;
        for (int64_t other = 0; other < v.k; other++)
            place += found[other] > found[i];
        float x = v.logits[blockIdx.x * v.row + id_of(found[i])];
        v.values[blockIdx.x * v.values_row + place] = isnan(x) ? -INFINITY : x;
        v.ids[blockIdx.x * v.ids_row + place] = (int32_t)id_of(found[i]);
    }
}

vl_status vl_cuda_topk(void *context, const vl_topk_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    int64_t m = a->logits.shape[0];
    topk_view v;
    void *memory;
    v.logits = (const float *)a->logits.data, v.row = a->logits.row_stride, v.v = a->logits.shape[1];
    v.values = (float *)a->values.data, v.values_row = a->values.row_stride, v.k = a->values.shape[1];
    v.ids = (int32_t *)a->ids.data, v.ids_row = a->ids.row_stride;
    VL_TRY(vl_cuda_scratch(cuda, (size_t)(m * v.k) * sizeof *v.found, &memory, err));
    v.found = (unsigned long long *)memory;
    VL_LAUNCH(topk_select, (unsigned)m, vl_row_threads(v.v, THREADS), 0, cuda->stream, v);
    VL_TRY(vl_cuda_check(cudaGetLastError(), "topk", err));
    VL_LAUNCH(topk_sort, (unsigned)m, vl_row_threads(4 * v.k, THREADS), 0, cuda->stream, v);
    return vl_cuda_check(cudaGetLastError(), "topk", err);
}
