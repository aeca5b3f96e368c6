/* Chat templates against transformers: chat_goldens.json holds what it renders (make_chat_goldens.py). */
#include "tests/support/temp_folder.h"

#include <jansson.h>

#include "trainer/hf/chat_template.h"
#include "trainer/hf/jinja.h"

enum { TURNS = 8, PARTS = 8 };

typedef struct talk {
    vl_turn turns[TURNS];
    vl_turn_part parts[TURNS][PARTS];
    int n;
} talk;

static json_t *read_goldens(void)
{
    json_error_t error;
    json_t *root = json_load_file(VLENS_SOURCE_DIR "/tests/hf/chat_goldens.json", 0, &error);
    if (!root)
        fail_msg("chat_goldens.json:%d: %s", error.line, error.text);
    return root;
}

static void read_talk(talk *out, const json_t *turns)
{
    *out = (talk){.n = (int)json_array_size(turns)};
    for (int i = 0; i < out->n; i++) {
        const json_t *turn = json_array_get(turns, (size_t)i), *parts = json_array_get(turn, 1);
        for (size_t k = 0; k < json_array_size(parts); k++)
            out->parts[i][k].text = json_string_value(json_array_get(parts, k)); /* NULL of null: a picture */
        out->turns[i] =
            (vl_turn){json_string_value(json_array_get(turn, 0)), out->parts[i], (int)json_array_size(parts)};
    }
}

static vl_chat_template *open_template(const char *folder, const char *name, const json_t *goldens)
{
    char path[TEMP_PATH_SIZE], text[TEMP_PATH_SIZE];
    vl_chat_template *opened;
    vl_error err = VL_ERROR_INIT;
    temp_format(path, sizeof path, "%s/tests/hf/templates/%s", VLENS_SOURCE_DIR, name);
    unlink(temp_path(text, folder, "chat_template.jinja"));
    assert_int_equal(symlink(path, text), 0);
    temp_format(text, sizeof text, "{\"bos_token\": {\"content\": \"%s\"}, \"eos_token\": \"%s\"}",
                json_string_value(json_object_get(goldens, "bos_token")),
                json_string_value(json_object_get(goldens, "eos_token")));
    temp_text(folder, "tokenizer_config.json", text);
    if (vl_chat_template_open(&opened, folder, &err) != VL_OK)
        fail_msg("%s", err.message);
    assert_non_null(opened);
    return opened;
}

static void check_row(const json_t *row, const json_t *goldens, const vl_chat_template *opened)
{
    talk t;
    vl_str text = VL_STR_INIT;
    vl_error err = VL_ERROR_INIT;
    vl_chat_place answers[TURNS];
    const char *expected = json_string_value(json_object_get(row, "text"));
    const char *name = json_string_value(json_object_get(row, "talk"));
    read_talk(&t, json_object_get(json_object_get(goldens, "talks"), name));
    vl_chat chat = {t.turns, t.n, json_is_true(json_object_get(row, "as_parts")),
                    json_string_value(json_object_get(goldens, "date"))};
    vl_status status = vl_chat_render(&text, answers, opened, &chat, &err);
    if ((status == VL_OK) != (expected != NULL))
        fail_msg("%s, %s: %s, expected %s", vl_chat_template_name(opened), name,
                 status == VL_OK ? text.data : err.message, expected ? expected : "a refusal");
    if (expected && (text.size != strlen(expected) || memcmp(text.data ? text.data : "", expected, text.size) != 0))
        fail_msg("%s, %s:\n%s\nexpected\n%s", vl_chat_template_name(opened), name, text.data, expected);
    vl_str_clear(&text);
}

static void test_transformers(void **state)
{
    json_t *goldens = read_goldens();
    const json_t *rows = json_object_get(goldens, "rows"), *row;
    vl_chat_template *opened = NULL;
    const char *before = "";
    size_t i;
    json_array_foreach(rows, i, row)
    {
        const char *name = json_string_value(json_object_get(row, "template"));
        if (strcmp(name, before) != 0) {
            vl_chat_template_close(opened);
            opened = open_template(*state, name, goldens);
            before = name;
        }
        check_row(row, goldens, opened);
    }
    assert_true(i > 180);
    vl_chat_template_close(opened);
    json_decref(goldens);
}

/* ---- answers ----------------------------------------------------------------------------------------------- */

static void check_answers(const char *source, const char *expected)
{
    static const vl_turn_part parts[] = {{"Who?"}, {"Me. "}, {"Why?"}, {""}};
    static const vl_turn turns[] = {
        {"user", &parts[0], 1}, {"assistant", &parts[1], 1}, {"user", &parts[2], 1}, {"assistant", &parts[3], 1}};
    vl_chat_template *opened;
    vl_chat_place answers[4];
    vl_str text = VL_STR_INIT, found = VL_STR_INIT;
    vl_error err = VL_ERROR_INIT;
    vl_chat chat = {turns, 4, false, NULL};
    assert_int_equal(vl_chat_template_new(&opened, "test", source, &err), VL_OK);
    if (vl_chat_render(&text, answers, opened, &chat, &err) != VL_OK)
        vl_str_puts(&found, err.message);
    for (int i = 0; i < 4 && err.status == VL_OK; i++) {
        vl_str_putc(&found, '[');
        vl_str_append(&found, text.data + answers[i].answer_first, answers[i].answer_end - answers[i].answer_first);
        vl_str_putc(&found, ']');
    }
    if (!strstr(found.data, expected))
        fail_msg("answers %s of\n%s\nexpected %s", found.data, text.data, expected);
    vl_str_clear(&found);
    vl_str_clear(&text);
    vl_chat_template_close(opened);
}

static void test_answers(void **state)
{
    (void)state;
    check_answers("{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n{% endfor %}"
                  "{% if add_generation_prompt %}<assistant>{% endif %}",
                  "[][Me. <end>][][<end>]");
    check_answers("{% for m in messages %}{{ m.role | upper }}: {{ m.content + ' ' }}{% endfor %}"
                  "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
                  "[][ Me.][][]");
    /* The end of the last answer is not that of the others: not guessed. */
    check_answers("{% for m in messages %}{{ m.role }}{{ m.content }}{{ '!' if loop.last else '?' }}{% endfor %}",
                  "writes turn 1 otherwise");
}

/* ---- what is refused ---------------------------------------------------------------------------------------- */

static void test_refused(void **state)
{
    static const struct {
        const char *source, *words;
    } cases[] = {
        {"a\n{% include 'x' %}", "test:2: the statement \"include\""},
        {"{{ messages | batch(2) }}", "test:1: the filter \"batch\""},
        {"{{ messages is prime }}", "the test \"prime\""},
        {"{{ cycler() }}", "the function \"cycler\""},
        {"{{ 'a'.zfill(3) }}", "the method \"zfill\""},
        {"{{ strftime_now('%Y') }}", "set data.template_date"},
        {"{{ raise_exception('no') }}", "refuses this: no"},
        {"{{ x.y }}", "undefined"},
        {"{{ 1 / 0 }}", "division by zero"},
        {"{{ 1 + 'a' }}", "a number and a text"},
        {"{% if x %}", "expected {% elif %}"},
        {"{{ 'a }}", "not closed"},
        {"{# a", "a comment is not closed"},
        {"{{ a", "a tag is not closed"},
        {"{{ a ) }}", "expected }}"},
        {"{% for i in range(99999999) %}x{% endfor %}", "rendering takes more than"},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested deeper than 100 levels"},
        {"{% set ns = namespace(t='x') %}{% for i in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
         "rendering takes more than 256 MiB"},
    };
    vl_chat chat = {NULL, 0, false, NULL};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vl_chat_template *opened;
        vl_str text = VL_STR_INIT;
        vl_error err = VL_ERROR_INIT;
        assert_int_equal(vl_chat_template_new(&opened, "test", cases[i].source, &err), VL_OK);
        vl_status status = vl_chat_render(&text, NULL, opened, &chat, &err);
        if (status == VL_OK || !strstr(err.message, cases[i].words))
            fail_msg("%s: status %d, \"%s\", expected \"%s\"", cases[i].source, status, err.message, cases[i].words);
        vl_str_clear(&text);
        vl_chat_template_close(opened);
    }
}

/* chat_template.jinja wins over chat_template.json, that over tokenizer_config.json. */
static void test_places(void **state)
{
    static const char *const files[][2] = {
        {"tokenizer_config.json", "{\"chat_template\": \"config\"}"},
        {"tokenizer_config.json",
         "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"tools\"}, {\"name\": \"default\", "
         "\"template\": \"named\"}]}"},
        {"chat_template.json", "{\"chat_template\": \"json\"}"},
        {"chat_template.jinja", "jinja\n"},
    };
    static const char *const expected[] = {"config", "named", "json", "jinja"};
    vl_chat chat = {NULL, 0, false, NULL};
    vl_chat_template *opened;
    assert_int_equal(vl_chat_template_open(&opened, *state, NULL), VL_OK);
    assert_null(opened);
    for (size_t i = 0; i < 4; i++) {
        vl_str text = VL_STR_INIT;
        temp_text(*state, files[i][0], files[i][1]);
        assert_int_equal(vl_chat_template_open(&opened, *state, NULL), VL_OK);
        assert_int_equal(vl_chat_render(&text, NULL, opened, &chat, NULL), VL_OK);
        assert_string_equal(text.data, expected[i]);
        vl_str_clear(&text);
        vl_chat_template_close(opened);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_transformers, temp_setup, temp_teardown),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_refused),
        cmocka_unit_test_setup_teardown(test_places, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
