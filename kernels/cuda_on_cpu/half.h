/* kernels/cuda_on_cpu/half.h - CUDA's 16-bit types and their conversions.
 *
 * No arithmetic: kernels compute in fp32, and one that does not is refused by the compiler. Bits are those of NVIDIA's
 * host functions (tests/kernels/cuda_on_cpu compares them where the toolkit is), also for NaN. */
#ifndef VL_CUDA_ON_CPU_HALF_H
#define VL_CUDA_ON_CPU_HALF_H

#include "kernels/cuda_on_cpu/types.h"

struct __half {
    unsigned short bits;
};
struct __nv_bfloat16 {
    unsigned short bits;
};
struct __half2 {
    __half x, y;
} __align__(4);
struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
} __align__(4);
typedef __half half;
typedef __half2 half2;
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

namespace vl_sim
{
inline unsigned float_bits(float value)
{
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float bits_float(unsigned bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Shifts right by `shift` (1..31) bits, rounding to nearest even. */
inline unsigned shift_rounded(unsigned value, int shift)
{
    unsigned kept = value >> shift, rest = value & ((1u << shift) - 1), half = 1u << (shift - 1);
    return kept + (rest > half || (rest == half && (kept & 1)));
}
} // namespace vl_sim

inline float __bfloat162float(__nv_bfloat16 value)
{
    return vl_sim::bits_float((unsigned)value.bits << 16);
}

inline __nv_bfloat16 __float2bfloat16_rn(float value)
{
    unsigned bits = vl_sim::float_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return {0x7fff};
    return {(unsigned short)vl_sim::shift_rounded(bits, 16)};
}

inline __nv_bfloat16 __float2bfloat16(float value)
{
    return __float2bfloat16_rn(value);
}

inline float __half2float(__half value)
{
    unsigned sign = (unsigned)(value.bits & 0x8000) << 16, exponent = value.bits >> 10 & 31,
             fraction = value.bits & 1023;
    if (exponent == 31)
        return vl_sim::bits_float(fraction ? 0x7fffffffu : sign | 0x7f800000u);
    if (exponent == 0) {
        float magnitude = (float)fraction * 0x1p-24f;
        return vl_sim::bits_float(sign | vl_sim::float_bits(magnitude));
    }
    return vl_sim::bits_float(sign | (exponent + 112) << 23 | fraction << 13);
}

inline __half __float2half_rn(float value)
{
    unsigned bits = vl_sim::float_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return {0x7fff};
    if (magnitude >= 0x47800000u) /* 65536 */
        return {(unsigned short)(sign | 0x7c00)};
    if (magnitude >= 0x38800000u) /* 2^-14, the smallest normal */
        return {(unsigned short)(sign | (vl_sim::shift_rounded(magnitude, 13) - (112u << 10)))};
    if (magnitude <= 0x33000000u) /* 2^-25, half of the smallest */
        return {(unsigned short)sign};
    unsigned fraction = (magnitude & 0x7fffffu) | 0x800000u;
    return {(unsigned short)(sign | vl_sim::shift_rounded(fraction, 126 - (int)(magnitude >> 23)))};
}

inline __half __float2half(float value)
{
    return __float2half_rn(value);
}

inline float2 __bfloat1622float2(__nv_bfloat162 pair)
{
    return {__bfloat162float(pair.x), __bfloat162float(pair.y)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline __nv_bfloat162 __float22bfloat162_rn(float2 pair)
{
    return __floats2bfloat162_rn(pair.x, pair.y);
}
inline float2 __half22float2(__half2 pair)
{
    return {__half2float(pair.x), __half2float(pair.y)};
}
inline __half2 __floats2half2_rn(float x, float y)
{
    return {__float2half_rn(x), __float2half_rn(y)};
}
inline __half2 __float22half2_rn(float2 pair)
{
    return __floats2half2_rn(pair.x, pair.y);
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value)
{
    return value.bits;
}
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    return {bits};
}
inline unsigned short __half_as_ushort(__half value)
{
    return value.bits;
}
inline __half __ushort_as_half(unsigned short bits)
{
    return {bits};
}

#endif
