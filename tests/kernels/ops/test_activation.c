/* Pointwise functions, alone and gated, in place and not. */
#include "tests/kernels/ops/ops_test.h"

static const char *const names[] = {"silu", "gelu", "gelu_tanh", "quick_gelu", "relu"};
enum { N_KINDS = sizeof names / sizeof names[0] };

static double reference(double x, vl_activation kind)
{
    switch (kind) {
    case VL_ACT_SILU: return x / (1 + exp(-x));
    case VL_ACT_GELU: return 0.5 * x * erfc(-x * 0.70710678118654752);
    case VL_ACT_GELU_TANH: return x / (1 + exp(-2 * 0.79788456080286536 * (x + 0.044715 * x * x * x)));
    case VL_ACT_QUICK_GELU: return x / (1 + exp(-1.702 * x));
    case VL_ACT_RELU: return x > 0 ? x : 0;
    case VL_ACT_CAP: break; /* has a number of its own: soft_caps */
    }
    return NAN;
}

/* out is a tensor of its own, x, or up. */
enum { APART = 0, OVER_X, OVER_UP };

static void check_activation(int64_t m, int64_t n, vl_activation kind, test_layout layout, bool gated, int place)
{
    double *x = test_random_rows(m, n, 4), *up = test_random_rows(m, n, 1);
    double *want = test_memory((size_t)(m * n), sizeof *want), *scale = test_memory((size_t)(m * n), sizeof *scale);
    for (int64_t i = 0; i < m * n; i++) {
        want[i] = reference(x[i], kind) * (gated ? up[i] : 1);
        scale[i] = fabs(x[i]) * (gated ? fabs(up[i]) : 1); /* each is x times a number in [0, 1] */
    }
    test_tensor *in = test_tensor_of(VL_F32, x, m, n, layout);
    test_tensor *gate = gated ? test_tensor_of(VL_F32, up, m, n, layout) : NULL;
    test_tensor *out = place == OVER_X ? in : place == OVER_UP ? gate : test_empty(VL_F32, m, n, layout);
    vl_activation_args args = {.out = out->t, .x = in->t, .kind = kind};
    if (gated)
        args.up = gate->t;
    OK(vl_op_activation(device, &args, &error));
    if (place != OVER_X)
        test_unchanged(in);
    if (gated && place != OVER_UP)
        test_unchanged(gate);
    test_within("activation", names[kind], test_scaled_error(test_values(out), want, scale, m * n));
}

static void activation_all_variants(void **state)
{
    static const int64_t shapes[][2] = {{1, 1}, {7, 17}, {14, 33}, {9, 1025}, {21, 2048}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int kind = 0; kind < N_KINDS; kind++)
            for (int bits = 0; bits < 12; bits++) {
                bool gated = bits & 1;
                int place = bits / 4;
                if (gated || place != OVER_UP)
                    check_activation(shapes[i][0], shapes[i][1], (vl_activation)kind, bits & 2 ? STRIDED : DENSE, gated,
                                     place);
                test_teardown(state);
            }
}

/* Where exponentials overflow: the function must be x or 0 there, never NaN. */
static void activation_of_extremes(void **state)
{
    (void)state;
    static const double x[] = {0,   -0.0, 1e-30, -1e-30, 87.5, -87.5, 88.4, -88.4, 89,       -89,
                               104, -104, 1e4,   -1e4,   1e20, -1e20, 3e38, -3e38, INFINITY, NAN};
    enum { N = sizeof x / sizeof x[0] };
    for (int kind = 0; kind < N_KINDS; kind++) {
        test_tensor *in = test_tensor_of(VL_F32, x, 1, N, DENSE), *out = test_empty(VL_F32, 1, N, DENSE);
        OK(vl_op_activation(device, &(vl_activation_args){.out = out->t, .x = in->t, .kind = (vl_activation)kind},
                            &error));
        double *got = test_values(out);
        for (int i = 0; i < N; i++) {
            double want = reference((double)(float)x[i], (vl_activation)kind);
            if (!isfinite(want))
                assert_true(isnan(want) ? isnan(got[i]) || kind == VL_ACT_RELU : got[i] == want);
            else /* tiny results (exp(-88) and less) may be 0 */
                assert_true(fabs(got[i] - want) <= 1e-6 * fabs(want) + 1e-35);
        }
    }
}

/* Between the extremes the tail must be accurate in its own size, not only next to x. */
static void negative_tail_is_accurate(void **state)
{
    (void)state;
    enum { N = 4000 };
    double *x = test_memory(N, sizeof *x);
    for (int i = 0; i < N; i++)
        x[i] = (double)(float)(-80.0 * (i + 1) / N);
    static const vl_activation kinds[] = {VL_ACT_SILU, VL_ACT_QUICK_GELU};
    for (int k = 0; k < 2; k++) {
        test_tensor *in = test_tensor_of(VL_F32, x, 1, N, DENSE), *out = test_empty(VL_F32, 1, N, DENSE);
        OK(vl_op_activation(device, &(vl_activation_args){.out = out->t, .x = in->t, .kind = kinds[k]}, &error));
        double *got = test_values(out), worst = 0;
        for (int i = 0; i < N; i++) {
            double want = reference(x[i], kinds[k]);
            if (fabs(want) > 1e-36)
                worst = fmax(worst, fabs(got[i] - want) / fabs(want) / fmax(1, fabs(x[i])));
        }
        test_within("activation", "tail", worst);
    }
}

/* cap tanh(x / cap), in units of the cap, up to where it is flat. */
static void soft_caps(void **state)
{
    (void)state;
    enum { ROWS = 5, N = 1033 };
    static const double caps[] = {0.5, 30, 50};
    for (int k = 0; k < 3; k++) {
        double *x = test_random_rows(ROWS, N, 3 * caps[k]), *want = test_memory(ROWS * N, sizeof *want);
        for (int i = 0; i < ROWS * N; i++)
            want[i] = tanh(x[i] / caps[k]);
        test_tensor *in = test_tensor_of(VL_F32, x, ROWS, N, k % 2 ? STRIDED : DENSE);
        vl_activation_args args = {.out = in->t, .x = in->t, .kind = VL_ACT_CAP, .cap = (float)caps[k]};
        OK(vl_op_activation(device, &args, &error));
        double *got = test_values(in);
        for (int i = 0; i < ROWS * N; i++)
            got[i] /= caps[k];
        test_within("activation", "cap", test_absolute_error(got, want, ROWS * N));
        args.cap = 0;
        REFUSED(vl_op_activation(device, &args, &error));
    }
}

static void activation_refuses(void **state)
{
    (void)state;
    double values[12] = {0};
    test_tensor *x = test_tensor_of(VL_F32, values, 2, 6, DENSE), *out = test_empty(VL_F32, 2, 6, DENSE);
    vl_activation_args good = {.out = out->t, .x = x->t}, bad;
    OK(vl_op_activation(device, &good, &error));
    bad = good, bad.out = vl_tensor_rows(out->t, 0, 1);
    REFUSED(vl_op_activation(device, &bad, &error));
    bad = good, bad.up = vl_tensor_columns(x->t, 0, 5);
    REFUSED(vl_op_activation(device, &bad, &error));
    bad = good, bad.out.data = (float *)x->t.data + 1;
    REFUSED(vl_op_activation(device, &bad, &error));
    bad = good, bad.x.dtype = VL_BF16;
    REFUSED(vl_op_activation(device, &bad, &error));
}

static const struct CMUnitTest tests[] = {OPS_TEST(activation_all_variants), OPS_TEST(activation_of_extremes),
                                          OPS_TEST(negative_tail_is_accurate), OPS_TEST(soft_caps),
                                          OPS_TEST(activation_refuses)};
OPS_TEST_MAIN(tests)
