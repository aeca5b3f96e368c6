/* Reading data.samples: all formats, and every kind of line that is refused, with its place. */
#include "tests/support/temp_folder.h"

#include "trainer/data/samples.h"

typedef struct fixture {
    vl_config *config;
    vl_sample_list list;
    vl_error err;
} fixture;

static vl_status read_lines(fixture *f, const char *folder, const char *lines)
{
    char path[TEMP_PATH_SIZE], assignment[TEMP_PATH_SIZE + 32];
    temp_text(folder, "x.jsonl", lines);
    temp_format(assignment, sizeof assignment, "data.samples=%s", temp_path(path, folder, "x.jsonl"));
    if (!f->config)
        assert_int_equal(vl_config_new(&f->config, NULL), VL_OK);
    assert_int_equal(vl_config_set(f->config, assignment, NULL), VL_OK);
    memset(&f->err, 0, sizeof f->err);
    return vl_samples_read(&f->list, f->config, NULL, &f->err);
}

static void refuse(fixture *f, const char *folder, const char *lines, const char *words)
{
    vl_status status = read_lines(f, folder, lines);
    if (status == VL_OK || !strstr(f->err.message, words))
        fail_msg("%s: status %d, \"%s\", expected \"%s\"", lines, status, f->err.message, words);
    assert_null(f->list.items);
}

static void test_formats(void **state)
{
    fixture f = {0};
    temp_text(*state, "a.png", "a");
    temp_text(*state, "b.png", "b");
    vl_status status = read_lines(
        &f, *state,
        "\xef\xbb\xbf{\"prompt\": \"one\", \"id\": 77, \"other\": [1, {\"x\": []}]}\r\n"
        "\n"
        "  \r\n"
        "{\"image\": \"a.png\", \"prompt\": \"tw\\u00f6\", \"answer\": \"yes\"}\n"
        "{\"image\": [\"a.png\", \"./b.png\"], \"prompt\": \"three\", \"answer\": null}\n"
        "{\"image\": \"b.png\", \"conversations\": [{\"from\": \"system\", \"value\": \"s\"}, {\"from\": \"human\", "
        "\"value\": \"<image>\\nWhat?\"}, {\"from\": \"gpt\", \"value\": \"That.\"}, {\"from\": \"human\", \"value\": "
        "\"no\"}, {\"from\": \"gpt\", \"value\": \"no\"}]}\n"
        "{\"image\": null, \"conversations\": [{\"from\": \"human\", \"value\": \" as it is \"}]}");
    if (status != VL_OK)
        fail_msg("%s", f.err.message);
    assert_int_equal(f.list.n, 5);
    const vl_sample *s = f.list.items;
    static const int64_t numbers[] = {0, 3, 4, 5, 6};
    for (int i = 0; i < 5; i++)
        assert_int_equal(s[i].number, numbers[i]);
    assert_string_equal(s[0].prompt, "one");
    assert_null(s[0].answer);
    assert_int_equal(s[0].n_images, 0);
    assert_string_equal(s[1].prompt, "tw\xc3\xb6");
    assert_string_equal(s[1].answer, "yes");
    assert_int_equal(s[2].n_images, 2);
    assert_null(s[2].answer);
    assert_non_null(strstr(s[2].images[1], "b.png"));
    assert_string_equal(s[3].prompt, "What?");
    assert_string_equal(s[3].answer, "That.");
    assert_string_equal(s[4].prompt, " as it is ");
    vl_samples_clear(&f.list);
    assert_int_equal(vl_config_set(f.config, "data.max_samples=2", NULL), VL_OK);
    assert_int_equal(read_lines(&f, *state, "{\"prompt\": \"1\"}\n\n{\"prompt\": \"2\"}\nnot read"), VL_OK);
    assert_int_equal(f.list.n, 2);
    assert_int_equal(f.list.items[1].number, 2);
    vl_samples_clear(&f.list);
    vl_config_free(f.config);
}

static void test_refused(void **state)
{
    static const struct {
        const char *lines, *words;
    } cases[] = {
        {"", "holds no samples"},
        {"\n\n", "holds no samples"},
        {"{\"prompt\": \"x\"}\n{\"prompt\": }\n", "x.jsonl:2:"},
        {"{\"prompt\": \"x\"", "x.jsonl:1:"},
        {"{\"prompt\": \"x\"} {\"prompt\": \"y\"}", "x.jsonl:1:"},
        {"{\"prompt\": \"a\\u0000b\"}", "x.jsonl:1:"},
        {"{\"prompt\": \"a\xff\"}", "x.jsonl:1:"},
        {"{\"prompt\": \"a\", \"prompt\": \"b\"}", "x.jsonl:1:"},
        {"{\"prompt\": \"x\"}\n[1]", "x.jsonl:2: this is a list, expected an object"},
        {"\"text\"", "x.jsonl:1: this is a text"},
        {"{}", "x.jsonl:1: \"prompt\" (or \"conversations\", \"messages\") is missing"},
        {"{\"prompt\": 3}", "x.jsonl:1: \"prompt\" is a number, expected a text"},
        {"{\"prompt\": \"x\", \"answer\": [\"y\"]}", "\"answer\" is a list, expected a text"},
        {"{\"prompt\": \"x\", \"conversations\": []}", "more than one of \"prompt\""},
        {"{\"conversations\": {}}", "\"conversations\" is an object, expected a list"},
        {"{\"conversations\": []}", "no turn is from the user"},
        {"{\"conversations\": [1]}", "turn 0 has no \"from\" and \"value\""},
        {"{\"image\": \"a.png\", \"conversations\": [{\"from\": \"human\", \"value\": \"<image><image>\"}]}",
         "2 times \"<image>\" in the turns, but 1 images"},
        {"{\"prompt\": \"x\", \"image\": \"a.png\", \"images\": [\"a.png\"]}", "both \"image\" and \"images\""},
        {"{\"prompt\": \"x\", \"image\": \"http://x/a.png\"}", "is an address, only files are read"},
        {"{\"conversations\": [{\"from\": \"tool\", \"value\": \"x\"}]}", "turn 0 is from \"tool\""},
        {"[{\"prompt\": \"x\"}, {\"prompt\"", "x.jsonl:1: the array ends in the middle"},
        {"[\n{\"prompt\": \"x\"}\n{\"prompt\": \"y\"}]", "x.jsonl:3: no valid JSON: expected \",\" or"},
        {"{\"image\": \"a.png\", \"caption\": \"x\"}", "data.prompt says what is asked"},
        {"{\"prompt\": \"x\", \"image\": 4}", "\"image\" holds a number"},
        {"{\"prompt\": \"x\", \"image\": [[\"a.png\"]]}", "\"image\" holds a list"},
        {"{\"prompt\": \"x\", \"image\": \"\"}", "an image name is empty"},
        {"{\"prompt\": \"x\", \"image\": \"missing.png\"}", "x.jsonl:1: image "},
        {"{\"prompt\": \"x\", \"image\": \"a\\n.png\"}", "control characters"},
        {"{\"prompt\": \"x\", \"image\": \"/etc/passwd\"}", "leaves the folder"},
        {"{\"prompt\": \"x\", \"image\": \"../secret\"}", "leaves the folder"},
        {"{\"prompt\": \"x\", \"image\": \"sub/../../secret\"}", "leaves the folder"},
        {"{\"prompt\": \"x\", \"image\": \"link.png\"}", "is a link that leaves the folder"},
    };
    fixture f = {0};
    char path[TEMP_PATH_SIZE], deep[300] = "{\"prompt\": ";
    temp_text(*state, "a.png", "a");
    temp_text(*state, "..png", "dots are no climb");
    assert_int_equal(symlink("/etc/passwd", temp_path(path, *state, "link.png")), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(&f, *state, cases[i].lines, cases[i].words);
    memset(deep + strlen(deep), '[', 100);
    refuse(&f, *state, deep, "x.jsonl:1: nested deeper than 32 levels");
    assert_int_equal(read_lines(&f, *state, "{\"prompt\": \"[[{{[[\", \"image\": \"..png\"}"), VL_OK);
    vl_samples_clear(&f.list);
    vl_config_free(f.config);
}

/* ---- the same samples in every format ---------------------------------------------------------------------- */

static void read_format(vl_sample_list *out, vl_config *config, const char *name)
{
    char assignment[TEMP_PATH_SIZE];
    vl_error err = VL_ERROR_INIT;
    temp_format(assignment, sizeof assignment, "data.samples=%s/tests/data/formats/%s", VLENS_SOURCE_DIR, name);
    assert_int_equal(vl_config_set(config, assignment, NULL), VL_OK);
    if (vl_samples_read(out, config, NULL, &err) != VL_OK)
        fail_msg("%s: %s", name, err.message);
    assert_int_equal(out->n, 60);
    assert_int_equal(out->n_faults, 0);
}

static void same_turns(const vl_sample *a, const vl_sample *b, const char *name)
{
    assert_int_equal(a->number, b->number);
    assert_int_equal(a->n_turns, b->n_turns);
    assert_int_equal(a->n_images, b->n_images);
    for (int i = 0; i < a->n_images; i++)
        assert_string_equal(a->images[i], b->images[i]);
    for (int i = 0; i < a->n_turns; i++) {
        assert_string_equal(a->turns[i].role, b->turns[i].role);
        if (a->turns[i].n_parts != b->turns[i].n_parts)
            fail_msg("%s, sample %lld, turn %d: %d parts, expected %d", name, (long long)b->number, i,
                     b->turns[i].n_parts, a->turns[i].n_parts);
        for (int k = 0; k < a->turns[i].n_parts; k++) {
            const char *x = a->turns[i].parts[k].text, *y = b->turns[i].parts[k].text;
            if (!x != !y || (x && strcmp(x, y) != 0))
                fail_msg("%s, sample %lld, turn %d: \"%s\", expected \"%s\"", name, (long long)b->number, i, y, x);
        }
    }
}

static void test_same_in_all(void **state)
{
    static const struct {
        const char *name, *taken_as;
    } groups[2][5] = {{{"prompts.jsonl", "JSON lines of prompts"},
                       {"prompts.json", "a JSON array of prompts"},
                       {"captions.jsonl", "JSON lines of captions"},
                       {"coco.json", "captions of COCO"},
                       {"short_llava.jsonl", "JSON lines of LLaVA conversations"}},
                      {{"llava.json", "a JSON array of LLaVA conversations and others"}, /* some have no picture */
                       {"sharegpt.jsonl", "JSON lines of LLaVA conversations and others"},
                       {"messages.jsonl", "JSON lines of Hugging Face messages"},
                       {"messages_parts.jsonl", "JSON lines of Hugging Face messages"}}};
    char assignment[TEMP_PATH_SIZE];
    vl_config *config;
    assert_int_equal(vl_config_new(&config, NULL), VL_OK);
    temp_text(*state, "a.png", "a");
    temp_text(*state, "b.png", "b");
    temp_text(*state, "c.png", "c");
    temp_format(assignment, sizeof assignment, "data.images=%s", (char *)*state);
    assert_int_equal(vl_config_set(config, assignment, NULL), VL_OK);
    assert_int_equal(vl_config_set(config, "data.prompt=Describe the picture.", NULL), VL_OK);
    for (int g = 0; g < 2; g++) {
        vl_sample_list first, other;
        read_format(&first, config, groups[g][0].name);
        for (int i = 0; i < 5 && groups[g][i].name; i++) {
            read_format(&other, config, groups[g][i].name);
            assert_string_equal(other.taken_as, groups[g][i].taken_as);
            for (int64_t k = 0; k < 60; k++)
                same_turns(&first.items[k], &other.items[k], groups[g][i].name);
            vl_samples_clear(&other);
        }
        vl_samples_clear(&first);
    }
    vl_config_free(config);
}

static void test_allow_outside(void **state)
{
    fixture f = {0};
    char path[TEMP_PATH_SIZE];
    assert_int_equal(symlink("/etc/passwd", temp_path(path, *state, "link.png")), 0);
    assert_int_equal(vl_config_new(&f.config, NULL), VL_OK);
    assert_int_equal(vl_config_set(f.config, "data.allow_outside=true", NULL), VL_OK);
    vl_status status = read_lines(&f, *state, "{\"prompt\": \"x\", \"image\": [\"/etc/passwd\", \"link.png\"]}");
    if (status != VL_OK)
        fail_msg("%s", f.err.message);
    assert_string_equal(f.list.items[0].images[0], "/etc/passwd");
    vl_samples_clear(&f.list);
    refuse(&f, *state, "{\"prompt\": \"x\", \"image\": \"a\\u0007\"}", "control characters");
    vl_config_free(f.config);
}

static void test_long_line(void **state)
{
    fixture f = {0};
    size_t n = VL_SAMPLE_LINE_BYTES + 2;
    char *lines = malloc(n + 1);
    memset(lines, 'x', n);
    lines[n] = 0;
    refuse(&f, *state, lines, "x.jsonl:1: a line of 16777218 bytes");
    lines[n - 2] = '\n';
    memcpy(lines, "{\"prompt\": \"", 12);
    memcpy(lines + n - 4, "\"}\n\n", 4);
    assert_int_equal(read_lines(&f, *state, lines), VL_OK);
    vl_samples_clear(&f.list);
    free(lines);
    vl_config_free(f.config);
}

static void test_sources(void **state)
{
    (void)state;
    vl_config *config;
    vl_sample_list list;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_config_new(&config, NULL), VL_OK);
    assert_int_equal(vl_samples_read(&list, config, NULL, &err), VL_EINVAL);
    assert_int_equal(vl_config_set(config, "data.samples=no/such.jsonl", NULL), VL_OK);
    assert_int_equal(vl_samples_read(&list, config, NULL, &err), VL_EIO);
    assert_non_null(strstr(err.message, "no/such.jsonl"));
    assert_int_equal(vl_config_set(config, "data.text=x", NULL), VL_OK);
    assert_int_equal(vl_samples_read(&list, config, NULL, &err), VL_EINVAL);
    vl_config_free(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_formats, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_refused, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_same_in_all, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_allow_outside, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_long_line, temp_setup, temp_teardown),
        cmocka_unit_test(test_sources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
