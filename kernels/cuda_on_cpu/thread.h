/* kernels/cuda_on_cpu/thread.h - what a running kernel sees: its place in the grid, barriers, warp operations.
 *
 * The threads of a block are fibers of one processor thread: each runs until it waits for others, and the schedule
 * decides who is next. Nothing is preempted, so that an access is atomic by itself; races are shown by the order of
 * threads and by the detector (race.h), not by chance. */
#ifndef VL_CUDA_ON_CPU_THREAD_H
#define VL_CUDA_ON_CPU_THREAD_H

#include <typeinfo>

#include "kernels/cuda_on_cpu/runtime_api.h"

namespace vl_sim
{
/* The thread that runs now; `fiber` is NULL while no kernel runs. */
struct place {
    uint3 thread, block;
    dim3 block_size, grid_size;
    struct fiber *fiber;
    int lane;
    char *shared; /* dynamic shared memory of the block */
};
extern place here;

/* Where a barrier or warp operation stands in the source: threads that meet must have come to the same one. */
struct source_line {
    const char *file;
    int line;
};

enum barrier_kind { BARRIER = 0, BARRIER_COUNT, BARRIER_AND, BARRIER_OR };
/* Waits for all threads of the block; returns the count (or and, or) of the predicates. */
int block_barrier(barrier_kind kind, int predicate, source_line at);

enum warp_kind { WARP_BARRIER = 0, WARP_SHUFFLE, WARP_BALLOT, WARP_MATCH };
/* Waits for the lanes of `mask`. A shuffle returns the value of lane `source`, a ballot the predicates as bits, a match
 * the lanes of the same value. */
uint64_t warp_meet(unsigned mask, warp_kind kind, uint64_t value, int source, source_line at);
unsigned active_lanes();

/* Tells the race detector; an atomic operation itself needs nothing. `code` is where the kernel performs it. */
void note_atomic(const void *at, size_t size, const void *code);

/* A queued call of a kernel with copies of its arguments. */
struct kernel_call {
    size_t size; /* of the object, whose bytes the kernel reads as its arguments */
    virtual void run() = 0;
    /* take(to, address, size) for each argument in order */
    virtual void each_argument(void (*take)(void *to, const void *at, size_t size), void *to) const = 0;
    virtual ~kernel_call()
    {
    }
};

struct launch_shape {
    const char *name, *type; /* as written at the launch; the mangled type of the function */
    const void *kernel;
    dim3 grid, block;
    size_t shared_bytes;
    cudaStream_t stream;
};
/* Checks the launch limits and queues the call, which it owns; errors are found by cudaGetLastError. */
void queue_kernel(const launch_shape &shape, kernel_call *call);

template <class... P> struct bound_call : kernel_call {
    void (*kernel)(P...);
    std::tuple<std::decay_t<P>...> arguments;
    template <class... A>
    bound_call(void (*k)(P...), A &&...given) : kernel(k), arguments(static_cast<P>(std::forward<A>(given))...)
    {
        size = sizeof *this;
    }
    void run() override
    {
        std::apply(kernel, arguments);
    }
    void each_argument(void (*take)(void *to, const void *at, size_t size), void *to) const override
    {
        std::apply([=](const auto &...one) { (take(to, &one, sizeof one), ...); }, arguments);
    }
};

template <class... P> struct launcher {
    const char *name;
    void (*kernel)(P...);
    template <class... A>
    void operator()(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, A &&...given) const
    {
        static_assert(sizeof...(A) == sizeof...(P), "the number of a kernel's arguments");
        launch_shape shape = {
            name, typeid(kernel).name(), reinterpret_cast<const void *>(kernel), grid, block, shared_bytes, stream};
        queue_kernel(shape, new bound_call<P...>(kernel, std::forward<A>(given)...));
    }
};

template <class... P> launcher<P...> launch(const char *name, void (*kernel)(P...))
{
    return {name, kernel};
}
} // namespace vl_sim

#define threadIdx (vl_sim::here.thread)
#define blockIdx  (vl_sim::here.block)
#define blockDim  (vl_sim::here.block_size)
#define gridDim   (vl_sim::here.grid_size)
static const int warpSize = 32;

#define VL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                      \
    vl_sim::launch(#kernel, kernel)((grid), (block), (shared_bytes), (stream), ##__VA_ARGS__)
#define VL_DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(vl_sim::here.shared)

#endif
