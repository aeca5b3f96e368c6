/* Files: whole reads, maps, writes that appear whole or not at all, and paths. */
#include "tests/support/temp_folder.h"

#include "trainer/base/file.h"
#include "trainer/base/mem.h"

static int n_entries(const char *folder)
{
    int n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void expect_content(const char *path, const char *want)
{
    char *text;
    size_t size;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_file_read(&text, &size, path, 1000, &err), VL_OK);
    assert_int_equal(size, strlen(want));
    assert_string_equal(text, want);
    vl_free(text);
}

static void atomic_file_appears_at_commit(void **state)
{
    char path[TEMP_PATH_SIZE];
    vl_atomic_file file;
    vl_error err = VL_ERROR_INIT;
    temp_text(*state, "out", "old");
    temp_path(path, *state, "out");
    assert_int_equal(vl_atomic_begin(&file, path, &err), VL_OK);
    fputs("new text", file.stream);
    fflush(file.stream);
    expect_content(path, "old");
    assert_int_equal(n_entries(*state), 2);
    assert_int_equal(vl_atomic_commit(&file, &err), VL_OK);
    expect_content(path, "new text");
    assert_int_equal(n_entries(*state), 1);
    assert_null(file.stream);
    vl_atomic_drop(&file); /* harmless after a commit */
    expect_content(path, "new text");
}

static void file_memory_has_no_name(void **state)
{
    enum { BYTES = 100000 };
    void *memory;
    vl_error err = VL_ERROR_INIT;
    char path[TEMP_PATH_SIZE];
    assert_int_equal(vl_file_memory(&memory, BYTES, *state, &err), VL_OK);
    assert_int_equal(n_entries(*state), 0);
    unsigned char *bytes = memory;
    assert_true(bytes[0] == 0 && bytes[BYTES - 1] == 0);
    memset(bytes, 7, BYTES);
    assert_int_equal(bytes[BYTES / 2], 7);
    vl_file_memory_free(memory, BYTES);
    vl_file_memory_free(NULL, BYTES);
    assert_int_equal(vl_file_memory(&memory, BYTES, temp_path(path, *state, "missing"), &err), VL_EIO);
    assert_null(memory);
    assert_non_null(strstr(err.message, "missing"));
    err = (vl_error)VL_ERROR_INIT;
    assert_int_equal(vl_file_memory(&memory, (size_t)1 << 60, *state, &err), VL_EIO);
    assert_null(memory);
}

static void atomic_file_dropped_leaves_nothing(void **state)
{
    char path[TEMP_PATH_SIZE];
    vl_atomic_file file;
    vl_error err = VL_ERROR_INIT;
    temp_text(*state, "out", "old");
    assert_int_equal(vl_atomic_begin(&file, temp_path(path, *state, "out"), &err), VL_OK);
    fputs("half", file.stream);
    vl_atomic_drop(&file);
    expect_content(path, "old");
    assert_int_equal(n_entries(*state), 1);
}

static void atomic_file_failures(void **state)
{
    char path[TEMP_PATH_SIZE], folder[TEMP_PATH_SIZE];
    vl_atomic_file file;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_atomic_begin(&file, temp_path(path, *state, "missing/out"), &err), VL_EIO);
    assert_non_null(strstr(err.message, "missing/out"));
    assert_non_null(strstr(err.message, "No such file"));
    vl_atomic_drop(&file); /* harmless after a failed begin */
    /* the name is taken by a folder: the rename fails, and the temporary file goes */
    assert_int_equal(mkdir(temp_path(folder, *state, "taken"), 0777), 0);
    assert_int_equal(vl_atomic_write(folder, "x", 1, &err), VL_EIO);
    assert_non_null(strstr(err.message, "taken"));
    assert_int_equal(n_entries(*state), 1);
    assert_true(vl_path_is_directory(folder));
}

static void publish_renames(void **state)
{
    char from[TEMP_PATH_SIZE], to[TEMP_PATH_SIZE];
    vl_error err = VL_ERROR_INIT;
    temp_text(*state, "part", "whole");
    temp_path(from, *state, "part");
    temp_path(to, *state, "final");
    assert_int_equal(vl_publish_file(from, to, &err), VL_OK);
    expect_content(to, "whole");
    assert_false(vl_path_exists(from));
    assert_int_equal(vl_publish_file(from, to, &err), VL_EIO);
    expect_content(to, "whole");
}

static void reads_and_maps(void **state)
{
    char path[TEMP_PATH_SIZE], *text;
    size_t size;
    vl_map map;
    vl_error err = VL_ERROR_INIT;
    temp_write(*state, "bytes", "a\0b\n", 4);
    temp_path(path, *state, "bytes");
    assert_int_equal(vl_file_read(&text, &size, path, 4, &err), VL_OK);
    assert_int_equal(size, 4);
    assert_memory_equal(text, "a\0b\n", 5); /* and a NUL */
    vl_free(text);
    assert_int_equal(vl_file_read(&text, NULL, path, 3, &err), VL_EFORMAT);
    assert_int_equal(vl_map_open(&map, path, &err), VL_OK);
    assert_int_equal(map.size, 4);
    assert_memory_equal(map.data, "a\0b\n", 4);
    vl_map_close(&map);
    assert_null(map.data);
    vl_map_close(&map);

    temp_text(*state, "empty", "");
    assert_int_equal(vl_map_open(&map, temp_path(path, *state, "empty"), &err), VL_OK);
    assert_int_equal(map.size, 0);
    vl_map_close(&map);
    assert_int_equal(vl_file_read(&text, &size, path, 0, &err), VL_OK);
    assert_string_equal(text, "");
    vl_free(text);

    assert_int_equal(vl_file_read(&text, &size, *state, 10, &err), VL_EIO);
    assert_non_null(strstr(err.message, "not a regular file"));
    assert_int_equal(vl_map_open(&map, *state, &err), VL_EIO);
    assert_int_equal(vl_map_open(&map, temp_path(path, *state, "none"), &err), VL_EIO);
    assert_non_null(strstr(err.message, path));
}

static void expect_path(char *got, const char *want)
{
    assert_non_null(got);
    assert_string_equal(got, want);
    vl_free(got);
}

static void paths(void **state)
{
    (void)state;
    expect_path(vl_path_join("a", "b"), "a/b");
    expect_path(vl_path_join("a/", "b/c"), "a/b/c");
    expect_path(vl_path_join("/", "b"), "/b");
    expect_path(vl_path_join("a", "/b"), "/b");
    expect_path(vl_path_join("", "b"), "b");
    expect_path(vl_path_parent("a/b/c"), "a/b");
    expect_path(vl_path_parent("c"), ".");
    expect_path(vl_path_parent("/c"), "/");
    expect_path(vl_path_parent("/a/c"), "/a");
}

static void directories(void **state)
{
    char path[TEMP_PATH_SIZE], inner[TEMP_PATH_SIZE];
    vl_error err = VL_ERROR_INIT;
    temp_path(path, *state, "x/y/z");
    assert_false(vl_path_exists(path));
    assert_int_equal(vl_make_directories(path, &err), VL_OK);
    assert_true(vl_path_is_directory(path));
    assert_int_equal(vl_make_directories(path, &err), VL_OK); /* again */
    temp_text(*state, "file", "");
    temp_path(path, *state, "file");
    assert_true(vl_path_exists(path));
    assert_false(vl_path_is_directory(path));
    assert_int_equal(vl_make_directories(path, &err), VL_EIO);
    assert_int_equal(vl_make_directories(temp_path(inner, path, "below"), &err), VL_EIO);
    assert_non_null(strstr(err.message, "file"));
}

static void clock_goes_forward(void **state)
{
    (void)state;
    double before = vl_clock();
    for (int i = 0; i < 1000; i++) {
        double now = vl_clock();
        assert_true(now >= before);
        before = now;
    }
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, temp_setup, temp_teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        WITH_FOLDER(atomic_file_appears_at_commit),
        WITH_FOLDER(file_memory_has_no_name),
        WITH_FOLDER(atomic_file_dropped_leaves_nothing),
        WITH_FOLDER(atomic_file_failures),
        WITH_FOLDER(publish_renames),
        WITH_FOLDER(reads_and_maps),
        cmocka_unit_test(paths),
        WITH_FOLDER(directories),
        cmocka_unit_test(clock_goes_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
