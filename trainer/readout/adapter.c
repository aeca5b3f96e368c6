#include "trainer/readout/adapter.h"

#include "trainer/base/mem.h"
#include "trainer/base/status.h"

bool vl_adapter_in_bf16(vl_precision precision, const vl_head *head, bool makes_gradient)
{
    return precision == VL_PRECISION_FAST || (precision == VL_PRECISION_AUTO && makes_gradient &&
                                              vl_matrix_is_narrow(vl_head_device(head), vl_head_matrix(head)));
}

vl_status vl_adapter_apply(vl_tensor *out, vl_device *device, vl_tensor u, vl_tensor h, const vl_adapter *adapter,
                           bool bf16, vl_error *err)
{
    *out = adapter->bias.data ? u : h;
    if (!adapter->bias.data)
        return VL_OK;
    vl_tensor bias = vl_tensor_2d(adapter->bias.data, VL_F32, 1, h.shape[1]);
    VL_TRY(vl_op_add(device, &(vl_add_args){.out = u, .x = h, .y = bias, .scale = 1.0f}, err));
    if (!adapter->weight.data)
        return VL_OK;
    return vl_op_gemm(
        device,
        &(vl_gemm_args){
            .out = u, .a = h, .b = adapter->weight, .transpose_b = true, .alpha = 1.0f, .beta = 1.0f, .fast = bf16},
        err);
}

/* ---- a lens on a device ------------------------------------------------------------------------------------ */

struct vl_device_lens {
    const vl_lens *lens;
    vl_device *device;
    vl_adapter *adapters; /* [n_layers] */
};

vl_status vl_device_lens_new(vl_device_lens **out, const vl_lens *lens, vl_device *device, vl_error *err)
{
    *out = NULL;
    vl_device_lens *l = vl_calloc(1, sizeof *l);
    if (l)
        *l = (vl_device_lens){lens, device, vl_calloc((size_t)vl_lens_get_info(lens)->n_layers, sizeof *l->adapters)};
    if (!l || !l->adapters) {
        vl_free(l);
        return vl_fail_nomem(err, vl_lens_get_info(lens)->path);
    }
    *out = l;
    return VL_OK;
}

void vl_device_lens_free(vl_device_lens *l)
{
    if (!l)
        return;
    for (int64_t i = 0; i < vl_lens_get_info(l->lens)->n_layers; i++) {
        vl_device_free(l->device, l->adapters[i].weight.data);
        vl_device_free(l->device, l->adapters[i].bias.data);
    }
    vl_free(l->adapters);
    vl_free(l);
}

static vl_status upload(vl_tensor *slot, vl_device *device, const float *values, int64_t rows, int64_t columns,
                        vl_error *err)
{
    vl_tensor fresh;
    if (!values || slot->data)
        return VL_OK;
    VL_TRY(vl_tensor_new(&fresh, device, VL_F32, rows, columns, err));
    vl_status status = vl_device_write(device, &fresh, values, err);
    if (status == VL_OK)
        *slot = fresh;
    else
        vl_device_free(device, fresh.data);
    return status;
}

vl_status vl_device_lens_adapter(vl_adapter *out, vl_device_lens *l, int64_t layer, vl_error *err)
{
    const vl_lens_info *info = vl_lens_get_info(l->lens);
    *out = (vl_adapter){.weight = {.data = NULL}};
    if (layer < 0 || layer > info->n_layers)
        return vl_fail(err, VL_EINVAL, "%s: layer %lld, expected 0 to %lld", info->path, (long long)layer,
                       (long long)info->n_layers);
    if (layer == info->n_layers)
        return VL_OK;
    vl_adapter *adapter = &l->adapters[layer];
    VL_TRY(upload(&adapter->bias, l->device, vl_lens_bias(l->lens, layer), 1, info->d_model, err));
    VL_TRY(upload(&adapter->weight, l->device, vl_lens_weight(l->lens, layer), info->d_model, info->d_model, err));
    *out = *adapter;
    return VL_OK;
}

vl_status vl_device_lens_transform(vl_device_lens *l, int64_t layer, vl_tensor out, vl_tensor h, vl_error *err)
{
    vl_adapter adapter;
    vl_tensor y;
    VL_TRY(vl_device_lens_adapter(&adapter, l, layer, err));
    VL_TRY(vl_adapter_apply(&y, l->device, out, h, &adapter, false, err));
    return y.data == out.data ? VL_OK : vl_op_cast(l->device, &(vl_cast_args){.out = out, .x = h}, err);
}
