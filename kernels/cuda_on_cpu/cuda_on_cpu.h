/* kernels/cuda_on_cpu/cuda_on_cpu.h - CUDA for a C++ compiler and a processor: how kernels/cuda is tested without a
 * GPU.
 *
 * Included by kernels/cuda/cuda.cuh in the place of NVIDIA's headers. It declares what kernels/cuda uses and nothing
 * more; a ctest compares the declarations with the real ones where a toolkit is installed. What this way of testing can
 * show and what not: docs/reference/numerics.md. Settings, all read from the environment by settings.cpp:
 *
 *   VL_CUDA_ON_CPU_SCHEDULE  forward, reverse, random or warp-greedy: the order in which the threads of a block run
 *   VL_CUDA_ON_CPU_SEED      of random and warp-greedy (default 1)
 *   VL_CUDA_ON_CPU_LAZY=1    queued work runs as late as CUDA allows: a missing synchronisation gives wrong values
 *   VL_CUDA_ON_CPU_GUARD=1   the host cannot touch device memory, nor anything the bytes behind an allocation
 *   VL_CUDA_ON_CPU_TRACE=FILE  every call that reaches the device, one line each (trace.h)
 *   VL_CUDA_ON_CPU_DRY=1     kernels, products, copies and fills check their arguments and do nothing; device memory is
 *                            address space, and reads as zeros: the calls of a model of any size in little memory
 *   VL_CUDA_ON_CPU_MEMORY    MiB of device memory (default 8192)
 *   VL_CUDA_ON_CPU_DEVICES   devices that there seem to be (default 1): who opens which
 *   VL_CUDA_ON_CPU_CAPABILITY  compute capability, 75, 80 (default) or 90: shared memory, bf16 products
 *
 * An error that has no CUDA status (a divergent barrier, a shuffle from a lane that takes no part) is written to stderr
 * and ends the process. */
#ifndef VL_CUDA_ON_CPU_H
#define VL_CUDA_ON_CPU_H

#include "kernels/cuda_on_cpu/types.h"

#include "kernels/cuda_on_cpu/blas_api.h"
#include "kernels/cuda_on_cpu/device_functions.h"
#include "kernels/cuda_on_cpu/half.h"
#include "kernels/cuda_on_cpu/runtime_api.h"
#include "kernels/cuda_on_cpu/thread.h"

#endif
