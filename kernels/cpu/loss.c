/* Losses between a student row q = softmax(z) and a teacher row p, and their gradients dL/dz:
 *   KL(p||q):  q - p                  CE:  q - onehot(target)
 *   KL(q||p):  q (log q/p - KL)       JS:  q/2 (log q/m - KL(q||m)),  m = (p + q) / 2
 *
 * Both KL sums also add the other distribution and subtract their own, which changes nothing as both sum to 1: every
 * term is then at least 0, and the rounding of the log-sum-exps cancels to first order. */
#include <math.h>

#include "kernels/cpu/expf.h"
#include "kernels/cpu/loss.h"

enum { PIECE = 1024 };

VL_SIMD static float kl_piece(float *z, const float *t, const vl_loss_row *row, int64_t n, int gradient)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float log_q = z[i] - row->lse, log_p = t[i] - row->teacher_lse, p = vl_expf(log_p), gap = vl_expf(log_q) - p;
        sum += p * (log_p - log_q) + gap;
        if (gradient)
            z[i] = row->weight * gap;
    }
    return sum;
}

VL_SIMD static void softmax_piece(float *z, float lse, float weight, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        z[i] = weight * vl_expf(z[i] - lse);
}

VL_SIMD static float reverse_piece(float *z, const float *t, const vl_loss_row *row, int64_t n, int gradient)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float log_q = z[i] - row->lse, log_p = t[i] - row->teacher_lse, log_ratio = log_q - log_p, q = vl_expf(log_q);
        sum += q * log_ratio + (vl_expf(log_p) - q);
        if (gradient)
            z[i] = row->weight * q * (log_ratio - row->total);
    }
    return sum;
}

/* Returns the loss; the inner KL(q||m) goes to *inner. */
VL_SIMD static float js_piece(float *z, const float *t, const vl_loss_row *row, int64_t n, int gradient, float *inner)
{
    float sum = 0, student = 0;
#pragma omp simd reduction(+ : sum, student)
    for (int64_t i = 0; i < n; i++) {
        float log_q = z[i] - row->lse, log_p = t[i] - row->teacher_lse, q = vl_expf(log_q), p = vl_expf(log_p);
        /* the logarithm of the larger of p and q over m is log 2 - log(1 + smaller / larger) */
        float difference = log_p - log_q, big = difference > 0 ? difference : -difference;
        float larger = 0.69314718f - vl_log1pf(vl_expf(-big)), smaller = larger - big;
        float q_part = difference > 0 ? smaller : larger, p_part = difference > 0 ? larger : smaller;
        student += q * q_part;
        sum += 0.5f * (q * q_part + p * p_part);
        if (gradient)
            z[i] = 0.5f * row->weight * q * (q_part - row->total);
    }
    *inner = student;
    return sum;
}

void vl_loss_prepare(vl_loss_row *row, const float *logits, int64_t n)
{
    double total = 0;
    for (int64_t i = 0; i < n && (row->kind == VL_LOSS_REVERSE_KL || row->kind == VL_LOSS_JS); i += PIECE) {
        int64_t width = n - i < PIECE ? n - i : PIECE;
        float *z = (float *)(uintptr_t)(logits + i), inner = 0;
        if (row->kind == VL_LOSS_REVERSE_KL)
            inner = reverse_piece(z, row->teacher + i, row, width, 0);
        else
            js_piece(z, row->teacher + i, row, width, 0, &inner);
        total += (double)inner;
    }
    row->total = (float)total;
}

static double ce_piece(const vl_loss_row *row, float *z, int64_t first, int64_t n, bool gradient)
{
    bool here = row->target >= first && row->target < first + n;
    double loss = here ? (double)(row->lse - z[row->target - first]) : 0;
    if (gradient) {
        softmax_piece(z, row->lse, row->target < 0 ? 0.0f : row->weight, n);
        if (here)
            z[row->target - first] -= row->weight;
    }
    return loss;
}

double vl_loss_piece(const vl_loss_row *row, float *logits, int64_t first, int64_t n, bool gradient)
{
    float unused;
    double loss = 0;
    if (row->kind == VL_LOSS_CE)
        return ce_piece(row, logits, first, n, gradient);
    for (int64_t i = 0; i < n; i += PIECE) {
        int64_t width = n - i < PIECE ? n - i : PIECE;
        const float *t = row->teacher + first + i;
        if (row->kind == VL_LOSS_KL)
            loss += (double)kl_piece(logits + i, t, row, width, gradient);
        else if (row->kind == VL_LOSS_REVERSE_KL)
            loss += (double)reverse_piece(logits + i, t, row, width, gradient);
        else
            loss += (double)js_piece(logits + i, t, row, width, gradient, &unused);
    }
    return loss;
}
