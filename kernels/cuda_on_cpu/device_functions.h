/* kernels/cuda_on_cpu/device_functions.h - the functions that only device code may call. */
#ifndef VL_CUDA_ON_CPU_DEVICE_FUNCTIONS_H
#define VL_CUDA_ON_CPU_DEVICE_FUNCTIONS_H

#include "kernels/cuda_on_cpu/half.h"
#include "kernels/cuda_on_cpu/thread.h"

/* The last parameters of a function that tells where it is called. */
#define VL_SIM_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define VL_SIM_AT                                                                                                      \
    vl_sim::source_line                                                                                                \
    {                                                                                                                  \
        file, line                                                                                                     \
    }

/* ---- barriers ---------------------------------------------------------------------------------------------- */

inline void __syncthreads(VL_SIM_CALLER)
{
    vl_sim::block_barrier(vl_sim::BARRIER, 0, VL_SIM_AT);
}
inline int __syncthreads_count(int predicate, VL_SIM_CALLER)
{
    return vl_sim::block_barrier(vl_sim::BARRIER_COUNT, predicate, VL_SIM_AT);
}
inline int __syncthreads_and(int predicate, VL_SIM_CALLER)
{
    return vl_sim::block_barrier(vl_sim::BARRIER_AND, predicate, VL_SIM_AT);
}
inline int __syncthreads_or(int predicate, VL_SIM_CALLER)
{
    return vl_sim::block_barrier(vl_sim::BARRIER_OR, predicate, VL_SIM_AT);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, VL_SIM_CALLER)
{
    vl_sim::warp_meet(mask, vl_sim::WARP_BARRIER, 0, 0, VL_SIM_AT);
}
/* One thread runs at a time: what it wrote is seen. */
inline void __threadfence()
{
}
inline void __threadfence_block()
{
}

/* ---- between the lanes of a warp ---------------------------------------------------------------------------- */

namespace vl_sim
{
template <class T> inline uint64_t to_bits(T value)
{
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "at most 8 bytes cross a warp");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return bits;
}

template <class T> inline T from_bits(uint64_t bits)
{
    T value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <class T> inline T shuffle(unsigned mask, T value, int source, source_line at)
{
    return from_bits<T>(warp_meet(mask, WARP_SHUFFLE, to_bits(value), source, at));
}

/* The first lane of the segment of `width` lanes. */
inline int segment(int width)
{
    return here.lane & ~(width - 1);
}
} // namespace vl_sim

template <class T> inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, VL_SIM_CALLER)
{
    return vl_sim::shuffle(mask, value, vl_sim::segment(width) + (lane & (width - 1)), VL_SIM_AT);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, VL_SIM_CALLER)
{
    int own = vl_sim::here.lane, source = own ^ bits;
    return vl_sim::shuffle(mask, value, source >= vl_sim::segment(width) + width ? own : source, VL_SIM_AT);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, VL_SIM_CALLER)
{
    int own = vl_sim::here.lane, source = own + (int)by;
    return vl_sim::shuffle(mask, value, source >= vl_sim::segment(width) + width ? own : source, VL_SIM_AT);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, VL_SIM_CALLER)
{
    int own = vl_sim::here.lane, source = own - (int)by;
    return vl_sim::shuffle(mask, value, source < vl_sim::segment(width) ? own : source, VL_SIM_AT);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, VL_SIM_CALLER)
{
    return (unsigned)vl_sim::warp_meet(mask, vl_sim::WARP_BALLOT, predicate != 0, 0, VL_SIM_AT);
}
inline int __any_sync(unsigned mask, int predicate, VL_SIM_CALLER)
{
    return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, VL_SIM_CALLER)
{
    return __ballot_sync(mask, !predicate, file, line) == 0;
}
template <class T> inline unsigned __match_any_sync(unsigned mask, T value, VL_SIM_CALLER)
{
    return (unsigned)vl_sim::warp_meet(mask, vl_sim::WARP_MATCH, vl_sim::to_bits(value), 0, VL_SIM_AT);
}
inline unsigned __activemask()
{
    return vl_sim::active_lanes();
}

/* ---- atomics ------------------------------------------------------------------------------------------------ */

namespace vl_sim
{
template <class T> struct same {
    typedef T type; /* not deduced from: atomicAdd(unsigned *, 1) */
};

/* Not seen by the race detector as plain accesses. */
template <class T, class F> __attribute__((noinline, no_sanitize("thread"))) T read_modify_write(T *at, F change)
{
    note_atomic(at, sizeof *at, __builtin_return_address(0));
    T old = *at;
    *at = change(old);
    return old;
}
} // namespace vl_sim

template <class T> inline T atomicAdd(T *at, typename vl_sim::same<T>::type value)
{
    return vl_sim::read_modify_write(at, [value](T old) { return (T)(old + value); });
}
template <class T> inline T atomicMax(T *at, typename vl_sim::same<T>::type value)
{
    return vl_sim::read_modify_write(at, [value](T old) { return old > value ? old : value; });
}
template <class T> inline T atomicMin(T *at, typename vl_sim::same<T>::type value)
{
    return vl_sim::read_modify_write(at, [value](T old) { return old < value ? old : value; });
}
template <class T> inline T atomicOr(T *at, typename vl_sim::same<T>::type value)
{
    return vl_sim::read_modify_write(at, [value](T old) { return (T)(old | value); });
}
template <class T> inline T atomicExch(T *at, typename vl_sim::same<T>::type value)
{
    return vl_sim::read_modify_write(at, [value](T) { return value; });
}
template <class T>
inline T atomicCAS(T *at, typename vl_sim::same<T>::type compare, typename vl_sim::same<T>::type value)
{
    return vl_sim::read_modify_write(at, [compare, value](T old) { return old == compare ? value : old; });
}

/* ---- loads and stores with hints ---------------------------------------------------------------------------- */

template <class T> inline T __ldg(const T *at)
{
    return *at;
}
template <class T> inline T __ldcs(const T *at)
{
    return *at;
}
template <class T> inline T __ldcg(const T *at)
{
    return *at;
}
template <class T> inline void __stcs(T *at, typename vl_sim::same<T>::type value)
{
    *at = value;
}
template <class T> inline void __stcg(T *at, typename vl_sim::same<T>::type value)
{
    *at = value;
}

/* ---- mathematics -------------------------------------------------------------------------------------------- */

/* The C library has functions of these names for itself, so that macros stand in for them. They are more accurate here
 * than on a device, where expf's error is 2 ulp and __expf's grows with |x|. */
#define __expf(x)    expf(x)
#define __logf(x)    logf(x)
#define __log2f(x)   log2f(x)
#define __sinf(x)    sinf(x)
#define __cosf(x)    cosf(x)
#define __powf(x, y) powf(x, y)

inline float __fdividef(float x, float y)
{
    return x / y;
}
inline float rsqrtf(float x)
{
    return 1 / sqrtf(x);
}
inline double rsqrt(double x)
{
    return 1 / sqrt(x);
}
inline float __frcp_rn(float x)
{
    return 1 / x;
}
inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}
inline float __fadd_rn(float x, float y)
{
    return x + y;
}
inline float __fmul_rn(float x, float y)
{
    return x * y;
}
inline float __fmaf_rn(float x, float y, float z)
{
    return fmaf(x, y, z);
}

template <class A, class B> inline std::common_type_t<A, B> min(A a, B b)
{
    typedef std::common_type_t<A, B> T;
    return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B> inline std::common_type_t<A, B> max(A a, B b)
{
    typedef std::common_type_t<A, B> T;
    return (T)a < (T)b ? (T)b : (T)a;
}

/* ---- bits --------------------------------------------------------------------------------------------------- */

inline unsigned __float_as_uint(float x)
{
    return vl_sim::float_bits(x);
}
inline int __float_as_int(float x)
{
    return (int)vl_sim::float_bits(x);
}
inline float __uint_as_float(unsigned x)
{
    return vl_sim::bits_float(x);
}
inline float __int_as_float(int x)
{
    return vl_sim::bits_float((unsigned)x);
}
inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

#endif
