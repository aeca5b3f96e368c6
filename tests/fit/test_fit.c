/* Whole runs on a synthetic cache: the loss falls, the same run gives the same bits however it is cut up, and one bad
 * layer stops alone. */
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
#include "trainer/base/file.h"

enum { D = 16, LAYERS = 3 };

typedef struct watcher {
    int64_t stop_at; /* step at which to ask for a stop; -1: never */
    int polls, warnings;
    char warning[512];
    vl_progress last;
} watcher;

static int on_progress(void *user, const vl_progress *progress)
{
    watcher *w = user;
    w->polls++;
    w->last = *progress;
    return w->stop_at >= 0 && strcmp(progress->stage, "fit") == 0 && progress->done >= w->stop_at;
}

static void on_message(void *user, int is_warning, const char *line)
{
    watcher *w = user;
    w->warnings += is_warning != 0;
    if (is_warning)
        snprintf(w->warning, sizeof w->warning, "%s", line);
}

typedef struct fixture {
    char *folder;
    vl_cache *cache;
    vl_device *device;
} fixture;

static fixture open_fixture(void)
{
    vl_error err = VL_ERROR_INIT;
    fixture f = {.folder = folder_new()};
    f.cache = small_cache(f.folder);
    ok(vl_device_open(&f.device, "cpu", 2, &err), &err);
    return f;
}

static void close_fixture(fixture *f)
{
    vl_device_close(f->device);
    vl_cache_close(f->cache);
    folder_remove(f->folder);
}

static vl_status run(vl_fit_result *result, const fixture *f, const vl_config *config, watcher *w, bool fresh,
                     vl_error *err)
{
    const vl_fit_options options = {.fresh = fresh};
    const vl_observer observer = {on_progress, on_message, w};
    vl_fit_result ignored;
    const vl_fit_inputs inputs = {config, f->cache, f->device};
    vl_status status = vl_fit_run(result ? result : &ignored, &inputs, &options, &observer, err);
    if (!result && status == VL_OK)
        vl_fit_result_clear(&ignored);
    return status;
}

/* Runs to the end into `folder`/`name` with one or two settings changed. */
static void train(vl_fit_result *result, const fixture *f, const char *name, const char *a, const char *b)
{
    vl_error err = VL_ERROR_INIT;
    watcher w = {.stop_at = -1};
    vl_config *config = small_config(in(f->folder, name));
    if (a)
        ok(vl_config_set(config, a, &err), &err);
    if (b)
        ok(vl_config_set(config, b, &err), &err);
    ok(run(result, f, config, &w, false, &err), &err);
    assert_true(w.polls > 0 && w.last.done == w.last.total);
    vl_config_free(config);
}

static vl_lens *open_lens(const fixture *f, const char *name)
{
    vl_lens *lens;
    vl_error err = VL_ERROR_INIT;
    ok(vl_lens_open(&lens, in(f->folder, name), &err), &err);
    return lens;
}

static void expect_same_bits(const fixture *f, const char *a, const char *b, bool same)
{
    vl_lens *x = open_lens(f, a), *y = open_lens(f, b);
    int differ = 0;
    for (int64_t i = 0; i < LAYERS; i++) {
        differ += memcmp(vl_lens_weight(x, i), vl_lens_weight(y, i), D * D * sizeof(float)) != 0;
        differ += memcmp(vl_lens_bias(x, i), vl_lens_bias(y, i), D * sizeof(float)) != 0;
    }
    vl_lens_close(x);
    vl_lens_close(y);
    assert_int_equal(differ == 0, same);
}

static void print_result(const char *name, const vl_fit_result *r)
{
    for (int64_t i = 0; i < r->n_layers; i++)
        print_message("  %-18s layer %lld: start %.4f train %.4f validation %.4f\n", name, (long long)i, r->start_kl[i],
                      r->train_kl[i], r->validation_kl[i]);
}

/* Every optimiser goes below the logit lens that it starts from, and ridge begins far below that. (From a good ridge an
 * early stop may keep the start itself, so that "not above the start" would hold whatever the steps do.) */
static void test_loss_falls(void **state)
{
    (void)state;
    fixture f = open_fixture();
    const char *optimizers[] = {"fit.optimizer=muon", "fit.optimizer=adam", "fit.optimizer=sgd"};
    vl_fit_result zero, ridge;
    char name[32];
    for (int k = 0; k < 3; k++) {
        snprintf(name, sizeof name, "zero-%d", k);
        train(&zero, &f, name, optimizers[k], "lens.init=zero");
        print_result(optimizers[k], &zero);
        snprintf(name, sizeof name, "ridge-%d", k);
        train(&ridge, &f, name, optimizers[k], NULL);
        print_result(optimizers[k], &ridge);
        for (int i = 0; i < LAYERS; i++) {
            assert_true(zero.validation_kl[i] < zero.start_kl[i]);
            assert_true(ridge.start_kl[i] < 0.5 * zero.start_kl[i]);
        }
        vl_fit_result_clear(&zero);
        vl_fit_result_clear(&ridge);
    }
    close_fixture(&f);
}

/* From a closed form that is held back by its penalty, descent goes on below it. */
static void test_falls_below_the_start(void **state)
{
    (void)state;
    fixture f = open_fixture();
    const char *optimizers[] = {"fit.optimizer=muon", "fit.optimizer=adam", "fit.optimizer=sgd"};
    for (int k = 0; k < 3; k++) {
        vl_fit_result r;
        char name[32];
        snprintf(name, sizeof name, "run-%d", k);
        train(&r, &f, name, optimizers[k], "lens.ridge=1");
        print_result(optimizers[k], &r);
        for (int i = 0; i < LAYERS; i++)
            assert_true(r.validation_kl[i] < r.start_kl[i]);
        vl_fit_result_clear(&r);
    }
    close_fixture(&f);
}

/* Each objective falls, on rows that no step saw, whatever is fitted and wherever that starts. */
static void test_all_losses_and_kinds(void **state)
{
    (void)state;
    fixture f = open_fixture();
    const char *settings[][2] = {{"lens.loss=ce", "lens.ridge=1"},          {"lens.loss=reverse_kl", "lens.ridge=1"},
                                 {"lens.loss=js", "lens.ridge=1"},          {"lens.kind=bias", "lens.init=zero"},
                                 {"lens.kind=bias", "fit.optimizer=muon"},  {"lens.init=mean", NULL},
                                 {"fit.early_stop=false", "lens.init=zero"}};
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
        vl_fit_result r;
        char name[32];
        snprintf(name, sizeof name, "run-%zu", k);
        train(&r, &f, name, settings[k][0], settings[k][1]);
        print_result(settings[k][0], &r);
        for (int i = 0; i < LAYERS; i++) {
            assert_true(isfinite(r.train_kl[i]));
            assert_true(r.validation_kl[i] < r.start_kl[i]);
        }
        vl_fit_result_clear(&r);
    }
    vl_lens *lens = open_lens(&f, "run-3");
    assert_true(vl_lens_get_info(lens)->bias_only);
    assert_null(vl_lens_weight(lens, 0));
    vl_lens_close(lens);
    close_fixture(&f);
}

static void test_same_bits(void **state)
{
    (void)state;
    fixture f = open_fixture();
    train(NULL, &f, "a", NULL, NULL);
    train(NULL, &f, "b", NULL, NULL);
    expect_same_bits(&f, "a", "b", true);
    train(NULL, &f, "one", "fit.layers_in_flight=1", NULL);
    expect_same_bits(&f, "a", "one", true);
    train(NULL, &f, "two", "fit.layers_in_flight=2", "fit.checkpoint_every=3");
    expect_same_bits(&f, "a", "two", true);
    train(NULL, &f, "no-thread", "fit.read_ahead=false", NULL);
    expect_same_bits(&f, "a", "no-thread", true);
    /* where a step is one tile, layers share a gradient */
    train(NULL, &f, "tile", "fit.tile_tokens=96", NULL);
    train(NULL, &f, "tile-one", "fit.tile_tokens=96", "fit.layers_in_flight=1");
    expect_same_bits(&f, "tile", "tile-one", true);
    train(NULL, &f, "seed", "fit.seed=43", NULL);
    expect_same_bits(&f, "a", "seed", false);
    close_fixture(&f);
}

/* Stops a run at each of some steps and lets it go on. */
static void interrupt(const fixture *f, const char *name, const char *setting, int64_t every)
{
    vl_error err = VL_ERROR_INIT;
    vl_config *config = small_config(in(f->folder, name));
    ok(vl_config_set(config, setting, &err), &err);
    vl_fit_result result = {0};
    vl_status status = VL_ECANCELLED;
    int rounds = 0;
    for (int64_t at = every; status == VL_ECANCELLED; at += every, rounds++) {
        watcher w = {.stop_at = at};
        status = run(&result, f, config, &w, false, &err);
        if (status != VL_OK)
            assert_int_equal(status, VL_ECANCELLED);
        char path[64];
        snprintf(path, sizeof path, "%s/checkpoint.safetensors", name);
        assert_int_equal(vl_path_exists(in(f->folder, path)), status == VL_ECANCELLED);
    }
    assert_true(rounds > 1);
    assert_int_equal(result.steps, 20);
    vl_fit_result_clear(&result);
    vl_config_free(config);
}

static void test_resume_gives_the_same_bits(void **state)
{
    (void)state;
    fixture f = open_fixture();
    const char *settings[] = {"fit.optimizer=muon", "fit.optimizer=adam", "fit.optimizer=sgd"};
    char name[32];
    for (int k = 0; k < 3; k++) {
        snprintf(name, sizeof name, "whole-%d", k);
        train(NULL, &f, name, settings[k], NULL);
        char cut[32], fine[32];
        snprintf(cut, sizeof cut, "cut-%d", k);
        interrupt(&f, cut, settings[k], 10);
        expect_same_bits(&f, name, cut, true);
        snprintf(fine, sizeof fine, "fine-%d", k);
        interrupt(&f, fine, settings[k], 1);
        expect_same_bits(&f, name, fine, true);
    }
    /* In the middle of the second group of layers, too. */
    train(NULL, &f, "whole", NULL, NULL);
    interrupt(&f, "groups", "fit.layers_in_flight=2", 7);
    expect_same_bits(&f, "whole", "groups", true);
    interrupt(&f, "last", "fit.early_stop=false", 9);
    train(NULL, &f, "whole-last", "fit.early_stop=false", NULL);
    expect_same_bits(&f, "whole-last", "last", true);
    close_fixture(&f);
}

static void test_changed_settings(void **state)
{
    (void)state;
    fixture f = open_fixture();
    vl_error err = VL_ERROR_INIT;
    watcher w = {.stop_at = 5};
    vl_config *config = small_config(in(f.folder, "out"));
    assert_int_equal(run(NULL, &f, config, &w, false, &err), VL_ECANCELLED);
    config->fit.learning_rate = 0.007;
    w.stop_at = -1;
    assert_int_equal(run(NULL, &f, config, &w, false, &err), VL_EMISMATCH);
    assert_non_null(strstr(err.message, "fit.learning_rate was 0, is 0.007"));
    ok(run(NULL, &f, config, &w, true, &err), &err);
    /* The same again is done at once; other settings are refused. */
    vl_fit_result result;
    w.polls = 0;
    ok(run(&result, &f, config, &w, false, &err), &err);
    assert_int_equal(w.polls, 0);
    assert_int_equal(result.steps, 20);
    assert_true(isfinite(result.validation_kl[0]) && isfinite(result.start_kl[2]));
    vl_fit_result_clear(&result);
    config->lens.skip_positions = 3;
    assert_int_equal(run(NULL, &f, config, &w, false, &err), VL_EMISMATCH);
    assert_non_null(strstr(err.message, "lens.skip_positions was 1, is 3"));
    vl_config_free(config);
    close_fixture(&f);
}

/* Rows that are no numbers, in one state: they are left out and said, the neighbours' bits do not change. */
static void test_bad_rows_are_left_out(void **state)
{
    (void)state;
    fixture f = open_fixture();
    vl_error err = VL_ERROR_INIT;
    watcher w = {.stop_at = -1};
    train(NULL, &f, "good", NULL, NULL);
    const vl_cache_tokens *t = vl_cache_get_tokens(f.cache);
    const vl_cache_samples *samples = vl_cache_get_samples(f.cache);
    for (int64_t row = 0; row < vl_cache_get_info(f.cache)->n_tokens; row++)
        if (!samples->heldout[t->sample_row[row]] && t->position[row] == 20)
            cache_fault(1, row, NAN);
    vl_config *config = small_config(in(f.folder, "bad"));
    vl_fit_result result;
    ok(run(&result, &f, config, &w, false, &err), &err);
    cache_fault(-1, 0, 0);
    assert_int_equal(w.warnings, 1);
    assert_non_null(strstr(w.warning, "layer 1"));
    assert_int_equal(result.n_stopped, 0);
    vl_lens *good = open_lens(&f, "good"), *bad = open_lens(&f, "bad");
    for (int i = 0; i < LAYERS; i += 2)
        assert_memory_equal(vl_lens_weight(good, i), vl_lens_weight(bad, i), D * D * sizeof(float));
    for (int k = 0; k < D * D; k++)
        assert_true(isfinite(vl_lens_weight(bad, 1)[k]));
    vl_lens_close(good);
    vl_lens_close(bad);
    vl_fit_result_clear(&result);
    vl_config_free(config);
    close_fixture(&f);
}

static void test_some_layers(void **state)
{
    (void)state;
    fixture f = open_fixture();
    vl_error err = VL_ERROR_INIT;
    vl_fit_result r;
    train(&r, &f, "all", NULL, NULL);
    vl_fit_result_clear(&r);
    train(&r, &f, "one", "lens.layers=1", NULL);
    assert_true(isnan(r.train_kl[0]) && isfinite(r.train_kl[1]) && isnan(r.train_kl[2]));
    vl_lens *all = open_lens(&f, "all"), *one = open_lens(&f, "one");
    assert_null(vl_lens_bias(one, 0));
    assert_memory_equal(vl_lens_weight(all, 1), vl_lens_weight(one, 1), D * D * sizeof(float));
    vl_lens_close(all);
    vl_lens_close(one);
    vl_fit_result_clear(&r);
    watcher w = {.stop_at = -1};
    vl_config *config = small_config(in(f.folder, "none"));
    config->lens.first_layer = 2;
    config->lens.last_layer = 3;
    assert_int_equal(run(NULL, &f, config, &w, false, &err), VL_EINVAL);
    assert_non_null(strstr(err.message, "lens.layers"));
    vl_config_free(config);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_falls),
        cmocka_unit_test(test_falls_below_the_start),
        cmocka_unit_test(test_all_losses_and_kinds),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_resume_gives_the_same_bits),
        cmocka_unit_test(test_changed_settings),
        cmocka_unit_test(test_bad_rows_are_left_out),
        cmocka_unit_test(test_some_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
