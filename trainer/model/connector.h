/* model/connector.h - what stands between a tower and the decoder, as its vl_connector_spec says.
 *
 * Semantics: transformers 5.24.0, the projectors of models/llava, idefics3 (pixel_shuffle), internvl (pixel_shuffle)
 * and gemma3 (Gemma3MultiModalProjector). Letters: N rows of a tile in the tower, n rows that it becomes, C width of
 * the tower, W width of what the first product reads, D width of the decoder. */
#ifndef VL_MODEL_CONNECTOR_H
#define VL_MODEL_CONNECTOR_H

#include "trainer/model/vision_spec.h"
#include "trainer/model/weights.h"

typedef struct vl_connector {
    const vl_vision_spec *spec; /* borrowed */
    vl_norm norm;               /* [W] or none */
    vl_linear linear[2];        /* [D, W]; of an MLP then [D, D] */
    int64_t n_rows;             /* n */
    vl_tensor rows, weights; /* [P, taps] where rows of a tile are joined or pooled; NULL data: they stay as they are */
} vl_connector;

/* Freed with vl_connector_free, also after a failure. */
vl_status vl_connector_load(vl_connector *out, vl_loader *loader, vl_error *err);
void vl_connector_free(vl_connector *connector, vl_device *device);
/* out [n_tiles * n, D] of the tower's rows x [n_tiles * N, C]. */
vl_status vl_connector_forward(const vl_connector *connector, vl_device *device, vl_tensor out, vl_tensor x,
                               vl_error *err);

#endif
