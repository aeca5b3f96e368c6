/* The traps of the vision families, sprung on purpose: every change below is a reading of a family that is wrong in one
 * point, and the goldens must tell. What is unchanged must pass, or the traps would show nothing. */
#include "tests/model/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "trainer/model/anyres.h"
#include "trainer/model/families/gemma3/gemma3.h"
#include "trainer/model/families/idefics3/idefics3.h"
#include "trainer/model/families/qwen_vl/qwen_vl.h"
#include "trainer/model/vision.h"

/* The golden test's bound is 2e-5; whatever is wrong must be far beyond it. */
static const double RIGHT = 2e-5, WRONG = 1e-4;

/* ---- wrongs of the processor ------------------------------------------------------------------------------- */

static void pillow_weights(vl_model *model)
{
    ((vl_qwen_own *)model->spec.own)->processor.kernel = VL_RESIZE_PILLOW;
}

static void steps_of_normalisation(vl_model *model)
{
    ((vl_qwen_own *)model->spec.own)->processor.normalise.order = VL_NORMALISE_STEPS;
}

static void lanczos_is_bicubic(vl_model *model)
{
    ((vl_idefics3_own *)model->spec.own)->processor.resample = VL_RESAMPLE_BICUBIC;
}

static void no_tiles(vl_model *model)
{
    ((vl_idefics3_own *)model->spec.own)->splitting = false;
}

static void tiles_for_several_pictures(vl_model *model)
{
    ((vl_anyres *)model->spec.own)->one_tile_each = false;
}

static void map_is_not_pooled(vl_model *model)
{
    ((vl_anyres *)model->spec.own)->max_tiles = 9;
}

static void patch_rows_in_raster_order(vl_sequence *sequence)
{
    struct vl_sequence_image *image = &sequence->images[0];
    const int columns = 2 * image->grids[0].columns;
    const size_t width = (size_t)image->n_pixels / ((size_t)image->n_rows * 4);
    float *sorted = malloc((size_t)image->n_pixels * sizeof *sorted);
    assert_non_null(sorted);
    for (int64_t i = 0; i < image->n_rows * 4; i++) {
        const vl_size at = vl_merge_block_patch(i, columns, 2);
        memcpy(sorted + (size_t)(at.height * columns + at.width) * width, image->pixels + (size_t)i * width,
               width * sizeof *sorted);
    }
    memcpy(image->pixels, sorted, (size_t)image->n_pixels * sizeof *sorted);
    free(sorted);
}

/* Each patch is [channel, frame, y, x]: of a picture both frames are the same. */
static void one_frame_only(vl_sequence *sequence)
{
    struct vl_sequence_image *image = &sequence->images[0];
    for (int64_t i = 0; i < image->n_pixels; i++)
        if (i / 16 % 2 == 1)
            image->pixels[i] = 0;
}

/* The last tile in front of the others, and the first one behind them. */
static void rotate_tiles(vl_sequence *sequence, bool last_to_front)
{
    struct vl_sequence_image *image = &sequence->images[0];
    const size_t tile = (size_t)(image->n_pixels / image->n_tiles), all = (size_t)image->n_pixels;
    float *other = malloc(all * sizeof *other);
    assert_non_null(other);
    const size_t shift = last_to_front ? tile : all - tile;
    for (size_t i = 0; i < all; i++)
        other[(i + shift) % all] = image->pixels[i];
    memcpy(image->pixels, other, all * sizeof *other);
    free(other);
}

static void thumbnail_first(vl_sequence *sequence)
{
    rotate_tiles(sequence, true);
}

static void whole_picture_last(vl_sequence *sequence)
{
    rotate_tiles(sequence, false);
}

/* ---- wrongs of positions ----------------------------------------------------------------------------------- */

static void text_goes_on_behind_all_rows(vl_sequence *sequence)
{
    for (int64_t t = 1; t < sequence->n_tokens; t++) {
        if (sequence->image[t] >= 0 || sequence->image[t - 1] < 0)
            continue;
        const vl_image_grid *grid = &sequence->images[sequence->image[t - 1]].grids[0];
        const int longer = grid->rows > grid->columns ? grid->rows : grid->columns;
        for (int64_t k = t; k < sequence->n_tokens; k++)
            for (int axis = 0; axis < 3; axis++)
                sequence->position[k][axis] += grid->rows * grid->columns - longer;
    }
}

static void one_axis(vl_sequence *sequence)
{
    for (int64_t t = 0; t < sequence->n_tokens; t++)
        for (int axis = 0; axis < 3; axis++)
            sequence->position[t][axis] = (int32_t)t;
}

static void rows_and_columns_swapped(vl_sequence *sequence)
{
    for (int64_t t = 0; t < sequence->n_tokens; t++) {
        const int32_t row = sequence->position[t][1];
        sequence->position[t][1] = sequence->position[t][2];
        sequence->position[t][2] = row;
    }
}

static void sections_the_other_way(vl_model *model)
{
    model->spec.decoder.ropes[0].interleaved = !model->spec.decoder.ropes[0].interleaved;
}

/* ---- wrongs of towers -------------------------------------------------------------------------------------- */

static vl_qwen_tower *qwen(vl_model *model)
{
    return model->parts;
}

static void no_windows(vl_model *model)
{
    ((vl_qwen_own *)model->spec.own)->tower.window = 0;
}

static void windows_everywhere(vl_model *model)
{
    ((vl_qwen_own *)model->spec.own)->tower.full[1] = false;
}

static void windows_of_one_block(vl_model *model)
{
    ((vl_qwen_own *)model->spec.own)->tower.window = 1;
}

static void gate_without_bias(vl_model *model)
{
    vl_linear *gate = &qwen(model)->layers[0].gate;
    vl_device_free(model->device, gate->bias.data);
    gate->bias = (vl_tensor){0};
}

static void tower_eps_is_not_1e_6(vl_model *model)
{
    for (int i = 0; i < 3; i++)
        qwen(model)->layers[i].norm1.eps = qwen(model)->layers[i].norm2.eps = 1e-2;
}

static void gelu_is_exact(vl_model *model)
{
    ((vl_qwen_own *)model->spec.own)->tower.act = VL_ACT_GELU; /* quick_gelu in this tower */
}

static void no_table_of_positions(vl_model *model)
{
    ((vl_qwen_own *)model->spec.own)->tower.position_side = 0;
}

static void no_deepstack(vl_model *model)
{
    model->spec.vision.n_deep = 0;
    ((vl_qwen_own *)model->spec.own)->tower.n_deep = 0;
}

static void deepstack_in_another_order(vl_model *model)
{
    const vl_qwen_merger first = qwen(model)->deep[0];
    qwen(model)->deep[0] = qwen(model)->deep[1];
    qwen(model)->deep[1] = first;
}

/* As transformers 4.57 does in fp32: nearly all rows of the table are off by one. */
static void positions_off_by_one(vl_model *model)
{
    vl_error err = VL_ERROR_INIT;
    vl_tensor *table = &model->vision->tower.position;
    const size_t n = (size_t)table->shape[0] * (size_t)table->shape[1], row = (size_t)table->shape[1];
    float *values = malloc(2 * n * sizeof *values);
    assert_non_null(values);
    OK(vl_device_read(model->device, values, table, &err));
    memcpy(values + n, values, n * sizeof *values);
    memcpy(values + n + row, values, (n - row) * sizeof *values);
    OK(vl_device_write(model->device, table, values + n, &err));
    OK(vl_device_sync(model->device, &err));
    free(values);
}

static void no_norms_of_q_and_k(vl_model *model)
{
    for (int i = 0; i < model->spec.vision.tower.state; i++) {
        vl_norm_free(model->device, &model->vision->tower.layers[i].q_norm);
        vl_norm_free(model->device, &model->vision->tower.layers[i].k_norm);
        model->vision->tower.layers[i].q_norm = model->vision->tower.layers[i].k_norm = (vl_norm){0};
    }
}

static void branches_are_not_scaled(vl_model *model)
{
    vl_tower_layer *layer = &model->vision->tower.layers[0];
    vl_device_free(model->device, layer->scale1.data);
    layer->scale1 = (vl_tensor){0};
}

/* ---- wrongs of connectors ---------------------------------------------------------------------------------- */

/* Inside each block: columns first. */
static void patches_joined_column_by_column(vl_model *model)
{
    vl_error err = VL_ERROR_INIT;
    vl_connector *connector = &model->vision->connector;
    const int64_t n = connector->rows.shape[0];
    int32_t *rows = malloc((size_t)n * sizeof *rows);
    assert_non_null(rows);
    OK(vl_device_read(model->device, rows, &connector->rows, &err));
    for (int64_t i = 0; i < n; i += 4) {
        const int32_t second = rows[i + 1];
        rows[i + 1] = rows[i + 2];
        rows[i + 2] = second;
    }
    OK(vl_device_write(model->device, &connector->rows, rows, &err));
    OK(vl_device_sync(model->device, &err));
    free(rows);
}

static void soft_norm_without_its_one(vl_model *model)
{
    vl_error err = VL_ERROR_INIT;
    vl_tensor *weight = &model->vision->connector.norm.weight;
    float values[64];
    assert_in_range(weight->shape[0], 1, 64);
    OK(vl_device_read(model->device, values, weight, &err));
    for (int64_t i = 0; i < weight->shape[0]; i++)
        values[i] -= 1;
    OK(vl_device_write(model->device, weight, values, &err));
    OK(vl_device_sync(model->device, &err));
}

/* ---- wrongs of decoders ------------------------------------------------------------------------------------ */

static void pictures_are_causal(vl_model *model)
{
    model->spec.decoder.pictures_see_themselves = false;
}

static void no_window(vl_model *model)
{
    for (int i = 0; i < model->spec.decoder.n_layers; i++)
        model->spec.decoder.layers[i].window = 0;
}

static void one_theta(vl_model *model)
{
    for (int i = 0; i < model->spec.decoder.n_layers; i++)
        model->spec.decoder.layers[i].rope = 0;
}

static void scaling_on_all_layers(vl_model *model)
{
    model->spec.decoder.ropes[1].kind = VL_ROPE_LINEAR;
    model->spec.decoder.ropes[1].factor = model->spec.decoder.ropes[0].factor;
}

static void scale_from_the_head(vl_model *model)
{
    for (int i = 0; i < model->spec.decoder.n_layers; i++)
        model->spec.decoder.layers[i].attention_scale = 1 / sqrt(model->spec.decoder.head_dim);
}

static void tokens_are_not_scaled(vl_model *model)
{
    model->spec.decoder.embed_scale = 0;
}

/* ---- the table --------------------------------------------------------------------------------------------- */

typedef struct trap {
    const char *name, *family, *golden;
    void (*model)(vl_model *model);
    void (*sequence)(vl_sequence *sequence);
} trap;

#define MODEL(how, family, golden)                                                                                     \
    {                                                                                                                  \
#how, family, golden, how, NULL                                                                                \
    }
#define SEQUENCE(how, family, golden)                                                                                  \
    {                                                                                                                  \
#how, family, golden, NULL, how                                                                                \
    }

static const trap traps[] = {
    {"nothing", "qwen2_vl", "qwen2_vl-untied-f32__wide", NULL, NULL},
    MODEL(gelu_is_exact, "qwen2_vl", "qwen2_vl-untied-f32__wide"),
    SEQUENCE(patch_rows_in_raster_order, "qwen2_vl", "qwen2_vl-untied-f32__wide"),
    SEQUENCE(one_frame_only, "qwen2_vl", "qwen2_vl-untied-f32__wide"),
    SEQUENCE(text_goes_on_behind_all_rows, "qwen2_vl", "qwen2_vl-untied-f32__wide"),
    SEQUENCE(one_axis, "qwen2_vl", "qwen2_vl-untied-f32__wide"),
    SEQUENCE(rows_and_columns_swapped, "qwen2_vl", "qwen2_vl-untied-f32__wide"),
    {"nothing", "qwen2_5_vl", "qwen2_5_vl-untied-f32__wide", NULL, NULL},
    MODEL(pillow_weights, "qwen2_5_vl", "qwen2_5_vl-untied-f32__wide"),
    MODEL(steps_of_normalisation, "qwen2_5_vl", "qwen2_5_vl-untied-f32__wide"),
    MODEL(no_windows, "qwen2_5_vl", "qwen2_5_vl-untied-f32__wide"),
    MODEL(windows_everywhere, "qwen2_5_vl", "qwen2_5_vl-untied-f32__wide"),
    MODEL(windows_of_one_block, "qwen2_5_vl", "qwen2_5_vl-untied-f32__wide"),
    MODEL(gate_without_bias, "qwen2_5_vl", "qwen2_5_vl-untied-f32__wide"),
    MODEL(tower_eps_is_not_1e_6, "qwen2_5_vl", "qwen2_5_vl-untied-f32__wide"),
    {"nothing", "qwen3_vl", "qwen3_vl-untied-f32__wide", NULL, NULL},
    MODEL(sections_the_other_way, "qwen3_vl", "qwen3_vl-untied-f32__wide"),
    MODEL(no_table_of_positions, "qwen3_vl", "qwen3_vl-untied-f32__wide"),
    MODEL(no_deepstack, "qwen3_vl", "qwen3_vl-untied-f32__wide"),
    MODEL(deepstack_in_another_order, "qwen3_vl", "qwen3_vl-untied-f32__wide"),
    {"nothing", "smolvlm", "smolvlm-f32__tiles", NULL, NULL},
    MODEL(lanczos_is_bicubic, "smolvlm", "smolvlm-f32__tiles"),
    MODEL(no_tiles, "smolvlm", "smolvlm-f32__tiles"),
    SEQUENCE(thumbnail_first, "smolvlm", "smolvlm-f32__tiles"),
    MODEL(positions_off_by_one, "smolvlm", "smolvlm-f32__tiles"),
    MODEL(patches_joined_column_by_column, "smolvlm", "smolvlm-f32__tiles"),
    {"nothing", "gemma3", "base-f32__scene", NULL, NULL},
    MODEL(pictures_are_causal, "gemma3", "base-f32__scene"),
    MODEL(no_window, "gemma3", "base-f32__scene"),
    MODEL(one_theta, "gemma3", "base-f32__scene"),
    MODEL(scaling_on_all_layers, "gemma3", "base-f32__scene"),
    MODEL(scale_from_the_head, "gemma3", "base-f32__scene"),
    MODEL(tokens_are_not_scaled, "gemma3", "base-f32__scene"),
    MODEL(soft_norm_without_its_one, "gemma3", "base-f32__scene"),
    {"nothing", "llava_next", "vicuna-f32__tall", NULL, NULL},
    SEQUENCE(whole_picture_last, "llava_next", "vicuna-f32__tall"),
    {"nothing", "internvl", "v3-f32__tiles", NULL, NULL},
    SEQUENCE(thumbnail_first, "internvl", "v3-f32__tiles"),
    MODEL(branches_are_not_scaled, "internvl", "v3-f32__tiles"),
    MODEL(no_norms_of_q_and_k, "internvl", "qknorm-bf16__two"),
    {"nothing", "llava_onevision", "max2-bf16__pooled", NULL, NULL},
    MODEL(map_is_not_pooled, "llava_onevision", "max2-bf16__pooled"),
    MODEL(tiles_for_several_pictures, "llava_onevision", "max2-bf16__two"),
};

/* The largest relative error of a state; infinite where already the ids or (if they are compared) the pixels differ. */
static double distance(const golden *g, bool pixels)
{
    int64_t n;
    int32_t *ids = golden_read_ids(g, "input_ids", &n);
    const vl_sequence *sequence = g->sequence;
    bool same = n == sequence->n_tokens && !memcmp(ids, sequence->ids, (size_t)n * sizeof *ids);
    double worst = same ? 0 : INFINITY;
    free(ids);
    for (int i = 0; pixels && i < g->n_images; i++)
        if (!golden_pixels_equal(g, i))
            worst = INFINITY;
    if (!same)
        return worst;
    golden_states states = golden_run(g, (vl_forward){.sequences = &sequence, .n_sequences = 1});
    for (int i = 0; i < states.n_states; i++) {
        char name[32];
        snprintf(name, sizeof name, i + 1 < states.n_states ? "hidden.%02d" : "last_prenorm", i);
        golden_rows expected = golden_read(g, name);
        worst =
            fmax(worst,
                 golden_compare(golden_state(&states, i, 0), expected.data, expected.rows, expected.columns).relative);
        free(expected.data);
    }
    golden_states_free(&states);
    return worst;
}

static void every_wrong_is_told(void **state)
{
    (void)state;
    int missed = 0;
    for (size_t i = 0; i < sizeof traps / sizeof *traps; i++) {
        const trap *t = &traps[i];
        golden_case c = golden_vision_fixture(t->family, t->golden);
        c.change_model = t->model;
        c.change_sequence = t->sequence;
        golden g = golden_open(&c);
        const double found = distance(&g, !t->sequence);
        const bool changed = t->model || t->sequence, ok = changed ? !(found < WRONG) : found <= RIGHT;
        print_message("%-36s %-32s %9.2e%s\n", t->name, t->golden, found, ok ? "" : "  <-- MISSED");
        missed += !ok;
        golden_close(&g);
    }
    assert_int_equal(missed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_wrong_is_told)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
