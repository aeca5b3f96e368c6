/* Streams and events.
 *
 * Work runs when it is queued; with VL_CUDA_ON_CPU_LAZY, when the host waits for it and no earlier, so that a result
 * that is read too soon, or a buffer that is used again too soon, shows as wrong values. The NULL stream is the legacy
 * one: it waits for the streams that are not cudaStreamNonBlocking, and runs its work at once. */
#include <deque>
#include <set>

#include "kernels/cuda_on_cpu/sim.h"
#include "kernels/cuda_on_cpu/trace.h"

namespace vl_sim
{
/* One cudaEventRecord: done when its stream has come to it. */
struct record {
    CUstream_st *stream;
    bool done;
};
} // namespace vl_sim

struct CUstream_st {
    bool blocking;
    std::deque<std::function<void()>> work;
};
struct CUevent_st {
    std::shared_ptr<vl_sim::record> last; /* NULL before the first record, which counts as done */
};

namespace vl_sim
{
static std::set<CUstream_st *> &streams()
{
    static std::set<CUstream_st *> all;
    return all;
}
static std::set<CUevent_st *> &events()
{
    static std::set<CUevent_st *> all;
    return all;
}

std::recursive_mutex &lock()
{
    static std::recursive_mutex mutex;
    return mutex;
}

static void run_next(CUstream_st *stream)
{
    std::function<void()> work = std::move(stream->work.front());
    stream->work.pop_front();
    work();
}

static void finish(CUstream_st *stream)
{
    device_access open;
    while (!stream->work.empty())
        run_next(stream);
}

/* Runs what the record's stream has queued before it. */
static void finish_record(const record &r)
{
    device_access open;
    while (!r.done)
        run_next(r.stream);
}

void finish_all()
{
    for (CUstream_st *stream : streams())
        finish(stream);
}

static void finish_blocking()
{
    for (CUstream_st *stream : streams())
        if (stream->blocking)
            finish(stream);
}

cudaError_t queue(cudaStream_t stream, std::function<void()> work)
{
    if (stream && !streams().count(stream))
        return cudaErrorInvalidResourceHandle;
    if (stream && setting().lazy) {
        stream->work.push_back(std::move(work));
        return cudaSuccess;
    }
    if (!stream)
        finish_blocking();
    device_access open;
    work();
    return cudaSuccess;
}
} // namespace vl_sim

using namespace vl_sim;

cudaError_t cudaDeviceSynchronize(void)
{
    guard held(lock());
    traced_call trace;
    trace.say("sync-device");
    finish_all();
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags)
{
    guard held(lock());
    if (flags & ~(unsigned)cudaStreamNonBlocking)
        return result(cudaErrorInvalidValue);
    *stream = new CUstream_st();
    (*stream)->blocking = !(flags & cudaStreamNonBlocking);
    streams().insert(*stream);
    return cudaSuccess;
}

/* What is queued is still done; here it is done at once. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    guard held(lock());
    if (!streams().count(stream))
        return result(cudaErrorInvalidResourceHandle);
    finish(stream);
    streams().erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    guard held(lock());
    traced_call trace(stream);
    trace.say("sync");
    if (stream && !streams().count(stream))
        return result(cudaErrorInvalidResourceHandle);
    if (stream)
        finish(stream);
    else
        finish_blocking();
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    guard held(lock());
    if (!streams().count(stream))
        return result(cudaErrorInvalidResourceHandle);
    return stream->work.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags)
{
    guard held(lock());
    traced_call trace(stream);
    trace.say("wait %d", trace_number(event));
    if (flags != 0)
        return result(cudaErrorInvalidValue);
    if (!events().count(event))
        return result(cudaErrorInvalidResourceHandle);
    std::shared_ptr<record> last = event->last; /* of now: a later record of the same event is not waited for */
    if (!last || last->done)
        return cudaSuccess;
    return result(queue(stream, [last] { finish_record(*last); }));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags)
{
    guard held(lock());
    if (flags & ~(unsigned)cudaEventDisableTiming)
        return result(cudaErrorInvalidValue);
    *event = new CUevent_st();
    events().insert(*event);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    guard held(lock());
    if (!events().count(event))
        return result(cudaErrorInvalidResourceHandle);
    events().erase(event);
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    guard held(lock());
    traced_call trace(stream);
    trace.say("record %d", trace_number(event));
    if (!events().count(event))
        return result(cudaErrorInvalidResourceHandle);
    std::shared_ptr<record> now(new record{stream, false});
    event->last = now;
    return result(queue(stream, [now] { now->done = true; }));
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    guard held(lock());
    traced_call trace;
    trace.say("sync-event %d", trace_number(event));
    if (!events().count(event))
        return result(cudaErrorInvalidResourceHandle);
    std::shared_ptr<record> last = event->last;
    if (last)
        finish_record(*last);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    guard held(lock());
    if (!events().count(event))
        return result(cudaErrorInvalidResourceHandle);
    return !event->last || event->last->done ? cudaSuccess : cudaErrorNotReady;
}
