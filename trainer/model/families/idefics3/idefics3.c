#include "trainer/model/families/idefics3/idefics3.h"

#include "trainer/base/mem.h"

/* Idefics3VisionConfig's defaults; the blocks are SigLIP's. */
static vl_status read_tower(vl_tower_spec *out, const vl_hf_reader *in)
{
    static const char *const types[] = {"idefics3_vision", "smolvlm_vision", "idefics3", "smolvlm", NULL};
    vl_hf_section section;
    VL_TRY(vl_spec_section(&section, NULL, in, "vision_config", types));
    *out = vl_siglip_tower();
    out->hidden_size = 1152;
    out->intermediate_size = 3072;
    out->n_layers = 12;
    out->n_heads = 16;
    out->image_size = 224;
    out->patch_size = 32;
    VL_TRY(vl_spec_tower(out, &section.reader));
    out->state = out->n_layers;
    out->post_norm = true;
    return VL_OK;
}

static vl_status read_vision(vl_vision_spec *vision, const vl_hf_reader *in)
{
    int shuffle = 2;
    vision->path = VL_VISION_IN_STREAM;
    VL_TRY(read_tower(&vision->tower, in));
    VL_TRY(vl_hf_key_int(&shuffle, in, "scale_factor", 1, 64));
    if (vision->tower.grid % shuffle != 0)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"scale_factor\" is %d, a tile has %d patches along a side", in->where,
                       shuffle, vision->tower.grid);
    vision->connector =
        (vl_connector_spec){.kind = VL_CONNECTOR_LINEAR, .shuffle = shuffle, .names = {"modality_projection.proj"}};
    vision->image_token = 128257;
    VL_TRY(vl_spec_image_token(&vision->image_token, in));
    vision->image_size = vision->sample_side = vision->tower.image_size;
    vision->rows = vision->columns = vision->tower.grid / shuffle;
    vision->pictures_at_once = 1;
    return VL_OK;
}

static vl_status describe(vl_model_spec *out, const vl_hf_config *config, vl_error *err)
{
    const vl_hf_reader in = vl_hf_config_reader(config, VL_HF_CONFIG, err);
    const vl_hf_reader image = vl_hf_config_reader(config, VL_HF_IMAGE_PROCESSOR, err);
    const vl_hf_reader processor = vl_hf_config_reader(config, VL_HF_PROCESSOR, err);
    vl_hf_section text;
    VL_TRY(vl_spec_text_section(&out->decoder, &in, "text_config", "llama"));
    VL_TRY(vl_hf_section_open(&text, &in, "text_config"));
    if (!vl_hf_key_has(&text.reader, "rms_norm_eps")) /* the default here, not LLaMA's 1e-6 */
        out->decoder.norm_eps = 1e-5;
    VL_TRY(vl_spec_outer_tie(&out->decoder, &in));
    VL_TRY(read_vision(&out->vision, &in));
    vl_idefics3_own *own = out->own = vl_calloc(1, sizeof *own);
    if (!own)
        return vl_fail_nomem(err, "model");
    VL_TRY(vl_idefics3_read_pictures(own, out, &image, &processor));
    /* Both resizes round up to whole tiles; the shorter side never has more of them than the longer. */
    const int along = (own->processor.longest_edge + own->tile - 1) / own->tile;
    out->vision.max_tiles = along * along + 1;
    out->preprocess.alpha = VL_ALPHA_ON_WHITE;
    return VL_OK;
}

static vl_status place(vl_sequence *sequence, const vl_model_spec *spec, vl_error *err)
{
    return vl_place_rows(sequence, spec, 0, err);
}

#define FAMILY(type, class)                                                                                            \
    {                                                                                                                  \
        .model_type = type, .architecture = class,                                                                     \
        .rules = "1 transformers-5.24 pixels=torchvision vision-positions=identity",                                   \
        .prefixes = {[VL_PART_TEXT] = {"model.text_model."},                                                           \
                     [VL_PART_HEAD] = {"lm_head."},                                                                    \
                     [VL_PART_VISION] = {"model.vision_model."},                                                       \
                     [VL_PART_CONNECTOR] = {"model.connector."}},                                                      \
        .describe = describe, .measure = vl_idefics3_measure, .pixels = vl_idefics3_pixels, .wrap = vl_idefics3_wrap,  \
        .place = place                                                                                                 \
    }

const vl_family vl_family_idefics3 = FAMILY("idefics3", "Idefics3ForConditionalGeneration");
const vl_family vl_family_smolvlm = FAMILY("smolvlm", "SmolVLMForConditionalGeneration");
