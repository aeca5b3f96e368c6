/* The simulated runtime: what CUDA refuses is refused, and with VL_CUDA_ON_CPU_LAZY and _GUARD host code that does not
 * wait, or that touches device memory, is caught. Run with both settings and without: it looks at them itself. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/cuda/cuda.cuh"

enum { N = 1000, BYTES = N * (int)sizeof(float) };

static int failures;
static bool lazy, guarded;
static float ones[N], twos[N], back[N];

static void check(bool good, const char *what, int line)
{
    if (good)
        return;
    failures++;
    printf("line %d: %s\n", line, what);
}
#define CHECK(condition) check((condition), #condition, __LINE__)
#define FAILS(call, error)                                                                                             \
    do {                                                                                                               \
        CHECK((call) == (error));                                                                                      \
        CHECK(cudaPeekAtLastError() == (error) && cudaGetLastError() == (error));                                      \
        CHECK(cudaGetLastError() == cudaSuccess);                                                                      \
    } while (0)

__global__ void add(float *at, float value, int n)
{
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += (int)(gridDim.x * blockDim.x))
        at[i] += value;
}

__global__ void fill_shared(float *out)
{
    VL_DYNAMIC_SHARED(float, values);
    values[threadIdx.x] = 1;
    out[threadIdx.x] = values[threadIdx.x];
}

static cudaStream_t new_stream(unsigned flags)
{
    cudaStream_t stream = NULL;
    CHECK(cudaStreamCreateWithFlags(&stream, flags) == cudaSuccess);
    return stream;
}

static float *new_memory(size_t bytes)
{
    float *memory = NULL;
    CHECK(cudaMalloc(&memory, bytes) == cudaSuccess && (uintptr_t)memory % 256 == 0);
    return memory;
}

static void copies_are_checked()
{
    float *a = new_memory(BYTES), *b = new_memory(BYTES);
    FAILS(cudaMemcpy(a, ones, BYTES + 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    FAILS(cudaMemcpy(a + 1, ones, BYTES, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    FAILS(cudaMemcpy(back, ones, 4, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    FAILS(cudaMemcpy(a, b, BYTES, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    FAILS(cudaMemcpy(a, ones, BYTES, (cudaMemcpyKind)9), cudaErrorInvalidMemcpyDirection);
    FAILS(cudaMemcpy2DAsync(a, 8, ones, 16, 12, 2, cudaMemcpyHostToDevice), cudaErrorInvalidPitchValue);
    FAILS(cudaMemcpy2DAsync(a, BYTES / 2, ones, 16, 12, 3, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    FAILS(cudaMemset2DAsync(a, 16, 0, 16, N, NULL), cudaErrorInvalidValue);
    FAILS(cudaMemsetAsync(ones, 0, 4, NULL), cudaErrorInvalidValue);
    CHECK(cudaMemcpy(a, ones, BYTES, cudaMemcpyHostToDevice) == cudaSuccess);
    CHECK(cudaMemcpy(b, a, BYTES, cudaMemcpyDefault) == cudaSuccess);
    CHECK(cudaMemset2DAsync(b, 16, 0, 4, N / 4, NULL) == cudaSuccess);
    CHECK(cudaMemcpy(back, b, BYTES, cudaMemcpyDeviceToHost) == cudaSuccess);
    CHECK(back[0] == 0 && back[1] == 1 && back[4] == 0 && back[N - 1] == 1);
    cudaFree(a);
    FAILS(cudaFree(a), cudaErrorInvalidValue);
    FAILS(cudaFreeHost(b), cudaErrorInvalidValue);
    cudaFree(b);
}

static void memory_is_limited_and_full_of_garbage()
{
    size_t available, all, left;
    float *a;
    CHECK(cudaMemGetInfo(&available, &all) == cudaSuccess && available == all);
    FAILS(cudaMalloc(&a, all + 1), cudaErrorMemoryAllocation);
    CHECK(!a);
    a = new_memory(BYTES);
    CHECK(cudaMemGetInfo(&left, &all) == cudaSuccess && left == available - BYTES);
    cudaMemcpy(back, a, BYTES, cudaMemcpyDeviceToHost);
    CHECK(back[0] != back[0] && back[N - 1] != back[N - 1]); /* NaN */
    cudaFree(a);
    CHECK(cudaMemGetInfo(&left, &all) == cudaSuccess && left == available);
}

static cudaError_t launched(dim3 grid, dim3 block, size_t shared)
{
    static float *memory = new_memory(1024 * sizeof(float));
    VL_LAUNCH(fill_shared, grid, block, shared, NULL, memory);
    return cudaGetLastError();
}

static void launches_are_limited()
{
    int most = 0;
    CHECK(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) == cudaSuccess && most > 48 << 10);
    CHECK(launched(1, 1024, 4096) == cudaSuccess);
    CHECK(launched(1, 1025, 4100) == cudaErrorInvalidConfiguration);
    CHECK(launched(1, dim3(1, 1, 65), 1024) == cudaErrorInvalidConfiguration);
    CHECK(launched(1, 0, 0) == cudaErrorInvalidConfiguration);
    CHECK(launched(0, 32, 128) == cudaErrorInvalidConfiguration);
    CHECK(launched(dim3(1, 65536), 32, 128) == cudaErrorInvalidConfiguration);
    CHECK(launched(dim3(1, 1, 65536), 32, 128) == cudaErrorInvalidConfiguration);
    CHECK(launched(1, 32, 48 << 10) == cudaSuccess);
    CHECK(launched(1, 32, (48 << 10) + 1) == cudaErrorInvalidValue);
    FAILS(cudaFuncSetAttribute(fill_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, most + 1),
          cudaErrorInvalidValue);
    CHECK(cudaFuncSetAttribute(fill_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, most) == cudaSuccess);
    CHECK(launched(1, 32, (size_t)most) == cudaSuccess);
    FAILS(cudaSetDevice(1), cudaErrorInvalidDevice);
}

/* With a missing wait the values of a lazy device are old; with the wait they never are. */
static void results_need_a_wait()
{
    cudaStream_t stream = new_stream(cudaStreamNonBlocking);
    float *a = new_memory(BYTES);
    back[0] = 7;
    cudaMemcpyAsync(a, ones, BYTES, cudaMemcpyHostToDevice, stream);
    VL_LAUNCH(add, 2, 64, 0, stream, a, 1.0f, N);
    cudaMemcpyAsync(back, a, BYTES, cudaMemcpyDeviceToHost, stream);
    CHECK(cudaStreamQuery(stream) == (lazy ? cudaErrorNotReady : cudaSuccess));
    CHECK(back[0] == (lazy ? 7 : 2));
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess && back[0] == 2 && back[N - 1] == 2);
    cudaFree(a);
    cudaStreamDestroy(stream);
}

static void host_buffers_are_read_late()
{
    cudaStream_t stream = new_stream(cudaStreamNonBlocking);
    float *a = new_memory(4), source = 1, got = 0;
    cudaMemcpyAsync(a, &source, 4, cudaMemcpyHostToDevice, stream);
    source = 2;
    cudaMemcpyAsync(&got, a, 4, cudaMemcpyDeviceToHost, stream);
    cudaDeviceSynchronize();
    CHECK(got == (lazy ? 2 : 1));
    cudaFree(a);
    cudaStreamDestroy(stream);
}

static float across_streams(bool with_event, bool record_again)
{
    cudaStream_t first = new_stream(cudaStreamNonBlocking), second = new_stream(cudaStreamNonBlocking);
    cudaEvent_t event;
    float *a = new_memory(BYTES), got = 0;
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    CHECK(cudaEventQuery(event) == cudaSuccess); /* never recorded: nothing to wait for */
    cudaMemcpy(a, ones, BYTES, cudaMemcpyHostToDevice);
    cudaMemcpyAsync(a, twos, BYTES, cudaMemcpyHostToDevice, first);
    cudaEventRecord(event, first);
    CHECK(cudaEventQuery(event) == (lazy ? cudaErrorNotReady : cudaSuccess));
    if (with_event)
        CHECK(cudaStreamWaitEvent(second, event, 0) == cudaSuccess);
    if (record_again) { /* after the wait was queued: it waits for the first record */
        cudaMemcpyAsync(a, ones, BYTES, cudaMemcpyHostToDevice, first);
        cudaEventRecord(event, first);
    }
    cudaMemcpyAsync(&got, a, 4, cudaMemcpyDeviceToHost, second);
    cudaStreamSynchronize(second);
    CHECK(cudaEventSynchronize(event) == cudaSuccess && cudaEventQuery(event) == cudaSuccess);
    cudaFree(a);
    cudaEventDestroy(event);
    cudaStreamDestroy(first);
    cudaStreamDestroy(second);
    return got;
}

static void streams_need_events()
{
    CHECK(across_streams(true, false) == 2);
    CHECK(across_streams(false, false) == (lazy ? 1 : 2));
    CHECK(across_streams(true, true) == (lazy ? 2 : 1));
}

/* The NULL stream waits for ordinary streams, and not for the others. */
static void null_stream_waits_for_blocking_ones()
{
    cudaStream_t ordinary = new_stream(cudaStreamDefault), apart = new_stream(cudaStreamNonBlocking);
    float *a = new_memory(4), *b = new_memory(4), got[2] = {0, 0};
    cudaMemcpy(a, ones, 4, cudaMemcpyHostToDevice);
    cudaMemcpy(b, ones, 4, cudaMemcpyHostToDevice);
    cudaMemcpyAsync(a, twos, 4, cudaMemcpyHostToDevice, ordinary);
    cudaMemcpyAsync(b, twos, 4, cudaMemcpyHostToDevice, apart);
    cudaMemcpy(&got[0], a, 4, cudaMemcpyDeviceToHost);
    cudaMemcpy(&got[1], b, 4, cudaMemcpyDeviceToHost);
    CHECK(got[0] == 2 && got[1] == (lazy ? 1 : 2));
    cudaStreamDestroy(ordinary);
    cudaStreamDestroy(apart);
    FAILS(cudaStreamSynchronize(apart), cudaErrorInvalidResourceHandle);
    cudaFree(a);
    cudaFree(b);
}

static bool child_dies(void (*act)(volatile float *), float *memory)
{
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        freopen("/dev/null", "w", stderr);
        act(memory);
        _exit(0);
    }
    waitpid(child, &status, 0);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void touch(volatile float *memory)
{
    memory[0] = memory[0] + 1;
}
static void run_behind_the_end(volatile float *memory)
{
    VL_LAUNCH(add, 1, 1, 0, NULL, (float *)memory + 64, 1.0f, 1); /* 256 bytes: exactly the granule */
}

static void device_memory_is_guarded()
{
    float *a = new_memory(256), *pinned = NULL;
    cudaMemcpy(a, ones, 256, cudaMemcpyHostToDevice);
    if (guarded) {
        CHECK(child_dies(touch, a));
        CHECK(child_dies(run_behind_the_end, a));
    }
    CHECK(cudaMallocHost(&pinned, BYTES) == cudaSuccess && !child_dies(touch, pinned));
    FAILS(cudaMemcpy(a, pinned + N - 1, 8, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    CHECK(cudaMemcpy(a, pinned, 256, cudaMemcpyHostToDevice) == cudaSuccess);
    cudaFreeHost(pinned);
    cudaFree(a);
}

int main()
{
    const char *l = getenv("VL_CUDA_ON_CPU_LAZY"), *g = getenv("VL_CUDA_ON_CPU_GUARD");
    lazy = l && *l == '1';
    guarded = g && *g == '1';
    for (int i = 0; i < N; i++) {
        ones[i] = 1;
        twos[i] = 2;
    }
    memory_is_limited_and_full_of_garbage();
    copies_are_checked();
    launches_are_limited();
    results_need_a_wait();
    host_buffers_are_read_late();
    streams_need_events();
    null_stream_waits_for_blocking_ones();
    device_memory_is_guarded();
    printf("lazy %d, guarded %d: %d checks failed\n", lazy, guarded, failures);
    return failures != 0;
}
