/* Sums of tensors, patches of pictures, sums over rows, and zeroing. */
#include "tests/kernels/ops/ops_test.h"

static const int64_t shapes[][2] = {{1, 1}, {1, 37}, {5, 16}, {13, 255}, {14, 257}, {67, 576}};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

/* ---- add ---- */

enum { BROADCAST = 1, ROW_SCALE = 2, STRIDES = 4, OVER_X = 8, OVER_Y = 16, COLUMN_SCALE = 32 };

static void check_add(int64_t m, int64_t n, int bits)
{
    int64_t y_rows = bits & BROADCAST ? 1 : m;
    test_layout layout = bits & STRIDES ? STRIDED : DENSE;
    double *x = test_random_rows(m, n, 1), *y = test_random_rows(y_rows, n, 1), *by_row = test_random(m, 1);
    double *by_column = test_random(n, 1);
    double *want = test_memory((size_t)(m * n), 8), *size = test_memory((size_t)(m * n), 8);
    for (int64_t i = 0; i < m * n; i++) {
        double term = -0.625 * (bits & ROW_SCALE ? by_row[i / n] : 1) * (bits & COLUMN_SCALE ? by_column[i % n] : 1) *
                      y[y_rows == 1 ? i % n : i];
        want[i] = x[i] + term;
        size[i] = fabs(x[i]) + fabs(term);
    }
    test_tensor *a = test_tensor_of(VL_F32, x, m, n, layout), *b = test_tensor_of(VL_F32, y, y_rows, n, layout);
    test_tensor *out = bits & OVER_X ? a : bits & OVER_Y ? b : test_empty(VL_F32, m, n, layout);
    vl_add_args args = {.out = out->t, .x = a->t, .y = b->t, .scale = -0.625f};
    if (bits & ROW_SCALE)
        args.row_scale = test_vector_of(VL_F32, by_row, m)->t;
    if (bits & COLUMN_SCALE)
        args.column_scale = test_vector_of(VL_F32, by_column, n)->t;
    OK(vl_op_add(device, &args, &error));
    test_within("add", "", test_scaled_error(test_values(out), want, size, m * n));
}

static void add_all_variants(void **state)
{
    for (int i = 0; i < N_SHAPES; i++)
        for (int bits = 0; bits < 64; bits++) {
            bool y_is_whole = !(bits & BROADCAST) || shapes[i][0] == 1;
            if (!(bits & OVER_Y) || y_is_whole)
                check_add(shapes[i][0], shapes[i][1], bits);
            test_teardown(state);
        }
}

static void add_refuses(void **state)
{
    (void)state;
    double values[12] = {0};
    test_tensor *x = test_tensor_of(VL_F32, values, 3, 4, DENSE), *out = test_empty(VL_F32, 3, 4, DENSE);
    vl_add_args good = {.out = out->t, .x = x->t, .y = x->t, .scale = 1}, bad;
    OK(vl_op_add(device, &good, &error));
    bad = good, bad.y = vl_tensor_rows(x->t, 0, 2);
    REFUSED(vl_op_add(device, &bad, &error));
    bad = good, bad.row_scale = vl_tensor_1d(x->t.data, VL_F32, 4);
    REFUSED(vl_op_add(device, &bad, &error));
    bad = good, bad.out = x->t, bad.y = vl_tensor_rows(x->t, 1, 1); /* the row is overwritten on the way */
    REFUSED(vl_op_add(device, &bad, &error));
    bad = good, bad.column_scale = vl_tensor_1d(x->t.data, VL_F32, 3);
    REFUSED(vl_op_add(device, &bad, &error));
    bad = good, bad.x = vl_tensor_columns(x->t, 0, 3);
    REFUSED(vl_op_add(device, &bad, &error));
}

/* Slices of different columns of one buffer are apart, although their rows interleave. */
static void column_slices_do_not_overlap(void **state)
{
    (void)state;
    double values[24];
    for (int i = 0; i < 24; i++)
        values[i] = i;
    test_tensor *all = test_tensor_of(VL_F32, values, 3, 8, STRIDED);
    vl_tensor left = vl_tensor_columns(all->t, 0, 3), middle = vl_tensor_columns(all->t, 2, 3);
    vl_tensor right = vl_tensor_columns(all->t, 5, 3);
    OK(vl_op_add(device, &(vl_add_args){.out = right, .x = left, .y = left, .scale = 1}, &error));
    double *got = test_values(all);
    for (int i = 0; i < 24; i++)
        assert_true(got[i] == (i % 8 < 5 ? values[i] : 2 * values[i - 5]));
    REFUSED(vl_op_add(device, &(vl_add_args){.out = middle, .x = left, .y = left, .scale = 1}, &error));
    REFUSED(vl_op_add(device, &(vl_add_args){.out = left, .x = middle, .y = right, .scale = 1}, &error));
}

/* ---- patchify ---- */

static void patchify_pictures(void **state)
{
    static const int pictures[][4] = {
        {1, 1, 1, 1},    {3, 6, 4, 2},      {2, 15, 25, 5},
        {3, 28, 42, 14}, {3, 336, 336, 14}, {3, 30, 32, 7}}; /* the last one with a rim that no patch covers */
    for (size_t i = 0; i < sizeof pictures / sizeof pictures[0]; i++)
        for (int layout = 0; layout < 2; layout++) {
            int channels = pictures[i][0], height = pictures[i][1], width = pictures[i][2], p = pictures[i][3];
            int64_t columns = (int64_t)channels * p * p, rows = (int64_t)(height / p) * (width / p), n = rows * columns;
            double *pixels = test_random((int64_t)channels * height * width, 1);
            double *want = test_memory((size_t)n, sizeof *want);
            for (int64_t e = 0; e < n; e++) {
                int64_t patch = e / columns, c = e % columns / (p * p), y = e % (p * p) / p, x = e % p;
                int64_t row = patch / (width / p) * p + y, column = patch % (width / p) * p + x;
                want[e] = pixels[(c * height + row) * width + column];
            }
            test_tensor *in = test_tensor_of(VL_F32, pixels, channels * height, width, (test_layout)layout);
            test_tensor *out = test_empty(VL_F32, rows, columns, (test_layout)layout);
            OK(vl_op_patchify(device, &(vl_patchify_args){out->t, in->t, channels, height, width, p}, &error));
            test_unchanged(in);
            assert_memory_equal(test_values(out), want, (size_t)n * sizeof *want);
            test_teardown(state);
        }
}

static void patchify_refuses(void **state)
{
    (void)state;
    double values[72] = {0};
    test_tensor *in = test_tensor_of(VL_F32, values, 18, 4, DENSE), *out = test_empty(VL_F32, 6, 12, DENSE);
    vl_patchify_args good = {out->t, in->t, 3, 6, 4, 2}, bad;
    OK(vl_op_patchify(device, &good, &error));
    bad = good, bad.patch = 4; /* 6 rows are no multiple */
    REFUSED(vl_op_patchify(device, &bad, &error));
    bad = good, bad.patch = 0;
    REFUSED(vl_op_patchify(device, &bad, &error));
    bad = good, bad.out = vl_tensor_rows(out->t, 0, 5);
    REFUSED(vl_op_patchify(device, &bad, &error));
}

/* ---- sums ---- */

static void column_sums(void **state)
{
    static const float betas[] = {0, 1, -0.5f};
    for (int i = 0; i < N_SHAPES; i++)
        for (int bits = 0; bits < 6; bits++) {
            int64_t m = shapes[i][0], n = shapes[i][1];
            float beta = betas[bits % 3];
            double *x = test_random(m * n, 1), *before = test_random(n, 1);
            double *want = test_memory((size_t)n, 8), *size = test_memory((size_t)n, 8);
            for (int64_t j = 0; j < n; j++) {
                want[j] = beta == 0 ? 0 : (double)beta * before[j];
                size[j] = fabs(want[j]);
                for (int64_t k = 0; k < m; k++) {
                    want[j] += x[k * n + j];
                    size[j] += fabs(x[k * n + j]);
                }
            }
            test_tensor *in = test_tensor_of(VL_F32, x, m, n, bits / 3 ? STRIDED : BARE);
            test_tensor *out = beta == 0 ? test_empty_vector(VL_F32, n) : test_vector_of(VL_F32, before, n);
            OK(vl_op_column_sum(device, &(vl_column_sum_args){out->t, in->t, beta}, &error));
            test_unchanged(in);
            test_within("column_sum", "", test_scaled_error(test_values(out), want, size, n));
            test_teardown(state);
        }
}

static void sums_of_squares(void **state)
{
    test_reopen(2); /* without memory that an earlier operation needed more of */
    for (int i = 0; i < N_SHAPES; i++)
        for (int layout = 0; layout < 2; layout++) {
            int64_t m = shapes[i][0], n = shapes[i][1];
            double *x = test_random_rows(m, n, 1e12), want = 0, got = NAN, again = NAN;
            for (int64_t k = 0; k < m * n; k++)
                want += x[k] * x[k];
            test_tensor *in = test_tensor_of(VL_F32, x, m, n, (test_layout)layout);
            OK(vl_op_sum_squares(device, &got, in->t, &error));
            OK(vl_op_sum_squares(device, &again, in->t, &error));
            assert_memory_equal(&got, &again, sizeof got);
            test_within("sum_squares", "", fabs(got - want) / want);
            OK(vl_op_sum_squares(device, &got, test_vector_of(VL_F32, x, n)->t, &error));
            assert_true(got > 0);
            test_teardown(state);
        }
}

static void sums_refuse(void **state)
{
    (void)state;
    double values[12] = {0}, sum;
    test_tensor *x = test_tensor_of(VL_F32, values, 3, 4, DENSE), *out = test_vector_of(VL_F32, values, 4);
    vl_column_sum_args good = {out->t, x->t, 0}, bad;
    OK(vl_op_column_sum(device, &good, &error));
    bad = good, bad.out.shape[0] = 3;
    REFUSED(vl_op_column_sum(device, &bad, &error));
    bad = good, bad.x.dtype = VL_F64;
    REFUSED(vl_op_column_sum(device, &bad, &error));
    REFUSED(vl_op_sum_squares(device, &sum, test_empty(VL_BF16, 1, 4, DENSE)->t, &error));
    REFUSED(vl_op_sum_squares(device, &sum, (vl_tensor){.ndim = 1}, &error));
    REFUSED(vl_op_zero(device, (vl_tensor){.ndim = 2}, &error));
    REFUSED(vl_op_zero(device, (vl_tensor){.data = x->t.data, .ndim = 3}, &error));
}

/* Threads own columns and rows are added in order, so that no bit depends on the number of threads. */
static void column_sum_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    enum { M = 203, N = 1031 };
    double *x = test_random(M * N, 1), *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        test_reopen(threads);
        test_tensor *in = test_tensor_of(VL_F32, x, M, N, DENSE), *out = test_empty_vector(VL_F32, N);
        OK(vl_op_column_sum(device, &(vl_column_sum_args){out->t, in->t, 0}, &error));
        double *got = test_values(out);
        if (first)
            assert_memory_equal(got, first, N * sizeof *got);
        first = got;
    }
    test_reopen(2);
}

static void zeros(void **state)
{
    static const vl_dtype dtypes[] = {VL_F32, VL_F16, VL_BF16, VL_I32, VL_I64};
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++)
        for (int layout = 0; layout < 2; layout++) {
            test_tensor *out = test_empty(dtypes[d], 7, 13, (test_layout)layout);
            test_tensor *vector = test_empty_vector(dtypes[d], 29);
            OK(vl_op_zero(device, out->t, &error));
            OK(vl_op_zero(device, vector->t, &error));
            double nothing[7 * 13] = {0};
            assert_memory_equal(test_values(out), nothing, sizeof nothing);
            assert_memory_equal(test_values(vector), nothing, 29 * sizeof *nothing);
            test_teardown(state);
        }
}

static const struct CMUnitTest tests[] = {
    OPS_TEST(add_all_variants),
    OPS_TEST(add_refuses),
    OPS_TEST(column_slices_do_not_overlap),
    OPS_TEST(patchify_pictures),
    OPS_TEST(patchify_refuses),
    OPS_TEST(column_sums),
    OPS_TEST(sums_of_squares),
    OPS_TEST(sums_refuse),
    OPS_TEST(column_sum_bits_do_not_depend_on_threads),
    OPS_TEST(zeros),
};
OPS_TEST_MAIN(tests)
