/* What is Mllama's own beyond its numbers: who sees which picture, blocks that texts skip, prompts, refusals. */
#include "tests/model/golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/model/families/mllama/mllama.h"

#define FIXTURES VLENS_SOURCE_DIR "/tests/golden/fixtures"
#define NAME     "mllama-base-bf16"
enum { TILES = 4 };

static const char *const PICTURES[] = {FIXTURES "/images/small.png",  FIXTURES "/images/wide.png",
                                       FIXTURES "/images/tall.png",   FIXTURES "/images/gray.png",
                                       FIXTURES "/images/square.png", FIXTURES "/images/scene.png"};
static const int USED_TILES[] = {2, 4, 4, 4, 4, 4};

typedef struct bench {
    vl_device *device;
    vl_model *model;
} bench;

static bench open_bench(const char *path)
{
    vl_error err = VL_ERROR_INIT;
    bench b;
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

static vl_sequence *encode(const bench *b, const char *text, int n_images, bool raw)
{
    vl_error err = VL_ERROR_INIT;
    vl_sequence *out;
    vl_prompt prompt = {.text = text, .image_paths = PICTURES, .n_images = n_images, .raw = raw};
    OK(vl_model_encode(&out, b->model, &prompt, &err));
    return out;
}

/* ---- prompts ----------------------------------------------------------------------------------------------- */

/* The tokens of a wrapped prompt are those of `written`, in which nothing is left to be done. */
static void same_ids(const bench *b, const vl_prompt *prompt, const char *written)
{
    vl_error err = VL_ERROR_INIT;
    vl_sequence *x;
    vl_token_ids expected;
    OK(vl_model_encode(&x, b->model, prompt, &err));
    OK(vl_tokenizer_encode(&expected, vl_model_tokenizer(b->model), written, strlen(written), false, &err));
    assert_int_equal(x->n_tokens, expected.n);
    assert_memory_equal(x->ids, expected.ids, (size_t)expected.n * sizeof *expected.ids);
    vl_sequence_free(x);
    vl_release(expected.ids);
}

#define PROMPT(words, images, as_is)                                                                                   \
    (&(vl_prompt){.text = words, .image_paths = PICTURES, .n_images = images, .raw = as_is})
/* The same inside of JSON. */
#define USER_JSON "<|start_header_id|>user<|end_header_id|>\\n\\n"
#define THEN_JSON "<|eot_id|><|start_header_id|>assistant<|end_header_id|>{{ '\\\\n\\\\n' }}"

#define BOS  "<|begin_of_text|>"
#define USER "<|start_header_id|>user<|end_header_id|>\n\n"
#define THEN "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"

static void instruct_template(void **state)
{
    (void)state;
    bench b = open_bench(FIXTURES "/models/" NAME);
    same_ids(&b, PROMPT("What?", 1, false), BOS USER "<|image|>What?" THEN);
    same_ids(&b, PROMPT("What?", 2, false), BOS USER "<|image|><|image|>What?" THEN);
    same_ids(&b, PROMPT("What?", 0, false), BOS USER "What?" THEN);
    same_ids(&b, PROMPT(USER "Hi", 0, false), BOS USER "Hi");
    close_bench(&b);
}

/* The same model, but its chat template has no headers. */
static void base_template(void **state)
{
    (void)state;
    char folder[] = "vlens-test-XXXXXX";
    golden_copy_model(folder, &(golden_change){NAME, "chat_template.json", "\"chat_template\"", "\"other\""});
    bench b = open_bench(folder);
    same_ids(&b, PROMPT("What?", 1, false), "<|image|>" BOS "What?");
    same_ids(&b, PROMPT("What?", 2, false), "<|image|><|image|>" BOS "What?");
    same_ids(&b, PROMPT("What?", 0, false), BOS "What?");
    same_ids(&b, PROMPT(BOS "What?", 1, false), "<|image|>" BOS "What?");
    close_bench(&b);
    golden_remove_copy(folder);
}

/* tokenizer_config.json may hold several templates by name. */
static void template_in_a_list(void **state)
{
    (void)state;
    char folder[] = "vlens-test-XXXXXX";
    golden_copy_model(folder,
                      &(golden_change){NAME, "chat_template.json", "{\n  \"chat_template\": \"",
                                       "{\"chat_template\": [{\"name\": \"other\", \"template\": \"no\"}, {\"name\": "
                                       "\"default\", \"template\": \"{{ bos_token }}" USER_JSON
                                       "<|image|>{{ messages[0].content[1].text }}" THEN_JSON "\"}],"
                                       "\"rest\": \""});
    bench b = open_bench(folder);
    same_ids(&b, PROMPT("What?", 1, false), BOS USER "<|image|>What?" THEN);
    close_bench(&b);
    golden_remove_copy(folder);
}

static void bos_goes_behind_leading_pictures(void **state)
{
    (void)state;
    bench b = open_bench(FIXTURES "/models/" NAME);
    same_ids(&b, PROMPT("<|image|>Hi", 1, true), "<|image|>" BOS "Hi");
    same_ids(&b, PROMPT("<|image|><|image|>Hi<|image|>", 3, true), "<|image|><|image|>" BOS "Hi<|image|>");
    same_ids(&b, PROMPT("Hi <|image|>", 1, true), BOS "Hi <|image|>");
    same_ids(&b, PROMPT("Hi " BOS "<|image|>", 1, true), "Hi " BOS "<|image|>");
    same_ids(&b, PROMPT("Hi", 0, true), BOS "Hi");
    same_ids(&b, PROMPT("<|image|>Hi", 1, false), "<|image|>" BOS "Hi");
    close_bench(&b);
}

static void refuse(const bench *b, const vl_prompt *prompt, vl_status status, const char *message)
{
    vl_error err = VL_ERROR_INIT;
    vl_sequence *out;
    assert_int_equal(vl_model_encode(&out, b->model, prompt, &err), status);
    assert_null(out);
    assert_non_null(strstr(err.message, message));
}

static void wrong_counts_are_refused(void **state)
{
    (void)state;
    bench b = open_bench(FIXTURES "/models/" NAME);
    const char *many[17];
    for (int i = 0; i < 17; i++)
        many[i] = PICTURES[0];
    refuse(&b, PROMPT("Hi", 1, true), VL_EINVAL, "prompt has 0 image tokens for 1 images");
    refuse(&b, PROMPT("<|image|>Hi", 2, false), VL_EINVAL, "prompt has 1 image tokens for 2 images");
    refuse(&b, PROMPT("<|image|>", 0, true), VL_EINVAL, "prompt has 1 image tokens for 0 images");
    refuse(&b, &(vl_prompt){.text = "Hi", .image_paths = many, .n_images = 17}, VL_EUNSUPPORTED, "up to 16 of 4 tiles");
    close_bench(&b);
}

/* ---- who sees what ----------------------------------------------------------------------------------------- */

/* Each image token of the prompt starts a picture; `ends` says before which image token (or the end) it goes out of
 * sight. */
static void check_visible(const bench *b, const char *text, int n_images, const int *ends)
{
    vl_sequence *x = encode(b, text, n_images, true);
    int64_t at[8], n = 0;
    int32_t image_token = vl_model_get_info(b->model)->image_token;
    assert_non_null(x->visible);
    for (int64_t t = 0; t < x->n_tokens; t++) {
        assert_int_equal(x->token_class[t], t + 1 < x->n_tokens ? VL_TEXT : VL_LAST);
        assert_int_equal(x->image[t], -1);
        if (x->ids[t] == image_token)
            at[n++] = t;
    }
    assert_int_equal(n, n_images);
    at[n] = x->n_tokens;
    for (int64_t t = 0; t < x->n_tokens; t++)
        for (int i = 0; i < n_images * TILES; i++) {
            int image = i / TILES;
            bool seen = t >= at[image] && t < at[ends[image]] && i % TILES < USED_TILES[image];
            assert_int_equal(x->visible[t] >> i & 1, seen);
        }
    for (int i = 0; i < n_images; i++)
        assert_int_equal(x->images[i].n_tiles, USED_TILES[i]);
    vl_sequence_free(x);
}

static void tokens_see_their_pictures(void **state)
{
    (void)state;
    bench b = open_bench(FIXTURES "/models/" NAME);
    check_visible(&b, "a<|image|>b", 1, (const int[]){1});
    check_visible(&b, "ab<|image|>", 1, (const int[]){1});
    check_visible(&b, "a<|image|>b<|image|>c", 2, (const int[]){1, 2});
    check_visible(&b, "a<|image|><|image|>c", 2, (const int[]){2, 2});
    check_visible(&b, "a<|image|><|image|>", 2, (const int[]){2, 2});
    check_visible(&b, "a<|image|>b<|image|><|image|>", 3, (const int[]){1, 3, 3});
    check_visible(&b, "<|image|><|image|><|image|>b<|image|>c<|image|><|image|>d", 6, (const int[]){3, 3, 3, 4, 6, 6});
    close_bench(&b);
}

/* ---- blocks ------------------------------------------------------------------------------------------------ */

typedef struct recorder {
    vl_device *device;
    float *states[2][4]; /* [sequence][state] of [T, D] */
    int n_encoded;       /* pictures whose encoder ran */
    int stop_after;      /* stages; 0: never */
} recorder;

static int record(void *user, const vl_tap *tap)
{
    recorder *r = user;
    vl_error err = VL_ERROR_INIT;
    float **slot = &r->states[tap->sequence][tap->state];
    *slot = malloc((size_t)(tap->x.shape[0] * tap->x.shape[1]) * sizeof **slot);
    assert_non_null(*slot);
    OK(vl_device_read(r->device, *slot, &tap->x, &err));
    return 0;
}

static int count(void *user, const char *name, int sequence, const vl_tensor *x)
{
    recorder *r = user;
    (void)sequence, (void)x;
    r->n_encoded += !strcmp(name, "vision.out");
    return r->stop_after > 0 && --r->stop_after == 0;
}

static void forget(recorder *r)
{
    for (int i = 0; i < 8; i++)
        free(r->states[i / 4][i % 4]);
    *r = (recorder){.device = r->device};
}

/* Blocks 0 and 2 of three are cross-attention: a text without pictures passes them unchanged, alone and beside one
 * with pictures. */
static void texts_skip_cross_blocks(void **state)
{
    (void)state;
    bench b = open_bench(FIXTURES "/models/" NAME);
    vl_error err = VL_ERROR_INIT;
    vl_sequence *text = encode(&b, "the state", 0, true), *picture = encode(&b, "<|image|>the", 1, true);
    size_t bytes = (size_t)(text->n_tokens * vl_model_get_info(b.model)->d_model) * sizeof(float);
    recorder r = {.device = b.device};
    assert_null(text->visible);
    for (int n = 1; n <= 2; n++) {
        const vl_sequence *batch[] = {text, picture};
        OK(vl_model_forward(
            b.model, &(vl_forward){.sequences = batch, .n_sequences = n, .tap = record, .stage = count, .user = &r},
            &err));
        assert_memory_equal(r.states[0][0], r.states[0][1], bytes);
        assert_memory_not_equal(r.states[0][1], r.states[0][2], bytes);
        assert_memory_equal(r.states[0][2], r.states[0][3], bytes);
        assert_int_equal(r.n_encoded, n - 1);
        forget(&r);
    }
    vl_sequence_free(text);
    vl_sequence_free(picture);
    close_bench(&b);
}

/* Pictures are encoded once, and only where a block reads them. */
static void pictures_are_encoded_on_demand(void **state)
{
    (void)state;
    bench b = open_bench(FIXTURES "/models/" NAME);
    vl_error err = VL_ERROR_INIT;
    vl_sequence *x = encode(&b, "<|image|><|image|>the", 2, true);
    const vl_sequence *batch[] = {x};
    recorder r = {.device = b.device};
    vl_forward forward = {.sequences = batch, .n_sequences = 1, .stage = count, .user = &r};
    OK(vl_model_forward(b.model, &forward, &err));
    assert_int_equal(r.n_encoded, 2);
    vl_tensor start;
    OK(vl_tensor_new(&start, b.device, VL_F32, x->n_tokens, vl_model_get_info(b.model)->d_model, &err));
    OK(vl_op_zero(b.device, start, &err));
    forward.start = &start;
    forward.start_state = 1;
    forward.stop_state = 2;
    r.n_encoded = 0;
    OK(vl_model_forward(b.model, &forward, &err));
    assert_int_equal(r.n_encoded, 0);
    /* stopped inside the encoder, at the projector, in a cross-attention block: everything is given back */
    forward = (vl_forward){.sequences = batch, .n_sequences = 1, .stage = count, .user = &r};
    for (int stage = 1; stage <= 16; stage++) {
        r.stop_after = stage;
        assert_int_equal(vl_model_forward(b.model, &forward, &err), VL_ECANCELLED);
    }
    vl_device_free(b.device, start.data);
    vl_sequence_free(x);
    close_bench(&b);
}

static void broken_sequences_are_refused(void **state)
{
    (void)state;
    bench b = open_bench(FIXTURES "/models/" NAME);
    vl_error err = VL_ERROR_INIT;
    vl_sequence *x = encode(&b, "<|image|>the", 1, true);
    const vl_sequence *batch[] = {x};
    vl_forward forward = {.sequences = batch, .n_sequences = 1};
    x->images[0].aspect_ratio_id = 9;
    assert_int_equal(vl_model_forward(b.model, &forward, &err), VL_EINVAL);
    assert_non_null(strstr(err.message, "aspect ratio id 9, expected 1 to 8"));
    x->images[0].aspect_ratio_id = 1;
    x->images[0].n_tiles = 5;
    assert_int_equal(vl_model_forward(b.model, &forward, &err), VL_EINVAL);
    assert_non_null(strstr(err.message, "a picture of 5 tiles"));
    uint64_t *visible = x->visible;
    x->visible = NULL;
    assert_int_equal(vl_model_forward(b.model, &forward, &err), VL_EINVAL);
    assert_non_null(strstr(err.message, "which token sees which"));
    x->visible = visible;
    vl_sequence_free(x);
    close_bench(&b);
}

/* ---- the directory ----------------------------------------------------------------------------------------- */

static void info(void **state)
{
    (void)state;
    bench b = open_bench(FIXTURES "/models/" NAME);
    const vl_model_info *i = vl_model_get_info(b.model);
    assert_string_equal(i->model_type, "mllama");
    assert_true(i->sees_images && !i->patches_in_stream);
    assert_int_equal(i->n_layers, 3);
    assert_int_equal(i->image_size, 10);
    assert_int_equal(i->patch_rows, 2);
    assert_int_equal(i->image_token, i->vocab_size); /* a row of the embedding table, not of the head */
    close_bench(&b);
}

static void contradictions_fail_by_name(void **state)
{
    (void)state;
    static const golden_change CHANGES[] = {
        {NAME, "preprocessor_config.json", "\"max_image_tiles\": 4", "\"max_image_tiles\": 3"},
        {NAME, "preprocessor_config.json", "\"height\": 10,\n    \"width\": 10", "\"height\": 14, \"width\": 14"},
        {NAME, "config.json", "\"image_token_index\": 281", "\"image_token_index\": 280"},
        {NAME, "config.json", "\"intermediate_size\": 32", "\"intermediate_size\": 48"},
    };
    static const char *const MESSAGES[] = {
        "gives a picture 3 tiles, the vision encoder 4", "cuts tiles of 14 x 14, the vision encoder reads 10 x 10",
        "id of \"<|image|>\" is 281, config.json says 280", "layers.0.mlp.gate_proj.weight"};
    for (size_t i = 0; i < sizeof CHANGES / sizeof *CHANGES; i++) {
        char folder[] = "vlens-test-XXXXXX";
        vl_error err = VL_ERROR_INIT;
        vl_model *model;
        vl_device *device;
        OK(vl_device_open(&device, "cpu", 1, &err));
        golden_copy_model(folder, &CHANGES[i]);
        vl_model_options options = {.path = folder, .device = device};
        assert_int_not_equal(vl_model_open(&model, &options, &err), VL_OK);
        golden_remove_copy(folder);
        print_message("%s\n", err.message);
        assert_null(model);
        assert_non_null(strstr(err.message, MESSAGES[i]));
        vl_device_close(device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instruct_template),
        cmocka_unit_test(base_template),
        cmocka_unit_test(template_in_a_list),
        cmocka_unit_test(bos_goes_behind_leading_pictures),
        cmocka_unit_test(wrong_counts_are_refused),
        cmocka_unit_test(tokens_see_their_pictures),
        cmocka_unit_test(texts_skip_cross_blocks),
        cmocka_unit_test(pictures_are_encoded_on_demand),
        cmocka_unit_test(broken_sequences_are_refused),
        cmocka_unit_test(info),
        cmocka_unit_test(contradictions_fail_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
