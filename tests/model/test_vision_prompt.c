/* Questions about pictures in the words of each directory's chat template, against transformers' template and
 * processor; and what the rows of pictures say of themselves. */
#include "tests/model/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/json.h"

#define ROOT   VLENS_SOURCE_DIR "/tests/golden/vision"
#define IMAGES VLENS_SOURCE_DIR "/tests/golden/fixtures/images"

static const char *const families[] = {"qwen2_vl",   "qwen2_5_vl", "gemma3",   "smolvlm",
                                       "llava_next", "qwen3_vl",   "internvl", "llava_onevision"};

/* A model and a prompt of pictures of the fixtures. */
typedef struct asked {
    vl_device *device;
    vl_model *model;
    vl_sequence *sequence;
} asked;

static asked ask(const char *folder, const char *pictures, const char *question, const char *const *names, int n)
{
    vl_error err = VL_ERROR_INIT;
    asked a = {0};
    char paths[GOLDEN_IMAGES][GOLDEN_PATH];
    const char *images[GOLDEN_IMAGES];
    assert_in_range(n, 0, GOLDEN_IMAGES);
    for (int i = 0; i < n; i++) {
        snprintf(paths[i], GOLDEN_PATH, "%s/%s", pictures, names[i]);
        images[i] = paths[i];
    }
    OK(vl_device_open(&a.device, "cpu", 0, &err));
    OK(vl_model_open(&a.model, &(vl_model_options){.path = folder, .device = a.device}, &err));
    const vl_prompt prompt = {.text = question, .image_paths = images, .n_images = n};
    OK(vl_model_encode(&a.sequence, a.model, &prompt, &err));
    return a;
}

static void forget(asked *a)
{
    vl_sequence_free(a->sequence);
    vl_model_close(a->model);
    vl_device_close(a->device);
}

static void check_ids(const char *folder, const char *pictures, const char *question, const json_t *images,
                      const json_t *ids)
{
    const char *names[GOLDEN_IMAGES];
    const int n = (int)json_array_size(images);
    for (int i = 0; i < n; i++)
        names[i] = json_string_value(json_array_get(images, (size_t)i));
    asked a = ask(folder, pictures, question, names, n);
    bool same = (size_t)a.sequence->n_tokens == json_array_size(ids);
    for (int64_t t = 0; same && t < a.sequence->n_tokens; t++)
        same = a.sequence->ids[t] == json_integer_value(json_array_get(ids, (size_t)t));
    if (!same)
        fail_msg("%s with %d pictures: other ids than transformers (%lld, expected %zu)", folder, n,
                 (long long)a.sequence->n_tokens, json_array_size(ids));
    forget(&a);
}

static void templates_equal_transformers(void **state)
{
    (void)state;
    int n = 0;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char path[GOLDEN_PATH], line[1 << 16];
        snprintf(path, sizeof path, ROOT "/%s/chat.jsonl", families[i]);
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        for (; fgets(line, sizeof line, file); n++) {
            vl_error err = VL_ERROR_INIT;
            json_t *value;
            OK(vl_json_parse(&value, line, strlen(line), path, &err));
            char folder[GOLDEN_PATH];
            snprintf(folder, sizeof folder, ROOT "/%s/%s", families[i],
                     json_string_value(json_object_get(value, "dir")));
            check_ids(folder, IMAGES, json_string_value(json_object_get(value, "question")),
                      json_object_get(value, "images"), json_object_get(value, "ids"));
            json_decref(value);
        }
        fclose(file);
    }
    assert_int_equal(n, 48); /* two directories of each family, three conversations */
}

/* One turn of pictures and a text: the question, or NULL. */
static const char *question_of(const json_t *talk)
{
    const json_t *messages = json_object_get(talk, "messages");
    const json_t *content = json_object_get(json_array_get(messages, 0), "content");
    const size_t n = json_array_size(content);
    for (size_t i = 0; i + 1 < n; i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(content, i), "type")), "image"))
            return NULL;
    return json_array_size(messages) == 1 && n > 0
               ? json_string_value(json_object_get(json_array_get(content, n - 1), "text"))
               : NULL;
}

static void those_of_other_models_too(void **state)
{
    (void)state;
    const char *shared = getenv("VLENS_SHARED_DATA");
    int n = 0;
    if (!shared) {
        print_message("VLENS_SHARED_DATA is not set: the templates of more tiny models are not used\n");
        return;
    }
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char path[GOLDEN_PATH], folder[2 * GOLDEN_PATH], images[GOLDEN_PATH];
        vl_error err = VL_ERROR_INIT;
        json_t *talks, *talk;
        size_t k;
        snprintf(path, sizeof path, "%s/families/%s/templates.json", shared, families[i]);
        snprintf(images, sizeof images, "%s/images", shared);
        OK(vl_json_read(&talks, path, 1 << 22, &err));
        json_array_foreach(talks, k, talk)
        {
            const char *question = question_of(talk);
            if (!question)
                continue;
            snprintf(folder, sizeof folder, "%s/families/%s/%s", shared, families[i],
                     json_string_value(json_object_get(talk, "dir")));
            check_ids(folder, images, question, json_object_get(talk, "images"), json_object_get(talk, "input_ids"));
            n++;
        }
        json_decref(talks);
    }
    assert_true(n >= 30);
}

/* Every row of a picture is a cell of one of its grids, once and in order, or a newline. */
static void check_cells(const vl_sequence *sequence)
{
    for (int i = 0; i < sequence->n_images; i++) {
        const struct vl_sequence_image *image = &sequence->images[i];
        int64_t rows = 0, cells = 0, expected = 0;
        int last = -1;
        for (int g = 0; g < image->n_grids; g++)
            expected += (int64_t)image->grids[g].rows * image->grids[g].columns;
        for (int64_t t = 0; t < sequence->n_tokens; t++) {
            if (sequence->image[t] != i)
                continue;
            rows++;
            if (sequence->patch[t][1] < 0)
                continue;
            assert_in_range(sequence->patch[t][0], 0, image->n_grids - 1);
            const vl_image_grid *grid = &image->grids[sequence->patch[t][0]];
            const int cell =
                (sequence->patch[t][0] << 24) + sequence->patch[t][1] * grid->columns + sequence->patch[t][2];
            assert_in_range(sequence->patch[t][1], 0, grid->rows - 1);
            assert_in_range(sequence->patch[t][2], 0, grid->columns - 1);
            assert_true(cell > last);
            last = cell;
            cells++;
        }
        assert_int_equal(rows, image->n_rows);
        assert_int_equal(cells, expected);
        assert_true(image->seen && image->seen_width > 0 && image->seen_height > 0);
    }
}

static const vl_image_grid *grid_of(const asked *a, int g)
{
    assert_true(g < a->sequence->images[0].n_grids);
    return &a->sequence->images[0].grids[g];
}

static void assert_grid(const vl_image_grid *grid, const double expected[6])
{
    assert_int_equal(grid->rows, expected[0]);
    assert_int_equal(grid->columns, expected[1]);
    const double box[4] = {grid->x0, grid->y0, grid->x1, grid->y1};
    for (int i = 0; i < 4; i++)
        if (fabs(box[i] - expected[2 + i]) > 1e-9)
            fail_msg("a box of %g, %g to %g, %g, expected %g, %g to %g, %g", box[0], box[1], box[2], box[3],
                     expected[2], expected[3], expected[4], expected[5]);
}

/* scene.png is 40 pixels wide and 31 high; by hand. */
static void grids_say_what_each_row_shows(void **state)
{
    (void)state;
    const char *const scene[] = {"scene.png"};
    /* to multiples of 8: 40 x 32, which are 1280 pixels, as many as may be */
    asked a = ask(ROOT "/qwen2_5_vl/qwen2_5_vl-untied-f32", IMAGES, "q", scene, 1);
    const double w = a.sequence->images[0].width, h = a.sequence->images[0].height;
    check_cells(a.sequence);
    assert_grid(grid_of(&a, 0), (const double[6]){4, 5, 0, 0, w, h});
    assert_int_equal(a.sequence->images[0].n_grids, 1);
    forget(&a);
    /* tiles of 30 pixels of which 28 are seen: the last two of each are no row's */
    a = ask(ROOT "/smolvlm/smolvlm-f32", IMAGES, "q", scene, 1);
    const int R = a.sequence->images[0].tile_rows, C = a.sequence->images[0].tile_columns;
    check_cells(a.sequence);
    assert_int_equal(a.sequence->images[0].n_grids, R * C + 1);
    assert_grid(grid_of(&a, 0), (const double[6]){2, 2, 0, 0, w / C * 28 / 30, h / R * 28 / 30});
    assert_grid(grid_of(&a, 1), (const double[6]){2, 2, w / C, 0, w / C + w / C * 28 / 30, h / R * 28 / 30});
    assert_grid(grid_of(&a, R * C), (const double[6]){2, 2, 0, 0, w * 28 / 30, h * 28 / 30});
    forget(&a);
    a = ask(ROOT "/llava_next/vicuna-f32", IMAGES, "q", scene, 1);
    check_cells(a.sequence);
    assert_grid(grid_of(&a, 0), (const double[6]){4, 4, 0, 0, w, h});
    assert_true(grid_of(&a, 1)->newlines && !grid_of(&a, 0)->newlines);
    forget(&a);
    a = ask(ROOT "/gemma3/base-f32", IMAGES, "q", scene, 1);
    check_cells(a.sequence);
    assert_grid(grid_of(&a, 0), (const double[6]){2, 2, 0, 0, w, h});
    forget(&a);
    a = ask(ROOT "/internvl/v3-f32", IMAGES, "q", scene, 1);
    check_cells(a.sequence);
    assert_grid(grid_of(&a, a.sequence->images[0].n_grids - 1), (const double[6]){2, 2, 0, 0, w, h});
    forget(&a);
    /* two pictures: no tiles, each in the middle of a square */
    const char *const two[] = {"scene.png", "tall.png"};
    a = ask(ROOT "/llava_onevision/max2-bf16", IMAGES, "q", two, 2);
    check_cells(a.sequence);
    const double side = w > h ? w : h, top = floor((side - h) / 2), left = floor((side - w) / 2);
    assert_grid(grid_of(&a, 0), (const double[6]){4, 4, -left, -top, side * 28 / 30 - left, side * 28 / 30 - top});
    assert_int_equal(a.sequence->images[1].n_rows, 17);
    forget(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(templates_equal_transformers),
                                       cmocka_unit_test(those_of_other_models_too),
                                       cmocka_unit_test(grids_say_what_each_row_shows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
