/* base/half.h - bfloat16 and IEEE half, as bit patterns. Conversion to 16 bits rounds to nearest even. */
#ifndef VL_BASE_HALF_H
#define VL_BASE_HALF_H

#include <stdint.h>
#include <string.h>

#include <vlens/tensor.h>

static inline float vl_bf16_to_f32(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

static inline uint16_t vl_f32_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) /* NaN: keep it one, whatever its payload */
        return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

/* IEEE 754 binary16; the magic constants rebias the exponent by multiplication (exact for every input). */
static inline float vl_f16_to_f32(uint16_t bits)
{
    uint32_t magnitude = (uint32_t)(bits & 0x7fffu) << 13;
    float value;
    if (magnitude >= (0x7c00u << 13)) { /* infinity and NaN */
        magnitude |= 0x7f800000u;
        memcpy(&value, &magnitude, 4);
    } else {
        memcpy(&value, &magnitude, 4);
        value *= 0x1p112f;
    }
    uint32_t wide;
    memcpy(&wide, &value, 4);
    wide |= (uint32_t)(bits & 0x8000u) << 16;
    memcpy(&value, &wide, 4);
    return value;
}

static inline uint16_t vl_f32_to_f16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* subnormal half: let fp32 addition do the rounding */
        float absolute, shifted;
        memcpy(&absolute, &magnitude, 4);
        shifted = absolute + 0.5f;
        uint32_t result;
        memcpy(&result, &shifted, 4);
        return (uint16_t)(sign | (result - 0x3f000000u));
    }
    uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

/* Value i of an array of f32, bf16 or f16 at any address (a mapped file aligns nothing). */
static inline float vl_widen_at(const void *data, vl_dtype dtype, size_t i)
{
    if (dtype == VL_F32) {
        float value;
        memcpy(&value, (const char *)data + 4 * i, sizeof value);
        return value;
    }
    uint16_t bits;
    memcpy(&bits, (const char *)data + 2 * i, sizeof bits);
    return dtype == VL_BF16 ? vl_bf16_to_f32(bits) : vl_f16_to_f32(bits);
}

/* out [n] as f32. */
static inline void vl_widen(float *out, const void *data, vl_dtype dtype, size_t n)
{
    if (dtype == VL_F32) {
        memcpy(out, data, n * sizeof *out);
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = vl_widen_at(data, dtype, i);
}

/* out [n] of 2 bytes each: bf16 or f16. */
static inline void vl_narrow(uint16_t *out, const float *x, vl_dtype dtype, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = dtype == VL_BF16 ? vl_f32_to_bf16(x[i]) : vl_f32_to_f16(x[i]);
}

#endif
