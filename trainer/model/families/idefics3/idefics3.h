/* families/idefics3 - Idefics3 and SmolVLM: the same model under two names.
 *
 * Semantics: transformers 5.24.0, models/idefics3 and models/smolvlm (configuration, modeling, processing and
 * image_processing files). */
#ifndef VL_FAMILIES_IDEFICS3_H
#define VL_FAMILIES_IDEFICS3_H

#include "trainer/hf/processor.h"
#include "trainer/model/picture.h"

/* vl_model_spec.own */
typedef struct vl_idefics3_own {
    vl_processor processor;
    int tile;     /* T: pixels of a side of a tile */
    int per_side; /* rows of the decoder on a side of a tile */
    bool splitting;
} vl_idefics3_own;

/* ---- pictures.c ---- */

/* The tower and the connector are in *spec already. */
vl_status vl_idefics3_read_pictures(vl_idefics3_own *out, const vl_model_spec *spec, const vl_hf_reader *image,
                                    const vl_hf_reader *processor);
vl_status vl_idefics3_measure(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height,
                              vl_error *err);
vl_status vl_idefics3_pixels(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image,
                             vl_error *err);
vl_status vl_idefics3_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                           const struct vl_sequence_image *images, vl_error *err);

#endif
