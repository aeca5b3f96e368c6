/* Growing strings, error messages of one line, sizes that cannot overflow, and JSON with places in its errors. */
#include "tests/support/temp_folder.h"

#include <errno.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/base/str.h"

static void str_grows(void **state)
{
    (void)state;
    vl_str str = VL_STR_INIT;
    for (int i = 0; i < 1000; i++)
        vl_str_printf(&str, "%d,", i % 10);
    vl_str_puts(&str, "end");
    vl_str_putc(&str, '!');
    vl_str_append(&str, "a\0b", 3);
    vl_str_append(&str, NULL, 0);
    assert_false(str.failed);
    assert_int_equal(str.size, 2000 + 3 + 1 + 3);
    assert_memory_equal(str.data, "0,1,2,3,", 8);
    assert_memory_equal(str.data + 2000, "end!a\0b", 8); /* with its NUL */
    char *long_text = malloc(100001);
    assert_non_null(long_text);
    memset(long_text, 'x', 100000);
    long_text[100000] = 0;
    vl_str_printf(&str, "%s", long_text);
    assert_int_equal(str.size, 2007 + 100000);
    assert_int_equal(str.data[str.size], 0);
    free(long_text);
    vl_str_clear(&str);
    assert_null(str.data);
    assert_int_equal(str.size, 0);
}

static void str_stays_failed(void **state)
{
    (void)state;
    vl_str str = VL_STR_INIT;
    vl_str_puts(&str, "kept");
    vl_str_append(&str, "", SIZE_MAX - 4); /* with its NUL one too many; nothing is read */
    assert_true(str.failed);
    vl_str_puts(&str, "ignored");
    assert_int_equal(str.size, 4);
    assert_string_equal(str.data, "kept");
    vl_str_clear(&str);
    vl_str_clear(&str);
    /* growing by half of this size wraps around: it must fail, not go round or come out smaller */
    vl_str huge = {NULL, SIZE_MAX / 4 * 3, SIZE_MAX / 4 * 3, false};
    vl_str_append(&huge, "abc", 3);
    assert_true(huge.failed);
}

static void sizes_do_not_overflow(void **state)
{
    (void)state;
    size_t size;
    assert_true(vl_mul_size(&size, 3, 5) && size == 15);
    assert_false(vl_mul_size(&size, SIZE_MAX / 2, 3));
    assert_true(vl_add_size(&size, SIZE_MAX - 1, 1) && size == SIZE_MAX);
    assert_false(vl_add_size(&size, SIZE_MAX, 1));
    assert_null(vl_alloc(SIZE_MAX / 2, 4));
    assert_null(vl_calloc(SIZE_MAX / 4, 4));
    assert_null(vl_alloc_aligned(SIZE_MAX - 10, 1));
    void *small = vl_alloc_aligned(5, 1), *large = vl_alloc_aligned((size_t)5 << 20, 1), *none = vl_alloc(0, 8);
    assert_true(small && large && none);
    assert_int_equal((uintptr_t)small % 64, 0);
    assert_int_equal((uintptr_t)large % 64, 0);
    vl_free(small);
    vl_free(large);
    vl_free(none);
    vl_free(NULL);
}

static void errors_are_one_line(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_fail(&err, VL_EFORMAT, "key \"%s\"", "a\nb\tc\x7f\x01z"), VL_EFORMAT);
    assert_int_equal(err.status, VL_EFORMAT);
    assert_string_equal(err.message, "key \"a?b?c??z\"");
    assert_int_equal(vl_error_prefix(&err, VL_EIO, "file\r%d: ", 7), VL_EIO);
    assert_string_equal(err.message, "file?7: key \"a?b?c??z\"");
    assert_int_equal(err.status, VL_EIO);
    /* letters beyond ASCII stay: paths are UTF-8 */
    vl_fail(&err, VL_EIO, "%s", "B\xc3\xa4r");
    assert_string_equal(err.message, "B\xc3\xa4r");
    assert_int_equal(vl_fail(NULL, VL_EINVAL, "nobody listens"), VL_EINVAL);
    assert_int_equal(vl_error_prefix(NULL, VL_EINVAL, "nobody listens"), VL_EINVAL);
}

static void errors_are_cut_to_size(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char text[2 * VL_ERROR_MESSAGE_SIZE];
    memset(text, 'y', sizeof text);
    text[sizeof text - 1] = 0;
    vl_fail(&err, VL_EIO, "%s", text);
    assert_int_equal(strlen(err.message), VL_ERROR_MESSAGE_SIZE - 1);
    vl_error_prefix(&err, VL_EIO, "%s", "in front: ");
    assert_memory_equal(err.message, "in front: yy", 12);
    assert_int_equal(strlen(err.message), VL_ERROR_MESSAGE_SIZE - 1);
    errno = ENOENT;
    vl_fail_errno(&err, VL_EIO, "%s", "here");
    assert_non_null(strstr(err.message, "here: "));
    assert_non_null(strstr(err.message, strerror(ENOENT)));
    errno = ENOENT;
    vl_fail_errno(&err, VL_EIO, "%s", text);
    assert_int_equal(strlen(err.message), VL_ERROR_MESSAGE_SIZE - 1);
}

static void every_status_has_a_name(void **state)
{
    (void)state;
    for (int a = VL_OK; a <= VL_EBUSY; a++)
        for (int b = VL_OK; b < a; b++)
            assert_string_not_equal(vl_status_name((vl_status)a), vl_status_name((vl_status)b));
    assert_non_null(vl_status_name((vl_status)1000));
}

/* ---- JSON ---- */

static void expect_json_error(const char *text, const char *place)
{
    json_t *json;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_json_parse(&json, text, strlen(text), "config.json", &err), VL_EFORMAT);
    assert_null(json);
    if (!strstr(err.message, place) || strncmp(err.message, "config.json: ", 13) != 0)
        fail_msg("\"%s\" does not say \"%s\"", err.message, place);
}

static void json_errors_say_where(void **state)
{
    (void)state;
    expect_json_error("", "line 1");
    expect_json_error("{\n  \"a\": 1,\n  \"b\": }\n", "line 3");
    expect_json_error("{\"a\": 1,\n \"b\": 2,\n \"a\": 3}", "line 3");
    expect_json_error("{\"a\": 1,\n \"b\": 2,\n \"a\": 3}", "duplicate");
    expect_json_error("{\"a\": 1}\n x", "line 2");
    expect_json_error("{\"a\": \"\xff\"}", "0xff");
    expect_json_error("{\"a\": 99999999999999999999}", "line 1");
    char deep[10000];
    memset(deep, '[', sizeof deep);
    deep[sizeof deep - 1] = 0;
    expect_json_error(deep, "depth");
}

static void json_members_are_typed(void **state)
{
    (void)state;
    const char *text = "{\"int\": 7, \"real\": 0.5, \"yes\": true, \"name\": \"x\", \"none\": null}";
    json_t *json;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_json_parse(&json, text, strlen(text), "t", &err), VL_OK);
    int64_t number = -1;
    double real = -1;
    bool yes = false;
    const char *name = "preset";
    assert_int_equal(vl_json_int(&number, json, "int", 0, 7, "t", &err), VL_OK);
    assert_int_equal(number, 7);
    assert_int_equal(vl_json_double(&real, json, "real", "t", &err), VL_OK);
    assert_true(real == 0.5);
    assert_int_equal(vl_json_double(&real, json, "int", "t", &err), VL_OK);
    assert_true(real == 7);
    assert_int_equal(vl_json_bool(&yes, json, "yes", "t", &err), VL_OK);
    assert_true(yes);
    assert_int_equal(vl_json_string(&name, json, "none", "t", &err), VL_OK);
    assert_string_equal(name, "preset"); /* null and missing keep the default */
    assert_int_equal(vl_json_string(&name, json, "missing", "t", &err), VL_OK);
    assert_string_equal(name, "preset");
    assert_int_equal(vl_json_string(&name, json, "name", "t", &err), VL_OK);
    assert_string_equal(name, "x");

    assert_int_equal(vl_json_int(&number, json, "int", 0, 6, "model/config.json", &err), VL_EFORMAT);
    assert_string_equal(err.message, "model/config.json: \"int\" is 7, expected 0 to 6");
    assert_int_equal(vl_json_int(&number, json, "real", 0, 9, "t", &err), VL_EFORMAT);
    assert_int_equal(vl_json_double(&real, json, "name", "t", &err), VL_EFORMAT);
    assert_int_equal(vl_json_bool(&yes, json, "int", "t", &err), VL_EFORMAT);
    assert_int_equal(vl_json_string(&name, json, "yes", "t", &err), VL_EFORMAT);
    assert_non_null(strstr(err.message, "\"yes\""));
    json_decref(json);
}

static void json_files_read_back(void **state)
{
    char path[TEMP_PATH_SIZE];
    vl_error err = VL_ERROR_INIT;
    json_t *json = json_pack("{s:i, s:f, s:[s,s]}", "one", 1, "third", 1.0 / 3, "names", "a\n", "\xc3\xa4"), *back;
    assert_non_null(json);
    temp_path(path, *state, "out.json");
    assert_int_equal(vl_json_write(path, json, &err), VL_OK);
    assert_int_equal(vl_json_read(&back, path, 1 << 20, &err), VL_OK);
    assert_int_equal(json_integer_value(json_object_get(back, "one")), 1);
    assert_true(json_real_value(json_object_get(back, "third")) == 0.333333333);
    assert_true(json_equal(json_object_get(back, "names"), json_object_get(json, "names")));
    json_decref(back);
    json_decref(json);
    assert_int_equal(vl_json_read(&back, path, 10, &err), VL_EFORMAT);
    assert_non_null(strstr(err.message, "limit of 10"));
    char *text;
    size_t size;
    assert_int_equal(vl_file_read(&text, &size, path, 1 << 20, &err), VL_OK);
    assert_int_equal(text[size - 1], '\n');
    vl_free(text);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(str_grows),
        cmocka_unit_test(str_stays_failed),
        cmocka_unit_test(sizes_do_not_overflow),
        cmocka_unit_test(errors_are_one_line),
        cmocka_unit_test(errors_are_cut_to_size),
        cmocka_unit_test(every_status_has_a_name),
        cmocka_unit_test(json_errors_say_where),
        cmocka_unit_test(json_members_are_typed),
        cmocka_unit_test_setup_teardown(json_files_read_back, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
