#include "trainer/model/connector.h"

vl_status vl_connector_load(vl_connector *out, vl_loader *loader, vl_error *err)
{
    const vl_vision_spec *vision = &loader->spec->vision;
    const vl_connector_spec *spec = &vision->connector;
    int64_t c = vision->tower.hidden_size, d = loader->spec->decoder.hidden_size;
    *out = (vl_connector){.spec = spec};
    vl_scope scope = vl_scope_make(loader, VL_PART_CONNECTOR, "%s", "");
    VL_TRY(vl_load_linear(&out->linear[0], &scope, spec->names[0], vl_shape2(d, c), spec->bias, err));
    if (spec->kind == VL_CONNECTOR_LINEAR)
        return VL_OK;
    return vl_load_linear(&out->linear[1], &scope, spec->names[1], vl_shape2(d, d), spec->bias, err);
}

void vl_connector_free(vl_connector *connector, vl_device *device)
{
    vl_linear_free(device, &connector->linear[0]);
    vl_linear_free(device, &connector->linear[1]);
}

vl_status vl_connector_forward(const vl_connector *connector, vl_device *device, vl_tensor out, vl_tensor middle,
                               vl_tensor x, vl_error *err)
{
    if (connector->spec->kind == VL_CONNECTOR_LINEAR)
        return vl_linear_apply(device, &connector->linear[0], out, x, err);
    VL_TRY(vl_linear_apply(device, &connector->linear[0], middle, x, err));
    vl_activation_args act = {.out = middle, .x = middle, .kind = connector->spec->act};
    VL_TRY(vl_op_activation(device, &act, err));
    return vl_linear_apply(device, &connector->linear[1], out, middle, err);
}
