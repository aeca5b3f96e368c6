/* kernels/peak.h - what 100 % means in a benchmark: one product by the device's own library, at its best. */
#ifndef VL_KERNELS_PEAK_H
#define VL_KERNELS_PEAK_H

#include "kernels/ops.h"

/* c[m, n] (f32) = a[m, k] b[k, n], a and b of `dtype` (VL_BF16 or VL_F32), b packed beforehand in the layout that the
 * library likes best. The operands hold small random numbers. */
typedef struct vl_peak vl_peak;

typedef struct vl_peak_args {
    vl_dtype dtype;
    int64_t m, n, k;
} vl_peak_args;

/* Errors: VL_EUNSUPPORTED (the device does not multiply that type, or has no such measurement), VL_ENOMEM. */
vl_status vl_peak_new(vl_peak **out, vl_device *device, const vl_peak_args *args, vl_error *err);
/* One product; waits for it. */
vl_status vl_peak_run(vl_peak *peak, vl_error *err);
void vl_peak_free(vl_peak *peak);

/* Numbers of operands, uniform in [-scale, scale), from any state. Cheap, as operands are large; and not
 * zeros, which would be multiplied at less power, and so faster. */
static inline float vl_peak_uniform(uint32_t *state, float scale)
{
    *state = *state * 1664525u + 1013904223u;
    return scale * ((float)(*state >> 8) * 0x1p-23f - 1);
}

#endif
