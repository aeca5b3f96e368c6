/* Reading ahead: what was asked for is there, what was not is read all the same, and errors arrive with the read that
 * they belong to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/fit_test.h"
#include "trainer/readout/prefetch.h"

enum { WIDTH = 16, STATES = 4 };

static void expect_rows(vl_prefetch *reader, vl_cache *cache, const vl_prefetch_order *order)
{
    vl_error err = VL_ERROR_INIT;
    void *rows;
    uint16_t wanted[WIDTH];
    ok(vl_prefetch_take(&rows, reader, order, &err), &err);
    const uint16_t *got = rows;
    for (int64_t p = 0; p < order->n; p++)
        for (int64_t k = 0; k < order->pieces[p].n; k++, got += WIDTH) {
            ok(vl_cache_read(wanted, cache, order->state, order->pieces[p].first + k, 1, &err), &err);
            assert_memory_equal(got, wanted, sizeof wanted);
        }
}

static void test_with(bool background, int64_t expected_ahead)
{
    char *folder = folder_new();
    vl_cache *cache = small_cache(folder);
    vl_prefetch *reader;
    vl_error err = VL_ERROR_INIT;
    const vl_run pieces[] = {{100, 20}, {7, 3}, {300, 40}}, others[] = {{0, 5}};
    void *rows;
    int64_t ahead, all;
    ok(vl_prefetch_new(&reader, cache, 64, background, &err), &err);
    for (int64_t state = 0; state < STATES; state++) {
        vl_prefetch_order order = {pieces, 3, state};
        expect_rows(reader, cache, &order);
        if (state + 1 < STATES)
            vl_prefetch_ask(reader, &(vl_prefetch_order){pieces, 3, state + 1});
        vl_prefetch_rest(reader);
    }
    vl_prefetch_ask(reader, &(vl_prefetch_order){pieces, 2, 1});
    vl_prefetch_rest(reader);
    expect_rows(reader, cache, &(vl_prefetch_order){others, 1, 1}); /* other rows */
    vl_prefetch_ask(reader, &(vl_prefetch_order){others, 1, 2});
    vl_prefetch_ask(reader, &(vl_prefetch_order){pieces, 2, 2}); /* the last one counts */
    vl_prefetch_rest(reader);
    expect_rows(reader, cache, &(vl_prefetch_order){pieces, 2, 2});
    vl_prefetch_count(reader, &ahead, &all);
    assert_int_equal(ahead, expected_ahead);
    assert_int_equal(all, STATES + 2);
    vl_prefetch_order bad = {others, 1, STATES};
    vl_prefetch_ask(reader, &bad);
    vl_prefetch_rest(reader);
    expect_rows(reader, cache, &(vl_prefetch_order){others, 1, 3}); /* an error that nobody waits for is no error */
    vl_prefetch_ask(reader, &bad);
    assert_int_equal(vl_prefetch_take(&rows, reader, &bad, &err), VL_EINVAL);
    assert_non_null(strstr(err.message, "state 4"));
    vl_prefetch_ask(reader, &(vl_prefetch_order){pieces, 3, 0});
    vl_prefetch_free(reader); /* in the middle */
    vl_cache_close(cache);
    folder_remove(folder);
}

static void test_ahead(void **state)
{
    (void)state;
    test_with(true, STATES);
}

static void test_without_a_thread(void **state)
{
    (void)state;
    test_with(false, 0);
}

/* What is still being read when it is wanted is waited for, and not read twice. */
static void test_waits(void **state)
{
    (void)state;
    enum { TIMES = 100 };
    char *folder = folder_new();
    vl_cache *cache = small_cache(folder);
    vl_prefetch *reader;
    vl_error err = VL_ERROR_INIT;
    const vl_run pieces[] = {{100, 20}, {7, 3}, {300, 40}};
    int64_t ahead, all;
    ok(vl_prefetch_new(&reader, cache, 64, true, &err), &err);
    for (int i = 0; i < TIMES; i++) {
        vl_prefetch_order order = {pieces, 3, i % STATES};
        vl_prefetch_ask(reader, &order);
        expect_rows(reader, cache, &order);
    }
    vl_prefetch_count(reader, &ahead, &all);
    assert_int_equal(ahead, TIMES);
    assert_int_equal(all, TIMES);
    vl_prefetch_free(reader);
    vl_cache_close(cache);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ahead), cmocka_unit_test(test_without_a_thread),
                                       cmocka_unit_test(test_waits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
