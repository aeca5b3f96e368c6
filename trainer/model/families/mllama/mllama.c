/* The family: vision encoder and projector in front of a decoder with two kinds of blocks. */
#include "trainer/model/families/mllama/mllama.h"

#include <stdio.h>

#include "trainer/base/mem.h"

/* ---- weights ----------------------------------------------------------------------------------------------- */

static vl_status open_parts(vl_model *model, vl_loader *loader, vl_error *err)
{
    vl_mllama *mllama = vl_calloc(1, sizeof *mllama);
    if (!mllama)
        return vl_fail_nomem(err, "model");
    model->parts = mllama;
    VL_TRY(vl_mllama_prompt_open(mllama, model, err));
    VL_TRY(vl_mllama_vision_load(&mllama->vision, loader, err));
    /* The projector is one linear whose name is that of the part: "multi_modal_projector.weight". */
    vl_scope scope = vl_scope_make(loader, VL_PART_CONNECTOR, "%s", "");
    vl_shape shape = vl_shape2(model->spec.decoder.hidden_size, vl_mllama_config(&model->spec)->output_dim);
    VL_TRY(vl_load_matrix(&mllama->projector.weight, &scope, "weight", shape, err));
    return vl_load_vector(&mllama->projector.bias, &scope, "bias", shape.size[0], err);
}

static void close_parts(vl_model *model)
{
    vl_mllama *mllama = model->parts;
    if (!mllama)
        return;
    vl_mllama_vision_free(&mllama->vision, model->device);
    vl_linear_free(model->device, &mllama->projector);
    vl_free(mllama);
    model->parts = NULL;
}

/* ---- pictures ---------------------------------------------------------------------------------------------- */

/* All tiles are rows of the cross-attention, used or not; the grids are those of the used ones. */
static vl_status measure(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height, vl_error *err)
{
    const vl_vision_spec *vision = &spec->vision;
    vl_mllama_plan plan = vl_mllama_make_plan(&spec->preprocess, width, height);
    out->n_tiles = plan.tiles_high * plan.tiles_wide;
    out->aspect_ratio_id = plan.aspect_ratio_id;
    out->n_rows = (int64_t)vision->max_tiles * vision->tile_rows;
    VL_TRY(vl_image_set_grids(out, out->n_tiles, err));
    for (int i = 0; i < out->n_tiles; i++) {
        vl_box box = vl_mllama_box(&plan, i, width, height);
        out->grids[i] = (vl_image_grid){
            .rows = vision->rows, .columns = vision->columns, .x0 = box.x0, .y0 = box.y0, .x1 = box.x1, .y1 = box.y1};
    }
    return VL_OK;
}

/* A picture as MllamaImageProcessor prepares it: all tiles, those that are not used as 0. */
static vl_status pixels(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image, vl_error *err)
{
    const vl_vision_spec *vision = &spec->vision;
    vl_mllama_plan plan = vl_mllama_make_plan(&spec->preprocess, image->width, image->height);
    int64_t side = vision->image_size;
    VL_TRY(vl_image_set_pixels(out, vision->max_tiles * 3 * side * side, err));
    VL_TRY(vl_image_set_seen(out, plan.resized_width, plan.resized_height, err));
    return vl_mllama_pixels(out->pixels, out->seen, &spec->preprocess, image, err);
}

/* ---- forward ----------------------------------------------------------------------------------------------- */

typedef struct shown {
    const vl_pass *pass;
    int sequence;
} shown;

static vl_status show(const shown *to, const char *name, vl_tensor rows, vl_error *err)
{
    if (to->pass->stage && to->pass->stage(to->pass->user, name, to->sequence, &rows) != 0)
        return vl_fail(err, VL_ECANCELLED, "the forward was stopped at %s", name);
    return VL_OK;
}

static vl_status show_hidden(void *user, int state, vl_tensor rows, vl_error *err)
{
    char name[32];
    snprintf(name, sizeof name, "vision.hidden.%02d", state);
    return show(user, name, rows, err);
}

/* One picture through encoder and projector. A picture is thousands of rows, so nothing is gained by running several at
 * once. */
static vl_status encode(const vl_model *model, const vl_encode_args *args, vl_error *err)
{
    const vl_mllama *mllama = model->parts;
    const vl_pass *pass = args->pass;
    const struct vl_sequence_image *picture = &pass->sequences[args->sequence[0]]->images[args->image[0]];
    shown to = {pass, args->sequence[0]};
    vl_tensor out = {0};
    vl_status status = VL_OK;
    VL_GOTO(
        vl_tensor_new(&out, pass->device, VL_F32, args->out.shape[0], vl_mllama_config(&model->spec)->output_dim, err));
    vl_mllama_vision_args vision = {.pixels = picture->pixels,
                                    .n_tiles = picture->n_tiles,
                                    .aspect_ratio_id = picture->aspect_ratio_id,
                                    .out = out,
                                    .hidden = pass->stage ? show_hidden : NULL,
                                    .user = &to};
    VL_GOTO(vl_mllama_vision_forward(&mllama->vision, pass->device, &vision, err));
    VL_GOTO(show(&to, "vision.out", out, err));
    VL_GOTO(vl_linear_apply(pass->device, &mllama->projector, args->out, out, err));
    VL_GOTO(show(&to, "cross_attention_states", args->out, err));
done:
    vl_device_free(pass->device, out.data);
    return status;
}

/* x W^T, and scores with weighted values. */
static double product(double rows, double n_out, double n_in)
{
    return 2 * rows * n_out * n_in;
}

static double encode_work(const vl_model_spec *spec, const struct vl_sequence_image *image)
{
    (void)image; /* tiles that are not used are computed too */
    const vl_mllama_vision_config *vision = vl_mllama_config(spec);
    double tile = (vision->n_patches + 7) / 8 * 8, rows = tile * vision->max_tiles, c = vision->hidden_size;
    double layer = 4 * product(rows, c, c) + 2 * product(rows, c, vision->intermediate_size) + 4 * rows * rows * c;
    double patch = (double)vision->n_channels * vision->patch_size * vision->patch_size;
    return (vision->n_layers + vision->n_global_layers) * layer +
           product((double)vision->max_tiles * (vision->n_patches - 1), c, patch) +
           product((double)vision->max_tiles * vision->n_patches, spec->decoder.hidden_size, vision->output_dim);
}

/* ---- the family -------------------------------------------------------------------------------------------- */

/* Before transformers 4.52, and since; version 5 saves the older names again. */
const vl_family vl_family_mllama = {
    .model_type = "mllama",
    .architecture = "MllamaForConditionalGeneration",
    .prefixes = {[VL_PART_TEXT] = {"language_model.model.", "model.language_model."},
                 [VL_PART_HEAD] = {"language_model.lm_head.", "lm_head."},
                 [VL_PART_VISION] = {"vision_model.", "model.vision_model."},
                 [VL_PART_CONNECTOR] = {"multi_modal_projector.", "model.multi_modal_projector."}},
    .describe = vl_mllama_describe,
    .measure = measure,
    .pixels = pixels,
    .wrap = vl_mllama_wrap,
    .place = vl_mllama_place,
    .open = open_parts,
    .close = close_parts,
    .encode = encode,
    .encode_work = encode_work};
