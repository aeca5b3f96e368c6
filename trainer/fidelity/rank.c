#include "trainer/fidelity/rank.h"

#include <math.h>

/* From 1; quadratic, for the few dozen directions that are ranked. */
static void ranks(double *out, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t below = 0, equal = 0;
        for (int64_t j = 0; j < n; j++) {
            below += x[j] < x[i];
            equal += x[j] == x[i];
        }
        out[i] = (double)below + (double)(equal + 1) / 2;
    }
}

double vl_spearman(const double *x, const double *y, int64_t n, double *scratch)
{
    double *a = scratch, *b = scratch + n, mean = (double)(n + 1) / 2, ab = 0, aa = 0, bb = 0;
    if (n < 2)
        return (double)NAN;
    ranks(a, x, n);
    ranks(b, y, n);
    for (int64_t i = 0; i < n; i++) {
        ab += (a[i] - mean) * (b[i] - mean);
        aa += (a[i] - mean) * (a[i] - mean);
        bb += (b[i] - mean) * (b[i] - mean);
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : (double)NAN;
}

double vl_partial_spearman(const double *x, const double *y, const double *z, int64_t n, double *scratch)
{
    double xy = vl_spearman(x, y, n, scratch), xz = vl_spearman(x, z, n, scratch), yz = vl_spearman(y, z, n, scratch);
    double left = (1 - xz * xz) * (1 - yz * yz); /* NaN fails the comparison too */
    return left > 1e-12 ? fmax(-1, fmin(1, (xy - xz * yz) / sqrt(left))) : (double)NAN;
}
