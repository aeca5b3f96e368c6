/* Prints what a program sees of CUDA: values, sizes, types of functions, and bits of conversions. Compiled once against
 * NVIDIA's headers and once against kernels/cuda_on_cpu; the two outputs must be equal (declarations.cmake).
 *
 * A declaration that is added to kernels/cuda_on_cpu is added here. */
#include <stdio.h>
#include <string.h>

#ifdef VL_CUDA_ON_CPU
#include "kernels/cuda_on_cpu/cuda_on_cpu.h"
#else
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#endif

/* Lists of names. */
// clang-format off
#define VALUE(name) printf("%s = %lld\n", #name, (long long)(name));
#define SIZE(type)  printf("%s: %zu bytes, aligned to %zu\n", #type, sizeof(type), alignof(type));

template <class T> static void show(const char *name)
{
    printf("%s: %s\n", name, __PRETTY_FUNCTION__);
}
/* Types alone: nothing is linked. */
#define FUNCTION(name)         show<decltype(&name)>(#name);
#define OVERLOADED(name, type) show<decltype(static_cast<type>(name))>(#name);
typedef cudaError_t (*allocates)(void **, size_t);
typedef cudaError_t (*sets)(const void *, cudaFuncAttribute, int);

static void values()
{
    VALUE(cudaSuccess) VALUE(cudaErrorInvalidValue) VALUE(cudaErrorMemoryAllocation)
    VALUE(cudaErrorInvalidConfiguration) VALUE(cudaErrorInvalidPitchValue) VALUE(cudaErrorInvalidMemcpyDirection)
    VALUE(cudaErrorInvalidDevice) VALUE(cudaErrorInvalidResourceHandle) VALUE(cudaErrorNotReady)
    VALUE(cudaMemcpyHostToHost) VALUE(cudaMemcpyHostToDevice) VALUE(cudaMemcpyDeviceToHost)
    VALUE(cudaMemcpyDeviceToDevice) VALUE(cudaMemcpyDefault) VALUE(cudaDevAttrMaxThreadsPerBlock)
    VALUE(cudaDevAttrMaxSharedMemoryPerBlock) VALUE(cudaDevAttrWarpSize) VALUE(cudaDevAttrMultiProcessorCount)
    VALUE(cudaDevAttrComputeCapabilityMajor) VALUE(cudaDevAttrComputeCapabilityMinor)
    VALUE(cudaDevAttrMaxSharedMemoryPerBlockOptin) VALUE(cudaFuncAttributeMaxDynamicSharedMemorySize)
    VALUE(cudaStreamDefault) VALUE(cudaStreamNonBlocking) VALUE(cudaEventDefault) VALUE(cudaEventDisableTiming)
    VALUE(CUDA_R_32F) VALUE(CUDA_R_64F) VALUE(CUDA_R_16F) VALUE(CUDA_R_16BF)
    VALUE(CUBLAS_STATUS_SUCCESS) VALUE(CUBLAS_STATUS_NOT_INITIALIZED) VALUE(CUBLAS_STATUS_ALLOC_FAILED)
    VALUE(CUBLAS_STATUS_INVALID_VALUE) VALUE(CUBLAS_STATUS_ARCH_MISMATCH) VALUE(CUBLAS_STATUS_EXECUTION_FAILED)
    VALUE(CUBLAS_STATUS_INTERNAL_ERROR) VALUE(CUBLAS_STATUS_NOT_SUPPORTED)
    VALUE(CUBLAS_OP_N) VALUE(CUBLAS_OP_T) VALUE(CUBLAS_OP_C) VALUE(CUBLAS_COMPUTE_32F)
    VALUE(CUBLASLT_MATMUL_DESC_TRANSA) VALUE(CUBLASLT_MATMUL_DESC_TRANSB) VALUE(CUBLASLT_MATMUL_DESC_EPILOGUE)
    VALUE(CUBLASLT_MATMUL_DESC_BIAS_POINTER) VALUE(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE)
    VALUE(CUBLASLT_EPILOGUE_DEFAULT) VALUE(CUBLASLT_EPILOGUE_BIAS)
    VALUE(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) VALUE(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES)
    VALUE(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES) VALUE(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES)
    VALUE(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES)
}

static void types()
{
    SIZE(int2) SIZE(int4) SIZE(uint2) SIZE(uint3) SIZE(uint4) SIZE(float2) SIZE(float3) SIZE(float4) SIZE(double2)
    SIZE(ushort2) SIZE(ushort4) SIZE(dim3) SIZE(__half) SIZE(__half2) SIZE(__nv_bfloat16) SIZE(__nv_bfloat162)
    SIZE(cublasLtMatmulAlgo_t) SIZE(cublasLtMatmulHeuristicResult_t) SIZE(cublasLtMatmulDescOpaque_t)
    SIZE(cublasLtMatrixLayoutOpaque_t) SIZE(cublasLtMatmulPreferenceOpaque_t)
    VALUE(offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize))
    VALUE(offsetof(cublasLtMatmulHeuristicResult_t, state))
    VALUE(sizeof(cudaDeviceProp::name)) VALUE(sizeof(cudaDeviceProp::major)) VALUE(sizeof(cudaDeviceProp::minor))
    VALUE(sizeof(cudaDeviceProp::totalGlobalMem)) VALUE(sizeof(cudaDeviceProp::multiProcessorCount))
    VALUE(sizeof(cudaDeviceProp::sharedMemPerBlock)) VALUE(sizeof(cudaDeviceProp::sharedMemPerBlockOptin))
    VALUE(sizeof(cudaDeviceProp::warpSize)) VALUE(sizeof(cudaDeviceProp::maxThreadsPerBlock))
}

static void functions()
{
    FUNCTION(cudaGetDeviceCount) FUNCTION(cudaSetDevice) FUNCTION(cudaGetDevice) FUNCTION(cudaGetDeviceProperties)
    FUNCTION(cudaDeviceGetAttribute) FUNCTION(cudaGetLastError) FUNCTION(cudaPeekAtLastError)
    FUNCTION(cudaGetErrorString) FUNCTION(cudaMemGetInfo) FUNCTION(cudaFree) FUNCTION(cudaFreeHost)
    FUNCTION(cudaMemcpy) FUNCTION(cudaMemcpyAsync) FUNCTION(cudaMemcpy2DAsync) FUNCTION(cudaMemsetAsync)
    FUNCTION(cudaMemset2DAsync) FUNCTION(cudaDeviceSynchronize) FUNCTION(cudaStreamCreateWithFlags)
    FUNCTION(cudaStreamDestroy) FUNCTION(cudaStreamSynchronize) FUNCTION(cudaStreamQuery) FUNCTION(cudaStreamWaitEvent)
    FUNCTION(cudaEventCreateWithFlags) FUNCTION(cudaEventDestroy) FUNCTION(cudaEventRecord)
    FUNCTION(cudaEventSynchronize) FUNCTION(cudaEventQuery)
    OVERLOADED(cudaMalloc, allocates) OVERLOADED(cudaMallocHost, allocates) OVERLOADED(cudaFuncSetAttribute, sets)
    FUNCTION(cublasLtCreate) FUNCTION(cublasLtDestroy) FUNCTION(cublasLtGetStatusString) FUNCTION(cublasLtGetVersion)
    FUNCTION(cublasLtMatmulDescCreate) FUNCTION(cublasLtMatmulDescDestroy) FUNCTION(cublasLtMatmulDescSetAttribute)
    FUNCTION(cublasLtMatrixLayoutCreate) FUNCTION(cublasLtMatrixLayoutDestroy)
    FUNCTION(cublasLtMatmulPreferenceCreate) FUNCTION(cublasLtMatmulPreferenceDestroy)
    FUNCTION(cublasLtMatmulPreferenceSetAttribute) FUNCTION(cublasLtMatmulAlgoGetHeuristic) FUNCTION(cublasLtMatmul)
}

static unsigned bits_of(float value)
{
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Every 16-bit pattern widened, and fp32 patterns of every exponent and rounding rounded: one hash of each. NaNs are
 * counted and hashed too. */
// clang-format on
static void conversions()
{
    unsigned long long widened[2] = {0, 0}, rounded[2] = {0, 0};
    for (unsigned i = 0; i < 65536; i++) {
        unsigned short pattern = (unsigned short)i;
        __half h;
        __nv_bfloat16 b;
        memcpy((void *)&h, &pattern, 2);
        memcpy((void *)&b, &pattern, 2);
        widened[0] = widened[0] * 31 + bits_of(__half2float(h));
        widened[1] = widened[1] * 31 + bits_of(__bfloat162float(b));
    }
    for (unsigned long long i = 0; i < 1ull << 32; i += 251) { /* a prime: low bits of every kind */
        unsigned pattern = (unsigned)i;
        float value;
        unsigned short got;
        memcpy(&value, &pattern, 4);
        __half h = __float2half_rn(value);
        __nv_bfloat16 b = __float2bfloat16_rn(value);
        memcpy(&got, &h, 2);
        rounded[0] = rounded[0] * 31 + got;
        memcpy(&got, &b, 2);
        rounded[1] = rounded[1] * 31 + got;
    }
    for (int i = 0; i < 2; i++)
        printf("%s: widened %016llx, rounded %016llx\n", i ? "bf16" : "f16", widened[i], rounded[i]);
}

int main()
{
    values();
    types();
    functions();
    conversions();
    return 0;
}
