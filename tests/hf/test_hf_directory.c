/* Model directories: the local hub cache, shards, and every tensor of every family under both layouts. */
#include "tests/support/temp_folder.h"

#include "tests/hf/weight_walk.h"
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

/* ---- names ---------------------------------------------------------------------------------------------------- */

static const char *const small_configs[] = {
    "{\"model_type\":\"llama\",\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":10,\"head_dim\":6,\"attention_bias\":true,"
    "\"mlp_bias\":true}",
    "{\"model_type\":\"llama\",\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"vocab_size\":10,\"tie_word_embeddings\":true}",
    "{\"model_type\":\"llava\",\"multimodal_projector_bias\":false,\"text_config\":{\"hidden_size\":8,"
    "\"intermediate_size\":12,\"num_hidden_layers\":2,\"num_attention_heads\":2,\"vocab_size\":10},"
    "\"vision_config\":{\"hidden_size\":6,\"intermediate_size\":5,\"num_hidden_layers\":2,\"num_attention_heads\":3,"
    "\"image_size\":4,\"patch_size\":2}}",
    "{\"model_type\":\"mllama\",\"image_token_index\":10,\"text_config\":{\"hidden_size\":8,\"intermediate_size\":12,"
    "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":10,"
    "\"cross_attention_layers\":[1]},\"vision_config\":{\"hidden_size\":6,\"intermediate_size\":5,"
    "\"num_hidden_layers\":2,\"num_global_layers\":1,\"attention_heads\":3,\"image_size\":4,\"patch_size\":2,"
    "\"intermediate_layers_indices\":[0,2],\"vision_output_dim\":18}}"};

/* Opens what write_walk wrote, and finds all of it. */
static void check_directory(const char *path, bool all_used)
{
    vl_hf_config config;
    vl_hf_directory *dir = NULL;
    if (vl_hf_config_read(&config, path, &err) != VL_OK || vl_hf_directory_open(&dir, path, &err) != VL_OK)
        fail_msg("%s", err.message);
    const vl_hf_source source = {dir, &config};
    const vl_weight_view *head;
    size_t found = walk_find_all(&source, &err);
    if (found == 0)
        fail_msg("%s", err.message);
    if (all_used)
        assert_int_equal(found, dir->n_tensors);
    assert_int_equal(vl_hf_head(&head, &source, &err), VL_OK);
    assert_int_equal(head->shape[1], config.text.hidden_size);
    vl_hf_directory_close(dir);
}

static void test_layouts(void **state)
{
    vl_hf_config config;
    for (size_t i = 0; i < sizeof small_configs / sizeof *small_configs; i++)
        for (int layout = 0; layout < 2; layout++) {
            temp_text(*state, "config.json", small_configs[i]);
            assert_int_equal(vl_hf_config_read(&config, *state, &err), VL_OK);
            walk_write(*state, &config, layout);
            check_directory(*state, true);
        }
}

static void test_weight_errors(void **state)
{
    vl_hf_config config;
    vl_hf_directory *dir;
    const vl_weight_view *view;
    float x[80] = {0};
    uint8_t bytes[8] = {0};
    char path[TEMP_PATH_SIZE];
    vl_safetensors_entry entries[] = {{"language_model.model.norm.weight", VL_F32, 1, {8}, x},
                                      {"model.language_model.norm.weight", VL_F32, 1, {8}, x},
                                      {"language_model.model.embed_tokens.weight", VL_F32, 2, {10, 8}, x},
                                      {"model.language_model.layers.0.input_layernorm.weight", VL_U8, 1, {8}, bytes}};
    temp_text(*state, "config.json", small_configs[2]);
    assert_int_equal(vl_hf_config_read(&config, *state, &err), VL_OK);
    temp_path(path, *state, "model.safetensors");
    assert_int_equal(vl_safetensors_write(path, entries, 4, NULL, 0, &err), VL_OK);
    assert_int_equal(vl_hf_directory_open(&dir, *state, &err), VL_OK);
    const vl_hf_source source = {dir, &config};
    assert_int_equal(vl_hf_weight(&view, &source, VL_HF_TEXT, vl_hf_shape1(8), &err, "norm.weight"), VL_EFORMAT);
    assert_non_null(strstr(err.message, "both"));
    assert_int_equal(vl_hf_weight(&view, &source, VL_HF_TEXT, vl_hf_shape2(10, 9), &err, "embed_tokens.weight"),
                     VL_ESHAPE);
    assert_non_null(strstr(err.message, "embed_tokens.weight is [10, 8], config.json asks for [10, 9]"));
    assert_null(view);
    assert_int_equal(vl_hf_weight(&view, &source, VL_HF_TEXT, vl_hf_shape1(80), &err, "embed_tokens.weight"),
                     VL_ESHAPE);
    assert_int_equal(
        vl_hf_weight_optional(&view, &source, VL_HF_TEXT, vl_hf_shape1(8), &err, "layers.%d.input_layernorm.weight", 0),
        VL_ESHAPE);
    assert_non_null(strstr(err.message, "holds U8"));
    assert_int_equal(vl_hf_weight(&view, &source, VL_HF_VISION, vl_hf_shape1(6), &err, "layers.%d.x", 3), VL_EFORMAT);
    assert_non_null(strstr(err.message, "vision_tower.vision_model.layers.3.x or model.vision_tower"));
    assert_int_equal(vl_hf_weight_optional(&view, &source, VL_HF_VISION, vl_hf_shape1(6), &err, "none"), VL_OK);
    assert_null(view);
    assert_int_equal(vl_hf_head(&view, &source, &err), VL_EFORMAT);
    assert_non_null(strstr(err.message, "tie_word_embeddings"));
    vl_hf_directory_close(dir);
}

static int check_folders_of(const char *data, const char *name)
{
    char folder[TEMP_PATH_SIZE], path[TEMP_PATH_SIZE], config[TEMP_PATH_SIZE];
    int n = 0;
    DIR *list = opendir(temp_path(folder, data, name));
    for (struct dirent *e; list && (e = readdir(list)) != NULL;)
        if (e->d_name[0] != '.' &&
            vl_path_exists(temp_path(config, temp_path(path, folder, e->d_name), "config.json"))) {
            check_directory(path, true);
            n++;
        }
    if (list)
        closedir(list);
    return n;
}

static void test_shared_models(void **state)
{
    (void)state;
    const char *data = getenv("VLENS_SHARED_DATA");
    if (!data) {
        print_message("VLENS_SHARED_DATA is not set: the shared checkpoints are not opened\n");
        skip();
    }
    int tiny = check_folders_of(data, "tiny"), trained = check_folders_of(data, "trained");
    int real = check_folders_of(data, "real");
    print_message("every tensor found in %d tiny, %d trained, %d real directories\n", tiny, trained, real);
    assert_true(tiny > 0);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, temp_setup, temp_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_hub),     TEST(test_directory_path), TEST(test_shards),        TEST(test_other_weights),
        TEST(test_layouts), TEST(test_weight_errors),  TEST(test_shared_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
