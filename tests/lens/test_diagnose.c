/* What vl_lens_diagnose says of adapters whose spectrum is known: A = Q diag(values) Q with a reflection Q. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/fit_test.h"
#include "trainer/lens/lens.h"

enum { D = 12 };
static const double values[D] = {3, 2, 1, 0.5, 0.25, 0, 0, 0, 0, -0.5, -0.25, 0.125};

/* Q = I - 2 u u^T / |u|^2, u = (1, 2, ... D). */
static double reflection(int i, int j)
{
    double square = D * (D + 1) * (2 * D + 1) / 6.0;
    return (i == j) - 2.0 * (i + 1) * (j + 1) / square;
}

static void fill(float *a, double scale)
{
    for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++) {
            double sum = 0;
            for (int k = 0; k < D; k++)
                sum += reflection(i, k) * values[k] * reflection(k, j);
            a[i * D + j] = (float)(scale * sum);
        }
}

static int falling(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static void close_to(double got, double want, double bound)
{
    if (!(fabs(got - want) <= bound * fabs(want) + 1e-7))
        fail_msg("got %.9g, expected %.9g", got, want);
}

static vl_lens *lens_of(const char *path, const float *const *weight, const float *const *bias)
{
    vl_error err = VL_ERROR_INIT;
    vl_lens *lens;
    vl_lens_content content = {.d_model = D,
                               .n_layers = 3,
                               .weight = weight,
                               .bias = bias,
                               .dtype = VL_F32,
                               .fingerprint = "",
                               .model_id = "test"};
    ok(vl_lens_write(path, &content, &err), &err);
    ok(vl_lens_open(&lens, path, &err), &err);
    return lens;
}

static void spectrum_is_that_which_was_put_in(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    float a[D * D], twice[D * D], bias[D], singular[D];
    double sorted[D], square = 0, sum = 0, entropy = 0;
    char *folder = folder_new();
    fill(a, 1);
    fill(twice, 2);
    for (int i = 0; i < D; i++) {
        bias[i] = 2;
        sorted[i] = fabs(values[i]);
        square += values[i] * values[i];
        sum += sorted[i];
    }
    for (int i = 0; i < D; i++)
        entropy -= sorted[i] > 0 ? sorted[i] / sum * log(sorted[i] / sum) : 0;
    qsort(sorted, D, sizeof *sorted, falling);
    vl_lens *lens = lens_of(in(folder, "lens.safetensors"), (const float *const[]){a, twice, NULL},
                            (const float *const[]){bias, bias, NULL});
    vl_lens_diagnosis d;
    ok(vl_lens_diagnose(&d, lens, 0, true, singular, &err), &err);
    assert_true(d.fitted && d.has_spectrum);
    for (int i = 0; i < D; i++)
        close_to((double)singular[i], sorted[i], 3e-6);
    close_to(d.weight_norm, sqrt(square), 1e-6);
    close_to(d.bias_norm, 2 * sqrt(D), 1e-6);
    close_to(d.spectral_norm, 3, 1e-6);
    close_to(d.effective_rank, exp(entropy), 1e-5);
    close_to(d.condition, 4 / 0.5, 1e-5); /* of I + A: 1 + 3 over 1 - 0.5 */
    close_to(d.to_next, 1 / sqrt(2), 1e-6);
    ok(vl_lens_diagnose(&d, lens, 1, false, NULL, &err), &err);
    assert_true(!d.has_spectrum && isnan(d.to_next)); /* the next one was not fitted */
    ok(vl_lens_diagnose(&d, lens, 2, true, singular, &err), &err);
    assert_true(!d.fitted && d.weight_norm == 0 && d.condition == 1 && singular[0] == 0);
    assert_int_equal(vl_lens_diagnose(&d, lens, 3, false, NULL, &err), VL_EINVAL);
    vl_lens_close(lens);
    folder_remove(folder);
}

static void what_is_not_finite_is_refused(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    float a[D * D] = {0}, bias[D] = {0};
    char *folder = folder_new();
    a[5] = INFINITY;
    vl_lens *lens = lens_of(in(folder, "lens.safetensors"), (const float *const[]){a, a, a},
                            (const float *const[]){bias, bias, bias});
    vl_lens_diagnosis d;
    assert_int_equal(vl_lens_diagnose(&d, lens, 0, true, NULL, &err), VL_EFORMAT);
    assert_non_null(strstr(err.message, "not finite"));
    vl_lens_close(lens);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spectrum_is_that_which_was_put_in),
        cmocka_unit_test(what_is_not_finite_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
