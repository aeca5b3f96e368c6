/* Conversions: every 16-bit pattern, ties, and every pair of types, bit for bit. */
#include "tests/kernels/ops/ops_test.h"

#include "trainer/base/half.h"

static const vl_dtype dtypes[] = {VL_F32, VL_F16, VL_BF16};

/* A dense tensor of raw 16-bit or 32-bit patterns. */
static vl_tensor raw_tensor(vl_dtype dtype, const void *bits, int64_t n)
{
    test_tensor *tensor = test_empty(dtype, 1, n, DENSE);
    OK(vl_device_write(device, &tensor->t, bits, &error));
    return tensor->t;
}

static void *cast_raw(vl_dtype to, vl_tensor from)
{
    int64_t n = from.shape[1];
    test_tensor *out = test_empty(to, 1, n, DENSE);
    void *bits = test_memory((size_t)n, vl_dtype_size(to));
    OK(vl_op_cast(device, &(vl_cast_args){out->t, from}, &error));
    OK(vl_device_read(device, bits, &out->t, &error));
    return bits;
}

/* All 65536 patterns of a 16-bit type widen exactly, and come back as they were (NaN as some NaN). */
static void every_pattern_survives(void **state)
{
    (void)state;
    enum { N = 65536 };
    uint16_t *all = test_memory(N, 2);
    for (int i = 0; i < N; i++)
        all[i] = (uint16_t)i;
    for (int d = 1; d < 3; d++) {
        float *wide = cast_raw(VL_F32, raw_tensor(dtypes[d], all, N));
        uint16_t *back = cast_raw(dtypes[d], raw_tensor(VL_F32, wide, N));
        for (int i = 0; i < N; i++) {
            float want = d == 1 ? vl_f16_to_f32(all[i]) : vl_bf16_to_f32(all[i]);
            if (isnan(want)) {
                assert_true(isnan(wide[i]));
                assert_true(isnan(d == 1 ? vl_f16_to_f32(back[i]) : vl_bf16_to_f32(back[i])));
                continue;
            }
            assert_memory_equal(&wide[i], &want, 4);
            assert_int_equal(back[i], all[i]);
        }
    }
}

/* fp32 patterns around every tie of both 16-bit types, against base/half.h (which tests/base checks by itself). */
static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    enum { N = 65536 * 6 };
    uint32_t *bits = test_memory(N, 4);
    for (uint32_t i = 0; i < 65536; i++) {
        static const uint32_t low[6] = {0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001};
        for (uint32_t k = 0; k < 6; k++)
            bits[6 * i + k] = i << 16 | low[k];
    }
    vl_tensor in = raw_tensor(VL_F32, bits, N);
    uint16_t *f16 = cast_raw(VL_F16, in), *bf16 = cast_raw(VL_BF16, in);
    for (int i = 0; i < N; i++) {
        float value;
        memcpy(&value, &bits[i], 4);
        if (isnan(value)) {
            assert_true(isnan(vl_f16_to_f32(f16[i])) && isnan(vl_bf16_to_f32(bf16[i])));
            continue;
        }
        assert_int_equal(f16[i], vl_f32_to_f16(value));
        assert_int_equal(bf16[i], vl_f32_to_bf16(value));
    }
}

static void every_pair_of_types(void **state)
{
    static const int64_t shapes[][2] = {{1, 1}, {3, 17}, {14, 33}, {65, 1100}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int bits = 0; bits < 9 * 4; bits++) {
            int64_t m = shapes[i][0], n = shapes[i][1];
            vl_dtype from = dtypes[bits % 3], to = dtypes[bits / 3 % 3];
            double *x = test_rounded(test_random_rows(m, n, 10), m * n, from), *want = test_rounded(x, m * n, to);
            test_tensor *in = test_tensor_of(from, x, m, n, bits / 9 & 1 ? STRIDED : DENSE);
            test_tensor *out = test_empty(to, m, n, bits / 18 ? STRIDED : DENSE);
            OK(vl_op_cast(device, &(vl_cast_args){out->t, in->t}, &error));
            test_unchanged(in);
            assert_memory_equal(test_values(out), want, (size_t)(m * n) * sizeof *want);
            test_teardown(state);
        }
}

static void cast_refuses(void **state)
{
    (void)state;
    double values[12] = {0};
    test_tensor *x = test_tensor_of(VL_F32, values, 3, 4, DENSE), *out = test_empty(VL_BF16, 3, 4, DENSE);
    vl_cast_args good = {out->t, x->t}, bad;
    OK(vl_op_cast(device, &good, &error));
    bad = good, bad.out = vl_tensor_rows(out->t, 0, 2);
    REFUSED(vl_op_cast(device, &bad, &error));
    bad = good, bad.x.dtype = VL_I32;
    REFUSED(vl_op_cast(device, &bad, &error));
    bad = good, bad.out.data = x->t.data;
    REFUSED(vl_op_cast(device, &bad, &error));
    bad = good, bad.x = vl_tensor_1d(x->t.data, VL_F32, 12);
    REFUSED(vl_op_cast(device, &bad, &error));
}

static const struct CMUnitTest tests[] = {OPS_TEST(every_pattern_survives), OPS_TEST(rounding_is_to_nearest_even),
                                          OPS_TEST(every_pair_of_types), OPS_TEST(cast_refuses)};
OPS_TEST_MAIN(tests)
