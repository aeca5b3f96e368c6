/* Questions over the wire: what is taken, with which defaults, and what is refused with which word in the message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "trainer/serve/ask.h"

enum { LENSES = 2 };

static void a_prompt_is_enough(void **state)
{
    (void)state;
    vl_ask ask;
    vl_error err = VL_ERROR_INIT;
    static const char text[] = "{\"prompt\": \"What is it?\"}";
    assert_int_equal(vl_ask_parse(&ask, text, strlen(text), LENSES, &err), VL_OK);
    assert_string_equal(ask.prompt, "What is it?");
    assert_int_equal(ask.n_pictures, 0);
    assert_int_equal(ask.lens, 0);
    assert_int_equal(ask.k, 5);
    assert_int_equal(ask.generate, 16);
    assert_false(ask.raw);
    vl_ask_clear(&ask);
    assert_int_equal(vl_ask_parse(&ask, text, strlen(text), 0, &err), VL_OK);
    assert_int_equal(ask.lens, -1); /* there is none */
    vl_ask_clear(&ask);
}

static void every_key_is_taken(void **state)
{
    (void)state;
    vl_ask ask;
    vl_error err = VL_ERROR_INIT;
    static const char text[] =
        "{\"prompt\": \"\\u00e9\", \"pictures\": [3, 1], \"lens\": 1, \"k\": 50, \"generate\": 0, "
        "\"track\": [\"red\", \"eyes\"], \"raw\": true}";
    assert_int_equal(vl_ask_parse(&ask, text, strlen(text), LENSES, &err), VL_OK);
    assert_string_equal(ask.prompt, "\xc3\xa9");
    assert_int_equal(ask.n_pictures, 2);
    assert_int_equal(ask.pictures[0], 3);
    assert_int_equal(ask.pictures[1], 1);
    assert_int_equal(ask.lens, 1);
    assert_int_equal(ask.k, 50);
    assert_int_equal(ask.generate, 0);
    assert_int_equal(ask.n_words, 2);
    assert_string_equal(ask.words[1], "eyes");
    assert_true(ask.raw);
    vl_ask_clear(&ask);
}

static void the_rest_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *word;
    } cases[] = {{"", "question"},
                 {"{\"prompt\": \"x\"", "question"},
                 {"[1]", "object"},
                 {"{}", "prompt is missing"},
                 {"{\"prompt\": 5}", "prompt"},
                 {"{\"prompt\": \"x\", \"path\": \"/etc/passwd\"}", "unknown key \"path\""},
                 {"{\"prompt\": \"x\", \"pictures\": [\"../../etc/passwd\"]}", "pictures"},
                 {"{\"prompt\": \"x\", \"pictures\": [0]}", "pictures"},
                 {"{\"prompt\": \"x\", \"pictures\": [1,1,1,1,1,1,1,1,1]}", "at most 8"},
                 {"{\"prompt\": \"x\", \"lens\": 2}", "lens"},
                 {"{\"prompt\": \"x\", \"lens\": -2}", "lens"},
                 {"{\"prompt\": \"x\", \"k\": 51}", "1 to 50"},
                 {"{\"prompt\": \"x\", \"k\": 5.5}", "integer"},
                 {"{\"prompt\": \"x\", \"generate\": 100000}", "generate"},
                 {"{\"prompt\": \"x\", \"track\": \"red\"}", "track"},
                 {"{\"prompt\": \"x\", \"raw\": 1}", "raw"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vl_ask ask;
        vl_error err = VL_ERROR_INIT;
        assert_int_equal(vl_ask_parse(&ask, cases[i].text, strlen(cases[i].text), LENSES, &err), VL_EFORMAT);
        if (!strstr(err.message, cases[i].word))
            fail_msg("%s: \"%s\" does not say %s", cases[i].text, err.message, cases[i].word);
        assert_null(ask.prompt); /* nothing is left to free */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_prompt_is_enough), cmocka_unit_test(every_key_is_taken),
                                       cmocka_unit_test(the_rest_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
