/* RMS and layer norm, whole rows and per head, and their backward pass. */
#include "tests/kernels/ops/ops_test.h"

typedef struct shape {
    int64_t m, n, width; /* groups of `width` columns */
} shape;

static const shape shapes[] = {{1, 1, 1},     {1, 17, 17},   {5, 16, 16},     {7, 95, 95},     {3, 130, 13},
                               {11, 192, 64}, {9, 576, 576}, {29, 1024, 128}, {33, 4096, 4096}};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static const char *mode_of(vl_norm_kind kind)
{
    return kind == VL_NORM_RMS ? "rms" : "layer";
}

/* Mean (0 for RMS) and reciprocal deviation. */
static double statistics(double *mean, const double *x, int64_t n, vl_norm_kind kind, double eps)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    *mean = kind == VL_NORM_LAYER ? sum / (double)n : 0;
    for (int64_t i = 0; i < n; i++)
        squares += (x[i] - *mean) * (x[i] - *mean);
    return 1 / sqrt(squares / (double)n + eps);
}

static void reference(double *out, const double *x, const double *weight, const double *bias, int64_t n,
                      vl_norm_kind kind, double eps)
{
    double mean, scale = statistics(&mean, x, n, kind, eps);
    for (int64_t i = 0; i < n; i++)
        out[i] = (x[i] - mean) * scale * weight[i] + (bias ? bias[i] : 0);
}

/* One column of layer norm is 0 by definition, whatever it holds: any rounding would show as infinite error. */
static bool degenerate(shape s, vl_norm_kind kind)
{
    return s.width == 1 && kind == VL_NORM_LAYER;
}

static void check_norm(shape s, int bits)
{
    vl_norm_kind kind = bits & 1 ? VL_NORM_LAYER : VL_NORM_RMS;
    bool with_bias = bits >> 1 & 1, in_place = bits >> 2 & 1;
    test_layout layout = bits >> 3 & 1 ? STRIDED : DENSE;
    double eps = bits >> 4 & 1 ? 1e-5 : 1e-6;
    double *x = test_random_rows(s.m, s.n, 30), *weight = test_random(s.width, 1), *bias = test_random(s.width, 1);
    double *want = test_memory((size_t)(s.m * s.n), sizeof *want);
    for (int64_t i = 0; i < s.m * s.n; i += s.width)
        reference(want + i, x + i, weight, with_bias ? bias : NULL, s.width, kind, eps);
    test_tensor *in = test_tensor_of(VL_F32, x, s.m, s.n, layout);
    test_tensor *out = in_place ? in : test_empty(VL_F32, s.m, s.n, layout);
    vl_norm_args args = {
        .out = out->t, .x = in->t, .weight = test_vector_of(VL_F32, weight, s.width)->t, .kind = kind, .eps = eps};
    if (with_bias)
        args.bias = test_vector_of(VL_F32, bias, s.width)->t;
    OK(vl_op_norm(device, &args, &error));
    if (!in_place)
        test_unchanged(in);
    test_within("norm", mode_of(kind), test_row_error(test_values(out), want, s.m, s.n));
}

static void norm_forward(void **state)
{
    for (int i = 0; i < N_SHAPES; i++)
        for (int bits = 0; bits < 32; bits++) {
            if (degenerate(shapes[i], bits & 1 ? VL_NORM_LAYER : VL_NORM_RMS) && !(bits >> 1 & 1))
                continue;
            check_norm(shapes[i], bits);
            test_teardown(state);
        }
}

/* Rows with one enormous entry (attention sinks reach 3e4), a large common offset, and all zeros. */
static void norm_of_extreme_rows(void **state)
{
    (void)state;
    enum { M = 4, N = 1000 };
    double *x = test_random(M * N, 1), *weight = test_random(N, 1), *want = test_memory(M * N, sizeof *want);
    for (int i = 0; i < N; i++) {
        x[N + i] = (double)(float)(x[N + i] * 1e15);
        x[2 * N + i] = (double)(float)(x[2 * N + i] + 1000);
        x[3 * N + i] = 0;
    }
    x[7] = 29296;
    for (int kind = 0; kind < 2; kind++) {
        for (int i = 0; i < M; i++)
            reference(want + i * N, x + i * N, weight, NULL, N, (vl_norm_kind)kind, 1e-6);
        test_tensor *in = test_tensor_of(VL_F32, x, M, N, DENSE), *out = test_empty(VL_F32, M, N, DENSE);
        vl_norm_args args = {.out = out->t,
                             .x = in->t,
                             .weight = test_vector_of(VL_F32, weight, N)->t,
                             .kind = (vl_norm_kind)kind,
                             .eps = 1e-6};
        OK(vl_op_norm(device, &args, &error));
        test_within("norm", kind ? "layer extreme" : "rms extreme", test_row_error(test_values(out), want, M, N));
    }
}

static void norm_refuses(void **state)
{
    (void)state;
    double values[24] = {0};
    test_tensor *x = test_tensor_of(VL_F32, values, 2, 12, DENSE), *out = test_empty(VL_F32, 2, 12, DENSE);
    vl_norm_args good = {.out = out->t, .x = x->t, .weight = test_vector_of(VL_F32, values, 6)->t, .eps = 1e-5}, bad;
    OK(vl_op_norm(device, &good, &error));
    bad = good, bad.weight.shape[0] = 5;
    REFUSED(vl_op_norm(device, &bad, &error));
    bad = good, bad.bias = vl_tensor_1d(x->t.data, VL_F32, 12);
    REFUSED(vl_op_norm(device, &bad, &error));
    bad = good, bad.out = vl_tensor_columns(out->t, 0, 6);
    REFUSED(vl_op_norm(device, &bad, &error));
    bad = good, bad.out.data = (float *)x->t.data + 1;
    REFUSED(vl_op_norm(device, &bad, &error));
}

/* ---- backward ---- */

static void reference_backward(double *dx, const double *dy, const double *x, const double *weight, int64_t n,
                               vl_norm_kind kind, double eps)
{
    double mean, scale = statistics(&mean, x, n, kind, eps), sum = 0, dot = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += dy[i] * weight[i];
        dot += dy[i] * weight[i] * (x[i] - mean) * scale;
    }
    for (int64_t i = 0; i < n; i++)
        dx[i] = scale * (dy[i] * weight[i] - (kind == VL_NORM_LAYER ? sum / (double)n : 0) -
                         (x[i] - mean) * scale * dot / (double)n);
}

/* The formula above against central differences of the forward reference. */
static void backward_formula_is_the_gradient(void **state)
{
    (void)state;
    enum { N = 13 };
    double *x = test_random(N, 2), *weight = test_random(N, 1), *dy = test_random(N, 1), dx[N], up[N], down[N];
    for (int kind = 0; kind < 2; kind++) {
        reference_backward(dx, dy, x, weight, N, (vl_norm_kind)kind, 1e-5);
        for (int j = 0; j < N; j++) {
            double kept = x[j], step = 1e-5, slope = 0;
            x[j] = kept + step;
            reference(up, x, weight, NULL, N, (vl_norm_kind)kind, 1e-5);
            x[j] = kept - step;
            reference(down, x, weight, NULL, N, (vl_norm_kind)kind, 1e-5);
            x[j] = kept;
            for (int i = 0; i < N; i++)
                slope += dy[i] * (up[i] - down[i]) / (2 * step);
            assert_true(fabs(slope - dx[j]) < 1e-8);
        }
    }
}

static void check_backward(shape s, int bits)
{
    vl_norm_kind kind = bits & 1 ? VL_NORM_LAYER : VL_NORM_RMS;
    bool in_place = bits >> 1 & 1;
    test_layout layout = bits >> 2 & 1 ? STRIDED : DENSE;
    double *x = test_random_rows(s.m, s.n, 30), *dy = test_random_rows(s.m, s.n, 1), *weight = test_random(s.n, 1);
    double *want = test_memory((size_t)(s.m * s.n), sizeof *want);
    for (int64_t i = 0; i < s.m; i++)
        reference_backward(want + i * s.n, dy + i * s.n, x + i * s.n, weight, s.n, kind, 1e-5);
    test_tensor *in = test_tensor_of(VL_F32, x, s.m, s.n, layout);
    test_tensor *slope = test_tensor_of(VL_F32, dy, s.m, s.n, layout);
    test_tensor *out = in_place ? slope : test_empty(VL_F32, s.m, s.n, layout);
    vl_norm_backward_args args = {out->t, slope->t, in->t, test_vector_of(VL_F32, weight, s.n)->t, kind, 1e-5};
    OK(vl_op_norm_backward(device, &args, &error));
    test_unchanged(in);
    if (!in_place)
        test_unchanged(slope);
    test_within("norm_backward", mode_of(kind), test_row_error(test_values(out), want, s.m, s.n));
}

static void norm_backward(void **state)
{
    for (int i = 0; i < N_SHAPES; i++)
        for (int bits = 0; bits < 8 && shapes[i].n > 2; bits++) {
            check_backward(shapes[i], bits);
            test_teardown(state);
        }
}

static void norm_backward_refuses(void **state)
{
    (void)state;
    double values[24] = {0};
    test_tensor *x = test_tensor_of(VL_F32, values, 2, 12, DENSE), *dy = test_tensor_of(VL_F32, values, 2, 12, DENSE);
    test_tensor *dx = test_empty(VL_F32, 2, 12, DENSE);
    vl_norm_backward_args good = {dx->t, dy->t, x->t, test_vector_of(VL_F32, values, 12)->t, VL_NORM_RMS, 1e-5}, bad;
    OK(vl_op_norm_backward(device, &good, &error));
    bad = good, bad.dx = x->t;
    REFUSED(vl_op_norm_backward(device, &bad, &error));
    bad = good, bad.weight.shape[0] = 6;
    REFUSED(vl_op_norm_backward(device, &bad, &error));
    bad = good, bad.dy = vl_tensor_rows(dy->t, 0, 1);
    REFUSED(vl_op_norm_backward(device, &bad, &error));
}

/* Rows are independent: the number of threads changes no bit. */
static void norm_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    enum { M = 301, N = 576 };
    double *x = test_random(M * N, 3), *weight = test_random(N, 1), *first = NULL;
    for (int threads = 1; threads <= 2; threads++) {
        test_reopen(threads);
        test_tensor *in = test_tensor_of(VL_F32, x, M, N, DENSE), *out = test_empty(VL_F32, M, N, DENSE);
        test_tensor *scale = test_vector_of(VL_F32, weight, N);
        OK(vl_op_norm(device, &(vl_norm_args){.out = out->t, .x = in->t, .weight = scale->t, .eps = 1e-5}, &error));
        vl_norm_backward_args back = {out->t, out->t, in->t, scale->t, VL_NORM_LAYER, 1e-5};
        OK(vl_op_norm_backward(device, &back, &error));
        double *got = test_values(out);
        if (first)
            assert_memory_equal(got, first, M * N * sizeof *got);
        first = got;
    }
}

/* No norm: rows times the weight, and back, to the bit. */
static void no_norm(void **state)
{
    (void)state;
    enum { M = 7, N = 1030 };
    double *x = test_random_rows(M, N, 30), *dy = test_random_rows(M, N, 1), *weight = test_random(N, 1);
    test_tensor *in = test_tensor_of(VL_F32, x, M, N, STRIDED), *slope = test_tensor_of(VL_F32, dy, M, N, DENSE);
    test_tensor *out = test_empty(VL_F32, M, N, DENSE), *w = test_vector_of(VL_F32, weight, N);
    vl_norm_args args = {.out = out->t, .x = in->t, .weight = w->t, .kind = VL_NORM_NONE, .eps = 1e-5};
    OK(vl_op_norm(device, &args, &error));
    double *got = test_values(out);
    for (int i = 0; i < M * N; i++)
        assert_true(got[i] == (double)((float)x[i] * (float)weight[i % N]));
    vl_norm_backward_args back = {out->t, slope->t, in->t, w->t, VL_NORM_NONE, 1e-5};
    OK(vl_op_norm_backward(device, &back, &error));
    got = test_values(out);
    for (int i = 0; i < M * N; i++)
        assert_true(got[i] == (double)((float)dy[i] * (float)weight[i % N]));
}

static const struct CMUnitTest tests[] = {
    OPS_TEST(no_norm),
    OPS_TEST(norm_forward),
    OPS_TEST(norm_of_extreme_rows),
    OPS_TEST(norm_refuses),
    OPS_TEST(backward_formula_is_the_gradient),
    OPS_TEST(norm_backward),
    OPS_TEST(norm_backward_refuses),
    OPS_TEST(norm_bits_do_not_depend_on_threads),
};
OPS_TEST_MAIN(tests)
