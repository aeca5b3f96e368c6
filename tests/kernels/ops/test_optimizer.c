/* Optimiser steps, in place, against the formulas of torch.optim.SGD and AdamW in float64. */
#include "tests/kernels/ops/ops_test.h"

static const int64_t sizes[] = {1, 17, 1000, 32768, 33001};
enum { N_SIZES = sizeof sizes / sizeof sizes[0], STEPS = 3 };

static test_tensor *parameter_like(const double *values, int64_t n)
{
    return n % 11 == 0 ? test_tensor_of(VL_F32, values, 11, n / 11, DENSE) : test_vector_of(VL_F32, values, n);
}

static void check_sgd(int64_t n, bool nesterov, double decay)
{
    double rate = 0.125, mu = 0.875, clip = 0.75;
    double *p = test_random(n, 1), *m = test_memory((size_t)n, 8);
    test_tensor *parameter = parameter_like(p, n), *momentum = parameter_like(test_random(n, 1e30), n);
    for (int step = 0; step < STEPS; step++) {
        double *g = test_random(n, 3);
        test_tensor *gradient = parameter_like(g, n);
        vl_sgd_args args = {parameter->t, gradient->t, momentum->t, (float)rate, (float)mu,
                            (float)decay, (float)clip, nesterov,    step == 0,   {.data = NULL}};
        OK(vl_op_sgd(device, &args, &error));
        test_unchanged(gradient);
        for (int64_t i = 0; i < n; i++) {
            double d = g[i] * clip + decay * p[i];
            m[i] = step == 0 ? d : mu * m[i] + d;
            p[i] -= rate * (nesterov ? d + mu * m[i] : m[i]);
        }
    }
    test_within("sgd", "",
                fmax(test_row_error(test_values(parameter), p, 1, n), test_row_error(test_values(momentum), m, 1, n)));
}

static void sgd_steps(void **state)
{
    for (int i = 0; i < N_SIZES; i++)
        for (int bits = 0; bits < 4; bits++) {
            check_sgd(sizes[i], bits & 1, bits & 2 ? 0.0625 : 0);
            test_teardown(state);
        }
}

static void check_adam(int64_t n, double decay, double size)
{
    double rate = 0.0078125, beta1 = (double)0.9f, beta2 = (double)0.999f, epsilon = (double)1e-8f, clip = 0.5;
    double *p = test_random(n, 1), *m = test_memory((size_t)n, 8), *v = test_memory((size_t)n, 8);
    test_tensor *parameter = parameter_like(p, n), *mean = parameter_like(m, n), *square = parameter_like(v, n);
    for (int step = 1; step <= STEPS; step++) {
        double *g = test_random(n, size);
        g[0] = 0;
        test_tensor *gradient = parameter_like(g, n);
        vl_adam_args args = {parameter->t, gradient->t,    mean->t,      square->t,   (float)rate, (float)beta1,
                             (float)beta2, (float)epsilon, (float)decay, (float)clip, step,        {.data = NULL}};
        OK(vl_op_adam(device, &args, &error));
        test_unchanged(gradient);
        for (int64_t i = 0; i < n; i++) {
            double d = g[i] * clip;
            m[i] = beta1 * m[i] + (1 - beta1) * d;
            v[i] = beta2 * v[i] + (1 - beta2) * d * d;
            double root = sqrt(v[i] / (1 - pow(beta2, step))) + epsilon;
            p[i] = p[i] * (1 - rate * decay) - rate * m[i] / (1 - pow(beta1, step)) / root;
        }
    }
    test_within("adam", "parameter", test_row_error(test_values(parameter), p, 1, n));
    test_within("adam", "moments",
                fmax(test_row_error(test_values(mean), m, 1, n), test_row_error(test_values(square), v, 1, n)));
}

static void adam_steps(void **state)
{
    for (int i = 0; i < N_SIZES; i++)
        for (int bits = 0; bits < 4; bits++) {
            check_adam(sizes[i], bits & 1 ? 0.25 : 0, bits & 2 ? 1e-4 : 30);
            test_teardown(state);
        }
}

/* After a million steps the bias corrections are 1. */
static void adam_late_step(void **state)
{
    (void)state;
    double p = 1, g = 2, m = 2, v = 4;
    test_tensor *parameter = test_vector_of(VL_F32, &p, 1), *gradient = test_vector_of(VL_F32, &g, 1);
    test_tensor *mean = test_vector_of(VL_F32, &m, 1), *square = test_vector_of(VL_F32, &v, 1);
    vl_adam_args args = {parameter->t, gradient->t, mean->t, square->t, 0.25f,   0.9f,
                         0.999f,       0,           0,       1,         1000000, {.data = NULL}};
    OK(vl_op_adam(device, &args, &error));
    assert_true(fabs(test_values(parameter)[0] - 0.75) < 1e-6);
}

/* Elements are independent: the number of threads changes no bit. */
static void steps_do_not_depend_on_threads(void **state)
{
    (void)state;
    enum { N = 100003 };
    double *p = test_random(N, 1), *g = test_random(N, 1), *first = NULL;
    double *zero = test_memory(N, 8);
    for (int threads = 1; threads <= 2; threads++) {
        test_reopen(threads);
        test_tensor *parameter = test_vector_of(VL_F32, p, N), *gradient = test_vector_of(VL_F32, g, N);
        test_tensor *a = test_vector_of(VL_F32, zero, N), *b = test_vector_of(VL_F32, zero, N);
        vl_adam_args adam = {parameter->t, gradient->t, a->t, b->t, 1e-3f, 0.9f,
                             0.999f,       1e-8f,       0.1f, 1,    1,     {.data = NULL}};
        vl_sgd_args sgd = {parameter->t, gradient->t, a->t, 0.1f, 0.9f, 0.01f, 1, true, false, {.data = NULL}};
        OK(vl_op_adam(device, &adam, &error));
        OK(vl_op_sgd(device, &sgd, &error));
        double *got = test_values(parameter);
        if (first)
            assert_memory_equal(got, first, N * sizeof *got);
        first = got;
    }
}

/* Clipping by a number that lies on the device; of NaN, no step is taken. SGD without momentum remembers nothing. */
static void steps_scaled_on_the_device(void **state)
{
    (void)state;
    enum { N = 1001 };
    double *p = test_random(N, 1), *g = test_random(N, 1), *zero = test_memory(N, 8), half = 0.5, none = NAN;
    test_tensor *gradient = test_vector_of(VL_F32, g, N), *two[2], *first[2], *second[2];
    vl_tensor limits[2] = {test_vector_of(VL_F32, &half, 1)->t, test_vector_of(VL_F32, &none, 1)->t};
    for (int i = 0; i < 2; i++) {
        two[i] = test_vector_of(VL_F32, p, N), first[i] = test_vector_of(VL_F32, zero, N);
        second[i] = test_vector_of(VL_F32, zero, N);
        vl_sgd_args sgd = {.parameter = two[i]->t, .gradient = gradient->t, .learning_rate = 0.25f, .scale = limits[i]};
        sgd.gradient_scale = 0.5f, sgd.first = true;
        OK(vl_op_sgd(device, &sgd, &error));
        vl_adam_args adam = {.parameter = two[i]->t, .gradient = gradient->t, .mean = first[i]->t};
        adam.square = second[i]->t, adam.beta1 = 0.9f, adam.beta2 = 0.999f, adam.step = 1, adam.gradient_scale = 1;
        adam.epsilon = 1, adam.scale = limits[i];
        OK(vl_op_adam(device, &adam, &error));
    }
    test_unchanged(two[1]), test_unchanged(first[1]), test_unchanged(second[1]);
    for (int64_t i = 0; i < N; i++) {
        zero[i] = (1 - (double)0.9f) * 0.5 * g[i];
        p[i] -= 0.25 * 0.25 * g[i];
    }
    test_within("sgd", "", test_row_error(test_values(two[0]), p, 1, N));
    test_within("adam", "moments", test_row_error(test_values(first[0]), zero, 1, N));
}

static void optimizers_refuse(void **state)
{
    (void)state;
    double values[12] = {0};
    vl_tensor a = test_vector_of(VL_F32, values, 12)->t, b = test_vector_of(VL_F32, values, 12)->t;
    vl_tensor c = test_vector_of(VL_F32, values, 12)->t, d = test_vector_of(VL_F32, values, 12)->t;
    vl_sgd_args sgd = {.parameter = a, .gradient = b, .momentum = c}, bad_sgd = sgd;
    OK(vl_op_sgd(device, &sgd, &error));
    bad_sgd.momentum.data = NULL, bad_sgd.momentum_factor = 0.5f;
    REFUSED(vl_op_sgd(device, &bad_sgd, &error));
    bad_sgd = sgd, bad_sgd.gradient.shape[0] = 11;
    REFUSED(vl_op_sgd(device, &bad_sgd, &error));
    bad_sgd = sgd, bad_sgd.parameter = test_tensor_of(VL_F32, values, 3, 4, STRIDED)->t;
    REFUSED(vl_op_sgd(device, &bad_sgd, &error));
    vl_adam_args adam = {.parameter = a, .gradient = b, .mean = c, .square = d, .step = 1, .epsilon = 1},
                 bad_adam = adam;
    OK(vl_op_adam(device, &adam, &error));
    bad_adam.step = 0;
    REFUSED(vl_op_adam(device, &bad_adam, &error));
    bad_adam = adam, bad_adam.square.dtype = VL_BF16;
    REFUSED(vl_op_adam(device, &bad_adam, &error));
    bad_adam = adam, bad_adam.mean.data = NULL;
    REFUSED(vl_op_adam(device, &bad_adam, &error));
}

static const struct CMUnitTest tests[] = {
    OPS_TEST(sgd_steps),
    OPS_TEST(adam_steps),
    OPS_TEST(adam_late_step),
    OPS_TEST(steps_do_not_depend_on_threads),
    OPS_TEST(steps_scaled_on_the_device),
    OPS_TEST(optimizers_refuse),
};
OPS_TEST_MAIN(tests)
