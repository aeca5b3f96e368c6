/* families/gemma3 - Gemma 3 with pictures.
 *
 * Semantics: transformers 5.24.0, models/gemma3 (image_processing_gemma3.py, processing_gemma3.py). */
#ifndef VL_FAMILIES_GEMMA3_H
#define VL_FAMILIES_GEMMA3_H

#include "trainer/hf/processor.h"
#include "trainer/image/sizes.h"
#include "trainer/model/picture.h"

typedef struct vl_gemma3_pictures {
    vl_processor processor;
    int per_side; /* pooled rows of the decoder on a side of a picture */
    double seen;  /* part of a side that the pooled patches cover */
    bool crops;   /* pan and scan */
    vl_pan_and_scan pan_and_scan;
} vl_gemma3_pictures;

/* Of config.json: vision_config.image_size and patch_size, and mm_tokens_per_image. */
typedef struct vl_gemma3_shape {
    int image_size, patch_size, tokens;
} vl_gemma3_shape;

/* Errors: of vl_processor_open; VL_EMISMATCH where the files contradict the tower. Closed with vl_processor_close, also
 * after a failure. */
vl_status vl_gemma3_pictures_read(vl_gemma3_pictures *out, const char *directory, vl_gemma3_shape shape, vl_error *err);
extern const vl_picture_rules vl_gemma3_rules; /* settings: vl_gemma3_pictures */

#endif
