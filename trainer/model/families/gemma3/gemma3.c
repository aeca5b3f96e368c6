#include "trainer/model/families/gemma3/gemma3.h"

#include <math.h>

#include "trainer/base/mem.h"

static vl_status read_tower(vl_tower_spec *out, const vl_hf_reader *in)
{
    static const char *const types[] = {"siglip_vision_model", NULL};
    vl_hf_section section;
    VL_TRY(vl_spec_section(&section, NULL, in, "vision_config", types));
    *out = vl_siglip_tower();
    VL_TRY(vl_spec_tower(out, &section.reader));
    out->state = out->n_layers;
    out->post_norm = true;
    return VL_OK;
}

static vl_status read_vision(vl_vision_spec *vision, int *rows, const vl_hf_reader *in)
{
    vision->path = VL_VISION_IN_STREAM;
    *rows = 256;
    VL_TRY(read_tower(&vision->tower, in));
    VL_TRY(vl_hf_key_int(rows, in, "mm_tokens_per_image", 1, VL_HF_MAX_SIZE));
    const int side = (int)(sqrt(*rows) + 0.5);
    if (side * side != *rows || side > vision->tower.grid)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"mm_tokens_per_image\" is %d, expected a square of at most %d x %d",
                       in->where, *rows, vision->tower.grid, vision->tower.grid);
    vision->connector = (vl_connector_spec){.kind = VL_CONNECTOR_LINEAR,
                                            .pool = vision->tower.grid / side,
                                            .norm_form = VL_FORM_RMS_ONE_PLUS,
                                            .norm_eps = vision->tower.norm_eps,
                                            .norm = "mm_soft_emb_norm",
                                            .bare = true,
                                            .names = {"mm_input_projection_weight"}};
    vision->image_token = 262144;
    VL_TRY(vl_spec_image_token(&vision->image_token, in));
    vision->image_size = vision->sample_side = vision->tower.image_size;
    vision->rows = vision->columns = side;
    vision->pictures_at_once = 4;
    return VL_OK;
}

static vl_status describe(vl_model_spec *out, const vl_hf_config *config, vl_error *err)
{
    const vl_hf_reader in = vl_hf_config_reader(config, VL_HF_CONFIG, err);
    const vl_hf_reader image = vl_hf_config_reader(config, VL_HF_IMAGE_PROCESSOR, err);
    const vl_hf_reader processor = vl_hf_config_reader(config, VL_HF_PROCESSOR, err);
    int rows;
    VL_TRY(vl_spec_text_section(&out->decoder, &in, "text_config", "gemma3_text"));
    VL_TRY(vl_spec_outer_tie(&out->decoder, &in));
    /* Gemma3ForConditionalGeneration applies neither cap, whatever the config says. */
    out->decoder.logit_softcap = out->decoder.attention_softcap = 0;
    out->decoder.pictures_see_themselves = true;
    VL_TRY(read_vision(&out->vision, &rows, &in));
    vl_gemma3_own *own = out->own = vl_calloc(1, sizeof *own);
    if (!own)
        return vl_fail_nomem(err, "model");
    VL_TRY(vl_gemma3_read_pictures(own, out, &image, &processor, rows));
    out->vision.max_tiles = own->crops ? 1 + own->pan_and_scan.max_num_crops : 1;
    out->vision.rows_fixed = !own->crops;
    out->preprocess.alpha = VL_ALPHA_ON_WHITE;
    return VL_OK;
}

static vl_status place(vl_sequence *sequence, const vl_model_spec *spec, vl_error *err)
{
    return vl_place_rows(sequence, spec, 0, err);
}

const vl_family vl_family_gemma3 = {
    .model_type = "gemma3",
    .architecture = "Gemma3ForConditionalGeneration",
    .rules = "1 transformers-5.24 pixels=torchvision pictures=see-themselves",
    .prefixes = {[VL_PART_TEXT] = {"language_model.model.", "model.language_model."},
                 [VL_PART_HEAD] = {"language_model.lm_head.", "lm_head."},
                 [VL_PART_VISION] = {"vision_tower.vision_model.", "model.vision_tower.vision_model.", "vision_tower.",
                                     "model.vision_tower."},
                 [VL_PART_CONNECTOR] = {"multi_modal_projector.", "model.multi_modal_projector."}},
    .describe = describe,
    .measure = vl_gemma3_measure,
    .pixels = vl_gemma3_pixels,
    .wrap = vl_gemma3_wrap,
    .place = place};
