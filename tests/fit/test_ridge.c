/* The closed-form start against a dense solution made another way: elimination on [h, 1], all rows at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fit/cache_fault.h"
#include "tests/support/fit_test.h"
#include "trainer/base/half.h"
#include "trainer/fit/plan.h"
#include "trainer/fit/ridge.h"

enum { D = 16, LAYER = 1, FINAL = 3 };

typedef struct fixture {
    char *folder;
    vl_cache *cache;
    vl_config *config;
    vl_device *device;
    vl_plan plan;
    vl_readout readout;
} fixture;

static fixture open_fixture(void)
{
    vl_error err = VL_ERROR_INIT;
    fixture f = {.folder = folder_new()};
    f.cache = small_cache(f.folder);
    f.config = small_config(f.folder);
    f.config->lens.class_weights[VL_IMAGE] = 3;
    f.config->lens.skip_positions = 0; /* position 0 is left out by the closed form itself */
    ok(vl_device_open(&f.device, "cpu", 2, &err), &err);
    ok(vl_plan_new(&f.plan, f.config, f.cache, &err), &err);
    vl_loader_source source = {.cache = f.cache, .capacity = 50, .background = true};
    ok(vl_readout_new(&f.readout, NULL, f.device, &source, &err), &err);
    return f;
}

static void close_fixture(fixture *f)
{
    vl_readout_clear(&f->readout);
    vl_plan_clear(&f->plan);
    vl_device_close(f->device);
    vl_config_free(f->config);
    vl_cache_close(f->cache);
    folder_remove(f->folder);
}

static void read_row(double out[D], vl_cache *cache, int64_t state, int64_t row)
{
    uint16_t bits[D];
    vl_error err = VL_ERROR_INIT;
    ok(vl_cache_read(bits, cache, state, row, 1, &err), &err);
    for (int k = 0; k < D; k++)
        out[k] = (double)vl_bf16_to_f32(bits[k]);
}

/* Solves m x = r in place by elimination with pivoting; r [n, k]. */
static void eliminate(double *m, double *r, int n, int k)
{
    for (int c = 0; c < n; c++) {
        int pivot = c;
        for (int i = c + 1; i < n; i++)
            pivot = fabs(m[i * n + c]) > fabs(m[pivot * n + c]) ? i : pivot;
        for (int j = 0; j < n; j++) {
            double t = m[c * n + j];
            m[c * n + j] = m[pivot * n + j];
            m[pivot * n + j] = t;
        }
        for (int j = 0; j < k; j++) {
            double t = r[c * k + j];
            r[c * k + j] = r[pivot * k + j];
            r[pivot * k + j] = t;
        }
        for (int i = 0; i < n; i++) {
            double factor = i == c ? 0 : m[i * n + c] / m[c * n + c];
            for (int j = c; j < n; j++)
                m[i * n + j] -= factor * m[c * n + j];
            for (int j = 0; j < k; j++)
                r[i * k + j] -= factor * r[c * k + j];
        }
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < k; j++)
            r[i * k + j] /= m[i * n + i];
}

/* weight [D, D] and bias [D] by the normal equations of [h, 1]; row `skip` is left out. */
static void direct(float *weight, float *bias, const fixture *f, double lambda, int64_t skip)
{
    enum { E = D + 1 };
    double normal[E * E] = {0}, right[E * D] = {0}, total = 0, variance = 0;
    const vl_cache_tokens *t = vl_cache_get_tokens(f->cache);
    for (int64_t i = 0; i < f->plan.train.n_runs; i++) {
        for (int64_t k = 0; k < f->plan.train.runs[i].n; k++) {
            int64_t row = f->plan.train.runs[i].first + k;
            double x[E], y[D], w = f->plan.train.weight[t->token_class[row]];
            if (t->position[row] == 0 || row == skip)
                continue;
            read_row(x, f->cache, LAYER, row);
            read_row(y, f->cache, FINAL, row);
            x[D] = 1;
            for (int a = 0; a < E; a++) {
                for (int b = 0; b < E; b++)
                    normal[a * E + b] += w * x[a] * x[b];
                for (int b = 0; b < D; b++)
                    right[a * D + b] += w * x[a] * (y[b] - x[b]);
            }
            total += w;
        }
    }
    for (int a = 0; a < D; a++)
        variance += normal[a * E + a] - normal[a * E + D] * normal[a * E + D] / total;
    for (int a = 0; a < D; a++)
        normal[a * E + a] += lambda * variance / D;
    eliminate(normal, right, E, D);
    for (int o = 0; o < D; o++) {
        for (int a = 0; a < D; a++)
            weight[o * D + a] = (float)right[a * D + o];
        bias[o] = (float)right[D * D + o];
    }
}

/* Measured: 3e-7 (fp32 products). */
static const double DIRECT_BOUND = 1.2e-6;

static void compare(fixture *f, double lambda, int64_t skip)
{
    vl_error err = VL_ERROR_INIT;
    vl_moments moments;
    float weight[D * D], bias[D], wanted[D * D], wanted_bias[D];
    double used = lambda;
    ok(vl_moments_collect(&moments, &f->readout, &f->plan.train, &(vl_moments_args){LAYER, FINAL, true}, &err), &err);
    ok(vl_moments_solve(weight, bias, &moments, &used, &err), &err);
    assert_true(used == lambda);
    direct(wanted, wanted_bias, f, lambda, skip);
    double a = relative_error(weight, wanted, (size_t)D * D), b = relative_error(bias, wanted_bias, D);
    print_message("  lambda %g, %lld rows, %lld left out: relative error A %.1e, b %.1e\n", lambda,
                  (long long)moments.rows, (long long)moments.left_out, a, b);
    assert_true(a < DIRECT_BOUND && b < DIRECT_BOUND);
    vl_moments_clear(&moments);
}

static void test_against_dense(void **state)
{
    (void)state;
    fixture f = open_fixture();
    const double lambdas[] = {1e-5, 1e-3, 1e-1, 10};
    for (int k = 0; k < 4; k++)
        compare(&f, lambdas[k], -1);
    close_fixture(&f);
}

/* A row 10,000 times as large as the others, and one that is no number, change nothing but the count. */
static void test_sinks_are_left_out(void **state)
{
    (void)state;
    fixture f = open_fixture();
    int64_t row = f.plan.train.runs[0].first + 5;
    cache_fault(LAYER, row, 3e4f);
    compare(&f, 1e-3, row);
    cache_fault(FINAL, row, NAN);
    compare(&f, 1e-3, row);
    cache_fault(-1, 0, 0);
    close_fixture(&f);
}

static void test_mean_difference(void **state)
{
    (void)state;
    fixture f = open_fixture();
    vl_error err = VL_ERROR_INIT;
    vl_moments moments;
    float bias[D], weight[D * D];
    double sum[D] = {0}, total = 0, lambda = 0;
    const vl_cache_tokens *t = vl_cache_get_tokens(f.cache);
    for (int64_t i = 0; i < f.plan.train.n_runs; i++) {
        for (int64_t k = 0; k < f.plan.train.runs[i].n; k++) {
            int64_t row = f.plan.train.runs[i].first + k;
            double x[D], y[D], w = f.plan.train.weight[t->token_class[row]];
            if (t->position[row] == 0)
                continue;
            read_row(x, f.cache, LAYER, row);
            read_row(y, f.cache, FINAL, row);
            for (int a = 0; a < D; a++)
                sum[a] += w * (y[a] - x[a]);
            total += w;
        }
    }
    ok(vl_moments_collect(&moments, &f.readout, &f.plan.train, &(vl_moments_args){LAYER, FINAL, false}, &err), &err);
    assert_null(moments.xx);
    ok(vl_moments_solve(weight, bias, &moments, &lambda, &err), &err);
    for (int a = 0; a < D; a++)
        assert_true(fabs((double)bias[a] - sum[a] / total) < 1e-6);
    for (int a = 0; a < D * D; a++)
        assert_true(weight[a] == 0.0f);
    vl_moments_clear(&moments);
    close_fixture(&f);
}

/* Fewer rows than columns and no penalty: lambda is raised until it can be solved. */
static void test_singular(void **state)
{
    (void)state;
    fixture f = open_fixture();
    vl_error err = VL_ERROR_INIT;
    vl_moments moments;
    float bias[D], weight[D * D];
    double lambda = 0;
    vl_rows part = f.plan.train;
    vl_run few = {part.runs[0].first, 6};
    part.runs = &few;
    part.n_runs = 1;
    part.n_rows = few.n;
    ok(vl_moments_collect(&moments, &f.readout, &part, &(vl_moments_args){LAYER, FINAL, true}, &err), &err);
    memset(moments.xx, 0, D * sizeof *moments.xx); /* and exactly singular: a column without spread */
    for (int k = 0; k < D; k++)
        moments.xx[k * D] = 0;
    moments.x[0] = moments.yx[0] = 0;
    ok(vl_moments_solve(weight, bias, &moments, &lambda, &err), &err);
    assert_true(lambda > 0);
    for (int a = 0; a < D * D; a++)
        assert_true(isfinite(weight[a]));
    vl_moments_clear(&moments);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_dense),
        cmocka_unit_test(test_sinks_are_left_out),
        cmocka_unit_test(test_mean_difference),
        cmocka_unit_test(test_singular),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
