/* Numbers that cannot be trained on, planted in a model's embeddings: counted and reported when they are cached. */
#include "tests/support/temp_folder.h"

#include <math.h>

#include <vlens/cache.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/hf/safetensors.h"

#define MODEL VLENS_SOURCE_DIR "/tests/golden/fixtures/models/llama-base-f32"

static const char SAMPLES[] = "{\"prompt\": \"one\"}\n{\"prompt\": \"two\"}\n{\"prompt\": \"zebra\"}\n";

static void copy_file(const char *folder, const char *name)
{
    char *data, path[TEMP_PATH_SIZE];
    size_t size;
    vl_error err = VL_ERROR_INIT;
    if (vl_file_read(&data, &size, temp_path(path, MODEL, name), 1 << 26, &err) != VL_OK)
        fail_msg("%s", err.message);
    temp_write(folder, name, data, size);
    vl_free(data);
}

/* A copy of the model with a value in column 0 of the embedding of `token` (-1: of all). */
static void plant(const char *folder, int32_t token, float value)
{
    const char *names[] = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"};
    char path[TEMP_PATH_SIZE], *data;
    size_t size;
    vl_error err = VL_ERROR_INIT;
    vl_safetensors *file;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        copy_file(folder, names[i]);
    temp_path(path, folder, "model.safetensors");
    assert_int_equal(vl_file_read(&data, &size, path, 1 << 26, &err), VL_OK);
    assert_int_equal(vl_safetensors_open(&file, path, &err), VL_OK);
    const vl_weight_view *view = vl_safetensors_find(file, "model.embed_tokens.weight");
    assert_non_null(view);
    size_t rows = (size_t)view->shape[0], row = view->bytes / rows;
    char *at = memmem(data, size, view->data, view->bytes);
    assert_non_null(at);
    for (size_t r = 0; r < rows; r++)
        if (token < 0 || r == (size_t)token)
            memcpy(at + r * row, &value, sizeof value);
    vl_safetensors_close(file);
    temp_write(folder, "model.safetensors", data, size);
    vl_free(data);
}

static void on_message(void *user, int is_warning, const char *line)
{
    if (is_warning)
        temp_format(user, 512, "%s", line);
}

static void set(vl_config *config, const char *key, const char *value, const char *end)
{
    vl_error err = VL_ERROR_INIT;
    char text[TEMP_PATH_SIZE];
    temp_format(text, sizeof text, "%s%s%s", key, value, end);
    if (vl_config_set(config, text, &err) != VL_OK)
        fail_msg("%s", err.message);
}

/* Builds with that element type; the warning, or "". */
static void build(char warning[512], vl_cache_plan *plan, const char *folder, const char *dtype)
{
    vl_error err = VL_ERROR_INIT;
    vl_device *device;
    vl_model *model;
    vl_config *config;
    vl_observer observer = {NULL, on_message, warning};
    warning[0] = 0;
    temp_text(folder, "samples.jsonl", SAMPLES);
    assert_int_equal(vl_config_new(&config, &err), VL_OK);
    set(config, "data.samples=", folder, "/samples.jsonl");
    set(config, "cache.dir=", folder, "/cache");
    set(config, "model=", folder, "");
    set(config, "cache.dtype=", dtype, "");
    assert_int_equal(vl_device_open(&device, "cpu", 1, &err), VL_OK);
    vl_model_options options = {.path = folder, .device = device};
    if (vl_model_open(&model, &options, &err) != VL_OK)
        fail_msg("%s", err.message);
    vl_cache_build_options fresh = {.fresh = true};
    if (vl_cache_build(plan, config, model, &fresh, &observer, &err) != VL_OK)
        fail_msg("%s", err.message);
    print_message("  %s: %s\n", dtype, warning);
    vl_model_close(model);
    vl_device_close(device);
    vl_config_free(config);
}

/* The residual stream carries the value through all states, so each row of each has one too many. */
static void test_overflow(void **state)
{
    vl_cache_plan plan;
    char warning[512], expected[128];
    plant(*state, -1, 1e6f);
    build(warning, &plan, *state, "float16");
    int64_t rows = plan.n_tokens[VL_TEXT] + plan.n_tokens[VL_LAST], states = plan.n_bytes / 2 / rows;
    long long found = strtoll(warning, NULL, 10);
    temp_format(expected, sizeof expected,
                "%lld values were too large for float16 and are stored as infinity: use cache.dtype bfloat16", found);
    assert_string_equal(warning, expected);
    assert_true(found >= rows && found <= rows * states);
    build(warning, &plan, *state, "bfloat16");
    assert_string_equal(warning, "");
    build(warning, &plan, *state, "float32");
    assert_string_equal(warning, "");
}

/* One token of the third sample. */
static void test_not_finite(void **state)
{
    vl_cache_plan plan;
    char warning[512];
    vl_error err = VL_ERROR_INIT;
    vl_tokenizer *tokenizer;
    vl_token_ids ids;
    assert_int_equal(vl_tokenizer_open(&tokenizer, MODEL, &err), VL_OK);
    assert_int_equal(vl_tokenizer_encode(&ids, tokenizer, "zebra", 5, false, &err), VL_OK);
    int32_t token = -1; /* one that the others lack: the letter z */
    for (int64_t i = 0; i < ids.n; i++)
        if (strchr(vl_tokenizer_piece(tokenizer, ids.ids[i]), 'z'))
            token = ids.ids[i];
    assert_true(token >= 0);
    vl_release(ids.ids);
    vl_tokenizer_close(tokenizer);
    plant(*state, token, NAN);
    const char *types[] = {"bfloat16", "float16", "float32"};
    for (size_t i = 0; i < 3; i++) {
        build(warning, &plan, *state, types[i]);
        assert_non_null(strstr(warning, "no finite numbers, first in state 0 of sample 2"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_overflow, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_not_finite, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
