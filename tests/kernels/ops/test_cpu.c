/* What only the CPU backend has: its exponential and logarithm, over their whole ranges. */
#include "tests/kernels/ops/ops_test.h"

#include "kernels/cpu/expf.h"
#include "tests/support/tolerance.h"

/* Error in units of the last place of the fp32 value nearest to `want`. */
static double ulps(float got, double want)
{
    int exponent;
    frexp(want, &exponent);
    return fabs((double)got - want) / ldexp(1, exponent - 24);
}

static void exponential(void **state)
{
    (void)state;
    double worst = 0;
    for (float x = -87.3f; x <= 88.3f; x += 1.0f / 65536)
        worst = fmax(worst, ulps(vl_expf(x), exp((double)x)));
    for (float x = 1; x > 1e-30f; x *= 0.99f)
        worst = fmax(worst, fmax(ulps(vl_expf(x), exp((double)x)), ulps(vl_expf(-x), exp(-(double)x))));
    test_within("vl_expf", "ulp", worst);
    assert_true(vl_expf(0) == 1 && vl_expf(-87.4f) == 0 && vl_expf(-INFINITY) == 0 && vl_expf(-3e38f) == 0);
    assert_true(isinf(vl_expf(88.8f)) && isinf(vl_expf(3e38f)) && isinf(vl_expf(INFINITY)) && isnan(vl_expf(NAN)));
}

static void logarithm(void **state)
{
    (void)state;
    double worst = 0;
    for (float s = 0; s <= 1; s += 1.0f / 1048576)
        worst = fmax(worst, s > 0 ? ulps(vl_log1pf(s), log1p((double)s)) : 0);
    for (float s = 1; s > 1e-30f; s *= 0.99f)
        worst = fmax(worst, ulps(vl_log1pf(s), log1p((double)s)));
    test_within("vl_log1pf", "ulp", worst);
    assert_true(vl_log1pf(0) == 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(exponential), cmocka_unit_test(logarithm)};
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    return tolerance_report() + failures > 0;
}
