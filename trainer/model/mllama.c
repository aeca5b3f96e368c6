/* The Mllama family: vision encoder and projector in front of a decoder with two kinds of blocks. */
#include "trainer/model/mllama.h"

#include "trainer/base/mem.h"
#include "trainer/model/family.h"

/* The processor must cut pictures into the tiles that the encoder reads. */
static vl_status check_processor(const vl_model *model, vl_error *err)
{
    const vl_preprocess *pp = &model->preprocess;
    const vl_mllama_vision_config *vision = &model->config.mllama_vision;
    if (pp->kind != VL_PREPROCESS_MLLAMA)
        return vl_fail(err, VL_EMISMATCH, "%s: preprocessor_config.json is not that of a Mllama image processor",
                       model->path);
    if (pp->height != vision->image_size || pp->width != vision->image_size)
        return vl_fail(err, VL_EMISMATCH,
                       "%s: preprocessor_config.json cuts tiles of %d x %d, the vision encoder reads %d x %d",
                       model->path, pp->height, pp->width, vision->image_size, vision->image_size);
    if (pp->max_image_tiles != vision->max_tiles)
        return vl_fail(err, VL_EMISMATCH,
                       "%s: preprocessor_config.json gives a picture %d tiles, the vision encoder %d", model->path,
                       pp->max_image_tiles, vision->max_tiles);
    return VL_OK;
}

static vl_status load_blocks(vl_mllama *mllama, vl_loader *loader, vl_error *err)
{
    const vl_text_config *text = &mllama->config->text;
    mllama->blocks = vl_calloc((size_t)text->n_cross + 1, sizeof *mllama->blocks);
    if (!mllama->blocks)
        return vl_fail_nomem(err, "model");
    for (int i = 0; i < text->n_cross; i++)
        VL_TRY(vl_cross_block_load(&mllama->blocks[i], loader, text->cross_attention_layers[i], err));
    return VL_OK;
}

static vl_status mllama_open(vl_model *model, vl_loader *loader, vl_error *err)
{
    VL_TRY(check_processor(model, err));
    vl_mllama *mllama = vl_calloc(1, sizeof *mllama);
    if (!mllama)
        return vl_fail_nomem(err, "model");
    model->parts = mllama;
    mllama->config = &model->config;
    VL_TRY(vl_mllama_prompt_open(mllama, model->path, model->tokenizer, err));
    VL_TRY(vl_mllama_vision_load(&mllama->vision, loader, err));
    /* The projector is one linear whose name is that of the part: "multi_modal_projector.weight". */
    vl_scope scope = vl_scope_make(loader, VL_HF_PROJECTOR, "%s", "");
    vl_hf_shape shape = vl_hf_shape2(model->config.text.hidden_size, model->config.mllama_vision.output_dim);
    VL_TRY(vl_load_matrix(&mllama->projector.weight, &scope, "weight", shape, err));
    VL_TRY(vl_load_vector(&mllama->projector.bias, &scope, "bias", shape.size[0], err));
    return load_blocks(mllama, loader, err);
}

static void mllama_close(vl_model *model)
{
    vl_mllama *mllama = model->parts;
    if (!mllama)
        return;
    vl_mllama_vision_free(&mllama->vision, model->device);
    vl_linear_free(model->device, &mllama->projector);
    for (int i = 0; mllama->blocks && i < mllama->config->text.n_cross; i++)
        vl_cross_block_free(&mllama->blocks[i], model->device);
    vl_free(mllama->blocks);
    vl_free(mllama);
    model->parts = NULL;
}

/* ---- prompts ----------------------------------------------------------------------------------------------- */

static vl_status mllama_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt, vl_error *err)
{
    return vl_mllama_wrap(out, model->parts, prompt, err);
}

static vl_status mllama_place(vl_sequence *sequence, const vl_model *model, vl_error *err)
{
    return vl_mllama_place(sequence, &model->config, err);
}

/* A picture as MllamaImageProcessor prepares it: all tiles, those that are not used as 0. */
static vl_status mllama_picture(struct vl_sequence_image *out, const vl_model *model, const vl_image *image,
                                vl_error *err)
{
    const vl_mllama_vision_config *vision = &model->config.mllama_vision;
    size_t side = (size_t)vision->image_size;
    vl_mllama_plan plan;
    out->pixels = vl_alloc((size_t)vision->max_tiles * 3, side * side * sizeof *out->pixels);
    if (!out->pixels)
        return vl_fail_nomem(err, "pixel values");
    VL_TRY(vl_preprocess_mllama(out->pixels, &plan, &model->preprocess, image, err));
    out->n_tiles = plan.tiles_high * plan.tiles_wide;
    out->aspect_ratio_id = plan.aspect_ratio_id;
    return VL_OK;
}

/* ---- forward ----------------------------------------------------------------------------------------------- */

static vl_status mllama_begin(const vl_model *model, vl_pass *pass, vl_error *err)
{
    vl_mllama_context *context;
    VL_TRY(vl_mllama_context_new(&context, model->parts, pass, err));
    pass->context = context;
    return VL_OK;
}

static void mllama_end(const vl_model *model, vl_pass *pass)
{
    (void)model;
    vl_mllama_context_free(pass->context);
    pass->context = NULL;
}

/* The image token is a row like any other: the table has rows for it behind those of the vocabulary. */
static vl_status mllama_embed(const vl_model *model, vl_pass *pass, vl_error *err)
{
    return vl_embed_sequences(model, pass, -1, err);
}

/* Which of the blocks of cross-attention a layer is; n_cross where it is none of them. */
static int cross_index(const vl_text_config *text, int layer)
{
    int index = 0;
    while (index < text->n_cross && text->cross_attention_layers[index] != layer)
        index++;
    return index;
}

static void mllama_expect(const vl_model *model, int layer)
{
    const vl_mllama *mllama = model->parts;
    int index = cross_index(&model->config.text, layer);
    if (index == model->config.text.n_cross)
        vl_llama_expect(&model->text, layer);
    else
        vl_cross_block_expect(&mllama->blocks[index]);
}

/* Without pictures a cross-attention block is skipped, and the next state repeats this one. The pictures are encoded
 * when the first block needs them: a forward that stops before it, or starts behind the last one, never does. */
static vl_status mllama_block(const vl_model *model, vl_pass *pass, int layer, vl_error *err)
{
    const vl_text_config *text = &model->config.text;
    vl_mllama_context *context = pass->context;
    int index = cross_index(text, layer);
    if (index == text->n_cross)
        return vl_llama_run_block(&model->text, pass, layer, err);
    if (!context)
        return VL_OK;
    if (!context->memory)
        VL_TRY(vl_mllama_look(model->parts, pass, err));
    return vl_cross_block_run(model->parts, pass, index, err);
}

const vl_family vl_family_mllama = {.open = mllama_open,
                                    .close = mllama_close,
                                    .wrap = mllama_wrap,
                                    .place = mllama_place,
                                    .picture = mllama_picture,
                                    .begin = mllama_begin,
                                    .end = mllama_end,
                                    .embed = mllama_embed,
                                    .expect = mllama_expect,
                                    .block = mllama_block};
