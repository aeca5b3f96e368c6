/* Planted faults: numbers that are none in states and teacher, and rates at which the descent diverges. What is at
 * fault is named, and the other layers' bits do not change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fit/cache_fault.h"
#include "tests/support/fit_test.h"
#include "trainer/fit/plan.h"

enum { D = 16, LAYERS = 3, MOST_LINES = 64 };

typedef struct fixture {
    char *folder;
    vl_cache *cache;
    vl_device *device;
    char lines[MOST_LINES][512]; /* warnings of the last run */
    int n_lines;
    int64_t stop_at; /* step; -1: never */
} fixture;

static int on_progress(void *user, const vl_progress *progress)
{
    fixture *f = user;
    return f->stop_at >= 0 && strcmp(progress->stage, "fit") == 0 && progress->done >= f->stop_at;
}

static void on_message(void *user, int is_warning, const char *line)
{
    fixture *f = user;
    if (is_warning && f->n_lines < MOST_LINES)
        snprintf(f->lines[f->n_lines++], sizeof f->lines[0], "%s", line);
}

static int count(const fixture *f, const char *text)
{
    int n = 0;
    for (int i = 0; i < f->n_lines; i++)
        n += strstr(f->lines[i], text) != NULL;
    return n;
}

static int open_fixture(void **state)
{
    vl_error err = VL_ERROR_INIT;
    fixture *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    f->folder = folder_new();
    f->cache = small_cache(f->folder);
    f->stop_at = -1;
    ok(vl_device_open(&f->device, "cpu", 2, &err), &err);
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    fixture *f = *state;
    cache_fault(-1, 0, 0);
    vl_device_close(f->device);
    vl_cache_close(f->cache);
    folder_remove(f->folder);
    free(f);
    return 0;
}

static vl_status run(vl_fit_result *result, fixture *f, const char *name, const char *const *settings)
{
    vl_error err = VL_ERROR_INIT;
    const vl_observer observer = {on_progress, on_message, f};
    vl_config *config = small_config(in(f->folder, name));
    for (; settings && *settings; settings++)
        ok(vl_config_set(config, *settings, &err), &err);
    f->n_lines = 0;
    vl_status status = vl_fit_run(result, &(vl_fit_inputs){config, f->cache, f->device}, NULL, &observer, &err);
    if (status != VL_ECANCELLED)
        ok(status, &err);
    vl_config_free(config);
    for (int i = 0; i < f->n_lines; i++)
        print_message("  %s: %s\n", name, f->lines[i]);
    return status;
}

static bool same_layer(const fixture *f, const char *a, const char *b, int64_t layer)
{
    vl_lens *x, *y;
    vl_error err = VL_ERROR_INIT;
    ok(vl_lens_open(&x, in(f->folder, a), &err), &err);
    ok(vl_lens_open(&y, in(f->folder, b), &err), &err);
    bool same = !memcmp(vl_lens_weight(x, layer), vl_lens_weight(y, layer), D * D * sizeof(float)) &&
                !memcmp(vl_lens_bias(x, layer), vl_lens_bias(y, layer), D * sizeof(float));
    vl_lens_close(x);
    vl_lens_close(y);
    return same;
}

/* A row in the middle of the part, and its place as a message gives it. */
static int64_t pick_row(char place[64], const fixture *f, bool validation)
{
    vl_plan plan;
    vl_error err = VL_ERROR_INIT;
    vl_config *config = small_config("unused");
    ok(vl_plan_new(&plan, config, f->cache, &err), &err);
    const vl_rows *part = validation ? &plan.validation : &plan.train;
    int64_t row = part->runs[part->n_runs / 2].first + 1;
    const vl_cache_tokens *tokens = vl_cache_get_tokens(f->cache);
    snprintf(place, 64, "sample %d, position %d", tokens->sample[row], tokens->position[row]);
    vl_plan_clear(&plan);
    vl_config_free(config);
    return row;
}

/* One bad row is left out: its layer goes on without it, and comes out as good; its neighbours' bits do not change. */
static void bad_state_is_left_out(void **state)
{
    fixture *f = *state;
    const float values[] = {NAN, INFINITY};
    char place[64];
    vl_fit_result good, r;
    run(&good, f, "good", NULL);
    assert_int_equal(f->n_lines, 0);
    int64_t row = pick_row(place, f, false);
    for (int k = 0; k < 2; k++) {
        cache_fault(1, row, values[k]);
        run(&r, f, k ? "infinity" : "nan", NULL);
        assert_int_equal(f->n_lines, 1);
        assert_int_equal(count(f, "layer 1: "), 1);
        assert_int_equal(count(f, place), 1);
        assert_int_equal(count(f, "its state in the cache is no finite number; such rows are left out"), 1);
        assert_int_equal(r.n_stopped, 0);
        assert_true(same_layer(f, "good", k ? "infinity" : "nan", 0));
        assert_true(same_layer(f, "good", k ? "infinity" : "nan", 2));
        assert_false(same_layer(f, "good", k ? "infinity" : "nan", 1));
        assert_true(r.validation_kl[1] < 1.2 * good.validation_kl[1]);
        vl_fit_result_clear(&r);
    }
    assert_true(same_layer(f, "nan", "infinity", 1)); /* what the row held does not matter */
    vl_fit_result_clear(&good);
}

static void bad_teacher_is_left_out(void **state)
{
    fixture *f = *state;
    char place[64];
    vl_fit_result good, r;
    run(&good, f, "good", NULL);
    cache_fault(LAYERS, pick_row(place, f, false), NAN);
    run(&r, f, "teacher", NULL);
    assert_int_equal(f->n_lines, 1);
    assert_int_equal(count(f, place), 1);
    assert_int_equal(count(f, "the teacher's state in the cache is no finite number; such rows are left out"), 1);
    assert_int_equal(r.n_stopped, 0);
    for (int i = 0; i < LAYERS; i++)
        assert_true(r.validation_kl[i] < 1.2 * good.validation_kl[i]);
    vl_fit_result_clear(&r);
    vl_fit_result_clear(&good);
}

static void bad_validation_row_is_left_out(void **state)
{
    fixture *f = *state;
    char place[64];
    vl_fit_result r;
    cache_fault(2, pick_row(place, f, true), NAN);
    run(&r, f, "validation", NULL);
    assert_int_equal(f->n_lines, 1);
    assert_int_equal(count(f, "layer 2: "), 1);
    assert_int_equal(count(f, place), 1);
    for (int i = 0; i < LAYERS; i++)
        assert_true(isfinite(r.start_kl[i]) && isfinite(r.validation_kl[i]));
    vl_fit_result_clear(&r);
}

/* Without one good row a layer stops where it starts, and the result says so, also when it is asked for again. */
static void layer_without_rows_stops(void **state)
{
    fixture *f = *state;
    const char *const settings[] = {"lens.init=zero", NULL};
    vl_fit_result r;
    cache_fault(1, -1, NAN);
    for (int again = 0; again < 2; again++) {
        run(&r, f, "none", settings);
        assert_int_equal(r.n_stopped, 1);
        assert_true(isfinite(r.train_kl[0]) && isnan(r.train_kl[1]) && isfinite(r.train_kl[2]));
        vl_fit_result_clear(&r);
    }
}

/* Rates at which each optimiser leaves the valley: it comes back, slower, and ends at or below its start. */
static void divergence_goes_back(void **state)
{
    fixture *f = *state;
    const char *const settings[][4] = {
        {"fit.optimizer=sgd", "fit.learning_rate=1000", "fit.clip=0", NULL},
        {"fit.optimizer=adam", "fit.learning_rate=30", "fit.schedule=constant", NULL},
        {"fit.optimizer=muon", "fit.learning_rate=1000", "fit.clip=0", NULL},
    };
    for (int k = 0; k < 3; k++) {
        char name[32];
        vl_fit_result r;
        snprintf(name, sizeof name, "rate-%d", k);
        run(&r, f, name, settings[k]);
        assert_true(count(f, "with a quarter of the rate") >= LAYERS);
        for (int i = 0; i < LAYERS; i++)
            assert_true(r.validation_kl[i] <= r.start_kl[i]);
        vl_fit_result_clear(&r);
    }
}

/* What a return changes is in the checkpoint. */
static void divergence_resumes_to_the_same_bits(void **state)
{
    fixture *f = *state;
    const char *const settings[] = {"fit.optimizer=adam", "fit.learning_rate=30", "fit.schedule=constant", NULL};
    vl_fit_result r;
    run(&r, f, "whole", settings);
    vl_fit_result_clear(&r);
    vl_status status = VL_ECANCELLED;
    for (f->stop_at = 3; status == VL_ECANCELLED; f->stop_at += 3)
        status = run(&r, f, "cut", settings);
    f->stop_at = -1;
    vl_fit_result_clear(&r);
    for (int i = 0; i < LAYERS; i++)
        assert_true(same_layer(f, "whole", "cut", i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bad_state_is_left_out, open_fixture, close_fixture),
        cmocka_unit_test_setup_teardown(bad_teacher_is_left_out, open_fixture, close_fixture),
        cmocka_unit_test_setup_teardown(bad_validation_row_is_left_out, open_fixture, close_fixture),
        cmocka_unit_test_setup_teardown(layer_without_rows_stops, open_fixture, close_fixture),
        cmocka_unit_test_setup_teardown(divergence_goes_back, open_fixture, close_fixture),
        cmocka_unit_test_setup_teardown(divergence_resumes_to_the_same_bits, open_fixture, close_fixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
