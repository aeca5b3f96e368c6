/* Losses between a student row q = softmax(z) and a teacher row p, and their gradients dL/dz in the place of z:
 *   KL(p||q):  q - p                  CE:  q - onehot(target)
 *   KL(q||p):  q (log q/p - KL)       JS:  q/2 (log q/m - KL(q||m)),  m = (p + q) / 2
 * Both KL sums also add the other distribution and subtract their own, which changes nothing as both sum to 1: every
 * term is then at least 0, and the rounding of the log-sum-exps cancels to first order.
 *
 * A block owns a row, and keeps as many of its logits in shared memory as fit: so far the tile is read once and written
 * once; what lies beyond is read a second time. A gradient in 16 bit takes half the bytes of its logits, in the first
 * half of the row: what it overwrites has been read by everybody, see `sweep`. */
#include "kernels/cuda/loss.h"
#include "kernels/cuda/rows.cuh"

enum { THREADS = 1024, OTHER_SHARED = 1024 /* bytes of shared memory that are not for logits, at most */ };

typedef struct loss_view {
    float *z, *loss;
    const float *t, *t_lse, *weights; /* NULL: CE; CE; 1 */
    const int32_t *targets;           /* CE */
    int64_t z_row, t_row, v;
    int64_t kept;          /* logits of a row in shared memory: all, or a multiple of 4 * blockDim.x */
    float scale;           /* of a gradient in fp16, in the place of the weights; otherwise 0 */
    float cap;             /* the logits are behind this soft cap; 0: none */
    bool gradient, vector; /* vector: the teacher's rows allow 16-byte loads */
} loss_view;

/* What all threads of a row know. */
typedef struct loss_row {
    float *z;
    const float *t;
    float lse, t_lse, weight;
    float inner; /* reverse KL and JS: the expectation that their gradients subtract */
    int64_t target;
} loss_row;

/* Sums of a thread. */
typedef struct loss_sums {
    double loss, inner;
} loss_sums;

/* The loss of one logit, its part of `inner`, and the gradient. z = t = -infinity gives nothing but zeros. */
template <int KIND>
__device__ inline float entry(float z, float t, int64_t index, const loss_row &r, float *inner, float *slope)
{
    float log_q = z - r.lse, q = expf(log_q);
    *inner = 0.0f;
    if (KIND == VL_LOSS_CE) {
        *slope = r.weight * (index == r.target ? q - 1.0f : q);
        return 0.0f;
    }
    float log_p = t - r.t_lse, p = expf(log_p);
    if (KIND == VL_LOSS_KL) {
        float gap = q - p;
        *slope = r.weight * gap;
        return (p > 0.0f ? p * (log_p - log_q) : 0.0f) + gap;
    }
    if (KIND == VL_LOSS_REVERSE_KL) {
        float log_ratio = log_q - log_p;
        *slope = q > 0.0f ? r.weight * q * (log_ratio - r.inner) : 0.0f;
        return *inner = (q > 0.0f ? q * log_ratio : 0.0f) + (p - q);
    }
    /* the logarithm of the larger of p and q over m is log 2 - log(1 + smaller / larger) */
    float difference = log_p - log_q, big = fabsf(difference);
    float larger = 0.69314718f - log1pf(expf(-big)), smaller = larger - big;
    float q_part = difference > 0.0f ? smaller : larger, p_part = difference > 0.0f ? larger : smaller;
    *inner = q > 0.0f ? q * q_part : 0.0f;
    *slope = q > 0.0f ? 0.5f * r.weight * q * (q_part - r.inner) : 0.0f;
    return 0.5f * (*inner + (p > 0.0f ? p * p_part : 0.0f));
}

/* Four logits z at column j: adds to the sums, returns the gradient. */
/* d cap(z) / dz = 1 - (cap(z) / cap)^2; what is padded has no gradient, and its z is no number to square. */
__device__ inline float behind_cap(float slope, float z, float cap)
{
    return slope == 0.0f ? 0.0f : slope * (1.0f - z / cap * (z / cap));
}

template <int KIND>
__device__ inline float4 visit(float4 z, int64_t j, const loss_row &r, const loss_view &v, loss_sums *sums)
{
    float4 t = make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY), inner, slope;
    if (KIND != VL_LOSS_CE)
        t = vl_load_padded(r.t + j, v.v - j, v.vector, -INFINITY);
    float a = entry<KIND>(z.x, t.x, j, r, &inner.x, &slope.x), b = entry<KIND>(z.y, t.y, j + 1, r, &inner.y, &slope.y);
    float c = entry<KIND>(z.z, t.z, j + 2, r, &inner.z, &slope.z);
    float d = entry<KIND>(z.w, t.w, j + 3, r, &inner.w, &slope.w);
    if (KIND != VL_LOSS_CE)
        sums->loss += (double)((a + b) + (c + d));
    if (KIND == VL_LOSS_JS)
        sums->inner += (double)((inner.x + inner.y) + (inner.z + inner.w));
    if (v.cap > 0.0f)
        slope = make_float4(behind_cap(slope.x, z.x, v.cap), behind_cap(slope.y, z.y, v.cap),
                            behind_cap(slope.z, z.z, v.cap), behind_cap(slope.w, z.w, v.cap));
    return slope;
}

/* All four, also where the row ends among them: rows are padded. */
__device__ inline void store_gradient(float *at, float4 slope)
{
    vl_store4(at, slope);
}

__device__ inline void store_gradient(vl_bf16 *at, float4 slope)
{
    vl_store4(at, slope);
}

__device__ inline float within_fp16(float x)
{
    const float most = 65504.0f;
    return x > most ? most : x < -most ? -most : x; /* NaN stays */
}

__device__ inline void store_gradient(vl_f16 *at, float4 slope)
{
    vl_store4(at, make_float4(within_fp16(slope.x), within_fp16(slope.y), within_fp16(slope.z), within_fp16(slope.w)));
}

/* Four logits at column j: their sums, and where WRITE their gradient. */
template <int KIND, typename Gradient, bool WRITE>
__device__ inline void step(float4 z, int64_t j, const loss_row &r, const loss_view &v, loss_sums *sums)
{
    float4 slope = visit<KIND>(z, j, r, v, sums);
    if (WRITE)
        store_gradient(reinterpret_cast<Gradient *>(r.z) + j, slope);
}

/* Over the whole row, once. Beyond what is kept, a 16-bit gradient at column j overwrites the logits at j / 2, which
 * lie at least one round back: the barrier keeps a thread from writing there before the others have read. */
template <int KIND, typename Gradient, bool WRITE>
__device__ static loss_sums sweep(const float *kept, const loss_row &r, const loss_view &v)
{
    loss_sums sums = {0, 0};
    int round = 4 * (int)blockDim.x, own = 4 * (int)threadIdx.x;
#pragma unroll 2
    for (int64_t j = own; j < v.kept; j += round)
        step<KIND, Gradient, WRITE>(vl_load4(kept + j), j, r, v, &sums);
    for (int64_t first = v.kept; first < v.v; first += round) {
        int64_t j = first + own;
        if (j < v.v)
            step<KIND, Gradient, WRITE>(vl_load_padded(r.z + j, v.v - j, true, -INFINITY), j, r, v, &sums);
        if (WRITE)
            __syncthreads();
    }
    return sums;
}

/* Reads the row, of which the first part stays in `kept`; returns its log-sum-exp. */
__device__ static float read_row(float *kept, const float *z, const loss_view &v, float *shared_float,
                                 double *shared_double)
{
    vl_online_sum online = {-FLT_MAX, 0.0f};
#pragma unroll 4
    for (int64_t j = 4 * (int)threadIdx.x; j < v.v; j += 4 * (int)blockDim.x) {
        float4 x = vl_load_padded(z + j, v.v - j, true, -INFINITY);
        if (j < v.kept)
            vl_store4(kept + j, x); /* for this thread itself */
        vl_online_add(&online, x);
    }
    return vl_online_finish(online, shared_float, shared_double);
}

__device__ inline loss_row row_of(const loss_view &v, int kind)
{
    int64_t i = blockIdx.x;
    loss_row r;
    r.z = v.z + i * v.z_row;
    r.t = kind == VL_LOSS_CE ? NULL : v.t + i * v.t_row;
    r.t_lse = kind == VL_LOSS_CE ? 0.0f : v.t_lse[i];
    r.target = kind == VL_LOSS_CE ? v.targets[i] : -1;
    r.weight = v.scale > 0.0f ? v.scale : v.weights ? v.weights[i] : 1.0f;
    r.inner = 0.0f;
    return r;
}

template <int KIND, typename Gradient> static __global__ void __launch_bounds__(THREADS) loss_rows(loss_view v)
{
    VL_DYNAMIC_SHARED(float, kept);
    __shared__ double shared_double[VL_MAX_WARPS];
    __shared__ float shared_float[VL_MAX_WARPS];
    loss_row r = row_of(v, KIND);
    bool has_target = KIND == VL_LOSS_CE && r.target >= 0 && r.target < v.v;
    float at_target = has_target ? r.z[r.target] : 0.0f; /* before the gradient takes its place */
    r.lse = read_row(kept, r.z, v, shared_float, shared_double);
    double loss = has_target ? (double)(r.lse - at_target) : 0.0;
    if (KIND == VL_LOSS_CE && r.target < 0)
        r.weight = 0.0f;
    if (KIND == VL_LOSS_REVERSE_KL || KIND == VL_LOSS_JS || !v.gradient) {
        if (KIND != VL_LOSS_CE) {
            loss_sums sums = sweep<KIND, Gradient, false>(kept, r, v);
            loss = vl_block_sum(sums.loss, shared_double);
            r.inner = (float)(KIND == VL_LOSS_JS ? vl_block_sum(sums.inner, shared_double) : loss);
        }
        if (v.gradient)
            sweep<KIND, Gradient, true>(kept, r, v);
    } else {
        loss_sums sums = sweep<KIND, Gradient, true>(kept, r, v);
        if (KIND == VL_LOSS_KL)
            loss = vl_block_sum(sums.loss, shared_double);
    }
    if (threadIdx.x == 0)
        v.loss[blockIdx.x] = (float)loss;
}

template <int KIND, typename Gradient>
static vl_status launch(vl_cuda *cuda, const loss_view &v, int64_t rows, unsigned threads, vl_error *err)
{
    size_t shared = (size_t)v.kept * sizeof(float);
    if (shared + OTHER_SHARED > 48 * 1024)
        VL_TRY(vl_cuda_check(cudaFuncSetAttribute((const void *)loss_rows<KIND, Gradient>,
                                                  cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
                             "unembed_loss", err));
    VL_LAUNCH((loss_rows<KIND, Gradient>), (unsigned)rows, threads, shared, cuda->stream, v);
    return vl_cuda_check(cudaGetLastError(), "unembed_loss", err);
}

template <typename Gradient>
static vl_status launch_kind(vl_cuda *cuda, vl_loss kind, const loss_view &v, int64_t rows, vl_error *err)
{
    unsigned threads = vl_row_threads(v.v, THREADS);
    switch (kind) {
    case VL_LOSS_KL: return launch<VL_LOSS_KL, Gradient>(cuda, v, rows, threads, err);
    case VL_LOSS_CE: return launch<VL_LOSS_CE, Gradient>(cuda, v, rows, threads, err);
    case VL_LOSS_REVERSE_KL: return launch<VL_LOSS_REVERSE_KL, Gradient>(cuda, v, rows, threads, err);
    default: return launch<VL_LOSS_JS, Gradient>(cuda, v, rows, threads, err);
    }
}

/* Whole rows where they fit, or whole rounds of the threads. */
static int64_t logits_to_keep(const vl_cuda *cuda, int64_t v)
{
    int64_t room = (cuda->shared_limit - OTHER_SHARED) / (int64_t)sizeof(float), all = (v + 3) / 4 * 4;
    return all <= room ? all : room / (4 * THREADS) * (4 * THREADS);
}

vl_status vl_cuda_loss(vl_cuda *cuda, const vl_unembed_loss_args *a, const vl_cuda_loss_tile *tile, vl_error *err)
{
    loss_view v;
    v.z = tile->logits, v.z_row = tile->row, v.v = tile->v, v.kept = logits_to_keep(cuda, tile->v);
    v.t = a->teacher_logits.data ? vl_cuda_row(a->teacher_logits, tile->first) : NULL;
    v.t_row = a->teacher_logits.row_stride;
    v.t_lse = a->teacher_lse.data ? (const float *)a->teacher_lse.data + tile->first : NULL;
    v.targets = a->targets.data ? (const int32_t *)a->targets.data + tile->first : NULL;
    v.weights = a->row_weight.data ? (const float *)a->row_weight.data + tile->first : NULL;
    v.loss = (float *)a->loss.data + tile->first;
    v.scale = tile->gradient == VL_F16 ? vl_cuda_loss_scale(a->kind) : 0.0f;
    v.cap = a->softcap;
    v.gradient = a->dx.data != NULL, v.vector = vl_aligned16(v.t, v.t_row, 4);
    if (tile->gradient == VL_BF16)
        return launch_kind<vl_bf16>(cuda, a->kind, v, tile->rows, err);
    if (tile->gradient == VL_F16)
        return launch_kind<vl_f16>(cuda, a->kind, v, tile->rows, err);
    return launch_kind<float>(cuda, a->kind, v, tile->rows, err);
}
