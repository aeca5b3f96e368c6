/* Model directories: the local hub cache, shards, and the ways in which weights can be missing. */
#include "tests/support/temp_folder.h"

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/hf/directory.h"
#include "trainer/hf/safetensors_write.h"

static vl_error err;

static const char *make_folder(char path[TEMP_PATH_SIZE], const char *folder, const char *name)
{
    temp_path(path, folder, name);
    assert_int_equal(vl_make_directories(path, &err), VL_OK);
    return path;
}

/* A file that holds the named one-element float tensors, at most 4. */
static void write_shard(const char *folder, const char *name, const char *const *tensors, size_t n)
{
    static const float value = 1;
    char path[TEMP_PATH_SIZE];
    vl_safetensors_entry entries[4];
    for (size_t i = 0; i < n; i++)
        entries[i] = (vl_safetensors_entry){tensors[i], VL_F32, 1, {1}, &value};
    assert_int_equal(vl_safetensors_write(temp_path(path, folder, name), entries, n, NULL, 0, &err), VL_OK);
}

/* ---- the hub cache ------------------------------------------------------------------------------------------ */

static void expect_at(const char *model, const vl_hub_paths *paths, const char *end)
{
    char *found;
    if (vl_hub_resolve(&found, model, paths, &err) != VL_OK)
        fail_msg("%s: %s", model, err.message);
    assert_true(strlen(found) >= strlen(end));
    assert_string_equal(found + strlen(found) - strlen(end), end);
    vl_free(found);
}

static void expect_lost(const char *model, const vl_hub_paths *paths, const char *word)
{
    char *found;
    vl_status status = vl_hub_resolve(&found, model, paths, &err);
    if (status == VL_OK || found || !strstr(err.message, word))
        fail_msg("%s: %s, expected \"%s\"", model, err.message, word);
}

static void make_snapshot(const char *cache, const char *folder, const char *ref, const char *commit)
{
    char base[TEMP_PATH_SIZE], inner[TEMP_PATH_SIZE], path[TEMP_PATH_SIZE];
    make_folder(base, cache, folder);
    make_folder(inner, base, "refs");
    temp_text(inner, ref, commit);
    make_folder(inner, base, "snapshots");
    make_folder(path, inner, commit);
    temp_text(path, "config.json", "{}");
}

static void test_hub(void **state)
{
    char cache[TEMP_PATH_SIZE], home[TEMP_PATH_SIZE], xdg[TEMP_PATH_SIZE], inner[TEMP_PATH_SIZE];
    make_folder(cache, *state, "cache");
    make_folder(home, *state, "home");
    make_folder(xdg, *state, "xdg");
    make_snapshot(cache, "models--org--name.v1", "main", "0a1b");
    make_snapshot(cache, "models--org--name.v1", "v2", "ffff");
    make_snapshot(cache, "models--gpt2", "main", "77");
    make_snapshot(make_folder(inner, home, ".cache/huggingface/hub"), "models--org--other", "main", "1234");
    make_snapshot(make_folder(inner, xdg, "huggingface/hub"), "models--org--other", "main", "5678");
    vl_hub_paths paths = {.hf_hub_cache = cache, .hf_home = "", .home = home};
    expect_at("org/name.v1", &paths, "/cache/models--org--name.v1/snapshots/0a1b");
    expect_at("org/name.v1@v2", &paths, "/snapshots/ffff");
    expect_at("org/name.v1@0a1b", &paths, "/snapshots/0a1b");
    expect_at("gpt2", &paths, "/snapshots/77");
    make_snapshot(cache, "models--org--lone", "v1", "abcd"); /* no refs/main */
    expect_at("org/lone", &paths, "/snapshots/abcd");
    make_snapshot(cache, "models--org--lone", "v2", "ef01");
    expect_lost("org/lone", &paths, "abcd");
    assert_non_null(strstr(err.message, "ef01"));
    expect_at("org/other", &paths, "home/.cache/huggingface/hub/models--org--other/snapshots/1234");
    paths.xdg_cache_home = xdg; /* comes before home */
    expect_at("org/other", &paths, "/snapshots/5678");
    paths.hf_home = make_folder(inner, home, ".cache/huggingface"); /* and hf_home before that */
    expect_at("org/other", &paths, "/snapshots/1234");

    expect_lost("org/absent", &paths, "hf download org/absent`");
    assert_non_null(strstr(err.message, "huggingface-cli"));
    assert_non_null(strstr(err.message, cache));
    expect_lost("org/name.v1@v9", &paths, "--revision v9");
    expect_lost("org/absent", NULL, "hf download");
    static const char *const not_ids[] = {
        "../no-such-folder",   "/no/such/dir", "a/b/c",       "", "org/..", "org/", "./x", "-x/y",
        "org/name.v1@../../x", "org/na me",    "org/name.v1@"};
    for (size_t i = 0; i < sizeof not_ids / sizeof *not_ids; i++)
        expect_lost(not_ids[i], &paths, "not a hub id");
    /* A ref that leads outside, and a snapshot that is gone. */
    temp_path(inner, cache, "models--org--name.v1/refs");
    temp_text(inner, "main", "../../../home");
    expect_lost("org/name.v1", &paths, "no commit name");
    temp_text(inner, "main", "beef\n");
    expect_lost("org/name.v1", &paths, "not in the local");
    temp_path(inner, cache, "models--org--name.v1/snapshots/ffff/config.json");
    unlink(inner);
    expect_lost("org/name.v1@v2", &paths, "incomplete");
}

static void test_directory_path(void **state)
{
    char path[TEMP_PATH_SIZE], *found;
    expect_lost(*state, NULL, "no config.json");
    temp_text(*state, "config.json", "{}");
    assert_int_equal(vl_hub_resolve(&found, *state, NULL, &err), VL_OK);
    assert_string_equal(found, *state);
    vl_free(found);
    expect_lost(temp_path(path, *state, "config.json"), NULL, "a file, expected a model directory");
}

/* ---- weights files -------------------------------------------------------------------------------------------- */

static void expect_closed(const char *folder, vl_status status, const char *word)
{
    vl_hf_directory *dir;
    vl_status found = vl_hf_directory_open(&dir, folder, &err);
    if (found != status || dir || !strstr(err.message, word))
        fail_msg("status %d, \"%s\", expected %d with \"%s\"", found, err.message, status, word);
}

static void write_index(const char *folder, const char *map)
{
    char text[1024];
    snprintf(text, sizeof text, "{\"metadata\": {\"total_size\": 12}, \"weight_map\": %s}", map);
    temp_text(folder, "model.safetensors.index.json", text);
}

static void test_shards(void **state)
{
    char path[TEMP_PATH_SIZE];
    vl_hf_directory *dir;
    write_shard(*state, "m-2.safetensors", (const char *const[]){"b", "unlisted"}, 2);
    write_shard(*state, "m-1.safetensors", (const char *const[]){"c", "a"}, 2);
    write_index(*state, "{\"c\": \"m-1.safetensors\", \"b\": \"m-2.safetensors\", \"a\": \"m-1.safetensors\"}");
    assert_int_equal(vl_hf_directory_open(&dir, *state, &err), VL_OK);
    assert_int_equal(dir->n_shards, 2);
    assert_int_equal(dir->n_tensors, 3);
    assert_string_equal(dir->tensors[0].name, "a");
    assert_string_equal(vl_hf_find(dir, "b")->name, "b");
    assert_int_equal(vl_hf_find(dir, "c")->bytes, 4);
    assert_null(vl_hf_find(dir, "unlisted"));
    assert_null(vl_hf_find(dir, "d"));
    vl_hf_directory_close(dir);
    vl_hf_directory_close(NULL);

    write_index(*state, "{\"c\": \"m-2.safetensors\"}");
    expect_closed(*state, VL_EFORMAT, "tensor \"c\" is said to be in \"m-2.safetensors\"");
    write_index(*state, "{\"c\": \"m-3.safetensors\"}");
    expect_closed(*state, VL_EIO, "m-3.safetensors");
    static const char *const names[] = {"../x", "/etc/passwd", "a/b", "..", "", ".hidden", "a\\\\b", "m-1\\u0000x"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char map[128];
        snprintf(map, sizeof map, "{\"c\": \"%s\"}", names[i]);
        write_index(*state, map);
        expect_closed(*state, VL_EFORMAT, "expected a plain file name");
    }
    write_index(*state, "{\"c\": 3}");
    expect_closed(*state, VL_EFORMAT, "plain file name");
    write_index(*state, "{}");
    expect_closed(*state, VL_EFORMAT, "empty");
    write_index(*state, "[]");
    expect_closed(*state, VL_EFORMAT, "no object");
    write_index(*state, "{\"c\": \"m-1.safetensors\", \"c\": \"m-2.safetensors\"}");
    expect_closed(*state, VL_EFORMAT, "duplicate");
    temp_text(*state, "model.safetensors.index.json", "[1]");
    expect_closed(*state, VL_EFORMAT, "missing");

    write_index(*state, "{\"c\": \"m-1.safetensors\", \"b\": \"m-2.safetensors\"}");
    assert_int_equal(truncate(temp_path(path, *state, "m-2.safetensors"), 150), 0);
    expect_closed(*state, VL_EFORMAT, "m-2.safetensors");
    assert_int_equal(truncate(path, 3), 0);
    expect_closed(*state, VL_EFORMAT, "m-2.safetensors");
    /* The single file wins. */
    write_shard(*state, "model.safetensors", (const char *const[]){"only"}, 1);
    assert_int_equal(vl_hf_directory_open(&dir, *state, &err), VL_OK);
    assert_int_equal(dir->n_tensors, 1);
    assert_non_null(vl_hf_find(dir, "only"));
    vl_hf_directory_close(dir);
}

static void test_other_weights(void **state)
{
    expect_closed(*state, VL_EIO, "no weights there");
    temp_text(*state, "pytorch_model.bin", "x");
    expect_closed(*state, VL_EUNSUPPORTED, "only safetensors is read");
    assert_non_null(strstr(err.message, "safe_serialization=True"));
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, temp_setup, temp_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_hub),
        TEST(test_directory_path),
        TEST(test_shards),
        TEST(test_other_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
