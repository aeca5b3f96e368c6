/* The device itself: what it says about itself, and errors. */
#include <stdio.h>

#include <map>

#include "kernels/cuda_on_cpu/sim.h"

namespace vl_sim
{
enum { MULTIPROCESSORS = 4, SHARED_STANDARD = 48 << 10 };

static cudaError_t &last_error()
{
    static thread_local cudaError_t error = cudaSuccess;
    return error;
}

cudaError_t result(cudaError_t error)
{
    if (error != cudaSuccess)
        last_error() = error;
    return error;
}

/* Shared memory that a block may ask for (CUDA C++ Programming Guide, technical specifications). */
static int shared_optin()
{
    switch (setting().capability) {
    case 75: return 64 << 10;
    case 80: return 163 << 10;
    default: return 227 << 10;
    }
}

static std::map<const void *, size_t> &raised_limits()
{
    static std::map<const void *, size_t> limits;
    return limits;
}

size_t shared_limit(const void *kernel)
{
    auto found = raised_limits().find(kernel);
    return found == raised_limits().end() ? (size_t)SHARED_STANDARD : found->second;
}
} // namespace vl_sim

using namespace vl_sim;

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = setting().devices;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return result(device >= 0 && device < setting().devices ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attr, int device)
{
    if (device < 0 || device >= setting().devices)
        return result(cudaErrorInvalidDevice);
    switch (attr) {
    case cudaDevAttrMaxThreadsPerBlock: *value = MAX_THREADS; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = SHARED_STANDARD; break;
    case cudaDevAttrWarpSize: *value = WARP_SIZE; break;
    case cudaDevAttrMultiProcessorCount: *value = MULTIPROCESSORS; break;
    case cudaDevAttrComputeCapabilityMajor: *value = setting().capability / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = setting().capability % 10; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = shared_optin(); break;
    default: return result(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device)
{
    if (device < 0 || device >= setting().devices)
        return result(cudaErrorInvalidDevice);
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "simulated on the processor");
    prop->totalGlobalMem = setting().memory;
    prop->sharedMemPerBlock = SHARED_STANDARD;
    prop->sharedMemPerBlockOptin = (size_t)shared_optin();
    prop->warpSize = WARP_SIZE;
    prop->maxThreadsPerBlock = MAX_THREADS;
    prop->major = setting().capability / 10;
    prop->minor = setting().capability % 10;
    prop->multiProcessorCount = MULTIPROCESSORS;
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *func, cudaFuncAttribute attr, int value)
{
    guard held(lock());
    if (attr != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > shared_optin())
        return result(cudaErrorInvalidValue);
    raised_limits()[func] = (size_t)value;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error();
    last_error() = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error();
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidPitchValue: return "invalid pitch argument";
    case cudaErrorInvalidMemcpyDirection: return "invalid copy direction for memcpy";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
    }
    return "unrecognized error code";
}
