/* kernels/cuda/device.cuh - what kernels share: element types as float, 16-byte accesses, reductions.
 *
 * Every reduction adds in an order that depends on nothing but the shape, so that the same input gives the same bits.
 */
#ifndef VL_KERNELS_CUDA_DEVICE_CUH
#define VL_KERNELS_CUDA_DEVICE_CUH

#include <stdint.h>

#include "kernels/cuda/cuda.cuh"

typedef __nv_bfloat16 vl_bf16;
typedef __half vl_f16;

enum { VL_WARP = 32, VL_MAX_WARPS = 32 };
#define VL_ALL_LANES 0xffffffffu

/* ---- one element ------------------------------------------------------------------------------------------- */

__device__ inline float vl_load(const float *at)
{
    return *at;
}
__device__ inline float vl_load(const vl_bf16 *at)
{
    return __bfloat162float(*at);
}
__device__ inline float vl_load(const vl_f16 *at)
{
    return __half2float(*at);
}

/* Rounded to nearest even. */
__device__ inline void vl_store(float *at, float value)
{
    *at = value;
}
__device__ inline void vl_store(vl_bf16 *at, float value)
{
    *at = __float2bfloat16_rn(value);
}
__device__ inline void vl_store(vl_f16 *at, float value)
{
    *at = __float2half_rn(value);
}

/* ---- four at a time ---------------------------------------------------------------------------------------- */

/* Whether rows of `stride` elements of `size` bytes from `at` allow 16-byte accesses in every row. */
__host__ __device__ inline bool vl_aligned16(const void *at, int64_t stride, int size)
{
    return (uintptr_t)at % 16 == 0 && stride * size % 16 == 0;
}

__device__ inline float4 vl_load4(const float *at)
{
    return *reinterpret_cast<const float4 *>(at);
}
__device__ inline void vl_store4(float *at, float4 value)
{
    *reinterpret_cast<float4 *>(at) = value;
}

/* The first n (1 to 4, or more) of four elements, the others 0. `vector`: the address allows one access for all. */
__device__ inline float4 vl_load_some(const float *at, int64_t n, bool vector)
{
    if (vector && n >= 4)
        return vl_load4(at);
    return make_float4(at[0], n > 1 ? at[1] : 0.0f, n > 2 ? at[2] : 0.0f, n > 3 ? at[3] : 0.0f);
}

/* Stores the first n (1 to 4, or more). */
__device__ inline void vl_store_some(float *at, float4 value, int64_t n, bool vector)
{
    if (vector && n >= 4) {
        vl_store4(at, value);
        return;
    }
    at[0] = value.x;
    if (n > 1)
        at[1] = value.y;
    if (n > 2)
        at[2] = value.z;
    if (n > 3)
        at[3] = value.w;
}

/* ---- eight at a time --------------------------------------------------------------------------------------- */

typedef struct vl_eight {
    float4 low, high;
} vl_eight;

__device__ inline vl_eight vl_load8(const float *at)
{
    vl_eight e = {vl_load4(at), vl_load4(at + 4)};
    return e;
}

/* 16 bytes of a 16-bit type T. */
template <typename T> union vl_packed {
    uint4 all;
    T element[8];
};

template <typename T> __device__ inline vl_eight vl_load8(const T *at)
{
    vl_packed<T> p;
    p.all = *reinterpret_cast<const uint4 *>(at);
    vl_eight e;
    e.low = make_float4(vl_load(&p.element[0]), vl_load(&p.element[1]), vl_load(&p.element[2]), vl_load(&p.element[3]));
    e.high =
        make_float4(vl_load(&p.element[4]), vl_load(&p.element[5]), vl_load(&p.element[6]), vl_load(&p.element[7]));
    return e;
}

__device__ inline void vl_store8(float *at, vl_eight e)
{
    vl_store4(at, e.low);
    vl_store4(at + 4, e.high);
}

template <typename T> __device__ inline void vl_store8(T *at, vl_eight e)
{
    vl_packed<T> p;
    vl_store(&p.element[0], e.low.x), vl_store(&p.element[1], e.low.y);
    vl_store(&p.element[2], e.low.z), vl_store(&p.element[3], e.low.w);
    vl_store(&p.element[4], e.high.x), vl_store(&p.element[5], e.high.y);
    vl_store(&p.element[6], e.high.z), vl_store(&p.element[7], e.high.w);
    *reinterpret_cast<uint4 *>(at) = p.all;
}

/* Four of a 16-bit type, as vl_store4; and the first n of them, as vl_store_some. */
template <typename T> __device__ inline void vl_store4(T *at, float4 value)
{
    union {
        uint2 all;
        T element[4];
    } p;
    vl_store(&p.element[0], value.x), vl_store(&p.element[1], value.y);
    vl_store(&p.element[2], value.z), vl_store(&p.element[3], value.w);
    *reinterpret_cast<uint2 *>(at) = p.all;
}

template <typename T> __device__ inline void vl_store_some(T *at, float4 value, int64_t n, bool vector)
{
    if (vector && n >= 4) {
        vl_store4(at, value);
        return;
    }
    vl_store(at, value.x);
    if (n > 1)
        vl_store(at + 1, value.y);
    if (n > 2)
        vl_store(at + 2, value.z);
    if (n > 3)
        vl_store(at + 3, value.w);
}

/* ---- reductions -------------------------------------------------------------------------------------------- */

/* Over the 32 lanes; all lanes of the warp take part and get the result. */
template <typename T> __device__ inline T vl_warp_sum(T value)
{
    for (int distance = VL_WARP / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(VL_ALL_LANES, value, distance);
    return value;
}

template <typename T> __device__ inline T vl_warp_max(T value)
{
    for (int distance = VL_WARP / 2; distance > 0; distance /= 2) {
        T other = __shfl_xor_sync(VL_ALL_LANES, value, distance);
        value = other > value ? other : value;
    }
    return value;
}

/* Over a block of whole warps; every thread takes part and gets the result. `shared` [VL_MAX_WARPS] may be used again
 * at once after the return. */
template <typename T> __device__ inline T vl_block_sum(T value, T *shared)
{
    int lane = (int)threadIdx.x % VL_WARP, warp = (int)threadIdx.x / VL_WARP, warps = (int)blockDim.x / VL_WARP;
    value = vl_warp_sum(value);
    if (lane == 0)
        shared[warp] = value;
    __syncthreads();
    value = vl_warp_sum(lane < warps ? shared[lane] : T(0));
    __syncthreads();
    return value;
}

template <typename T> __device__ inline T vl_block_max(T value, T *shared)
{
    int lane = (int)threadIdx.x % VL_WARP, warp = (int)threadIdx.x / VL_WARP, warps = (int)blockDim.x / VL_WARP;
    value = vl_warp_max(value);
    if (lane == 0)
        shared[warp] = value;
    __syncthreads();
    value = vl_warp_max(shared[lane < warps ? lane : 0]);
    __syncthreads();
    return value;
}

#endif
