/* What a step of the fit needs beside its products: rows that lie ready, sums of losses, norms and clipping. */
#include "tests/kernels/ops/ops_test.h"

static void rows_are_taken(void **state)
{
    static const vl_dtype types[][2] = {{VL_F32, VL_F32}, {VL_F32, VL_F16},   {VL_F32, VL_BF16},
                                        {VL_F16, VL_F16}, {VL_BF16, VL_BF16}, {VL_I32, VL_I32}};
    static const int64_t shapes[][3] = {{1, 1, 1}, {5, 3, 8}, {33, 70, 64}, {250, 9, 129}};
    enum { MOST_RUNS = 250 }; /* more than one launch takes */
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++)
            for (int layout = DENSE; layout <= STRIDED; layout++) {
                int64_t m = shapes[i][0], r = shapes[i][1], n = shapes[i][2];
                double *x = test_random(r * n, 100);
                vl_row_run runs[MOST_RUNS];
                int64_t n_runs = 0;
                double *want = test_memory((size_t)(m * n), 8);
                for (int64_t k = 0; k < r * n; k++)
                    x[k] = types[t][1] == VL_I32 ? floor(x[k]) : test_round(x[k], types[t][1]);
                for (int64_t k = 0, length; k < m; k += length) {
                    int64_t first = k == 0 ? r - 1 : test_random_below(r);
                    length = 1 + test_random_below(3);
                    length = length < r - first ? length : r - first;
                    length = length < m - k ? length : m - k;
                    assert_true(n_runs < MOST_RUNS);
                    runs[n_runs++] = (vl_row_run){first, length};
                    memcpy(want + k * n, x + first * n, (size_t)(length * n) * sizeof *x);
                }
                test_tensor *table = test_tensor_of(types[t][1], x, r, n, (test_layout)layout);
                test_tensor *out = test_empty(types[t][0], m, n, (test_layout)layout);
                vl_take_rows_args args = {out->t, table->t, runs, n_runs};
                OK(vl_op_take_rows(device, &args, &error));
                test_unchanged(table);
                assert_memory_equal(test_values(out), want, (size_t)(m * n) * sizeof *want);
                test_teardown(state);
            }
}

/* Rows on their way to a file, and what is wrong with them; in two calls that are counted together. Read in two halves.
 */
static void rows_are_packed(void **state)
{
    enum { R = 90, MOST_RUNS = R };
    static const vl_dtype types[] = {VL_F32, VL_F16, VL_BF16};
    for (int bits = 0; bits < 12; bits++) {
        int64_t n = bits < 6 ? 64 : 33, m = 0, n_runs = 0;
        vl_dtype dtype = types[bits % 3];
        double *x = test_random(R * n, 100), *want = test_memory((size_t)(R * n), 8), zero[2] = {0, 0},
               seen[2] = {0, 0};
        x[n] = INFINITY, x[3 * n + 1] = -INFINITY, x[3 * n + 2] = NAN, x[5 * n] = 7e4, x[7 * n + 3] = 3.4e38;
        vl_row_run runs[MOST_RUNS];
        for (int64_t i = 0; i < R; i += 1 + i % 3) { /* rows 0 1 3 4 6 7 ... */
            runs[n_runs++] = (vl_row_run){i, 1};
            for (int64_t j = 0; j < n; j++, m++) {
                want[m] = test_round(x[i * n + j], dtype);
                seen[0] += 2 * !isfinite(x[i * n + j]);
                seen[1] += 2 * (isfinite(x[i * n + j]) && !isfinite(want[m]));
            }
        }
        m /= n;
        test_layout layout = bits & 1 ? STRIDED : DENSE;
        test_tensor *in = test_tensor_of(VL_F32, x, R, n, layout), *out = test_empty(dtype, m, n, layout);
        test_tensor *counts = test_vector_of(VL_I32, zero, 2);
        vl_pack_rows_args args = {out->t, in->t, runs, n_runs, counts->t};
        OK(vl_op_pack_rows(device, &args, &error));
        OK(vl_op_pack_rows(device, &args, &error));
        test_unchanged(in);
        double *found = test_values(out);
        for (int64_t i = 0; i < m * n; i++)
            assert_true(found[i] == want[i] || (isnan(found[i]) && isnan(want[i])));
        assert_memory_equal(test_values(counts), seen, sizeof seen);
        unsigned char *once = test_memory((size_t)(m * n), 4), *halves = test_memory((size_t)(m * n), 4);
        OK(vl_device_read(device, once, &out->t, &error));
        OK(vl_device_read_begin(device, out->t, &error));
        OK(vl_device_read_end(device, halves, &error));
        assert_memory_equal(once, halves, (size_t)(m * n) * vl_dtype_size(dtype));
        test_teardown(state);
    }
}

static void matrices_are_normalised(void **state)
{
    static const int64_t shapes[][2] = {{1, 1}, {7, 13}, {64, 64}, {130, 257}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int bits = 0; bits < 4; bits++) {
            int64_t m = shapes[i][0], n = shapes[i][1];
            vl_dtype dtype = bits & 1 ? vl_device_gemm_dtype(device, true) : VL_F32;
            double *x = test_random(m * n, 1e-4), norm = 0;
            test_tensor *in = test_tensor_of(VL_F32, x, m, n, (test_layout)(bits >> 1));
            test_tensor *out = test_empty(dtype, m, n, (test_layout)(bits >> 1));
            OK(vl_op_normalise(device, &(vl_normalise_args){out->t, in->t}, &error));
            for (int64_t k = 0; k < m * n; k++)
                norm += x[k] * x[k];
            for (int64_t k = 0; k < m * n; k++)
                x[k] /= sqrt(norm);
            test_within("normalise", dtype == VL_BF16 ? "bf16" : "", test_row_error(test_values(out), x, 1, m * n));
            test_teardown(state);
        }
    double *zeros = test_memory(64, 8);
    test_tensor *out = test_empty(VL_F32, 8, 8, DENSE), *in = test_tensor_of(VL_F32, zeros, 8, 8, DENSE);
    OK(vl_op_normalise(device, &(vl_normalise_args){out->t, in->t}, &error));
    assert_memory_equal(test_values(out), zeros, 64 * sizeof *zeros);
}

/* Over three tiles; rows that are no finite number are found, the first of them. */
static void losses_are_added(void **state)
{
    enum { ROWS = 700 };
    for (int bad = -1; bad < 3; bad++)
        for (int weighted = 0; weighted < 2; weighted++) {
            double none[2] = {NAN, 17}, want = 0, *found;
            test_tensor *total = test_vector_of(VL_F64, none, 2);
            for (int tile = 0; tile < 3; tile++) {
                double *loss = test_random(ROWS, 1), *weight = test_random(ROWS, 1);
                for (int64_t i = 0; i < ROWS; i++)
                    want += (weighted ? weight[i] : 1) * loss[i];
                if (tile == bad)
                    loss[300] = NAN, loss[bad == 0 ? 0 : 299] = INFINITY, loss[650] = NAN;
                vl_loss_total_args args = {.total = total->t, .loss = test_vector_of(VL_F32, loss, ROWS)->t};
                if (weighted)
                    args.weight = test_vector_of(VL_F32, weight, ROWS)->t;
                args.first_row = tile * ROWS, args.fresh = tile == 0;
                OK(vl_op_loss_total(device, &args, &error));
            }
            found = test_values(total);
            assert_true(found[1] == (bad < 0 ? -1 : bad == 0 ? 0 : bad * ROWS + 299));
            if (bad < 0)
                test_within("loss_total", "", fabs(found[0] - want) / (1 + fabs(want)));
            else
                assert_false(isfinite(found[0]));
            test_teardown(state);
        }
}

static void gradients_are_clipped(void **state)
{
    static const double clips[] = {0, 1, 1e6};
    for (int bits = 0; bits < 24; bits++) {
        double clip = clips[bits % 3], loss = bits & 4 ? NAN : 2.5, squares = 0;
        bool second = bits & 8, broken = bits >= 16;
        double *a = test_random(40 * 33, 1), *b = test_random(33, 1);
        if (broken)
            a[17] = INFINITY;
        for (int64_t i = 0; i < 40 * 33; i++)
            squares += a[i] * a[i];
        for (int64_t i = 0; i < 33 && second; i++)
            squares += b[i] * b[i];
        test_tensor *scale = test_empty_vector(VL_F32, 2), *norm = test_empty_vector(VL_F64, 1);
        vl_step_scale_args args = {.scale = scale->t, .norm = norm->t, .clip = clip};
        args.gradient = test_tensor_of(VL_F32, a, 40, 33, DENSE)->t, args.loss = test_vector_of(VL_F64, &loss, 1)->t;
        if (second)
            args.another = test_vector_of(VL_F32, b, 33)->t;
        OK(vl_op_step_scale(device, &args, &error));
        double *found = test_values(scale), size = sqrt(squares);
        if (isfinite(size))
            test_within("sum_squares", "", fabs(test_values(norm)[0] - size) / size);
        if (!isfinite(size) || !isfinite(loss))
            assert_true(isnan(found[0]) && isnan(found[1]));
        else
            assert_true(found[1] == 1 &&
                        found[0] == (clip > 0 && size > clip ? (double)(float)(clip / test_values(norm)[0]) : 1));
        test_teardown(state);
    }
}

static void steps_refuse(void **state)
{
    (void)state;
    double values[12] = {0};
    test_tensor *x = test_tensor_of(VL_F32, values, 3, 4, DENSE), *out = test_empty(VL_F32, 3, 4, DENSE);
    vl_normalise_args normalise = {out->t, x->t};
    normalise.out = x->t;
    normalise.out.shape[0] = 2;
    REFUSED(vl_op_normalise(device, &normalise, &error));
    vl_row_run run = {1, 3};
    vl_take_rows_args take = {out->t, x->t, &run, 1};
    REFUSED(vl_op_take_rows(device, &take, &error));
    run = (vl_row_run){0, 2};
    REFUSED(vl_op_take_rows(device, &take, &error));
    vl_loss_total_args total = {.total = test_vector_of(VL_F32, values, 2)->t,
                                .loss = test_vector_of(VL_F32, values, 3)->t};
    REFUSED(vl_op_loss_total(device, &total, &error));
    vl_step_scale_args scale = {.scale = x->t, .norm = test_vector_of(VL_F64, values, 1)->t, .gradient = x->t};
    scale.loss = scale.norm;
    REFUSED(vl_op_step_scale(device, &scale, &error));
}

static const struct CMUnitTest tests[] = {
    OPS_TEST(rows_are_taken),   OPS_TEST(rows_are_packed),       OPS_TEST(matrices_are_normalised),
    OPS_TEST(losses_are_added), OPS_TEST(gradients_are_clipped), OPS_TEST(steps_refuse),
};
OPS_TEST_MAIN(tests)
