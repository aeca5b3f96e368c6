/* families/qwen_vl - Qwen2-VL, Qwen2.5-VL and Qwen3-VL.
 *
 * Semantics: transformers 5.24.0, models/qwen2_vl, models/qwen2_5_vl and models/qwen3_vl: configuration, modeling,
 * processing and image_processing files. */
#ifndef VL_FAMILIES_QWEN_VL_H
#define VL_FAMILIES_QWEN_VL_H

#include "trainer/hf/processor.h"
#include "trainer/model/families/qwen_vl/tower.h"
#include "trainer/model/picture.h"

/* vl_model_spec.own */
typedef struct vl_qwen_own {
    vl_processor processor;
    vl_patchify patchify;
    int min_pixels, max_pixels; /* of the resized picture */
    vl_qwen_tower_spec tower;
} vl_qwen_own;

/* ---- text.c ---- */

vl_status vl_qwen_read_text(vl_decoder_spec *out, const vl_hf_reader *in, vl_qwen_kind kind);

/* ---- pictures.c ---- */

vl_status vl_qwen_read_pictures(vl_qwen_own *out, const vl_hf_reader *in);
vl_status vl_qwen_measure(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height,
                          vl_error *err);
vl_status vl_qwen_pixels(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image,
                         vl_error *err);
vl_status vl_qwen_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                       const struct vl_sequence_image *images, vl_error *err);
/* Rows, and positions in three axes. */
vl_status vl_qwen_place(vl_sequence *sequence, const vl_model_spec *spec, vl_error *err);

#endif
