/* The device's best product: dispatch to the backend. */
#include "kernels/peak.h"

#include "kernels/backend.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"

struct vl_peak {
    vl_device *device;
    void *data; /* the backend's own form */
};

vl_status vl_peak_new(vl_peak **out, vl_device *device, const vl_peak_args *args, vl_error *err)
{
    *out = NULL;
    if (!device->backend->peak_new)
        return vl_fail(err, VL_EUNSUPPORTED, "the %s device does not measure its products", device->name);
    vl_peak *peak = vl_calloc(1, sizeof *peak);
    if (!peak)
        return vl_fail_nomem(err, "operands of a product");
    peak->device = device;
    vl_status status = device->backend->peak_new(device->context, &peak->data, args, err);
    if (status == VL_OK)
        *out = peak;
    else
        vl_free(peak);
    return status;
}

vl_status vl_peak_run(vl_peak *peak, vl_error *err)
{
    return peak->device->backend->peak_run(peak->data, err);
}

void vl_peak_free(vl_peak *peak)
{
    if (!peak)
        return;
    peak->device->backend->peak_free(peak->data);
    vl_free(peak);
}
