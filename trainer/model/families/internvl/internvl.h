/* families/internvl - InternVL 2.5 and 3 in the layout of transformers ("-hf").
 *
 * Semantics: transformers 5.24.0, models/internvl and models/got_ocr2 (the image processor). */
#ifndef VL_FAMILIES_INTERNVL_H
#define VL_FAMILIES_INTERNVL_H

#include "trainer/hf/processor.h"
#include "trainer/model/picture.h"

/* vl_model_spec.own */
typedef struct vl_internvl_own {
    vl_processor processor;
    int per_side; /* rows of the decoder on a side of a tile */
    int min_tiles, max_tiles;
} vl_internvl_own;

/* ---- pictures.c ---- */

/* The tower and the connector are in *spec already. */
vl_status vl_internvl_read_pictures(vl_internvl_own *out, const vl_model_spec *spec, const vl_hf_reader *image,
                                    const vl_hf_reader *processor);
vl_status vl_internvl_measure(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height,
                              vl_error *err);
vl_status vl_internvl_pixels(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image,
                             vl_error *err);
vl_status vl_internvl_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                           const struct vl_sequence_image *images, vl_error *err);

#endif
