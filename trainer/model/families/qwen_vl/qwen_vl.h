/* families/qwen_vl - Qwen2-VL, Qwen2.5-VL and Qwen3-VL.
 *
 * Semantics: transformers 5.24.0, models/qwen2_vl (image_processing_qwen2_vl.py, processing_qwen2_vl.py), and
 * models/qwen2_5_vl and models/qwen3_vl where they differ. */
#ifndef VL_FAMILIES_QWEN_VL_H
#define VL_FAMILIES_QWEN_VL_H

#include "trainer/hf/processor.h"
#include "trainer/model/picture.h"

typedef struct vl_qwen_pictures {
    vl_processor processor;
    vl_patchify patchify;
    int64_t min_pixels, max_pixels; /* of the resized picture */
} vl_qwen_pictures;

/* Errors: of vl_processor_open. Closed with vl_processor_close, also after a failure. */
vl_status vl_qwen_pictures_read(vl_qwen_pictures *out, const char *directory, vl_error *err);
extern const vl_picture_rules vl_qwen_rules; /* settings: vl_qwen_pictures */

#endif
