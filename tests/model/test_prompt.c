/* Prompts: templates, the rows that pictures take, classes, limits, and what a model refuses. */
#include "tests/model/golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIXTURES VLENS_SOURCE_DIR "/tests/golden/fixtures"

typedef struct bench {
    vl_device *device;
    vl_model *model;
} bench;

static bench open_bench(const char *name)
{
    vl_error err = VL_ERROR_INIT;
    bench b;
    char path[GOLDEN_PATH];
    snprintf(path, sizeof path, FIXTURES "/models/%s", name);
    OK(vl_device_open(&b.device, "cpu", 1, &err));
    vl_model_options options = {.path = path, .device = b.device, .precision = VL_PRECISION_EXACT};
    OK(vl_model_open(&b.model, &options, &err));
    return b;
}

static void close_bench(bench *b)
{
    vl_model_close(b->model);
    vl_device_close(b->device);
}

static const char *const PICTURES[] = {FIXTURES "/images/scene.png", FIXTURES "/images/tall.png"};

static vl_sequence *encode(const bench *b, const char *text, int n_images, bool raw)
{
    vl_error err = VL_ERROR_INIT;
    vl_sequence *out;
    vl_prompt prompt = {.text = text, .image_paths = PICTURES, .n_images = n_images, .raw = raw};
    OK(vl_model_encode(&out, b->model, &prompt, &err));
    return out;
}

static void refuse_as(const bench *b, const vl_prompt *prompt, vl_status status, const char *message)
{
    vl_error err = VL_ERROR_INIT;
    vl_sequence *out;
    assert_int_equal(vl_model_encode(&out, b->model, prompt, &err), status);
    assert_null(out);
    assert_non_null(strstr(err.message, message));
}

static void refuse(const bench *b, const vl_prompt *prompt, const char *message)
{
    refuse_as(b, prompt, VL_EINVAL, message);
}

/* The first text is wrapped, the second one is what it should come to. */
static void same_rows(const bench *b, const char *wrapped, const char *written, int n_images)
{
    vl_sequence *x = encode(b, wrapped, n_images, false), *y = encode(b, written, n_images, true);
    assert_int_equal(x->n_tokens, y->n_tokens);
    assert_memory_equal(x->ids, y->ids, (size_t)x->n_tokens * sizeof *x->ids);
    vl_sequence_free(x);
    vl_sequence_free(y);
}

static void llava_template(void **state)
{
    (void)state;
    bench b = open_bench("llava-base-f32");
    same_rows(&b, "What colour?", "USER: <image>\nWhat colour? ASSISTANT:", 1);
    same_rows(&b, "What colour?", "USER: <image>\n<image>\nWhat colour? ASSISTANT:", 2);
    same_rows(&b, "What colour?", "USER: What colour? ASSISTANT:", 0);
    same_rows(&b, "A: <image> what?", "A: <image> what?", 1);
    refuse(&b, &(vl_prompt){.text = "What?", .image_paths = PICTURES, .n_images = 1, .raw = true},
           "prompt has 0 image tokens for 1 images");
    refuse(&b, &(vl_prompt){.text = "<image> and <image>", .image_paths = PICTURES, .n_images = 1},
           "prompt has 2 image tokens for 1 images");
    refuse(&b, &(vl_prompt){.text = "<image>"}, "prompt has 1 image tokens for 0 images");
    refuse_as(&b, &(vl_prompt){.text = "What colour?", .max_tokens = 3}, VL_ELENGTH, "max_tokens is 3");
    close_bench(&b);
}

static void llama_has_no_template(void **state)
{
    (void)state;
    bench b = open_bench("llama-base-f32");
    same_rows(&b, "the wall", "the wall", 0);
    vl_sequence *x = encode(&b, "the wall", 0, false);
    for (int64_t t = 0; t < x->n_tokens; t++) {
        assert_int_equal(x->token_class[t], t + 1 < x->n_tokens ? VL_TEXT : VL_LAST);
        assert_int_equal(x->image[t], -1);
        assert_int_equal(x->patch[t][0], -1);
    }
    assert_int_equal(x->ids[0], vl_tokenizer_bos(vl_model_tokenizer(b.model)));
    vl_sequence_free(x);
    refuse(&b, &(vl_prompt){.text = "the wall", .image_paths = PICTURES, .n_images = 1}, "reads text only");

    char *text = malloc(4096);
    assert_non_null(text);
    memset(text, 'x', 4095);
    text[4095] = 0;
    refuse_as(&b, &(vl_prompt){.text = text}, VL_ELENGTH, "the model's limit is 256");
    free(text);
    close_bench(&b);
}

/* Picture rows in raster order; `class_row` is 1 where the class row comes first. */
static void check_rows(const bench *b, int grid, int class_row)
{
    vl_sequence *x = encode(b, "a<image>b<image>", 2, true);
    int64_t per_image = grid * grid + class_row, t = 0;
    const vl_model_info *info = vl_model_get_info(b->model);
    assert_int_equal(info->patch_rows, grid);
    assert_int_equal(x->n_images, 2);
    assert_true(x->images[1].height > x->images[1].width);
    assert_int_equal(strlen(x->images[0].sha256), 64);
    assert_string_equal(x->images[0].path, PICTURES[0]);
    for (int image = 0; image < 2; image++) {
        while (x->image[t] < 0)
            t++;
        for (int64_t i = 0; i < per_image; i++, t++) {
            int patch = (int)i - class_row;
            assert_int_equal(x->ids[t], info->image_token);
            assert_int_equal(x->image[t], image);
            assert_int_equal(x->patch[t][0], 0);
            assert_int_equal(x->patch[t][1], patch < 0 ? -1 : patch / grid);
            assert_int_equal(x->patch[t][2], patch < 0 ? -1 : patch % grid);
            assert_int_equal(x->token_class[t], t + 1 < x->n_tokens ? VL_IMAGE : VL_LAST);
        }
    }
    assert_int_equal(t, x->n_tokens);
    vl_sequence_free(x);
}

static void picture_rows(void **state)
{
    (void)state;
    bench b = open_bench("llava-base-f32");
    check_rows(&b, 4, 0);
    close_bench(&b);
    b = open_bench("llava-variant-bf16");
    check_rows(&b, 2, 1);
    close_bench(&b);
}

static void sequences_of_ids(void **state)
{
    (void)state;
    bench b = open_bench("llama-base-f32");
    vl_error err = VL_ERROR_INIT;
    vl_sequence *x;
    const int32_t ids[] = {5, 6, 7}, bad[] = {5, 100000};
    OK(vl_sequence_from_ids(&x, b.model, ids, 3, &err));
    assert_int_equal(x->token_class[2], VL_TEXT);
    assert_int_equal(x->n_prompt, 3);
    vl_sequence_free(x);
    assert_int_equal(vl_sequence_from_ids(&x, b.model, bad, 2, &err), VL_EINVAL);
    assert_non_null(strstr(err.message, "token id 100000 at position 1"));
    assert_int_equal(vl_sequence_from_ids(&x, b.model, ids, 0, &err), VL_EINVAL);
    close_bench(&b);
}

static void info(void **state)
{
    (void)state;
    bench b = open_bench("llava-variant-bf16");
    const vl_model_info *i = vl_model_get_info(b.model);
    assert_string_equal(i->model_type, "llava");
    assert_string_equal(i->weight_dtype, "bfloat16");
    assert_int_equal(i->d_model, 32);
    assert_int_equal(i->n_layers, 3);
    assert_int_equal(i->vocab_size, 384);
    assert_true(i->sees_images && i->patches_in_stream);
    assert_int_equal(i->image_size, 28);
    assert_true(i->n_parameters > 2 * 384 * 32);
    close_bench(&b);
}

/* ---- a wrong file ------------------------------------------------------------------------------------------ */

static void wrong_shapes_fail_by_name(void **state)
{
    (void)state;
    static const char *const CHANGES[][4] = {
        {"\"intermediate_size\": 48", "\"intermediate_size\": 64", "layers.0.mlp.gate_proj.weight", "[64, 32]"},
        {"\"num_hidden_layers\": 3", "\"num_hidden_layers\": 5", "layers.3.", ""},
        {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4", "layers.0.self_attn.k_proj.weight", "[32, 32]"}};
    for (size_t i = 0; i < sizeof CHANGES / sizeof *CHANGES; i++) {
        char folder[] = "vlens-test-XXXXXX";
        vl_error err = VL_ERROR_INIT;
        vl_model *model;
        vl_device *device;
        OK(vl_device_open(&device, "cpu", 1, &err));
        golden_copy_model(folder, &(golden_change){"llama-base-f32", "config.json", CHANGES[i][0], CHANGES[i][1]});
        vl_model_options options = {.path = folder, .device = device};
        assert_int_not_equal(vl_model_open(&model, &options, &err), VL_OK);
        golden_remove_copy(folder);
        print_message("%s\n", err.message);
        assert_null(model);
        assert_non_null(strstr(err.message, CHANGES[i][2]));
        assert_non_null(strstr(err.message, CHANGES[i][3]));
        vl_device_close(device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llava_template), cmocka_unit_test(llama_has_no_template),
        cmocka_unit_test(picture_rows),   cmocka_unit_test(sequences_of_ids),
        cmocka_unit_test(info),           cmocka_unit_test(wrong_shapes_fail_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
