/* Rows of logits: log-sum-exp, the largest entries, and how two distributions compare. */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/expf.h"

enum { PIECE = 1024 }; /* entries that are worked on while they are in L1; partial sums in fp32, their total in fp64 */

VL_SIMD static float row_max(const float *x, int64_t n)
{
    float max = -INFINITY;
#pragma omp simd reduction(max : max)
    for (int64_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

VL_SIMD static float sum_exp(const float *x, float shift, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += vl_expf(x[i] - shift);
    return sum;
}

/* One pass: what was summed is scaled again where a piece brings a larger maximum. */
float vl_cpu_row_logsumexp(const float *logits, int64_t n)
{
    float max = -INFINITY;
    double sum = 0;
    for (int64_t i = 0; i < n; i += PIECE) {
        int64_t width = n - i < PIECE ? n - i : PIECE;
        float high = row_max(logits + i, width);
        if (high > max) {
            sum *= exp((double)max - (double)high); /* 0 the first time, as the maximum was -infinity */
            max = high;
        }
        sum += (double)sum_exp(logits + i, max > -INFINITY ? max : 0, width); /* NaN must not get lost */
    }
    return max + (float)log(sum);
}

vl_status cpu_logsumexp(void *context, const vl_logsumexp_args *a, vl_error *err)
{
    (void)context, (void)err;
    float *out = a->lse.data;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a->logits.shape[0]; i++)
        out[i] = vl_cpu_row_logsumexp(row_of(a->logits, i), a->logits.shape[1]);
    return VL_OK;
}

/* Keeps the k best in falling order; an equal logit with a higher id never displaces a lower one. */
static void topk_row(float *values, int32_t *ids, const float *logits, int64_t n, int64_t k)
{
    int64_t have = 0;
    for (int64_t i = 0; i < n; i++) {
        float x = isnan(logits[i]) ? -INFINITY : logits[i];
        if (have == k && x <= values[k - 1])
            continue;
        int64_t at = have < k ? have++ : k - 1;
        for (; at > 0 && values[at - 1] < x; at--) {
            values[at] = values[at - 1];
            ids[at] = ids[at - 1];
        }
        values[at] = x;
        ids[at] = (int32_t)i;
    }
}

vl_status cpu_topk(void *context, const vl_topk_args *a, vl_error *err)
{
    (void)context, (void)err;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a->logits.shape[0]; i++)
        topk_row(row_of(a->values, i), (int32_t *)a->ids.data + i * a->ids.row_stride, row_of(a->logits, i),
                 a->logits.shape[1], a->values.shape[1]);
    return VL_OK;
}

typedef struct row_sums {
    float kl, entropy, js, tv;
} row_sums;

VL_SIMD static row_sums compare_piece(const float *z, float z_lse, const float *t, float t_lse, int64_t n)
{
    float kl = 0, entropy = 0, js = 0, tv = 0;
#pragma omp simd reduction(+ : kl, entropy, js, tv)
    for (int64_t i = 0; i < n; i++) {
        float log_q = z[i] - z_lse, log_p = t[i] - t_lse, difference = log_p - log_q;
        float q = vl_expf(log_q), p = vl_expf(log_p), gap = p - q;
        /* 0 * log 0 is 0, also where log q is -inf. Adding q - p, which sums to 0, makes every term at least 0 and
         * cancels the rounding of both log-sum-exps to first order. */
        kl += (p > 0 ? p * difference : 0.0f) - gap;
        entropy -= q > 0 ? q * log_q : 0.0f;
        tv += gap > 0 ? gap : -gap;
        /* p log(p/m) + q log(q/m) with m = (p + q) / 2: the larger of both over m is 2 / (1 + smaller / larger) */
        float high = p > q ? p : q, low = p > q ? q : p, big = difference > 0 ? difference : -difference;
        float up = 0.69314718f - vl_log1pf(high > 0 ? low / high : 0.0f), down = up - big;
        js += high * up + (low > 0 ? low * down : 0.0f);
    }
    return (row_sums){kl, entropy, js, tv};
}

/* How many of n <= PIECE entries are above `value`. */
VL_SIMD static int32_t count_above(const float *x, float value, int32_t n)
{
    int32_t count = 0;
#pragma omp simd reduction(+ : count)
    for (int32_t i = 0; i < n; i++)
        count += x[i] > value;
    return count;
}

VL_SIMD static int32_t count_equal(const float *x, float value, int32_t n)
{
    int32_t count = 0;
#pragma omp simd reduction(+ : count)
    for (int32_t i = 0; i < n; i++)
        count += x[i] == value;
    return count;
}

/* The first of the largest entries. */
static int64_t row_argmax(const float *x, int64_t n)
{
    int64_t best = 0;
    float max = -INFINITY;
    for (int64_t i = 0; i < n; i += PIECE) {
        float high = row_max(x + i, n - i < PIECE ? n - i : PIECE);
        if (high > max) {
            max = high;
            best = i;
        }
    }
    while (best < n - 1 && x[best] != max)
        best++;
    return best;
}

/* How many entries stand before `id`: larger ones, and equal ones with a lower id. */
static int64_t rank_of(const float *x, int64_t n, int64_t id)
{
    int64_t rank = 0;
    for (int64_t i = 0; i < n; i += PIECE) {
        int64_t width = n - i < PIECE ? n - i : PIECE, before = id - i < 0 ? 0 : id - i < width ? id - i : width;
        rank += count_above(x + i, x[id], (int32_t)width) + count_equal(x + i, x[id], (int32_t)before);
    }
    return rank;
}

static row_sums compare_row(int64_t *rank, const vl_metrics_args *a, int64_t row)
{
    int64_t n = a->logits.shape[1];
    const float *z = row_of(a->logits, row), *t = row_of(a->teacher_logits, row);
    float z_lse = ((const float *)a->lse.data)[row], t_lse = ((const float *)a->teacher_lse.data)[row];
    double kl = 0, entropy = 0, js = 0, tv = 0;
    for (int64_t i = 0; i < n; i += PIECE) {
        row_sums part = compare_piece(z + i, z_lse, t + i, t_lse, n - i < PIECE ? n - i : PIECE);
        kl += (double)part.kl;
        entropy += (double)part.entropy;
        js += (double)part.js;
        tv += (double)part.tv;
    }
    *rank = rank_of(z, n, row_argmax(t, n));
    return (row_sums){(float)kl, (float)entropy, (float)(js / 2), (float)(tv / 2)};
}

static void metrics_row(float *out, const vl_metrics_args *a, int64_t row)
{
    int64_t n = a->logits.shape[1], rank;
    row_sums sums = compare_row(&rank, a, row);
    int32_t target = a->targets.data ? ((const int32_t *)a->targets.data)[row] : -1;
    out[VL_METRIC_KL] = sums.kl;
    out[VL_METRIC_CE] =
        target >= 0 && target < n ? ((const float *)a->lse.data)[row] - row_of(a->logits, row)[target] : NAN;
    out[VL_METRIC_ENTROPY] = sums.entropy;
    out[VL_METRIC_TOP1] = rank == 0;
    out[VL_METRIC_TOP5] = rank < 5;
    out[VL_METRIC_RANK] = (float)rank;
    out[VL_METRIC_JS] = sums.js;
    out[VL_METRIC_TV] = sums.tv;
}

vl_status cpu_metrics(void *context, const vl_metrics_args *a, vl_error *err)
{
    (void)context, (void)err;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a->logits.shape[0]; i++)
        metrics_row(row_of(a->out, i), a, i);
    return VL_OK;
}
