/* Ids and classes of 200 conversations over four templates against transformers and the tokenizers library
 * (make_conversations.py). */
#include "tests/support/temp_folder.h"

#include <jansson.h>
#include <vlens/model.h>

#define FIXTURES VLENS_SOURCE_DIR "/tests/golden/fixtures"

enum { TURNS = 16, PARTS = 4, PICTURES = 8 };

typedef struct bench {
    char folder[TEMP_PATH_SIZE];
    vl_device *device;
    vl_model *model;
} bench;

static void link_file(const char *folder, const char *name, const char *target)
{
    char path[TEMP_PATH_SIZE];
    assert_int_equal(symlink(target, temp_path(path, folder, name)), 0);
}

/* The fixture's model with the template in the place of its own. */
static void open_bench(bench *b, const char *root, const char *model, const char *template)
{
    static const char *const files[] = {"config.json",           "model.safetensors",       "tokenizer.json",
                                        "tokenizer_config.json", "special_tokens_map.json", "preprocessor_config.json",
                                        "processor_config.json"};
    char path[TEMP_PATH_SIZE];
    vl_error err = VL_ERROR_INIT;
    temp_format(b->folder, sizeof b->folder, "%s/%s", root, model);
    assert_int_equal(mkdir(b->folder, 0700), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        temp_format(path, sizeof path, FIXTURES "/models/%s/%s", model, files[i]);
        if (access(path, R_OK) == 0)
            link_file(b->folder, files[i], path);
    }
    temp_format(path, sizeof path, VLENS_SOURCE_DIR "/tests/hf/templates/%s.jinja", template);
    link_file(b->folder, "chat_template.jinja", path);
    if (vl_device_open(&b->device, "cpu", 1, &err) != VL_OK)
        fail_msg("%s", err.message);
    vl_model_options options = {.path = b->folder, .device = b->device, .precision = VL_PRECISION_EXACT};
    if (vl_model_open(&b->model, &options, &err) != VL_OK)
        fail_msg("%s", err.message);
}

static void close_bench(bench *b)
{
    vl_model_close(b->model);
    vl_device_close(b->device);
    *b = (bench){.model = NULL};
}

static void check(const bench *b, const json_t *row, int line)
{
    static const char *const pictures[PICTURES] = {FIXTURES "/images/small.png", FIXTURES "/images/gray.png",
                                                   FIXTURES "/images/small.png", FIXTURES "/images/gray.png",
                                                   FIXTURES "/images/small.png", FIXTURES "/images/gray.png",
                                                   FIXTURES "/images/small.png", FIXTURES "/images/gray.png"};
    static const char letters[] = {[VL_TEXT] = 't', [VL_IMAGE] = 'i', [VL_LAST] = 'l', [VL_ANSWER] = 'a'};
    vl_turn turns[TURNS];
    vl_turn_part parts[TURNS][PARTS];
    const json_t *talk = json_object_get(row, "talk"), *ids = json_object_get(row, "ids");
    const char *classes = json_string_value(json_object_get(row, "classes"));
    vl_prompt prompt = {
        .max_tokens = 4096, .turns = turns, .n_turns = (int)json_array_size(talk), .image_paths = pictures};
    for (int i = 0; i < prompt.n_turns; i++) {
        const json_t *turn = json_array_get(talk, (size_t)i), *content = json_array_get(turn, 1);
        for (size_t k = 0; k < json_array_size(content); k++) {
            parts[i][k].text = json_string_value(json_array_get(content, k));
            prompt.n_images += !parts[i][k].text;
        }
        turns[i] = (vl_turn){json_string_value(json_array_get(turn, 0)), parts[i], (int)json_array_size(content)};
    }
    vl_sequence *sequence;
    vl_error err = VL_ERROR_INIT;
    if (vl_model_encode(&sequence, b->model, &prompt, &err) != VL_OK)
        fail_msg("conversations.jsonl:%d: %s", line, err.message);
    if (sequence->n_tokens != (int64_t)json_array_size(ids))
        fail_msg("conversations.jsonl:%d: %lld tokens, expected %zu", line, (long long)sequence->n_tokens,
                 json_array_size(ids));
    for (int64_t t = 0; t < sequence->n_tokens; t++) {
        json_int_t id = json_integer_value(json_array_get(ids, (size_t)t));
        if (sequence->ids[t] != id || letters[sequence->token_class[t]] != classes[t])
            fail_msg("conversations.jsonl:%d: token %lld is %d %c, expected %d %c", line, (long long)t,
                     sequence->ids[t], letters[sequence->token_class[t]], (int)id, classes[t]);
        if (sequence->token_class[t] == VL_ANSWER)
            assert_string_equal(turns[sequence->turn[t]].role, "assistant");
    }
    assert_int_equal(sequence->answered, strcmp(turns[prompt.n_turns - 1].role, "assistant") == 0);
    vl_sequence_free(sequence);
}

static void test_conversations(void **state)
{
    FILE *file = fopen(VLENS_SOURCE_DIR "/tests/model/conversations.jsonl", "r");
    assert_non_null(file);
    bench b = {.model = NULL};
    json_error_t error;
    json_t *row;
    int n = 0;
    while ((row = json_loadf(file, JSON_DISABLE_EOF_CHECK, &error))) {
        if (n % 50 == 0) {
            close_bench(&b);
            open_bench(&b, *state, json_string_value(json_object_get(row, "model")),
                       json_string_value(json_object_get(row, "template")));
        }
        check(&b, row, ++n);
        json_decref(row);
    }
    assert_int_equal(n, 200);
    close_bench(&b);
    fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_conversations, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
