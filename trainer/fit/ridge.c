/* ridge.c - solving for the closed-form start. The sums are made in moments.c.
 *
 * Least squares towards the final state is no KL, but it is convex, costs one pass and one Cholesky factorisation, and
 * starts the descent far below the logit lens. The target is the residual h_L - h, so that the penalty draws A towards
 * zero: towards the logit lens, as weight decay does (Belrose et al. 2023, section 3). */
#include "trainer/fit/ridge.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/lens/lapack.h"

enum { MAX_RAISES = 12 };

/* gram = centred xx + ridge * I; what = centred yx, row-major (out, in). */
static void centre(double *gram, double *cross, const vl_moments *m, double ridge)
{
    int64_t d = m->d;
    for (int64_t i = 0; i < d; i++) {
        double mean_x = m->x[i] / m->weight, mean_y = m->y[i] / m->weight;
        for (int64_t j = 0; j < d; j++) {
            gram[i * d + j] = m->xx[i * d + j] - mean_x * m->x[j];
            cross[i * d + j] = m->yx[i * d + j] - mean_y * m->x[j];
        }
        gram[i * d + i] += ridge;
    }
}

/* Sum of the variances of all columns. */
static double total_variance(const vl_moments *m)
{
    double trace = 0;
    for (int64_t i = 0; i < m->d; i++)
        trace += m->xx[i * m->d + i] - m->x[i] * m->x[i] / m->weight;
    return trace;
}

/* b = mean(h_L - h) - A mean(h). */
static void set_bias(float *bias, const float *weight, const vl_moments *m)
{
    for (int64_t i = 0; i < m->d; i++) {
        double sum = m->y0[i] + m->y[i] / m->weight;
        for (int64_t j = 0; weight && j < m->d; j++)
            sum -= (double)weight[i * m->d + j] * (m->h0[j] + m->x[j] / m->weight);
        bias[i] = (float)sum;
    }
}

/* A = cross gram^-1. Row-major (out, in) is column-major (in, out): one right-hand side for each output. */
static vl_status solve(double *cross, double *gram, const vl_moments *m, double *lambda, vl_error *err)
{
    const int d = (int)m->d;
    double unit = total_variance(m) / (double)m->d;
    for (int raises = 0;; raises++) {
        int info = 0;
        centre(gram, cross, m, *lambda * unit);
        dpotrf_("L", &d, gram, &d, &info);
        if (info == 0) {
            dpotrs_("L", &d, &d, gram, &d, cross, &d, &info);
            return VL_OK;
        }
        if (info < 0 || raises == MAX_RAISES)
            return vl_fail(err, VL_EINTERNAL, "Cholesky factorisation failed (%d) at lambda %g", info, *lambda);
        *lambda = *lambda > 0 ? *lambda * 10 : 1e-8;
    }
}

vl_status vl_moments_solve(float *weight, float *bias, const vl_moments *m, double *lambda, vl_error *err)
{
    size_t d = (size_t)m->d, n;
    if (!(m->weight > 0))
        return vl_fail(err, VL_EINVAL, "no rows for the closed-form start: %lld rows are all at position 0 or outliers",
                       (long long)m->left_out);
    if (!weight || !m->xx || !(total_variance(m) > 0)) {
        if (weight)
            memset(weight, 0, d * d * sizeof *weight);
        set_bias(bias, NULL, m);
        return VL_OK;
    }
    if (m->d > INT_MAX || !vl_mul_size(&n, d, d))
        return vl_fail(err, VL_EUNSUPPORTED, "closed-form start of width %lld", (long long)m->d);
    double *gram = vl_alloc_aligned(n, sizeof *gram), *cross = vl_alloc_aligned(n, sizeof *cross);
    vl_status status = gram && cross ? solve(cross, gram, m, lambda, err) : vl_fail_nomem(err, "closed-form start");
    if (status == VL_OK) {
        for (size_t i = 0; i < n; i++)
            weight[i] = (float)cross[i];
        set_bias(bias, weight, m);
    }
    vl_free(gram);
    vl_free(cross);
    return status;
}

/* sum w |x - mean|^2, or of y. */
static double centred_squares(double squares, const double *sums, const vl_moments *m)
{
    for (int64_t i = 0; i < m->d; i++)
        squares -= sums[i] * sums[i] / m->weight;
    return squares > 0 ? squares : 0;
}

double vl_moments_spread(const vl_moments *m)
{
    return sqrt(centred_squares(m->x_squares, m->x, m) / m->weight / (double)m->d);
}

/* With A (Sxx + ridge) = Syx, what is left of y is tr Syy - tr A Syx^T - ridge |A|^2. */
double vl_moments_unexplained(const float *weight, const vl_moments *m, double lambda)
{
    double x = centred_squares(m->x_squares, m->x, m), left = centred_squares(m->y_squares, m->y, m);
    double ridge = weight && m->xx ? lambda * total_variance(m) / (double)m->d : 0;
    for (int64_t i = 0; weight && m->yx && i < m->d; i++) {
        for (int64_t j = 0; j < m->d; j++) {
            double a = (double)weight[i * m->d + j];
            left -= a * (m->yx[i * m->d + j] - m->y[i] / m->weight * m->x[j] + ridge * a);
        }
    }
    return x > 0 && left > 0 ? sqrt(left / x) : 0;
}
