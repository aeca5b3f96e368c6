/* model/encode.h - prompts and pictures into sequences, beside the public vl_model_encode. */
#ifndef VL_MODEL_ENCODE_H
#define VL_MODEL_ENCODE_H

#include <vlens/model.h>

#include "trainer/model/spec.h"

/* What vl_model_encode makes of a prompt, but without pixel values: for counting. A picture is opened only where its
 * size decides how many rows it becomes. The caller frees *out with vl_sequence_free. Errors: those of vl_model_encode.
 */
vl_status vl_model_outline(vl_sequence **out, const vl_model *model, const vl_prompt *prompt, vl_error *err);

typedef struct vl_picture_options {
    bool ignore_exif, only_measure;
    bool alone;         /* the only picture of its prompt */
    int64_t max_pixels; /* 0: VL_PROMPT_MAX_PIXELS */
} vl_picture_options;

/* Opens, measures and (unless only_measure) prepares one picture; needs no weights. *out is zero and is released by
 * vl_image_release (family.h), also after a failure. Errors: those of vl_image_open and of the family, with the path.
 */
vl_status vl_picture_open(struct vl_sequence_image *out, const vl_model_spec *spec, const char *path,
                          const vl_picture_options *how, vl_error *err);

#endif
