/* kernels/cpu/expf.h - an exponential and a logarithm that compilers vectorise: no branches, no calls.
 *
 * exp: Cody-Waite reduction and a degree-6 polynomial; at most 2 ulp on [-87.3, 88.3]. Below it is 0 (no subnormals),
 * above 88.4 it is infinity. NaN stays NaN. */
#ifndef VL_KERNELS_EXPF_H
#define VL_KERNELS_EXPF_H

#include <stdint.h>
#include <string.h>

static inline __attribute__((always_inline)) float vl_expf(float x)
{
    const float magic = 12582912.0f;       /* 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits */
    float clamped = x > 89.0f ? 89.0f : x; /* rounds to 2^128, which is infinity */
    float shifted = clamped * 1.44269504088896341f + magic;
    float n = shifted - magic;
    float r = clamped - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + (r + 1.0f);
    uint32_t bits; /* far outside the range it wraps, and the last line discards it */
    memcpy(&bits, &shifted, 4);
    bits = (bits << 23) + 0x3f800000u;
    float scale;
    memcpy(&scale, &bits, 4);
    return x < -87.3f ? 0.0f : p * scale;
}

/* log(1 + s) for s in [0, 1], relative error 1e-8 before rounding: 2 atanh(u) with u = s / (2 + s), its series in u^2
 * interpolated on [0, 1/9]. */
static inline __attribute__((always_inline)) float vl_log1pf(float s)
{
    float u = s / (2.0f + s), w = u * u;
    float p = 1.40788898e-1f;
    p = p * w + 1.39825791e-1f;
    p = p * w + 2.00122982e-1f;
    p = p * w + 3.33331615e-1f;
    return 2.0f * (u + u * w * p);
}

#endif
