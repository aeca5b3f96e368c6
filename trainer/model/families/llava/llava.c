/* LLaVA 1.5: a CLIP tower, an MLP, and a decoder that reads picture rows among its tokens. Semantics:
 * transformers 4.46.3, src/transformers/models/llava/modeling_llava.py (get_image_features, LlavaMultiModalProjector),
 * processing_llava.py (the expansion of "<image>"), models/clip; defaults: configuration_llava.py,
 * configuration_clip.py. */
#include <string.h>

#include "trainer/model/family.h"

static const char IMAGE_TOKEN[] = "<image>";

/* ---- config ------------------------------------------------------------------------------------------------ */

/* LlavaProcessor's own copy of two facts. A contradiction would put the wrong number of image tokens in a prompt. */
static vl_status check_processor(const vl_vision_spec *vision, const vl_hf_reader *in)
{
    bool ours = vision->connector.keep_class_row, theirs = ours;
    int patch = vision->tower.patch_size;
    VL_TRY(vl_hf_key_int(&patch, in, "patch_size", 1, 1024));
    VL_TRY(vl_spec_feature_strategy(&theirs, in));
    if (patch != vision->tower.patch_size)
        return vl_fail(in->err, VL_EMISMATCH, "%s: \"patch_size\" is %d, config.json says %d", in->where, patch,
                       vision->tower.patch_size);
    if (theirs != ours)
        return vl_fail(in->err, VL_EMISMATCH,
                       "%s: \"vision_feature_select_strategy\" is \"%s\", config.json says \"%s\"", in->where,
                       theirs ? "full" : "default", ours ? "full" : "default");
    return VL_OK;
}

static vl_status check_image_processor(const vl_vision_spec *vision, const vl_preprocess *pp, const vl_hf_reader *in)
{
    int width = pp->do_center_crop ? pp->crop_width : pp->width;
    int height = pp->do_center_crop ? pp->crop_height : pp->height;
    bool fixed = pp->do_center_crop || pp->shortest_edge == 0;
    if (fixed && (width != vision->image_size || height != vision->image_size))
        return vl_fail(in->err, VL_EMISMATCH,
                       "%s: gives pixel values of 3 x %d x %d, the vision tower reads 3 x %d x %d", in->where, height,
                       width, vision->image_size, vision->image_size);
    return VL_OK;
}

static vl_status read_preprocess(vl_model_spec *out, const vl_hf_config *config, vl_error *err)
{
    static const char *const classes[] = {"CLIPImageProcessor",  "CLIPImageProcessorFast",  "CLIPFeatureExtractor",
                                          "LlavaImageProcessor", "LlavaImageProcessorFast", NULL};
    const vl_hf_reader in = vl_hf_config_reader(config, VL_HF_IMAGE_PROCESSOR, err);
    if (!in.object) /* needed by pictures only, but a directory without it is not whole */
        return vl_fail(err, VL_EIO, "%s: no such file", in.where);
    out->preprocess = vl_preprocess_clip_defaults;
    VL_TRY(vl_preprocess_check_class(&in, classes));
    VL_TRY(vl_preprocess_read_clip(&out->preprocess, &in));
    return check_image_processor(&out->vision, &out->preprocess, &in);
}

static vl_status read_vision(vl_model_spec *out, const vl_hf_reader *in)
{
    static const char *const types[] = {"clip_vision_model", NULL};
    vl_vision_spec *vision = &out->vision;
    vl_hf_section section;
    VL_TRY(vl_spec_section(&section, NULL, in, "vision_config", types));
    vision->path = VL_VISION_IN_STREAM;
    vision->tower = vl_clip_tower(!section.reader.object);
    VL_TRY(vl_spec_tower(&vision->tower, &section.reader));
    VL_TRY(vl_spec_feature_layer(&vision->tower, in, -2));
    vision->connector = (vl_connector_spec){
        .kind = VL_CONNECTOR_MLP, .act = VL_ACT_GELU, .bias = true, .names = {"linear_1", "linear_2"}};
    VL_TRY(vl_spec_feature_strategy(&vision->connector.keep_class_row, in));
    VL_TRY(vl_spec_activation(&vision->connector.act, in, "projector_hidden_act"));
    VL_TRY(vl_hf_key_bool(&vision->connector.bias, in, "multimodal_projector_bias")); /* a key since 4.49 */
    vision->image_token = 32000;
    VL_TRY(vl_spec_image_token(&vision->image_token, in));
    vision->image_size = vision->sample_side = vision->tower.image_size;
    vision->rows = vision->columns = vision->tower.grid;
    vision->max_tiles = 1;
    vision->pictures_at_once = 4;
    vision->rows_fixed = true;
    return VL_OK;
}

static vl_status describe(vl_model_spec *out, const vl_hf_config *config, vl_error *err)
{
    const vl_hf_reader in = vl_hf_config_reader(config, VL_HF_CONFIG, err);
    const vl_hf_reader processor = vl_hf_config_reader(config, VL_HF_PROCESSOR, err);
    int pad = -1;
    VL_TRY(vl_spec_text_section(&out->decoder, &in, "text_config", "llama"));
    VL_TRY(vl_spec_outer_tie(&out->decoder, &in));
    VL_TRY(vl_hf_key_int(&pad, &in, "pad_token_id", -1, VL_HF_MAX_ID));
    if (out->decoder.pad_id < 0)
        out->decoder.pad_id = pad;
    VL_TRY(read_vision(out, &in));
    VL_TRY(check_processor(&out->vision, &processor));
    return read_preprocess(out, config, err);
}

/* ---- pictures ---------------------------------------------------------------------------------------------- */

/* A row for each patch, behind the class row where that is kept. */
static vl_status measure(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height, vl_error *err)
{
    const vl_vision_spec *vision = &spec->vision;
    vl_box box;
    VL_TRY(vl_image_set_grids(out, 1, err));
    VL_TRY(vl_preprocess_clip_box(&box, &spec->preprocess, width, height, err));
    out->grids[0] = (vl_image_grid){
        .rows = vision->rows, .columns = vision->columns, .x0 = box.x0, .y0 = box.y0, .x1 = box.x1, .y1 = box.y1};
    out->n_tiles = 1;
    out->n_rows = vision->tower.n_patches + (vision->connector.keep_class_row ? 1 : 0);
    return VL_OK;
}

/* A picture as CLIPImageProcessor prepares it. */
static vl_status pixels(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image, vl_error *err)
{
    const vl_tower_spec *tower = &spec->vision.tower;
    vl_clip_plan plan;
    VL_TRY(vl_preprocess_clip_plan(&plan, &spec->preprocess, image->width, image->height, err));
    if (plan.width != tower->image_size || plan.height != tower->image_size)
        return vl_fail(err, VL_EMISMATCH,
                       "the image processor gives pixel values of 3 x %d x %d, the vision tower reads 3 x %d x %d",
                       plan.height, plan.width, tower->image_size, tower->image_size);
    VL_TRY(vl_image_set_pixels(out, 3 * (int64_t)plan.height * plan.width, err));
    VL_TRY(vl_image_set_seen(out, plan.width, plan.height, err));
    return vl_preprocess_clip(out->pixels, out->seen, &spec->preprocess, image, err);
}

/* ---- prompts ----------------------------------------------------------------------------------------------- */

static vl_status wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                      const struct vl_sequence_image *images, vl_error *err)
{
    (void)model;
    VL_TRY(vl_check_image_count(vl_count_token(prompt->text, IMAGE_TOKEN), prompt->n_images, err));
    vl_put_expanded(out, prompt->text, IMAGE_TOKEN, images);
    return VL_OK;
}

static vl_status place(vl_sequence *sequence, const vl_model_spec *spec, vl_error *err)
{
    return vl_place_rows(sequence, spec, spec->vision.connector.keep_class_row ? 1 : 0, err);
}

/* ---- the family -------------------------------------------------------------------------------------------- */

/* Before transformers 4.52; 4.52 to 4.57; since 5. */
/* Of the model card of llava-hf/llava-1.5-7b-hf, whose older revisions have no file for it. */
static const char CHAT_TEMPLATE[] =
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for item in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for item in message['content'] | selectattr('type', 'equalto', 'text') %}{{ item['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

const vl_family vl_family_llava = {
    .model_type = "llava",
    .chat_template = CHAT_TEMPLATE,
    .architecture = "LlavaForConditionalGeneration",
    .prefixes = {[VL_PART_TEXT] = {"language_model.model.", "model.language_model."},
                 [VL_PART_HEAD] = {"language_model.lm_head.", "lm_head."},
                 [VL_PART_VISION] = {"vision_tower.vision_model.", "model.vision_tower.vision_model.", "vision_tower.",
                                     "model.vision_tower."},
                 [VL_PART_CONNECTOR] = {"multi_modal_projector.", "model.multi_modal_projector."}},
    .describe = describe,
    .measure = measure,
    .pixels = pixels,
    .wrap = wrap,
    .place = place};
