/* families/gemma3 - Gemma 3 with pictures; its decoder is families/gemma3_text.
 *
 * Semantics: transformers 5.24.0, models/gemma3 (configuration, modeling, processing and image_processing files). */
#ifndef VL_FAMILIES_GEMMA3_H
#define VL_FAMILIES_GEMMA3_H

#include "trainer/hf/processor.h"
#include "trainer/image/sizes.h"
#include "trainer/model/picture.h"

/* vl_model_spec.own */
typedef struct vl_gemma3_own {
    vl_processor processor;
    int per_side; /* pooled rows of the decoder on a side of a picture */
    bool crops;   /* pan and scan */
    vl_pan_and_scan pan_and_scan;
} vl_gemma3_own;

/* ---- pictures.c ---- */

/* The tower is in *spec already; rows: that a picture becomes. */
vl_status vl_gemma3_read_pictures(vl_gemma3_own *out, const vl_model_spec *spec, const vl_hf_reader *image,
                                  const vl_hf_reader *processor, int rows);
vl_status vl_gemma3_measure(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height,
                            vl_error *err);
vl_status vl_gemma3_pixels(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image,
                           vl_error *err);
vl_status vl_gemma3_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                         const struct vl_sequence_image *images, vl_error *err);

#endif
