/* The bootstrap over clusters: its mean is exact, its interval has the width that theory gives. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "trainer/base/mem.h"
#include "trainer/base/rng.h"
#include "trainer/eval/tally.h"

enum { CLUSTERS = 400, RESAMPLES = 2000 };

static void interval_has_the_width_of_the_standard_error(void **state)
{
    (void)state;
    double sum[CLUSTERS], scratch[RESAMPLES], mean = 0, square = 0;
    int64_t rows[CLUSTERS];
    uint16_t *draws;
    vl_rng rng;
    vl_rng_seed(&rng, 7);
    for (int i = 0; i < CLUSTERS; i++) {
        sum[i] = 3.0 + vl_rng_normal(&rng);
        rows[i] = 1;
        mean += sum[i] / CLUSTERS;
    }
    for (int i = 0; i < CLUSTERS; i++)
        square += (sum[i] - mean) * (sum[i] - mean) / (CLUSTERS - 1);
    double error = sqrt(square / CLUSTERS);
    vl_bootstrap bootstrap = {RESAMPLES, 42};
    assert_int_equal(vl_bootstrap_draw(&draws, &bootstrap, CLUSTERS, NULL), VL_OK);
    vl_estimate e = vl_bootstrap_estimate(sum, NULL, rows, CLUSTERS, draws, RESAMPLES, scratch);
    assert_true(fabs(e.mean - mean) < 1e-12);
    /* 2000 resamples: the ends are known to about 4 % of their distance */
    assert_true(fabs((mean - e.low) / (1.96 * error) - 1) < 0.15);
    assert_true(fabs((e.high - mean) / (1.96 * error) - 1) < 0.15);
    vl_free(draws);
}

static void every_resample_draws_as_many_clusters(void **state)
{
    (void)state;
    uint16_t *draws;
    vl_bootstrap bootstrap = {50, 1};
    assert_int_equal(vl_bootstrap_draw(&draws, &bootstrap, CLUSTERS, NULL), VL_OK);
    for (int b = 0; b < 50; b++) {
        int64_t total = 0;
        for (int i = 0; i < CLUSTERS; i++)
            total += draws[b * CLUSTERS + i];
        assert_int_equal(total, CLUSTERS);
    }
    vl_free(draws);
}

static void difference_is_paired(void **state)
{
    (void)state;
    /* two noisy series that differ by exactly 1: the paired interval has no width */
    double a[CLUSTERS], b[CLUSTERS], scratch[100];
    int64_t rows[CLUSTERS];
    uint16_t *draws;
    vl_rng rng;
    vl_rng_seed(&rng, 9);
    for (int i = 0; i < CLUSTERS; i++) {
        b[i] = 10 * vl_rng_normal(&rng);
        a[i] = b[i] + 1;
        rows[i] = 1;
    }
    vl_bootstrap bootstrap = {100, 3};
    assert_int_equal(vl_bootstrap_draw(&draws, &bootstrap, CLUSTERS, NULL), VL_OK);
    vl_estimate e = vl_bootstrap_estimate(a, b, rows, CLUSTERS, draws, 100, scratch);
    assert_true(fabs(e.mean - 1) < 1e-12 && fabs(e.low - 1) < 1e-12 && fabs(e.high - 1) < 1e-12);
    vl_free(draws);
}

static void rows_weigh_not_clusters(void **state)
{
    (void)state;
    double sum[2] = {2, 30}, scratch[1];
    int64_t rows[2] = {1, 3};
    vl_estimate e = vl_bootstrap_estimate(sum, NULL, rows, 2, NULL, 0, scratch);
    assert_true(e.mean == 8.0 && isnan(e.low) && isnan(e.high));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interval_has_the_width_of_the_standard_error),
        cmocka_unit_test(every_resample_draws_as_many_clusters),
        cmocka_unit_test(difference_is_paired),
        cmocka_unit_test(rows_weigh_not_clusters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
