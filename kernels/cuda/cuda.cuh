/* kernels/cuda/cuda.cuh - the only include of CUDA itself, and the two things that a .cu file may not spell out.
 *
 * The same sources are compiled by nvcc for the device, and by a C++ compiler against kernels/cuda_on_cpu, which runs a
 * block's threads as fibers. That needs one spelling for a launch and one for dynamic shared memory; all else is CUDA.
 */
#ifndef VL_KERNELS_CUDA_CUH
#define VL_KERNELS_CUDA_CUH

#ifdef VL_CUDA_ON_CPU
#include "kernels/cuda_on_cpu/cuda_on_cpu.h"
#else
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

/* Queues kernel<<<grid, block, shared_bytes, stream>>>(...). A template kernel stands in parentheses: (k<float, 4>). */
#define VL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                      \
    (kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)

/* `type *name`: the dynamic shared memory of the launch, 16-byte aligned. One per kernel. */
#define VL_DYNAMIC_SHARED(type, name)                                                                                  \
    extern __shared__ __align__(16) unsigned char vl_dynamic_shared_bytes[];                                           \
    type *name = reinterpret_cast<type *>(vl_dynamic_shared_bytes)
#endif

#endif
