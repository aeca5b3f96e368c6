/* diagnose.c - what an adapter does to a state: norms, spectrum, distance to its neighbour. */
#include <math.h>

#include "trainer/base/mem.h"
#include "trainer/lens/lapack.h"
#include "trainer/lens/lens.h"

static double norm(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; x && i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static double distance(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum);
}

/* Singular values [d], falling, of A + shift I. LAPACK sees the transpose, which has the same. */
static vl_status singular_values(float *out, const float *a, float shift, int64_t d, vl_error *err)
{
    int n = (int)d, info = 0, lwork = -1, one = 1, *integers = vl_alloc(8 * (size_t)d, sizeof *integers);
    float *copy = vl_alloc((size_t)(d * d), sizeof *copy), *work = NULL, best = 0, none = 0;
    vl_status status = VL_OK;
    if (!copy || !integers)
        VL_GOTO(vl_fail_nomem(err, "singular values"));
    for (int64_t i = 0; i < d * d; i++)
        copy[i] = a[i] + (i % (d + 1) == 0 ? shift : 0);
    sgesdd_("N", &n, &n, copy, &n, out, &none, &one, &none, &one, &best, &lwork, integers, &info);
    lwork = (int)best + 1;
    work = vl_alloc((size_t)lwork, sizeof *work);
    if (!work)
        VL_GOTO(vl_fail_nomem(err, "singular values"));
    sgesdd_("N", &n, &n, copy, &n, out, &none, &one, &none, &one, work, &lwork, integers, &info);
    if (info != 0)
        status = vl_fail(err, VL_EINTERNAL, "singular values: LAPACK's sgesdd says %d", info);
done:
    vl_free(copy);
    vl_free(integers);
    vl_free(work);
    return status;
}

static double effective_rank(const float *singular, int64_t d)
{
    double sum = 0, entropy = 0;
    for (int64_t i = 0; i < d; i++)
        sum += (double)singular[i];
    for (int64_t i = 0; i < d; i++) {
        double share = sum > 0 ? (double)singular[i] / sum : 0;
        entropy -= share > 0 ? share * log(share) : 0;
    }
    return sum > 0 ? exp(entropy) : 0;
}

static vl_status fill_spectrum(vl_lens_diagnosis *out, const float *a, float *singular, int64_t d, vl_error *err)
{
    float *own = singular ? NULL : vl_alloc((size_t)d, sizeof *own), *values = singular ? singular : own;
    vl_status status = VL_OK;
    if (!values)
        return vl_fail_nomem(err, "singular values");
    VL_GOTO(singular_values(values, a, 1, d, err));
    out->condition = values[d - 1] > 0 ? (double)values[0] / (double)values[d - 1] : (double)INFINITY;
    VL_GOTO(singular_values(values, a, 0, d, err));
    out->spectral_norm = (double)values[0];
    out->effective_rank = effective_rank(values, d);
    out->has_spectrum = true;
done:
    vl_free(own);
    return status;
}

vl_status vl_lens_diagnose(vl_lens_diagnosis *out, const vl_lens *lens, int64_t layer, bool spectrum, float *singular,
                           vl_error *err)
{
    const vl_lens_info *info = vl_lens_get_info(lens);
    int64_t d = info->d_model;
    if (layer < 0 || layer >= info->n_layers)
        return vl_fail(err, VL_EINVAL, "%s: layer %lld, expected 0 to %lld", info->path, (long long)layer,
                       (long long)info->n_layers - 1);
    const float *a = vl_lens_weight(lens, layer), *b = vl_lens_bias(lens, layer);
    const float *next = vl_lens_weight(lens, layer + 1);
    *out = (vl_lens_diagnosis){.fitted = b != NULL, .to_next = (double)NAN, .condition = 1};
    out->weight_norm = norm(a, d * d);
    out->bias_norm = norm(b, d);
    if (!isfinite(out->weight_norm) || !isfinite(out->bias_norm))
        return vl_fail(err, VL_EFORMAT, "%s: adapter %lld holds values that are not finite", info->path,
                       (long long)layer);
    double scale = sqrt(out->weight_norm * norm(next, d * d));
    if (a && next && scale > 0)
        out->to_next = distance(a, next, d * d) / scale;
    for (int64_t i = 0; singular && i < d; i++)
        singular[i] = 0;
    return spectrum && a ? fill_spectrum(out, a, singular, d, err) : VL_OK;
}
