/* base/half.h - bfloat16 and IEEE half, as bit patterns. Conversion to 16 bits rounds to nearest even. */
#ifndef VL_BASE_HALF_H
#define VL_BASE_HALF_H

#include <stdint.h>
#include <string.h>

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

#endif
