/* Launches: their limits, and the blocks of a grid. */
#include <stdlib.h>

#include "kernels/cuda_on_cpu/race.h"
#include "kernels/cuda_on_cpu/sim.h"
#include "kernels/cuda_on_cpu/trace.h"

namespace vl_sim
{
/* The limits of every compute capability from 7.5 on. */
static cudaError_t check_launch(const launch_shape &s)
{
    uint64_t threads = (uint64_t)s.block.x * s.block.y * s.block.z;
    if (threads == 0 || threads > MAX_THREADS || s.block.x > MAX_THREADS || s.block.y > MAX_THREADS || s.block.z > 64)
        return cudaErrorInvalidConfiguration;
    if (!s.grid.x || !s.grid.y || !s.grid.z || s.grid.x > 0x7fffffff || s.grid.y > 65535 || s.grid.z > 65535)
        return cudaErrorInvalidConfiguration;
    return s.shared_bytes > shared_limit(s.kernel) ? cudaErrorInvalidValue : cudaSuccess;
}

/* Blocks run one after the other, in an order that the schedule changes too. */
static std::vector<uint64_t> block_order(uint64_t n)
{
    std::vector<uint64_t> order(n);
    for (uint64_t i = 0; i < n; i++)
        order[i] = setting().schedule == REVERSE ? n - 1 - i : i;
    if (setting().schedule == RANDOM || setting().schedule == WARP_GREEDY)
        for (uint64_t i = n; i > 1; i--)
            std::swap(order[i - 1], order[next_random() % i]);
    return order;
}

static void run_grid(const launch_shape &s, kernel_call *call)
{
    uint64_t x = s.grid.x, y = s.grid.y;
    here.block_size = s.block;
    here.grid_size = s.grid;
    /* of exactly this size, so that an address sanitizer sees what is beyond it */
    if (posix_memalign((void **)&here.shared, 16, s.shared_bytes ? s.shared_bytes : 1) != 0)
        stop("no memory for the shared memory of %s", s.name);
    race_kernel(s.name, call, s.shared_bytes);
    for (uint64_t i : block_order(x * y * s.grid.z)) {
        memset(here.shared, 0xff, s.shared_bytes);
        here.block = {(unsigned)(i % x), (unsigned)(i / x % y), (unsigned)(i / (x * y))};
        run_block(s.name, call);
    }
    free(here.shared);
    here.shared = NULL;
}

void queue_kernel(const launch_shape &shape, kernel_call *call)
{
    guard held(lock());
    traced_call trace(shape.stream);
    std::shared_ptr<kernel_call> owned(call);
    trace.say_kernel(shape, *call);
    launch_shape s = shape;
    cudaError_t error = check_launch(s);
    if (error == cudaSuccess && !setting().dry)
        error = queue(s.stream, [s, owned] { run_grid(s, owned.get()); });
    result(error);
}

#ifndef VL_CUDA_ON_CPU_RACE
void note_atomic(const void *, size_t, const void *)
{
}
#endif
} // namespace vl_sim
