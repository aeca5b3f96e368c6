/* Mllama (Llama 3.2 Vision): a decoder some of whose blocks attend to the picture instead of to the text
 * (model/cross.h), and a vision encoder of its own. No row of the residual stream is a patch.
 *
 * Semantics: transformers 4.46.3, src/transformers/models/mllama (modeling_mllama.py, configuration_mllama.py,
 * image_processing_mllama.py, processing_mllama.py). Letters as in kernels/ops.h and vision.h. */
#ifndef VL_MODEL_FAMILIES_MLLAMA_H
#define VL_MODEL_FAMILIES_MLLAMA_H

#include "trainer/model/families/mllama/vision.h"
#include "trainer/model/family.h"

typedef struct vl_mllama {
    vl_mllama_vision vision;
    vl_linear projector; /* [D, O], with bias */
    const char *bos;     /* how the token is spelled; of the tokenizer */
} vl_mllama;

/* vl_family.describe. (config.c) */
vl_status vl_mllama_describe(vl_model_spec *out, const vl_hf_config *config, vl_error *err);
/* The family's own part of a spec. */
static inline const vl_mllama_vision_config *vl_mllama_config(const vl_model_spec *spec)
{
    return spec->own;
}

/* ---- prompts (prompt.c) ---- */

/* Finds bos. Errors: VL_EMISMATCH, VL_EFORMAT (a tokenizer without the tokens that prompts need). */
vl_status vl_mllama_prompt_open(vl_mllama *mllama, const vl_model *model, vl_error *err);
/* vl_family.wrap and .place. */
vl_status vl_mllama_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                         const struct vl_sequence_image *images, vl_error *err);
vl_status vl_mllama_place(vl_sequence *sequence, const vl_model_spec *spec, vl_error *err);

/* ---- pictures (pixels.c): fit into a canvas of tiles, pad, normalise, split ---- */

typedef struct vl_mllama_plan {
    int tile;                   /* side of a tile in pixels */
    int tiles_high, tiles_wide; /* of the canvas; the first tiles_high * tiles_wide of the mask are 1, row by row */
    int aspect_ratio_id;        /* from 1 (0 is the model's padding picture) */
    int resized_width, resized_height; /* of the picture, at the left and top of the canvas */
} vl_mllama_plan;

vl_status vl_mllama_read_preprocess(vl_preprocess *out, const vl_hf_reader *in);
/* What becomes of a picture of that size. */
vl_mllama_plan vl_mllama_make_plan(const vl_preprocess *pp, int width, int height);
/* out: [max_image_tiles, 3, tile, tile]; tiles that are not used are 0. bytes (may be NULL): the resized picture,
 * [resized_height, resized_width, 3]. Errors: VL_ENOMEM, VL_EUNSUPPORTED (the filter). */
vl_status vl_mllama_pixels(float *out, uint8_t *bytes, const vl_preprocess *pp, const vl_image *image, vl_error *err);
/* The part of a picture of that size that tile number `tile` (row by row) shows. */
vl_box vl_mllama_box(const vl_mllama_plan *plan, int tile, int width, int height);

#endif
