/* Settings as text: what is stored follows from the option table, and records of earlier versions still compare. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "trainer/base/mem.h"
#include "trainer/config/options.h"
#include "trainer/config/settings.h"

static vl_config *config_with(const char *const *assignments)
{
    vl_error err = VL_ERROR_INIT;
    vl_config *config;
    assert_int_equal(vl_config_new(&config, &err), VL_OK);
    for (; assignments && *assignments; assignments++)
        if (vl_config_set(config, *assignments, &err) != VL_OK)
            fail_msg("%s", err.message);
    return config;
}

static char *text_of(const char *const *assignments, unsigned affects)
{
    vl_error err = VL_ERROR_INIT;
    char *text;
    const vl_fact facts[] = {{"fingerprint", "abc"}};
    vl_config *config = config_with(assignments);
    assert_int_equal(vl_settings_make(&text, config, affects, facts, 1, &err), VL_OK);
    vl_config_free(config);
    return text;
}

static void expect(const char *stored, const char *wanted, const char *key, const char *then, const char *now)
{
    vl_error err = VL_ERROR_INIT;
    vl_settings_difference d;
    assert_int_equal(vl_settings_compare(&d, stored, wanted, &err), VL_OK);
    assert_string_equal(d.key, key);
    if (key[0]) {
        assert_string_equal(d.then, then);
        assert_string_equal(d.now, now);
    }
}

/* Every key says what it affects, and what it affects is what is stored. */
static void test_table(void **state)
{
    (void)state;
    char *text = text_of(NULL, VL_AFFECTS_FORWARD | VL_AFFECTS_ROWS);
    for (int i = 0; i < vl_options_count; i++) {
        const vl_option *o = &vl_options[i];
        char line[80];
        assert_true(o->affects > 0 && o->affects < 1u << VL_AFFECTS_COUNT);
        if (o->affects & VL_AFFECTS_MACHINE) /* either no number changes, or it is said which */
            assert_int_equal(o->affects, VL_AFFECTS_MACHINE);
        snprintf(line, sizeof line, "%s=", o->key);
        bool stored = strstr(text, line) != NULL;
        bool wanted = (o->affects & (VL_AFFECTS_FORWARD | VL_AFFECTS_ROWS)) && o->type != VL_OPTION_TEXT;
        if (stored != wanted)
            fail_msg("%s: stored %d, wanted %d", o->key, stored, wanted);
    }
    assert_non_null(strstr(text, "cache.batch_tokens=2048\n"));
    assert_null(strstr(text, "fit."));
    vl_free(text);
}

static void test_differences(void **state)
{
    (void)state;
    const char *const other[] = {"fit.momentum=0.5", "lens.layers=1-2", NULL};
    char *a = text_of(NULL, VL_AFFECTS_FIT), *b = text_of(other, VL_AFFECTS_FIT);
    expect(a, a, "", "", "");
    expect(a, b, "lens.layers", "all", "1-2"); /* the first in the order of the table */
    expect("fingerprint=abd\n", a, "fingerprint", "abd", "abc");
    expect("", a, "fingerprint", "(nothing)", "abc"); /* keys that were not stored had their defaults */
    expect("fingerprint=abc\n", b, "lens.layers", "all", "1-2");
    expect("something.gone=1\nfingerprint=abc\n", a, "", "", "");
    char *found = vl_settings_find(b, "fit.momentum");
    assert_string_equal(found, "0.5");
    assert_null(vl_settings_find(b, "momentum"));
    vl_free(found);
    vl_free(a);
    vl_free(b);
}

/* The two forms of version 0.1, as it wrote them. */
static void test_earlier_forms(void **state)
{
    (void)state;
    static const char lens[] = "fingerprint=abc\nprecision=auto\nlens.layers=0--1\nlens.kind=affine\n"
                               "lens.class_weights.text=1\nfit.learning_rate=0\nfit.momentum=0.90000000000000002\n"
                               "fit.warmup=0.050000000000000003\nfit.early_stop=1\nrows of the cache=1\n";
    static const char cache[] = "{\"model\": \"/m\", \"fingerprint\": \"abc\", \"precision\": \"auto\", "
                                "\"data.exif\": \"true\", \"cache.dtype\": \"auto\", "
                                "\"cache.positions.image\": \"5\", \"cache.shard_tokens\": \"16384\"}";
    const char *const five[] = {"cache.positions.image=5", NULL};
    const char *const slow[] = {"fit.early_stop=false", NULL};
    char *fit = text_of(NULL, VL_AFFECTS_FIT), *late = text_of(slow, VL_AFFECTS_FIT);
    char *rows = text_of(five, VL_AFFECTS_ROWS | VL_AFFECTS_FORWARD);
    char *all = text_of(NULL, VL_AFFECTS_ROWS | VL_AFFECTS_FORWARD);
    expect(lens, fit, "", "", "");
    expect(lens, late, "fit.early_stop", "true", "false");
    expect(cache, rows, "", "", "");
    expect(cache, all, "cache.positions.image", "5", "64");
    char *found = vl_settings_find(cache, "model");
    assert_string_equal(found, "/m");
    vl_free(found);
    vl_free(fit);
    vl_free(late);
    vl_free(rows);
    vl_free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_earlier_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
