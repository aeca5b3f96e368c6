/* kernels/cuda_on_cpu/race.h - what the simulated device tells the race detector; nothing in builds without it. */
#ifndef VL_CUDA_ON_CPU_RACE_H
#define VL_CUDA_ON_CPU_RACE_H

#include "kernels/cuda_on_cpu/sim.h"

namespace vl_sim
{
#ifdef VL_CUDA_ON_CPU_RACE
void race_allocated(const allocation &memory);
void race_freed(const allocation &memory);
void race_kernel(const char *name, const kernel_call *call, size_t shared_bytes);
void race_block();
void race_barrier();
/* The lanes of `lanes` (which exist) have met at a __syncwarp. */
void race_warp_barrier(warp *w, unsigned lanes);
/* The host, a copy or a library call wrote or reads bytes of the device. */
void race_written(const void *at, size_t bytes);
void race_read(const void *at, size_t bytes, const char *by);
#else
inline void race_allocated(const allocation &)
{
}
inline void race_freed(const allocation &)
{
}
inline void race_kernel(const char *, const kernel_call *, size_t)
{
}
inline void race_block()
{
}
inline void race_barrier()
{
}
inline void race_warp_barrier(warp *, unsigned)
{
}
inline void race_written(const void *, size_t)
{
}
inline void race_read(const void *, size_t, const char *)
{
}
#endif
} // namespace vl_sim

#endif
