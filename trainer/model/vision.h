/* model/vision.h - pictures of a pass into rows of the decoder's width, and to where the decoder reads them. */
#ifndef VL_MODEL_VISION_H
#define VL_MODEL_VISION_H

#include "trainer/model/connector.h"
#include "trainer/model/pass.h"
#include "trainer/model/tower.h"

/* Tower and connector as the vl_vision_spec says: what a family without `encode` runs through. */
typedef struct vl_vision {
    const vl_vision_spec *spec; /* borrowed */
    vl_tower tower;
    vl_connector connector;
    vl_tensor newline; /* [D], or NULL */
} vl_vision;

struct vl_model;
struct vl_encode_args;

vl_status vl_vision_new(vl_vision **out, vl_loader *loader, vl_error *err);
void vl_vision_free(vl_vision *vision, vl_device *device);

/* State 0 of all rows of the pass: tokens, and the pictures' rows where those are in the stream. Errors: VL_EINVAL
 * where a sequence has not as many rows for a picture as that becomes. */
vl_status vl_model_embed(const struct vl_model *model, vl_pass *pass, vl_error *err);
/* x = x + what the pictures add behind block `layer` (DeepStack); nothing where they add nothing. */
vl_status vl_model_add_deep(const struct vl_model *model, vl_pass *pass, int layer, vl_error *err);
/* Encodes all pictures of the pass into the context that cross blocks read. */
vl_status vl_model_encode_for_cross(const struct vl_model *model, vl_pass *pass, vl_error *err);

#endif
