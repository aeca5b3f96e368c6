/* Which rows are chosen, with what weight, and in which order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/fit_test.h"
#include "trainer/fit/plan.h"

typedef struct fixture {
    char *folder;
    vl_cache *cache;
    vl_config *config;
    vl_plan plan;
} fixture;

static fixture open_fixture(void)
{
    fixture f = {.folder = folder_new()};
    f.cache = small_cache(f.folder);
    f.config = small_config(f.folder);
    return f;
}

static void make_plan(fixture *f)
{
    vl_error err = VL_ERROR_INIT;
    vl_plan_clear(&f->plan);
    ok(vl_plan_new(&f->plan, f->config, f->cache, &err), &err);
}

static void close_fixture(fixture *f)
{
    vl_plan_clear(&f->plan);
    vl_config_free(f->config);
    vl_cache_close(f->cache);
    folder_remove(f->folder);
}

static int count(const vl_rows *part, int64_t row)
{
    int n = 0;
    for (int64_t i = 0; i < part->n_runs; i++)
        n += row >= part->runs[i].first && row < part->runs[i].first + part->runs[i].n;
    return n;
}

static void test_rows_are_the_right_ones(void **state)
{
    (void)state;
    fixture f = open_fixture();
    f.config->lens.class_weights[VL_LAST] = 0;
    f.config->lens.skip_positions = 2;
    make_plan(&f);
    const vl_cache_tokens *t = vl_cache_get_tokens(f.cache);
    const vl_cache_samples *samples = vl_cache_get_samples(f.cache);
    int64_t n = vl_cache_get_info(f.cache)->n_tokens, train = 0, validation = 0;
    for (int64_t row = 0; row < n; row++) {
        bool wanted = !samples->heldout[t->sample_row[row]] && t->token_class[row] != VL_LAST && t->position[row] >= 2;
        int a = count(&f.plan.train, row), b = count(&f.plan.validation, row);
        assert_int_equal(a + b, wanted);
        train += a;
        validation += b;
        if (row > 0 && b && t->sample_row[row] == t->sample_row[row - 1])
            assert_int_equal(count(&f.plan.train, row - 1), 0); /* whole samples */
    }
    assert_int_equal(train, f.plan.train.n_rows);
    assert_int_equal(validation, f.plan.validation.n_rows);
    assert_true(train > 0 && validation > 0);
    assert_int_equal(f.plan.train.class_rows[VL_LAST], 0);
    for (int64_t i = 0; i < f.plan.train.n_runs; i++)
        assert_in_range(f.plan.train.runs[i].n, 1, VL_RUN_ROWS);
    close_fixture(&f);
}

/* The mean over rows of the weights of one class is that class' share. */
static void test_weights_are_class_means(void **state)
{
    (void)state;
    fixture f = open_fixture();
    f.config->lens.class_weights[VL_IMAGE] = 2;
    make_plan(&f);
    const vl_rows *p = &f.plan.train;
    const double shares[VL_CLASS_COUNT] = {[VL_TEXT] = 0.25, [VL_IMAGE] = 0.5, [VL_LAST] = 0.25};
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        assert_true(fabs(p->weight[c] * (double)p->class_rows[c] / (double)p->n_rows - shares[c]) < 1e-12);
    close_fixture(&f);
}

static void test_seed_decides(void **state)
{
    (void)state;
    fixture f = open_fixture();
    char first[VL_SHA256_HEX];
    make_plan(&f);
    strcpy(first, f.plan.digest);
    make_plan(&f);
    assert_string_equal(first, f.plan.digest);
    f.config->fit.seed++;
    make_plan(&f);
    assert_string_not_equal(first, f.plan.digest);
    close_fixture(&f);
}

static void test_validation_share(void **state)
{
    (void)state;
    fixture f = open_fixture();
    f.config->fit.validation = 0;
    make_plan(&f);
    assert_int_equal(f.plan.validation.n_rows, 0);
    int64_t all = f.plan.train.n_rows;
    f.config->fit.validation = 1e-9; /* one sample at least */
    make_plan(&f);
    assert_true(f.plan.validation.n_rows > 0 && f.plan.validation.n_rows <= 24);
    assert_int_equal(f.plan.validation.n_rows + f.plan.train.n_rows, all);
    close_fixture(&f);
}

static void test_nothing_to_train_on(void **state)
{
    (void)state;
    fixture f = open_fixture();
    vl_error err = VL_ERROR_INIT;
    f.config->lens.skip_positions = 1000;
    assert_int_equal(vl_plan_new(&f.plan, f.config, f.cache, &err), VL_EINVAL);
    assert_non_null(strstr(err.message, "skip_positions"));
    close_fixture(&f);
}

static void test_steps(void **state)
{
    (void)state;
    fixture f = open_fixture();
    f.config->fit.steps = 0;
    f.config->fit.epochs = 2;
    make_plan(&f);
    assert_int_equal(f.plan.tokens_per_step, 96);
    assert_int_equal(f.plan.steps, (2 * f.plan.train.n_rows + 95) / 96);
    f.config->fit.tokens_per_step = 1 << 20; /* more than there are */
    make_plan(&f);
    assert_int_equal(f.plan.tokens_per_step, f.plan.train.n_rows);
    assert_int_equal(f.plan.steps, 2);
    close_fixture(&f);
}

/* An epoch visits every row once, the next in another order, and a seek lands where the walk would be. */
static void test_sampler(void **state)
{
    (void)state;
    fixture f = open_fixture();
    vl_error err = VL_ERROR_INIT;
    make_plan(&f);
    const vl_rows *part = &f.plan.train;
    int64_t n = vl_cache_get_info(f.cache)->n_tokens, rows = part->n_rows;
    int *seen = calloc((size_t)n, sizeof *seen);
    int64_t *walk = calloc((size_t)(3 * rows), sizeof *walk), length = 0;
    vl_run *pieces = calloc((size_t)rows, sizeof *pieces);
    vl_sampler sampler, other;
    ok(vl_sampler_shuffled(&sampler, part, 5, &err), &err);
    ok(vl_sampler_shuffled(&other, part, 5, &err), &err);
    while (length + 7 <= 3 * rows) {
        int64_t k = vl_sampler_take(&sampler, pieces, 7);
        for (int64_t p = 0; p < k; p++)
            for (int64_t i = 0; i < pieces[p].n; i++)
                walk[length++] = pieces[p].first + i;
    }
    for (int64_t i = 0; i < rows; i++)
        seen[walk[i]]++;
    for (int64_t row = 0; row < n; row++)
        assert_int_equal(seen[row], count(part, row));
    assert_memory_not_equal(walk, walk + rows, (size_t)rows * sizeof *walk);
    for (int64_t start = 0; start + 1 < length; start += 31) {
        vl_sampler_seek(&other, start);
        vl_sampler_take(&other, pieces, 1);
        assert_int_equal(pieces[0].first, walk[start]);
    }
    vl_sampler_clear(&sampler);
    vl_sampler_clear(&other);
    vl_sampler in_order = vl_sampler_in_order(part);
    int64_t total = 0, k;
    while ((k = vl_sampler_take(&in_order, pieces, 50)) > 0)
        for (int64_t p = 0; p < k; p++)
            total += pieces[p].n;
    assert_int_equal(total, rows);
    free(seen);
    free(walk);
    free(pieces);
    close_fixture(&f);
}

/* Looking ahead shows what taking gives, up to the end of an epoch, and moves nothing. */
static void test_peek(void **state)
{
    (void)state;
    fixture f = open_fixture();
    vl_error err = VL_ERROR_INIT;
    vl_sampler sampler;
    vl_run seen[64], taken[64];
    make_plan(&f);
    ok(vl_sampler_shuffled(&sampler, &f.plan.train, 5, &err), &err);
    int64_t steps = f.plan.train.n_rows / 50, empty = 0;
    for (int64_t step = 0; step < 3 * steps; step++) {
        int64_t epoch = sampler.epoch, n_seen = vl_sampler_peek(&sampler, seen, 50);
        int64_t n_taken = vl_sampler_take(&sampler, taken, 50);
        empty += n_seen == 0;
        assert_true(n_seen == 0 ? sampler.epoch == epoch + 1 : n_seen == n_taken);
        assert_memory_equal(seen, taken, (size_t)n_seen * sizeof *seen);
    }
    assert_true(empty == 2);
    vl_sampler_clear(&sampler);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peek),
        cmocka_unit_test(test_rows_are_the_right_ones),
        cmocka_unit_test(test_weights_are_class_means),
        cmocka_unit_test(test_seed_decides),
        cmocka_unit_test(test_validation_share),
        cmocka_unit_test(test_nothing_to_train_on),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_sampler),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
