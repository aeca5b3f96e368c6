/* readout/adapter.h - one affine adapter on the device, and how its products are computed. */
#ifndef VL_READOUT_ADAPTER_H
#define VL_READOUT_ADAPTER_H

#include <vlens/lens.h>

#include "kernels/ops.h"
#include "trainer/model/head.h"

/* y = h + h A^T + b. Tensors on the device, f32. */
typedef struct vl_adapter {
    vl_tensor weight; /* A [D, D], row-major (out, in); NULL data: A = 0 */
    vl_tensor bias;   /* b [D]; NULL data: there is no adapter, y = h (the logit lens) */
} vl_adapter;

/* Whether an adapter's own products run in bf16: the one place that decides. `fast`: yes. `auto` with a head that
 * multiplies in 16 bit: in steps that make a gradient, where states and gradient come through 16 bit anyway; in fp32
 * where a lens is only read. */
bool vl_adapter_in_bf16(vl_precision precision, const vl_head *head, bool makes_gradient);

/* *out is y [M, D]: h itself without an adapter, else computed into `u` [M, D]. */
vl_status vl_adapter_apply(vl_tensor *out, vl_device *device, vl_tensor u, vl_tensor h, const vl_adapter *adapter,
                           bool bf16, vl_error *err);

/* The adapter of a layer, uploaded when it is first asked for; without data where the layer was not trained, and for
 * state n_layers. Borrowed from the lens. */
vl_status vl_device_lens_adapter(vl_adapter *out, vl_device_lens *lens, int64_t layer, vl_error *err);

#endif
