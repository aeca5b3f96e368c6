/* families/llava_onevision - LLaVA-OneVision: a SigLIP tower read before its last norm, an MLP, and pictures in tiles
 * whose map is pooled where it becomes large.
 *
 * Semantics: transformers 5.24.0, models/llava_onevision (configuration, modeling and processing files). */
#include <stdio.h>

#include "trainer/base/mem.h"
#include "trainer/model/anyres.h"

static vl_status read_vision(vl_vision_spec *vision, const vl_hf_reader *in)
{
    static const char *const types[] = {"siglip_vision_model", NULL};
    vl_hf_section section;
    vision->path = VL_VISION_IN_STREAM;
    VL_TRY(vl_spec_section(&section, NULL, in, "vision_config", types));
    vision->tower = vl_siglip_tower();
    VL_TRY(vl_spec_tower(&vision->tower, &section.reader));
    VL_TRY(vl_spec_feature_layer(&vision->tower, in, -1));
    vision->connector = (vl_connector_spec){
        .kind = VL_CONNECTOR_MLP, .act = VL_ACT_GELU, .bias = true, .names = {"linear_1", "linear_2"}};
    VL_TRY(vl_spec_activation(&vision->connector.act, in, "projector_hidden_act"));
    VL_TRY(vl_hf_key_bool(&vision->connector.bias, in, "multimodal_projector_bias"));
    vision->newline = "image_newline";
    vision->image_token = 151646;
    VL_TRY(vl_spec_image_token(&vision->image_token, in));
    vision->image_size = vision->sample_side = vision->tower.image_size;
    vision->pictures_at_once = 1;
    return VL_OK;
}

/* "anyres_max_9": both config.json and processor_config.json carry it, and the processor counts by its own. */
static vl_status read_ratio(int *max_tiles, const vl_hf_reader *in)
{
    const char *ratio = "anyres_max_9";
    int found = 9;
    char after;
    VL_TRY(vl_hf_key_string(&ratio, in, "vision_aspect_ratio"));
    if (sscanf(ratio, "anyres_max_%d%c", &found, &after) != 1 || found < 1 || found > 1024)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"vision_aspect_ratio\" is \"%s\"; supported: anyres_max_N",
                       in->where, ratio);
    *max_tiles = found;
    return VL_OK;
}

static vl_status describe(vl_model_spec *out, const vl_hf_config *config, vl_error *err)
{
    const vl_hf_reader in = vl_hf_config_reader(config, VL_HF_CONFIG, err);
    const vl_hf_reader image = vl_hf_config_reader(config, VL_HF_IMAGE_PROCESSOR, err);
    const vl_hf_reader processor = vl_hf_config_reader(config, VL_HF_PROCESSOR, err);
    const vl_processor defaults = {.resample = VL_RESAMPLE_BICUBIC, .size = {384, 384}, .normalise = vl_normalise_clip};
    int of_model;
    VL_TRY(vl_spec_text_section(&out->decoder, &in, "text_config", "qwen2"));
    VL_TRY(vl_spec_outer_tie(&out->decoder, &in));
    VL_TRY(read_vision(&out->vision, &in));
    vl_anyres *own = out->own = vl_calloc(1, sizeof *own);
    if (!own)
        return vl_fail_nomem(err, "model");
    own->one_tile_each = true;
    VL_TRY(vl_anyres_read(own, out, &defaults, &image));
    VL_TRY(read_ratio(&own->max_tiles, &processor));
    VL_TRY(read_ratio(&of_model, &in));
    if (of_model != own->max_tiles)
        return vl_fail(err, VL_EMISMATCH, "%s: \"vision_aspect_ratio\" is anyres_max_%d, %s says anyres_max_%d",
                       in.where, of_model, processor.where, own->max_tiles);
    out->vision.max_tiles = vl_anyres_most_tiles(own);
    out->preprocess.alpha = VL_ALPHA_ON_WHITE;
    return VL_OK;
}

const vl_family vl_family_llava_onevision = {
    .model_type = "llava_onevision",
    .architecture = "LlavaOnevisionForConditionalGeneration",
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
