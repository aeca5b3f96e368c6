/* Tensor names of every layout: a fixture's checkpoint under the names of another layout is the same model, bit for
 * bit; what is missing, there twice, of another shape or read by nothing is named. */
#include "tests/model/golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer/base/mem.h"
#include "trainer/hf/directory.h"
#include "trainer/hf/safetensors_write.h"

#define FIXTURES VLENS_SOURCE_DIR "/tests/golden/fixtures"
enum { MAX_RULES = 6, MAX_TENSORS = 512, NAME = 192 };

/* The start of a name, and what it becomes; to NULL drops the tensor. */
typedef struct rule {
    const char *from, *to;
} rule;

/* One change of the weights of a fixture. */
typedef struct change {
    rule rules[MAX_RULES];
    vl_safetensors_entry extra; /* name NULL: none */
} change;

static vl_error err = VL_ERROR_INIT;

static bool rename_one(char out[NAME], const char *name, const change *c)
{
    for (int i = 0; i < MAX_RULES && c->rules[i].from; i++) {
        size_t n = strlen(c->rules[i].from);
        if (strncmp(name, c->rules[i].from, n) != 0)
            continue;
        if (!c->rules[i].to)
            return false;
        snprintf(out, NAME, "%s%s", c->rules[i].to, name + n);
        return true;
    }
    snprintf(out, NAME, "%s", name);
    return true;
}

/* A copy of a fixture's directory whose model.safetensors has other names. */
static void copy_changed(char *folder, const char *model, const change *c)
{
    static char names[MAX_TENSORS][NAME];
    static vl_safetensors_entry entries[MAX_TENSORS];
    char path[GOLDEN_PATH], source[GOLDEN_PATH];
    vl_hf_directory *dir;
    size_t n = 0;
    golden_copy_model(folder, &(golden_change){model, "config.json", "{", "{"});
    snprintf(source, sizeof source, FIXTURES "/models/%.100s", model);
    OK(vl_hf_directory_open(&dir, source, &err));
    for (size_t i = 0; i < dir->n_tensors; i++) {
        const vl_weight_view *view = dir->tensors[i].view;
        assert_in_range(n, 0, MAX_TENSORS - 2);
        if (!rename_one(names[n], view->name, c))
            continue;
        entries[n] = (vl_safetensors_entry){.name = names[n], .dtype = view->dtype, .ndim = view->ndim};
        memcpy(entries[n].shape, view->shape, sizeof entries[n].shape);
        entries[n++].data = view->data;
    }
    if (c->extra.name)
        entries[n++] = c->extra;
    snprintf(path, sizeof path, "%.128s/model.safetensors", folder);
    unlink(path);
    OK(vl_safetensors_write(path, entries, n, NULL, 0, &err));
    vl_hf_directory_close(dir);
}

/* Opens a changed copy and runs the golden's prompt; NULL data where it does not open (err says why). */
static golden_states run_changed(const char *golden_name, const char *model, const change *c, size_t *bytes)
{
    char folder[] = "vlens-test-XXXXXX";
    golden_case source = golden_fixture(golden_name);
    golden g = golden_open(&source);
    golden_states states = {0};
    vl_model *original = g.model;
    const vl_sequence *sequence = g.sequence;
    copy_changed(folder, model, c);
    vl_model_options options = {.path = folder, .device = g.device, .precision = VL_PRECISION_EXACT};
    if (vl_model_open(&g.model, &options, &err) == VL_OK) {
        states = golden_run(&g, (vl_forward){.sequences = &sequence, .n_sequences = 1});
        vl_model_close(g.model);
    }
    g.model = original;
    *bytes = (size_t)(sequence->n_tokens * vl_model_get_info(original)->d_model) * sizeof(float);
    golden_close(&g);
    golden_remove_copy(folder);
    return states;
}

typedef struct layout {
    const char *golden, *model;
    change change;
} layout;

static const layout layouts[] = {
    /* 4.52 to 4.57 */
    {"llava-base-f32__two",
     "llava-base-f32",
     {.rules = {{"language_model.model.", "model.language_model."},
                {"language_model.lm_head.", "lm_head."},
                {"vision_tower.", "model.vision_tower."},
                {"multi_modal_projector.", "model.multi_modal_projector."}}}},
    /* as version 5 saves them */
    {"llava-base-f32__two", "llava-base-f32", {.rules = {{"vision_tower.vision_model.", "vision_tower."}}}},
    {"mllama-base-bf16__chat",
     "mllama-base-bf16",
     {.rules = {{"language_model.model.", "model.language_model."},
                {"language_model.lm_head.", "lm_head."},
                {"vision_model.", "model.vision_model."},
                {"multi_modal_projector.", "model.multi_modal_projector."}}}},
};

static void other_names_are_the_same_model(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        size_t bytes;
        golden_states a = run_changed(layouts[i].golden, layouts[i].model, &(change){0}, &bytes);
        golden_states b = run_changed(layouts[i].golden, layouts[i].model, &layouts[i].change, &bytes);
        if (!b.data)
            fail_msg("%s: %s", layouts[i].model, err.message);
        for (int s = 0; s < a.n_states; s++)
            assert_memory_equal(golden_state(&a, s, 0), golden_state(&b, s, 0), bytes);
        golden_states_free(&a);
        golden_states_free(&b);
    }
}

static void refused(const char *golden_name, const char *model, const change *c, const char *words)
{
    size_t bytes;
    golden_states states = run_changed(golden_name, model, c, &bytes);
    if (states.data)
        fail_msg("%s opened, expected \"%s\"", model, words);
    if (!strstr(err.message, words))
        fail_msg("\"%s\", expected \"%s\"", err.message, words);
}

static void wrong_tensors_are_named(void **state)
{
    (void)state;
    static const char GOLDEN[] = "llama-base-f32__ascii", MODEL[] = "llama-base-f32";
    static float x[1 << 16];
    static uint8_t bytes[1 << 10];
    refused(GOLDEN, MODEL, &(change){.rules = {{"model.norm.", NULL}}}, "no tensor model.norm.weight");
    refused(GOLDEN, MODEL, &(change){.rules = {{"lm_head.", NULL}}}, "tie_word_embeddings");
    refused(GOLDEN, MODEL,
            &(change){.rules = {{"model.norm.", NULL}}, .extra = {"model.norm.weight", VL_F32, 1, {7}, x}},
            "tensor model.norm.weight is [7], config.json asks for [");
    refused(GOLDEN, MODEL,
            &(change){.rules = {{"model.norm.", NULL}}, .extra = {"model.norm.weight", VL_U8, 1, {32}, bytes}},
            "holds U8, expected F32, F16 or BF16");
    refused("llava-base-f32__two", "llava-base-f32",
            &(change){.extra = {"model.language_model.norm.weight", VL_F32, 1, {32}, x}},
            "both language_model.model.norm.weight and model.language_model.norm.weight are there");
    refused("llava-base-f32__two", "llava-base-f32",
            &(change){.rules = {{"vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", NULL}}},
            "no tensor vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight or model.vision_tower.");
    /* written as tied, yet another head is there */
    refused("llama-tied-bf16__unicode", "llama-tied-bf16",
            &(change){.extra = {"lm_head.weight", VL_BF16, 2, {381, 32}, x}}, "differs from them");
}

/* A tensor that nothing reads makes another model than its author had: it is listed. Buffers are not. */
static void unread_tensors_are_listed(void **state)
{
    (void)state;
    static const float x[64];
    char folder[] = "vlens-test-XXXXXX";
    vl_device *device;
    vl_model *model;
    copy_changed(folder, "llama-base-f32",
                 &(change){.extra = {"model.layers.0.self_attn.q_norm.weight", VL_F32, 1, {8}, x}});
    OK(vl_device_open(&device, "cpu", 1, &err));
    OK(vl_model_open(&model, &(vl_model_options){.path = folder, .device = device}, &err));
    assert_string_equal(vl_model_unread_tensor(model, 0), "model.layers.0.self_attn.q_norm.weight");
    assert_null(vl_model_unread_tensor(model, 1));
    vl_model_close(model);
    golden_remove_copy(folder);
    /* of a LLaVA's tower the layers behind the state that is read are no loss */
    OK(vl_model_open(&model, &(vl_model_options){.path = FIXTURES "/models/llava-base-f32", .device = device}, &err));
    assert_null(vl_model_unread_tensor(model, 0));
    vl_model_close(model);
    vl_device_close(device);
}

/* Every directory of the shared data opens, and nothing in it is left unread. */
static void shared_models_are_read_whole(void **state)
{
    (void)state;
    golden_case *cases;
    size_t n = golden_find(&cases);
    vl_device *device;
    OK(vl_device_open(&device, "cpu", 1, &err));
    for (size_t i = 0; i < n; i++) {
        vl_model *model;
        if (i > 0 && !strcmp(cases[i].model, cases[i - 1].model))
            continue;
        OK(vl_model_open(&model, &(vl_model_options){.path = cases[i].model, .device = device}, &err));
        if (vl_model_unread_tensor(model, 0))
            fail_msg("%s: nothing reads %s", cases[i].model, vl_model_unread_tensor(model, 0));
        vl_model_close(model);
    }
    vl_device_close(device);
    free(cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_names_are_the_same_model),
        cmocka_unit_test(wrong_tensors_are_named),
        cmocka_unit_test(unread_tensors_are_listed),
        cmocka_unit_test(shared_models_are_read_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
