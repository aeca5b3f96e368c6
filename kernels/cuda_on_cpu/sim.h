/* kernels/cuda_on_cpu/sim.h - what the files of the simulated device share. Kernels do not see it. */
#ifndef VL_CUDA_ON_CPU_SIM_H
#define VL_CUDA_ON_CPU_SIM_H

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/cuda_on_cpu/thread.h"

namespace vl_sim
{
enum { WARP_SIZE = 32, MAX_THREADS = 1024 };

/* ---- settings.cpp ---- */

enum schedule { FORWARD = 0, REVERSE, RANDOM, WARP_GREEDY };
struct settings {
    vl_sim::schedule schedule;
    uint64_t seed;
    bool lazy, guard;
    bool dry;          /* nothing is computed, and device memory holds nothing */
    const char *trace; /* name of a file, or NULL */
    size_t memory;     /* bytes of the device */
    int capability;    /* 75, 80 or 90 */
    int devices;       /* that there seem to be; all are one */
};
/* Read once from the environment; a value that is not understood ends the process. */
const settings &setting();
/* xorshift64*, one sequence for the process. */
uint64_t next_random();

/* Writes one line to stderr and ends the process: for errors that CUDA has no status for. */
[[noreturn]] void stop(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- fiber.cpp ---- */

enum fiber_state { READY, AT_BARRIER, AT_WARP_OP, EXITED };
struct warp;
struct fiber {
    void *stack_pointer;
    char *stack; /* lowest address */
    uint3 thread;
    int index, lane; /* in the block, in the warp */
    fiber_state state;
    vl_sim::warp *warp;
    source_line at; /* where it waits, for what, and with what */
    int kind;
    unsigned mask;
    int source;
    uint64_t value, result;
    void *sanitizer; /* AddressSanitizer's bookkeeping of the stack */
};
struct warp {
    fiber *lanes[WARP_SIZE]; /* NULL where the block ends */
    unsigned existing;       /* lanes that exist */
};
enum { STACK_BYTES = 256 << 10 };
/* Makes the fiber run entry() from its start at the next resume. Stacks are kept for later blocks. */
void fiber_prepare(fiber *f, int index);
/* Runs it until it waits or exits. */
void fiber_resume(fiber *f);
/* Called on a fiber: goes back to fiber_resume. */
void fiber_wait();

/* ---- block.cpp, warp.cpp ---- */

/* Runs one block of here.block_size threads. */
void run_block(const char *kernel_name, kernel_call *call);
/* Ends the process with `what`, the kernel, the block and where its threads are. */
[[noreturn]] void stop_block(const char *what);

/* ---- memory.cpp ---- */

struct allocation {
    char *start;
    size_t bytes;
    char *map; /* of guarded memory, with map_bytes that may be opened; otherwise NULL */
    size_t map_bytes;
    bool pinned; /* host memory */
};
/* The allocation that holds the address, or NULL. */
const allocation *find_allocation(const void *address);
/* Whether [address, address + bytes) lies in one allocation of device memory. */
bool on_device(const void *address, size_t bytes);
/* With guard: device memory is accessible while at least one of these lives. */
struct device_access {
    device_access();
    ~device_access();
};

/* ---- stream.cpp ---- */

/* All entry points take it: host threads come one at a time. */
std::recursive_mutex &lock();
typedef std::lock_guard<std::recursive_mutex> guard;
/* Runs `work` when the stream comes to it. */
cudaError_t queue(cudaStream_t stream, std::function<void()> work);
void finish_all();

/* ---- device.cpp ---- */

/* Remembers an error for cudaGetLastError and returns it. */
cudaError_t result(cudaError_t error);
/* The dynamic shared memory that this kernel may ask for. */
size_t shared_limit(const void *kernel);
} // namespace vl_sim

#endif
