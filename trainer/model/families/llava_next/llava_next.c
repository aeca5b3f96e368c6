/* families/llava_next - LLaVA-NeXT (1.6): a CLIP tower, an MLP, and pictures in tiles.
 *
 * Semantics: transformers 5.24.0, models/llava_next (configuration and modeling files). The number of rows is computed
 * from the tiles: old processor_config.json files lack num_additional_image_tokens, and later versions of transformers
 * then count one too few. */
#include "trainer/base/mem.h"
#include "trainer/model/anyres.h"

static vl_status read_vision(vl_vision_spec *vision, const vl_hf_reader *in)
{
    static const char *const types[] = {"clip_vision_model", NULL};
    vl_hf_section section;
    vision->path = VL_VISION_IN_STREAM;
    VL_TRY(vl_spec_section(&section, NULL, in, "vision_config", types));
    vision->tower = vl_clip_tower(!section.reader.object);
    VL_TRY(vl_spec_tower(&vision->tower, &section.reader));
    VL_TRY(vl_spec_feature_layer(&vision->tower, in, -2));
    vision->connector = (vl_connector_spec){
        .kind = VL_CONNECTOR_MLP, .act = VL_ACT_GELU, .bias = true, .names = {"linear_1", "linear_2"}};
    VL_TRY(vl_spec_feature_strategy(&vision->connector.keep_class_row, in));
    if (vision->connector.keep_class_row)
        return vl_fail(in->err, VL_EUNSUPPORTED,
                       "%s: \"vision_feature_select_strategy\" is \"full\"; supported: default, for a map of patches "
                       "has no place for the class row",
                       in->where);
    VL_TRY(vl_spec_activation(&vision->connector.act, in, "projector_hidden_act"));
    VL_TRY(vl_hf_key_bool(&vision->connector.bias, in, "multimodal_projector_bias"));
    vision->newline = "image_newline";
    vision->image_token = 32000;
    VL_TRY(vl_spec_image_token(&vision->image_token, in));
    vision->image_size = vision->sample_side = vision->tower.image_size;
    vision->pictures_at_once = 1;
    return VL_OK;
}

static vl_status describe(vl_model_spec *out, const vl_hf_config *config, vl_error *err)
{
    const vl_hf_reader in = vl_hf_config_reader(config, VL_HF_CONFIG, err);
    const vl_hf_reader image = vl_hf_config_reader(config, VL_HF_IMAGE_PROCESSOR, err);
    const vl_processor defaults = {
        .resample = VL_RESAMPLE_BICUBIC, .shortest_edge = 224, .normalise = vl_normalise_clip};
    VL_TRY(vl_spec_text_section(&out->decoder, &in, "text_config", "llama"));
    VL_TRY(vl_spec_outer_tie(&out->decoder, &in));
    VL_TRY(read_vision(&out->vision, &in));
    vl_anyres *own = out->own = vl_calloc(1, sizeof *own);
    if (!own)
        return vl_fail_nomem(err, "model");
    VL_TRY(vl_anyres_read(own, out, &defaults, &image));
    out->vision.max_tiles = vl_anyres_most_tiles(own);
    out->preprocess.alpha = VL_ALPHA_ON_WHITE;
    return VL_OK;
}

const vl_family vl_family_llava_next = {
    .model_type = "llava_next",
    .architecture = "LlavaNextForConditionalGeneration",
    .rules = "1 transformers-5.24 pixels=torchvision",
    .prefixes = {[VL_PART_TEXT] = {"language_model.model.", "model.language_model."},
                 [VL_PART_HEAD] = {"language_model.lm_head.", "lm_head."},
                 [VL_PART_VISION] = {"vision_tower.vision_model.", "model.vision_tower.vision_model.", "vision_tower.",
                                     "model.vision_tower."},
                 [VL_PART_CONNECTOR] = {"multi_modal_projector.", "model.multi_modal_projector."},
                 [VL_PART_TOP] = {"", "model."}},
    .describe = describe,
    .measure = vl_anyres_measure,
    .pixels = vl_anyres_pixels,
    .wrap = vl_anyres_wrap,
    .place = vl_anyres_place,
    .pack = vl_anyres_pack};
