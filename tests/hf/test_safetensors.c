/* The reader's verdicts, its views, and that what the writer writes reads back equal. */
#include "tests/support/temp_folder.h"

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/hf/safetensors.h"
#include "trainer/hf/safetensors_write.h"

#define A16 "\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}"

typedef struct verdict {
    const char *header;
    size_t n_data;
    const char *word; /* NULL: accepted; otherwise the message holds this */
} verdict;

/* Each verdict is that of the reference library (safetensors 0.8.0), except where marked. */
static const verdict verdicts[] = {
    {"{}", 0, NULL},
    {"{" A16 "}", 16, NULL},
    {"{" A16 "}       ", 16, NULL},
    {" \n{" A16 "}", 16, NULL},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[0,0]}}", 0, NULL},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, NULL},
    {"{\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[16,16]}," A16 "}", 16, NULL},
    {"{\"__metadata__\":null," A16 "}", 16, NULL},
    {"{\"__metadata__\":{\"note\":\"\\u0000\\n\"}," A16 "}", 16, NULL},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":[1.5,{}]}}", 4, NULL},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3,2],\"data_offsets\":[0,3]}}", 3, NULL},
    {"{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3, NULL},
    {"{\"a\":{\"dtype\":\"C64\",\"shape\":[2],\"data_offsets\":[0,16]}}", 16, NULL},
    {"{\"a\":{\"dtype\":\"F8_E5M2FNUZ\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, NULL},
    {"", 16, "line"},
    {"[1,2]", 0, "no JSON object"},
    {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2,2], ", 16, "line"},
    {"{" A16 "} x", 16, "line"},
    {"{\"\xff\xfe\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16, "decode byte 0xff"},
    {"{" A16 "}", 9, "truncated"},
    {"{" A16 "}", 17, "the file holds 17"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[8,24]}}", 16, "a hole"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[16,0]}}", 16, "before the start"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,16]}}", 16, "need 24"},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1, "part of one"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,16]}}", 16, "overflow"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,16]}}", 16, "overflow"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2,-2],\"data_offsets\":[0,16]}}", 16, "holds -2"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[-0,16]}}", 16, "-0"},
    {"{\"-0,\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":-0.5}}", 1, NULL},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0,2],\"data_offsets\":[0,16]}}", 16, "no integer"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,16]}}", 16, "no array"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,16]}}", 16, "missing"},
    {"{\"a\":{\"shape\":[4],\"data_offsets\":[0,16]}}", 16, "missing"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,8,16]}}", 16, "3 elements"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[-4,12]}}", 16, "holds -4"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,18446744073709551616]}}", 16, "big integer"},
    {"{\"a\":{\"dtype\":\"Q9\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16, "unknown dtype \"Q9\""},
    {"{\"a\":{\"dtype\":\"f32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16, "unknown dtype"},
    {"{\"a\":{\"dtype\":7,\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16, "no string"},
    {"{\"a\":7}", 16, "no object"},
    {"{" A16 ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}", 16, "an overlap"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
     12, "a hole"},
    {"{" A16 ",\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[16,32]}}", 32, "duplicate"},
    {"{\"__metadata__\":{\"a\":1}," A16 "}", 16, "\"a\" is no string"},
    {"{\"__metadata__\":[]," A16 "}", 16, "no object"},
    /* The reference library accepts these four; see the head of hf/safetensors.h. */
    {"{" A16 "," A16 "}", 16, "duplicate"},
    {"{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "NUL"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, "9 dimensions"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0,9223372036854775808],\"data_offsets\":[0,0]}}", 0, "big integer"},
};

static void test_verdicts(void **state)
{
    for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++) {
        char path[TEMP_PATH_SIZE];
        vl_error err = VL_ERROR_INIT;
        vl_safetensors *file;
        temp_safetensors(*state, "x.safetensors", verdicts[i].header, verdicts[i].n_data);
        vl_status status = vl_safetensors_open(&file, temp_path(path, *state, "x.safetensors"), &err);
        if ((status == VL_OK) != !verdicts[i].word || (verdicts[i].word && !strstr(err.message, verdicts[i].word)))
            fail_msg("%s: status %d, \"%s\", expected %s", verdicts[i].header, status, err.message,
                     verdicts[i].word ? verdicts[i].word : "success");
        if (status != VL_OK)
            assert_non_null(strstr(err.message, "x.safetensors"));
        vl_safetensors_close(file);
    }
}

static vl_status open_raw(void **state, const char *header, uint64_t length, size_t n_data, vl_error *err)
{
    char path[TEMP_PATH_SIZE];
    vl_safetensors *file;
    temp_path(path, *state, "raw.safetensors");
    temp_safetensors_as(path, header, strlen(header), length, n_data);
    vl_status status = vl_safetensors_open(&file, path, err);
    vl_safetensors_close(file);
    return status;
}

static void test_header_length(void **state)
{
    vl_error err = VL_ERROR_INIT;
    char path[TEMP_PATH_SIZE];
    vl_safetensors *file;
    const char *header = "{" A16 "}";
    assert_int_equal(open_raw(state, header, UINT64_C(1) << 63, 16, &err), VL_EFORMAT);
    assert_int_equal(open_raw(state, header, UINT64_MAX, 16, &err), VL_EFORMAT);
    assert_int_equal(open_raw(state, header, UINT64_MAX - 7, 16, &err), VL_EFORMAT);
    assert_int_equal(open_raw(state, header, 100000001, 16, &err), VL_EFORMAT);
    assert_non_null(strstr(err.message, "100000000"));
    assert_int_equal(open_raw(state, header, 5000, 16, &err), VL_EFORMAT);
    assert_non_null(strstr(err.message, "truncated"));
    assert_int_equal(open_raw(state, header, strlen(header) + 17, 16, &err), VL_EFORMAT);
    assert_int_equal(open_raw(state, "", 0, 0, &err), VL_EFORMAT);
    temp_write(*state, "short", "\x10\0\0", 3);
    assert_int_equal(vl_safetensors_open(&file, temp_path(path, *state, "short"), &err), VL_EFORMAT);
    temp_write(*state, "empty", "", 0);
    assert_int_equal(vl_safetensors_open(&file, temp_path(path, *state, "empty"), &err), VL_EFORMAT);
    assert_int_equal(vl_safetensors_open(&file, temp_path(path, *state, "missing"), &err), VL_EIO);
    assert_int_equal(vl_safetensors_open(&file, *state, &err), VL_EIO);
    assert_null(file);
}

static void test_depth(void **state)
{
    vl_error err = VL_ERROR_INIT;
    char header[2048];
    /* In an ignored member: 2 levels around it. The reference library takes 125 more and refuses 126. */
    for (int n = 120; n < 130; n++) {
        int at =
            snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":");
        memset(header + at, '[', (size_t)n);
        memset(header + at + n, ']', (size_t)n);
        snprintf(header + at + 2 * n, sizeof header - (size_t)(at + 2 * n), "}}");
        assert_int_equal(open_raw(state, header, strlen(header), 1, &err), n <= 125 ? VL_OK : VL_EFORMAT);
    }
    static char huge[200000] = "{\"a\":";
    memset(huge + 5, '[', sizeof huge - 6);
    assert_int_equal(open_raw(state, huge, strlen(huge), 0, &err), VL_EFORMAT);
    assert_non_null(strstr(err.message, "nested"));
    /* Brackets inside a name are no nesting. */
    int at = snprintf(header, sizeof header, "{\"\\\"");
    memset(header + at, '[', 300);
    snprintf(header + at + 300, sizeof header - 400, "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
    assert_int_equal(open_raw(state, header, strlen(header), 1, &err), VL_OK);
}

static void test_views(void **state)
{
    char path[TEMP_PATH_SIZE], text[64];
    vl_error err = VL_ERROR_INIT;
    vl_safetensors *file;
    const char *key, *value;
    /* A one-element bf16 gate in front leaves the float tensor 2-byte aligned. */
    const char *header = "{\"__metadata__\":{\"format\":\"pt\",\"n\\u00e9\":\"\\u00e9\"},"
                         "\"g\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[0,2]},"
                         "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[2,26]},"
                         "\"b\":{\"dtype\":\"BOOL\",\"shape\":[],\"data_offsets\":[26,27]}}";
    temp_safetensors(*state, "v.safetensors", header, 27);
    assert_int_equal(vl_safetensors_open(&file, temp_path(path, *state, "v.safetensors"), &err), VL_OK);
    assert_string_equal(vl_safetensors_path(file), path);
    assert_int_equal(vl_safetensors_count(file), 3);
    assert_string_equal(vl_safetensors_at(file, 0)->name, "a");
    assert_string_equal(vl_safetensors_at(file, 2)->name, "g");
    const vl_weight_view *a = vl_safetensors_find(file, "a"), *b = vl_safetensors_find(file, "b");
    const vl_weight_view *g = vl_safetensors_find(file, "g");
    assert_int_equal(a->dtype, VL_F32);
    assert_string_equal(vl_shape_text(text, sizeof text, a->ndim, a->shape), "[2, 3]");
    assert_int_equal(a->bytes, 24);
    assert_int_equal(a->data[0], 2);
    assert_int_equal(a->data[23], 25);
    assert_int_equal(a->aligned, (uintptr_t)a->data % 4 == 0);
    assert_int_equal(g->aligned, (uintptr_t)g->data % 2 == 0);
    assert_false(a->aligned && g->data + 2 == a->data && (uintptr_t)g->data % 4 == 0);
    assert_false(a->raw);
    assert_true(b->raw && b->aligned && b->ndim == 0);
    assert_string_equal(b->dtype_name, "BOOL");
    assert_null(vl_safetensors_find(file, "__metadata__"));
    assert_null(vl_safetensors_find(file, ""));
    assert_string_equal(vl_safetensors_metadata(file, "n\xc3\xa9"), "\xc3\xa9");
    assert_null(vl_safetensors_metadata(file, "none"));
    assert_int_equal(vl_safetensors_metadata_count(file), 2);
    vl_safetensors_metadata_at(file, 1, &key, &value);
    assert_string_equal(key, "n\xc3\xa9");
    vl_safetensors_close(file);
    vl_safetensors_close(NULL);
    assert_string_equal(vl_shape_text(text, 4, 2, (const int64_t[]){123456, 7}), "[12");
}

static void test_write(void **state)
{
    char path[TEMP_PATH_SIZE], again[TEMP_PATH_SIZE];
    vl_error err = VL_ERROR_INIT;
    float weight[6] = {1, 2, 3, 4, 5, 6};
    uint16_t half[3] = {7, 8, 9};
    int64_t steps = 12;
    uint8_t byte[5] = {1, 2, 3, 4, 5};
    vl_safetensors_entry entries[] = {{"bytes", VL_U8, 1, {5}, byte},   {"z \"q\" \xc3\xa9", VL_F32, 2, {2, 3}, weight},
                                      {"half", VL_BF16, 1, {3}, half},  {"none", VL_F32, 2, {0, 9}, NULL},
                                      {"step", VL_I64, 0, {0}, &steps}, {"a", VL_F32, 1, {6}, weight}};
    vl_safetensors_pair metadata[] = {{"b", "2\n\"x\""}, {"a", "1"}};
    assert_int_equal(vl_safetensors_write(temp_path(path, *state, "w"), entries, 6, metadata, 2, &err), VL_OK);
    vl_safetensors *file;
    assert_int_equal(vl_safetensors_open(&file, path, &err), VL_OK);
    assert_int_equal(vl_safetensors_count(file), 6);
    for (size_t i = 0; i < 6; i++) {
        const vl_weight_view *view = vl_safetensors_find(file, entries[i].name);
        assert_non_null(view);
        assert_true(view->aligned && !view->raw);
        assert_int_equal(view->dtype, entries[i].dtype);
        assert_int_equal(view->ndim, entries[i].ndim);
        assert_memory_equal(view->shape, entries[i].shape, (size_t)view->ndim * sizeof *view->shape);
        if (view->bytes > 0)
            assert_memory_equal(view->data, entries[i].data, view->bytes);
    }
    assert_string_equal(vl_safetensors_metadata(file, "b"), "2\n\"x\"");
    assert_int_equal((uintptr_t)vl_safetensors_find(file, "step")->data % 8, 0);
    vl_safetensors_close(file);
    /* The same entries in another order give the same bytes. */
    for (int i = 0; i < 3; i++) {
        vl_safetensors_entry swap = entries[i];
        entries[i] = entries[5 - i];
        entries[5 - i] = swap;
    }
    vl_safetensors_pair other[] = {metadata[1], metadata[0]};
    assert_int_equal(vl_safetensors_write(temp_path(again, *state, "w2"), entries, 6, other, 2, &err), VL_OK);
    char *x, *y;
    size_t m, n;
    assert_int_equal(vl_file_read(&x, &m, path, 4096, &err), VL_OK);
    assert_int_equal(vl_file_read(&y, &n, again, 4096, &err), VL_OK);
    assert_int_equal(m, n);
    assert_memory_equal(x, y, m);
    free(x);
    free(y);
    assert_int_equal(vl_safetensors_write(path, NULL, 0, NULL, 0, &err), VL_OK);
    assert_int_equal(vl_safetensors_open(&file, path, &err), VL_OK);
    assert_int_equal(vl_safetensors_count(file), 0);
    vl_safetensors_close(file);
}

static void test_write_refuses(void **state)
{
    char path[TEMP_PATH_SIZE];
    vl_error err = VL_ERROR_INIT;
    float x[4] = {0};
    vl_safetensors_entry twice[] = {{"a", VL_F32, 1, {4}, x}, {"a", VL_F16, 1, {4}, x}};
    vl_safetensors_entry bad[] = {{"__metadata__", VL_F32, 1, {4}, x},
                                  {"a", VL_F32, 1, {-4}, x},
                                  {"a", VL_F32, 2, {INT64_MAX, INT64_MAX}, x},
                                  {"a", VL_F32, 1, {4}, NULL},
                                  {"a", VL_F32, 9, {1}, x},
                                  {"\xff", VL_F32, 1, {4}, x},
                                  {NULL, VL_F32, 1, {4}, x}};
    vl_safetensors_pair pairs[] = {{"k", "1"}, {"k", "2"}}, not_text = {"k", "\xff"};
    temp_text(*state, "old", "old");
    temp_path(path, *state, "old");
    assert_int_equal(vl_safetensors_write(path, twice, 2, NULL, 0, &err), VL_EINVAL);
    assert_non_null(strstr(err.message, "\"a\" is given twice"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(vl_safetensors_write(path, &bad[i], 1, NULL, 0, &err), VL_EINVAL);
    assert_int_equal(vl_safetensors_write(path, twice, 1, pairs, 2, &err), VL_EINVAL);
    assert_int_equal(vl_safetensors_write(path, twice, 1, &not_text, 1, &err), VL_EINVAL);
    char *text;
    assert_int_equal(vl_file_read(&text, NULL, path, 64, &err), VL_OK);
    assert_string_equal(text, "old");
    free(text);
    temp_path(path, *state, "no/such/folder");
    assert_int_equal(vl_safetensors_write(path, twice, 1, NULL, 0, &err), VL_EIO);
}

/* Every file of the shared set, judged as the reference library judged it. */
static void test_shared_malformed(void **state)
{
    (void)state;
    const char *data = getenv("VLENS_SHARED_DATA");
    char path[TEMP_PATH_SIZE], folder[TEMP_PATH_SIZE];
    vl_error err = VL_ERROR_INIT;
    json_t *all, *value;
    const char *name;
    int judged = 0, absent = 0;
    if (!data) {
        print_message("VLENS_SHARED_DATA is not set: the shared malformed files are not judged\n");
        skip();
    }
    temp_path(folder, data, "malformed");
    assert_int_equal(vl_json_read(&all, temp_path(path, folder, "reference_verdicts.json"), 1 << 20, &err), VL_OK);
    json_object_foreach(all, name, value)
    {
        vl_safetensors *file;
        if (!vl_path_exists(temp_path(path, folder, name))) {
            absent++;
            continue;
        }
        bool accepted = vl_safetensors_open(&file, path, &err) == VL_OK;
        if (accepted != (strncmp(json_string_value(value), "accepted", 8) == 0))
            fail_msg("%s: %s, the reference says %s", name, accepted ? "accepted" : err.message,
                     json_string_value(value));
        vl_safetensors_close(file);
        judged++;
    }
    json_decref(all);
    print_message("%d shared files judged as the reference library, %d not handed out\n", judged, absent);
    assert_true(judged > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_verdicts, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_header_length, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_depth, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_views, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_write, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_write_refuses, temp_setup, temp_teardown),
        cmocka_unit_test(test_shared_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
