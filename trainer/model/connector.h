/* model/connector.h - what stands between a tower and the decoder, as its vl_connector_spec says. */
#ifndef VL_MODEL_CONNECTOR_H
#define VL_MODEL_CONNECTOR_H

#include "trainer/model/vision_spec.h"
#include "trainer/model/weights.h"

typedef struct vl_connector {
    const vl_connector_spec *spec; /* borrowed */
    vl_linear linear[2];           /* [D, C]; of an MLP then [D, D] */
} vl_connector;

/* Freed with vl_connector_free, also after a failure. */
vl_status vl_connector_load(vl_connector *out, vl_loader *loader, vl_error *err);
void vl_connector_free(vl_connector *connector, vl_device *device);
/* out [R, D] of the tower's rows x [R, C]; `middle` [R, D] is scratch. */
vl_status vl_connector_forward(const vl_connector *connector, vl_device *device, vl_tensor out, vl_tensor middle,
                               vl_tensor x, vl_error *err);

#endif
