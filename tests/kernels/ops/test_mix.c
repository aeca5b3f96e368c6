/* Weighted sums of picked rows. */
#include "tests/kernels/ops/ops_test.h"

typedef struct shape {
    int64_t rows, from, n, taps;
} shape;

/* Row indices as they lie in memory: [rows, taps] i32. */
static test_tensor *picked(const double *indices, int64_t rows, int64_t taps)
{
    return test_tensor_of(VL_I32, indices, rows, taps, DENSE);
}

static void check_mix(shape s, test_layout layout, bool weighted)
{
    double *x = test_random(s.from * s.n, 3), *w = test_random(s.rows * s.taps, 1);
    double *indices = test_memory((size_t)(s.rows * s.taps), sizeof *indices);
    double *want = test_memory((size_t)(s.rows * s.n), sizeof *want);
    double *scale = test_memory((size_t)(s.rows * s.n), sizeof *scale);
    for (int64_t i = 0; i < s.rows * s.taps; i++)
        indices[i] = (double)test_random_below(s.from);
    for (int64_t i = 0; i < s.rows; i++)
        for (int64_t j = 0; j < s.n; j++) {
            want[i * s.n + j] = scale[i * s.n + j] = 0;
            for (int64_t k = 0; k < s.taps; k++) {
                double term = (weighted ? w[i * s.taps + k] : 1) * x[(int64_t)indices[i * s.taps + k] * s.n + j];
                want[i * s.n + j] += term;
                scale[i * s.n + j] += fabs(term);
            }
        }
    test_tensor *in = test_tensor_of(VL_F32, x, s.from, s.n, layout);
    test_tensor *weights = test_tensor_of(VL_F32, w, s.rows, s.taps, layout);
    test_tensor *rows = picked(indices, s.rows, s.taps), *out = test_empty(VL_F32, s.rows, s.n, layout);
    vl_mix_rows_args args = {.out = out->t, .x = in->t, .rows = rows->t};
    if (weighted)
        args.weights = weights->t;
    OK(vl_op_mix_rows(device, &args, &error));
    test_unchanged(in);
    test_unchanged(rows);
    double found = test_scaled_error(test_values(out), want, scale, s.rows * s.n);
    if (s.taps == 1 && !weighted)
        assert_true(found == 0); /* a copy is exact */
    test_within("mix_rows", "", found);
}

static void mix_rows_forward(void **state)
{
    static const shape shapes[] = {{1, 1, 1, 1}, {9, 4, 7, 1}, {16, 64, 33, 4}, {5, 80, 130, 16}, {300, 200, 96, 4}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int layout = 0; layout < 3; layout++)
            for (int weighted = 0; weighted < 2; weighted++) {
                check_mix(shapes[i], (test_layout)layout, weighted);
                test_teardown(state);
            }
}

static void mix_rows_refuses(void **state)
{
    (void)state;
    double values[24] = {0};
    test_tensor *x = test_tensor_of(VL_F32, values, 4, 6, DENSE), *out = test_tensor_of(VL_F32, values, 2, 6, DENSE);
    test_tensor *rows = picked(values, 2, 3), *weights = test_tensor_of(VL_F32, values, 2, 3, DENSE);
    vl_mix_rows_args good = {out->t, x->t, rows->t, weights->t}, bad;
    OK(vl_op_mix_rows(device, &good, &error));
    bad = good, bad.x = vl_tensor_columns(x->t, 0, 5);
    REFUSED(vl_op_mix_rows(device, &bad, &error));
    bad = good, bad.rows = vl_tensor_rows(rows->t, 0, 1);
    REFUSED(vl_op_mix_rows(device, &bad, &error));
    bad = good, bad.rows.dtype = VL_F32;
    REFUSED(vl_op_mix_rows(device, &bad, &error));
    bad = good, bad.weights = vl_tensor_columns(weights->t, 0, 2);
    REFUSED(vl_op_mix_rows(device, &bad, &error));
    bad = good, bad.out = vl_tensor_rows(x->t, 0, 2); /* in place */
    REFUSED(vl_op_mix_rows(device, &bad, &error));
}

static const struct CMUnitTest tests[] = {OPS_TEST(mix_rows_forward), OPS_TEST(mix_rows_refuses)};
OPS_TEST_MAIN(tests)
