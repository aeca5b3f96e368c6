/* kernels/cuda_on_cpu/trace.h - every call that reaches the device as one line of text, for tests that count calls and
 * for tools/timeline, which replays them on a model of a card.
 *
 * With VL_CUDA_ON_CPU_TRACE=FILE each entry point leaves a line
 *
 *     kind thread begin end stream fields...
 *
 * Times are nanoseconds since the first line. Threads, streams and events are numbered in the order of their first use;
 * the NULL stream is 0. Kinds and their fields:
 *
 *     kernel NAME TYPE blocks threads shared words...   TYPE: the demangled type of the function, without spaces.
 * Arguments follow as 8-byte words: d points to device memory, h to pinned memory product m n k type_in type_out flags
 * cuBLASLt's (column-major) sizes; cudaDataType's numbers; flags of t, T (transposed operands), b (bias), r (reads C),
 * else "-" copy FROM TO bytes rows             places: p pageable, h pinned, d device fill bytes alloc bytes PLACE free
 * bytes PLACE record EVENT    wait EVENT          sync    sync-event EVENT    sync-device choose cuBLASLt is asked for
 * an algorithm */
#ifndef VL_CUDA_ON_CPU_TRACE_H
#define VL_CUDA_ON_CPU_TRACE_H

#include <string>

#include "kernels/cuda_on_cpu/sim.h"

namespace vl_sim
{
/* Lives as long as the call. Entry points call each other: only the outermost of a thread leaves a line. */
class traced_call
{
  public:
    explicit traced_call(cudaStream_t stream = NULL);
    ~traced_call();
    /* Kind and fields, printed one after the other. */
    void say(const char *format, ...) __attribute__((format(printf, 2, 3)));
    void say_kernel(const launch_shape &shape, const kernel_call &call);

  private:
    bool outermost;
    uint64_t begin;
    cudaStream_t stream;
    std::string text;
};

/* The number of a stream or event; 0 for NULL. */
int trace_number(const void *object);
/* p, h or d. */
char trace_place(const void *address);
} // namespace vl_sim

#endif
