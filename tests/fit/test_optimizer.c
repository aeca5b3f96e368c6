/* Optimiser trajectories against PyTorch's, the schedule, and Muon's orthogonal steps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/fit_test.h"
#include "trainer/base/rng.h"
#include "trainer/fit/optimizer.h"

enum { STEPS = 10, ROWS = 5, COLUMNS = 4 };

static vl_device *open_cpu(void)
{
    vl_device *device;
    vl_error err = VL_ERROR_INIT;
    ok(vl_device_open(&device, "cpu", 2, &err), &err);
    return device;
}

static vl_safetensors *open_fixture(void)
{
    vl_safetensors *file;
    vl_error err = VL_ERROR_INIT;
    ok(vl_safetensors_open(&file, VLENS_SOURCE_DIR "/tests/golden/fixtures/optim.safetensors", &err), &err);
    return file;
}

/* One tensor ("A" [5, 4] or "b" [5]) through ten steps; the largest relative error of any step. */
static double follow(const char *name, const char *tensor, const vl_optimizer_rule *rule)
{
    vl_device *device = open_cpu();
    vl_safetensors *file = open_fixture();
    vl_error err = VL_ERROR_INIT;
    size_t n = tensor[0] == 'A' ? ROWS * COLUMNS : ROWS;
    char key[32];
    snprintf(key, sizeof key, "initial.%s", tensor);
    float *initial = fixture_floats(file, key, n);
    snprintf(key, sizeof key, "grad.%s", tensor);
    float *gradients = fixture_floats(file, key, STEPS * n);
    snprintf(key, sizeof key, "%s.%s", name, tensor);
    float *wanted = fixture_floats(file, key, STEPS * n);
    /* As a vector: the rules do not look at the shape. */
    vl_tensor parameter = to_device(device, initial, 1, (int64_t)n), gradient = to_device(device, NULL, 1, (int64_t)n);
    parameter = vl_tensor_1d(parameter.data, VL_F32, (int64_t)n);
    gradient = vl_tensor_1d(gradient.data, VL_F32, (int64_t)n);
    vl_optimizer_engine engine;
    vl_optimizer_state state;
    double worst = 0;
    ok(vl_optimizer_new(&engine, device, rule, 0, &err), &err);
    ok(vl_optimizer_state_new(&state, &engine, parameter, &err), &err);
    for (int64_t step = 0; step < STEPS; step++) {
        ok(vl_device_write(device, &gradient, gradients + (size_t)step * n, &err), &err);
        vl_optimizer_move move = {parameter, gradient, &state, step, step, rule->learning_rate, {.data = NULL}};
        ok(vl_optimizer_step(&engine, &move, &err), &err);
        float *got = from_device(device, parameter);
        worst = fmax(worst, relative_error(got, wanted + (size_t)step * n, n));
        free(got);
    }
    vl_optimizer_state_clear(&state, device);
    vl_optimizer_clear(&engine);
    vl_device_free(device, parameter.data);
    vl_device_free(device, gradient.data);
    free(initial);
    free(gradients);
    free(wanted);
    vl_safetensors_close(file);
    vl_device_close(device);
    return worst;
}

static void test_torch_trajectories(void **state)
{
    (void)state;
    const struct {
        const char *name;
        vl_optimizer_rule rule;
    } cases[] = {
        {"sgd",
         {.kind = VL_OPTIMIZER_SGD,
          .learning_rate = 0.1,
          .momentum = 0.9,
          .weight_decay = 1e-3,
          .schedule = VL_SCHEDULE_CONSTANT,
          .steps = STEPS}},
        {"adam", {.kind = VL_OPTIMIZER_ADAM, .learning_rate = 1e-3, .schedule = VL_SCHEDULE_CONSTANT, .steps = STEPS}},
        {"adamw",
         {.kind = VL_OPTIMIZER_ADAM,
          .learning_rate = 1e-3,
          .weight_decay = 1e-2,
          .schedule = VL_SCHEDULE_CONSTANT,
          .steps = STEPS}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double a = follow(cases[i].name, "A", &cases[i].rule), b = follow(cases[i].name, "b", &cases[i].rule);
        print_message("  %-6s relative error A %.2e, b %.2e\n", cases[i].name, a, b);
        assert_true(a < 1e-6 && b < 1e-6); /* measured at most 2.8e-7 */
    }
}

static void test_schedule(void **state)
{
    (void)state;
    vl_optimizer_rule rule = {.schedule = VL_SCHEDULE_LINEAR, .warmup = 4, .steps = 24};
    assert_true(vl_optimizer_schedule(&rule, 0) > 0);
    for (int64_t s = 0; s < 4; s++)
        assert_true(vl_optimizer_schedule(&rule, s) < vl_optimizer_schedule(&rule, s + 1));
    assert_true(fabs(vl_optimizer_schedule(&rule, 4) - 1.0) < 1e-12);
    assert_true(fabs(vl_optimizer_schedule(&rule, 14) - 0.5) < 1e-12);
    assert_true(fabs(vl_optimizer_schedule(&rule, 23) - 0.05) < 1e-12);
    rule.schedule = VL_SCHEDULE_COSINE;
    assert_true(fabs(vl_optimizer_schedule(&rule, 4) - 1.0) < 1e-12);
    assert_true(fabs(vl_optimizer_schedule(&rule, 14) - 0.5) < 1e-12);
    assert_true(vl_optimizer_schedule(&rule, 23) > 0 && vl_optimizer_schedule(&rule, 23) < 0.01);
    rule.schedule = VL_SCHEDULE_CONSTANT;
    assert_true(fabs(vl_optimizer_schedule(&rule, 23) - 1.0) < 1e-12);
}

/* A configured rate is taken as it is; the defaults follow the layer. */
static void test_rates(void **state)
{
    (void)state;
    vl_config *config = small_config("unused");
    config->fit.optimizer = VL_OPTIMIZER_SGD;
    vl_optimizer_rule rule = vl_optimizer_rule_of(config, 64, 10);
    vl_optimizer_rates rates = vl_optimizer_rates_of(&rule, 5.0, 3.0);
    assert_true(rates.weight == 0.1 && rates.bias == 0.1);
    config->fit.optimizer = VL_OPTIMIZER_MUON;
    rule = vl_optimizer_rule_of(config, 64, 10);
    vl_optimizer_rates more = vl_optimizer_rates_of(&rule, 5.0, 6.0);
    rates = vl_optimizer_rates_of(&rule, 5.0, 3.0);
    assert_true(fabs(more.weight - 2 * rates.weight) < 1e-12 && fabs(more.bias - 2 * rates.bias) < 1e-12);
    rates = vl_optimizer_rates_of(&rule, NAN, 0.0); /* nothing known: still a rate */
    assert_true(rates.weight > 0 && isfinite(rates.bias));
    config->fit.learning_rate = 0.25;
    rule = vl_optimizer_rule_of(config, 64, 10);
    rates = vl_optimizer_rates_of(&rule, 5.0, 3.0);
    assert_true(rates.weight == 0.25 && rates.bias == 1.25);
    vl_config_free(config);
}

/* |x^T x - mean I| shows how far the step is from orthogonal; its singular values should be 0.6 .. 1.3. */
static void test_muon_step_is_orthogonal(void **state)
{
    (void)state;
    enum { D = 24 };
    vl_device *device = open_cpu();
    vl_error err = VL_ERROR_INIT;
    vl_rng rng;
    float values[D * D];
    vl_rng_seed(&rng, 3);
    for (int i = 0; i < D * D; i++)
        values[i] = (float)(1e-4 * vl_rng_normal(&rng)); /* the scale must not matter */
    vl_optimizer_rule rule = {
        .kind = VL_OPTIMIZER_MUON, .learning_rate = 1.0, .momentum = 0.9, .schedule = VL_SCHEDULE_CONSTANT, .steps = 2};
    vl_optimizer_engine engine;
    vl_optimizer_state memory;
    vl_tensor parameter = to_device(device, NULL, D, D), gradient = to_device(device, values, D, D);
    ok(vl_optimizer_new(&engine, device, &rule, D, &err), &err);
    ok(vl_optimizer_state_new(&memory, &engine, parameter, &err), &err);
    assert_null(memory.exp_avg_sq.data);
    vl_optimizer_move move = {parameter, gradient, &memory, 0, 0, 1.0, {.data = NULL}};
    ok(vl_optimizer_step(&engine, &move, &err), &err);
    float *x = from_device(device, parameter);
    double squares = 0, along = 0, vector[D], image[D];
    for (int i = 0; i < D * D; i++) {
        squares += (double)x[i] * (double)x[i];
        along -= (double)x[i] * (double)values[i];
    }
    assert_true(along > 0);                              /* downhill */
    assert_true(squares > 0.5 * D && squares < 1.4 * D); /* the mean squared singular value is about 1 */
    for (int i = 0; i < D; i++)
        vector[i] = vl_rng_normal(&rng);
    for (int round = 0; round < 200; round++) { /* power iteration: the largest singular value */
        double length = 0;
        for (int i = 0; i < D; i++) {
            image[i] = 0;
            for (int j = 0; j < D; j++)
                image[i] += (double)x[i * D + j] * vector[j];
        }
        for (int j = 0; j < D; j++) {
            vector[j] = 0;
            for (int i = 0; i < D; i++)
                vector[j] += (double)x[i * D + j] * image[i];
            length += vector[j] * vector[j];
        }
        for (int j = 0; j < D; j++)
            vector[j] /= sqrt(length);
        squares = sqrt(sqrt(length));
    }
    print_message("  largest singular value of a step of rate 1: %.3f\n", squares);
    assert_true(squares < 1.3 && squares > 0.9);
    free(x);
    vl_optimizer_state_clear(&memory, device);
    vl_optimizer_clear(&engine);
    vl_device_free(device, parameter.data);
    vl_device_free(device, gradient.data);
    vl_device_close(device);
}

/* A gradient of zeros moves nothing and makes no NaN. */
static void test_muon_without_gradient(void **state)
{
    (void)state;
    vl_device *device = open_cpu();
    vl_error err = VL_ERROR_INIT;
    vl_optimizer_rule rule = {.kind = VL_OPTIMIZER_MUON, .learning_rate = 1.0, .momentum = 0.9, .steps = 2};
    vl_optimizer_engine engine;
    vl_optimizer_state memory;
    vl_tensor parameter = to_device(device, NULL, 8, 8), gradient = to_device(device, NULL, 8, 8);
    ok(vl_optimizer_new(&engine, device, &rule, 8, &err), &err);
    ok(vl_optimizer_state_new(&memory, &engine, parameter, &err), &err);
    vl_optimizer_move move = {parameter, gradient, &memory, 0, 0, 1.0, {.data = NULL}};
    ok(vl_optimizer_step(&engine, &move, &err), &err);
    float *x = from_device(device, parameter);
    for (int i = 0; i < 64; i++)
        assert_true(x[i] == 0.0f);
    free(x);
    vl_optimizer_state_clear(&memory, device);
    vl_optimizer_clear(&engine);
    vl_device_free(device, parameter.data);
    vl_device_free(device, gradient.data);
    vl_device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torch_trajectories),
        cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_muon_step_is_orthogonal),
        cmocka_unit_test(test_muon_without_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
