/* Whole fits beside PyTorch's: the loss of every step, and the size of what came out, of each optimiser, objective and
 * start. fit_golden.json is float64, by make_fit_golden.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/support/fit_test.h"
#include "tests/support/synthetic_cache.h"
#include "tests/support/tolerance.h"
#include "trainer/base/json.h"

enum { LAYERS = 2, SAMPLES = 12, ROWS = 14, WIDTH = 8, VOCAB = 30 };

/* float32 states, so that both sides read the same numbers. */
static vl_status write_cache(const char *path, vl_error *err)
{
    return synthetic_cache_write(path, LAYERS, SAMPLES, ROWS, WIDTH, VOCAB, VL_F32, 11, err);
}

static double number(const json_t *object, const char *key, size_t i)
{
    const json_t *value = json_object_get(object, key);
    value = json_is_array(value) ? json_array_get(value, i) : value;
    if (!json_is_number(value))
        fail_msg("%s: no number", key);
    return json_number_value(value);
}

static double norm(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* Relative to the larger; the norm of a matrix of zeros has none. */
static double apart(double a, double b)
{
    double size = fmax(fabs(a), fabs(b));
    return size > 0 ? fabs(a - b) / size : 0;
}

/* The losses of metrics.json (its curve has a point for every step of a short run) and the norms of the lens. */
static void compare(const json_t *wanted, const char *folder, const char *name)
{
    vl_error err = VL_ERROR_INIT;
    json_t *metrics;
    vl_lens *lens;
    double worst = 0, worst_norm = 0;
    ok(vl_json_read(&metrics, in(folder, "metrics.json"), 1 << 20, &err), &err);
    ok(vl_lens_open(&lens, folder, &err), &err);
    for (int i = 0; i < LAYERS; i++) {
        const json_t *ours = json_array_get(json_object_get(metrics, "layers"), (size_t)i);
        const json_t *theirs = json_array_get(wanted, (size_t)i), *curve = json_object_get(ours, "curve");
        size_t steps = json_array_size(json_object_get(theirs, "loss"));
        assert_int_equal(json_array_size(json_object_get(curve, "objective")), steps);
        for (size_t k = 0; k < steps; k++)
            worst = fmax(worst, apart(number(curve, "objective", k), number(theirs, "loss", k)));
        worst_norm = fmax(worst_norm, apart(norm(vl_lens_weight(lens, i), WIDTH * WIDTH), number(theirs, "a_norm", 0)));
        worst_norm = fmax(worst_norm, apart(norm(vl_lens_bias(lens, i), WIDTH), number(theirs, "b_norm", 0)));
    }
    print_message("  %-22s losses apart by %.1e, norms by %.1e\n", name, worst, worst_norm);
    /* fp32 sums of squares lose digits in the closed form, and steps of one size make much of a small gradient */
    bool closed = strstr(name, "ridge") != NULL;
    assert_true(tolerance_accepts("fit beside PyTorch", closed ? "loss, ridge" : "loss", worst));
    assert_true(tolerance_accepts("fit beside PyTorch", closed ? "norm, ridge" : "norm", worst_norm));
    vl_lens_close(lens);
    json_decref(metrics);
}

static void run_case(const json_t *wanted, vl_cache *cache, vl_device *device, const char *folder)
{
    vl_error err = VL_ERROR_INIT;
    vl_config *config;
    vl_fit_result result;
    char output[600];
    size_t i;
    const json_t *setting;
    snprintf(output, sizeof output, "output=%s", folder);
    ok(vl_config_new(&config, &err), &err);
    ok(vl_config_set(config, output, &err), &err);
    json_array_foreach(json_object_get(wanted, "settings"), i, setting)
        ok(vl_config_set(config, json_string_value(setting), &err), &err);
    ok(vl_fit_run(&result, &(vl_fit_inputs){config, cache, device}, NULL, NULL, &err), &err);
    compare(json_object_get(wanted, "layers"), folder, json_string_value(json_object_get(wanted, "name")));
    vl_fit_result_clear(&result);
    vl_config_free(config);
}

static void fits_are_those_of_pytorch(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new(), name[32];
    json_t *golden;
    vl_cache *cache;
    vl_device *device;
    size_t k;
    const json_t *wanted;
    ok(write_cache(in(folder, "cache"), &err), &err);
    ok(vl_cache_open(&cache, in(folder, "cache"), &err), &err);
    ok(vl_device_open(&device, "cpu", 2, &err), &err);
    ok(vl_json_read(&golden, VLENS_SOURCE_DIR "/tests/fit/fit_golden.json", 1 << 20, &err), &err);
    assert_true(json_array_size(json_object_get(golden, "cases")) >= 8);
    json_array_foreach(json_object_get(golden, "cases"), k, wanted)
    {
        snprintf(name, sizeof name, "case-%zu", k);
        run_case(wanted, cache, device, in(folder, name));
    }
    json_decref(golden);
    vl_device_close(device);
    vl_cache_close(cache);
    folder_remove(folder);
}

/* A fit for kill_test.py: prints the step that it went on from. */
static int fit_to(const char *cache_path, const char *output)
{
    static const char *const settings[] = {
        "precision=exact",        "lens.skip_positions=1",      "fit.optimizer=adam",     "fit.steps=4000",
        "fit.tokens_per_step=64", "fit.checkpoint_every=0.05s", "fit.validate_every=500", "fit.early_stop=false"};
    vl_error err = VL_ERROR_INIT;
    vl_cache *cache;
    vl_device *device;
    vl_config *config;
    vl_fit_result result;
    char text[600];
    snprintf(text, sizeof text, "output=%s", output);
    ok(vl_cache_open(&cache, cache_path, &err), &err);
    ok(vl_device_open(&device, "cpu", 1, &err), &err);
    ok(vl_config_new(&config, &err), &err);
    ok(vl_config_set(config, text, &err), &err);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        ok(vl_config_set(config, settings[i], &err), &err);
    vl_status status = vl_fit_run(&result, &(vl_fit_inputs){config, cache, device}, NULL, NULL, &err);
    printf("%lld %s\n", (long long)result.resumed_from_step, err.message);
    vl_fit_result_clear(&result);
    vl_config_free(config);
    vl_device_close(device);
    vl_cache_close(cache);
    return status != VL_OK;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(fits_are_those_of_pytorch)};
    vl_error err = VL_ERROR_INIT;
    if (argc == 3 && strcmp(argv[1], "cache") == 0)
        return write_cache(argv[2], &err) != VL_OK;
    if (argc == 4 && strcmp(argv[1], "fit") == 0)
        return fit_to(argv[2], argv[3]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + tolerance_report();
}
