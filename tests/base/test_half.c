/* bfloat16 and IEEE half: every pattern against its definition, and rounding to nearest even. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/base/half.h"

/* What a pattern means: sign, exponent bits, mantissa bits. */
static double decode(uint16_t bits, int exponent_bits, int mantissa_bits)
{
    int bias = (1 << (exponent_bits - 1)) - 1, exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
    double mantissa = bits & ((1 << mantissa_bits) - 1), sign = bits >> 15 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1)
        return mantissa != 0 ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp(1 + ldexp(mantissa, -mantissa_bits), exponent - bias);
}

static void every_half_pattern(void **state)
{
    (void)state;
    for (int i = 0; i < 65536; i++) {
        float value = vl_f16_to_f32((uint16_t)i);
        double want = decode((uint16_t)i, 5, 10);
        if (isnan(want)) {
            assert_true(isnan(value) && isnan(vl_f16_to_f32(vl_f32_to_f16(value))));
            continue;
        }
        assert_true((double)value == want && !signbit(value) == !(i >> 15));
        assert_int_equal(vl_f32_to_f16(value), i);
    }
}

static void every_bfloat_pattern(void **state)
{
    (void)state;
    for (int i = 0; i < 65536; i++) {
        float value = vl_bf16_to_f32((uint16_t)i);
        double want = decode((uint16_t)i, 8, 7);
        if (isnan(want)) {
            assert_true(isnan(value) && isnan(vl_bf16_to_f32(vl_f32_to_bf16(value))));
            continue;
        }
        assert_true((double)value == want && !signbit(value) == !(i >> 15));
        assert_int_equal(vl_f32_to_bf16(value), i);
    }
}

/* Between each finite positive pattern and the next: the middle goes to the even one, either side to its own. A step
 * above the largest is infinity. */
static void check_rounding(uint16_t (*narrow)(float), int exponent_bits, int mantissa_bits)
{
    int last = ((1 << exponent_bits) - 1) << mantissa_bits; /* infinity */
    for (int i = 0; i < last; i++) {
        double low = decode((uint16_t)i, exponent_bits, mantissa_bits);
        double high = i + 1 < last ? decode((uint16_t)(i + 1), exponent_bits, mantissa_bits)
                                   : 2 * low - decode((uint16_t)(i - 1), exponent_bits, mantissa_bits);
        float middle = (float)((low + high) / 2);
        int even = i % 2 == 0 ? i : i + 1;
        assert_int_equal(narrow(middle), even);
        assert_int_equal(narrow(nextafterf(middle, 0)), i);
        assert_int_equal(narrow(nextafterf(middle, INFINITY)), i + 1);
        assert_int_equal(narrow(-middle), even | 0x8000);
    }
}

static uint16_t to_half(float x)
{
    return vl_f32_to_f16(x);
}

static uint16_t to_bfloat(float x)
{
    return vl_f32_to_bf16(x);
}

static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    check_rounding(to_half, 5, 10);
    check_rounding(to_bfloat, 8, 7);
}

static void extremes(void **state)
{
    (void)state;
    assert_int_equal(vl_f32_to_f16(65504.0f), 0x7bff);
    assert_int_equal(vl_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(vl_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(vl_f32_to_f16(-1e10f), 0xfc00);
    assert_int_equal(vl_f32_to_f16(0x1p-25f), 0);   /* the tie between 0 and the smallest */
    assert_int_equal(vl_f32_to_f16(0x1.8p-24f), 2); /* the tie between 1 and 2 */
    assert_int_equal(vl_f32_to_f16(-0x1p-149f), 0x8000);
    assert_int_equal(vl_f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(vl_f32_to_bf16(3.4028235e38f), 0x7f80);
    assert_int_equal(vl_f32_to_bf16(-INFINITY), 0xff80);
    uint32_t bits = 0x7f800001; /* a NaN whose payload would be rounded away */
    float nan_value;
    memcpy(&nan_value, &bits, 4);
    assert_true(isnan(vl_bf16_to_f32(vl_f32_to_bf16(nan_value))) && isnan(vl_f16_to_f32(vl_f32_to_f16(nan_value))));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_pattern),
        cmocka_unit_test(every_bfloat_pattern),
        cmocka_unit_test(rounding_is_to_nearest_even),
        cmocka_unit_test(extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
