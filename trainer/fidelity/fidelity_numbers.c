#include "trainer/fidelity/fidelity_numbers.h"

#include <math.h>
#include <stdlib.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/fidelity/rank.h"

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The percentile interval of n resampled values, which it sorts. */
static void set_interval(vl_estimate *out, double *values, int64_t n)
{
    if (n < 2)
        return;
    qsort(values, (size_t)n, sizeof *values, ascending);
    out->low = values[(int64_t)(0.025 * (double)(n - 1))];
    out->high = values[(int64_t)ceil(0.975 * (double)(n - 1))];
}

static double weighted(const double *by_sample, int64_t n_samples, const uint16_t *weights)
{
    double sum = 0;
    for (int64_t j = 0; j < n_samples; j++)
        sum += (weights ? (double)weights[j] : 1) * by_sample[j];
    return sum;
}

vl_status vl_fidelity_rank(vl_estimate *plain, vl_estimate *partial, const vl_direction_effects *e, vl_rng *rng,
                           vl_error *err)
{
    int64_t k = e->n_directions, s = e->n_samples, n[2] = {0, 0};
    vl_estimate *out[2] = {plain, partial};
    double *memory = vl_alloc((size_t)(6 * k + 2 * (e->resamples + 1)), sizeof *memory);
    if (!memory)
        return vl_fail_nomem(err, "fidelity");
    double *x = memory, *y = x + k, *z = y + k, *scratch = z + k;
    double *drawn[2] = {scratch + 3 * k, scratch + 3 * k + e->resamples + 1};
    for (int64_t b = -1; b < e->resamples; b++) {
        const uint16_t *weights = b < 0 ? NULL : e->draws + b * s;
        for (int64_t i = 0; i < k; i++) {
            int64_t direction = b < 0 ? i : (int64_t)vl_rng_below(rng, (uint64_t)k);
            x[i] = weighted(e->lens_kl + direction * s, s, weights);
            y[i] = weighted(e->model_kl + direction * s, s, weights);
            z[i] = weighted(e->displacement + direction * s, s, weights);
        }
        double value[2] = {vl_spearman(x, y, k, scratch), vl_partial_spearman(x, y, z, k, scratch)};
        for (int i = 0; i < 2; i++) {
            if (b < 0)
                *out[i] = (vl_estimate){value[i], (double)NAN, (double)NAN};
            else if (!isnan(value[i]))
                drawn[i][n[i]++] = value[i];
        }
    }
    for (int i = 0; i < 2; i++)
        set_interval(out[i], drawn[i], n[i]);
    vl_free(memory);
    return VL_OK;
}
