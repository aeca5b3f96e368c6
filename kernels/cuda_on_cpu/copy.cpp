/* Copies and fills. Each names its direction, and both sides must be where that says and large enough. */
#include "kernels/cuda_on_cpu/race.h"
#include "kernels/cuda_on_cpu/sim.h"
#include "kernels/cuda_on_cpu/trace.h"

namespace vl_sim
{
struct plane {
    char *at;
    size_t pitch, width, height; /* bytes, bytes, rows */
    size_t span() const
    {
        return height ? (height - 1) * pitch + width : 0;
    }
    char *row(size_t i) const
    {
        return at + i * pitch;
    }
};

static cudaError_t check_side(const plane &p, bool device)
{
    if (p.width > p.pitch)
        return cudaErrorInvalidPitchValue;
    const allocation *a = find_allocation(p.at);
    if (device)
        return on_device(p.at, p.span()) ? cudaSuccess : cudaErrorInvalidValue;
    if (a && !a->pinned)
        return cudaErrorInvalidValue;
    return !a || p.span() <= (size_t)(a->start + a->bytes - p.at) ? cudaSuccess : cudaErrorInvalidValue;
}

static cudaError_t check_copy(const plane &to, const plane &from, cudaMemcpyKind kind)
{
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
        return cudaErrorInvalidMemcpyDirection;
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind == cudaMemcpyDefault) {
        const allocation *a = find_allocation(to.at), *b = find_allocation(from.at);
        to_device = a && !a->pinned;
        from_device = b && !b->pinned;
    }
    cudaError_t error = check_side(to, to_device);
    return error ? error : check_side(from, from_device);
}

static void copy_rows(const plane &to, const plane &from)
{
    for (size_t i = 0; i < to.height; i++) {
        race_read(from.row(i), from.width, "a copy");
        memmove(to.row(i), from.row(i), to.width);
        race_written(to.row(i), to.width);
    }
}

static cudaError_t queue_copy(const plane &to, const plane &from, cudaMemcpyKind kind, cudaStream_t stream)
{
    if (to.width == 0 || to.height == 0)
        return cudaSuccess;
    traced_call trace(stream);
    char source = trace_place(from.at), target = trace_place(to.at);
    trace.say("copy %c %c %zu %zu", source, target, to.width * to.height, to.height);
    cudaError_t error = check_copy(to, from, kind);
    if (error == cudaSuccess && setting().dry) {
        for (size_t i = 0; i < to.height && source == 'd' && target != 'd'; i++)
            memset(to.row(i), 0, to.width);
        return cudaSuccess;
    }
    return error ? error : queue(stream, [to, from] { copy_rows(to, from); });
}

static cudaError_t queue_fill(const plane &to, int value, cudaStream_t stream)
{
    if (to.width == 0 || to.height == 0)
        return cudaSuccess;
    traced_call trace(stream);
    trace.say("fill %zu", to.width * to.height);
    cudaError_t error = check_side(to, true);
    if (error || setting().dry)
        return error;
    return queue(stream, [to, value] {
        for (size_t i = 0; i < to.height; i++) {
            memset(to.row(i), value, to.width);
            race_written(to.row(i), to.width);
        }
    });
}
} // namespace vl_sim

using namespace vl_sim;

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t count, cudaMemcpyKind kind, cudaStream_t stream)
{
    guard held(lock());
    plane to = {(char *)dst, count, count, 1}, from = {(char *)const_cast<void *>(src), count, count, 1};
    return result(queue_copy(to, from, kind, stream));
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t count, cudaMemcpyKind kind)
{
    return cudaMemcpyAsync(dst, src, count, kind, NULL);
}

cudaError_t cudaMemcpy2DAsync(void *dst, size_t dpitch, const void *src, size_t spitch, size_t width, size_t height,
                              cudaMemcpyKind kind, cudaStream_t stream)
{
    guard held(lock());
    plane to = {(char *)dst, dpitch, width, height}, from = {(char *)const_cast<void *>(src), spitch, width, height};
    return result(queue_copy(to, from, kind, stream));
}

cudaError_t cudaMemsetAsync(void *ptr, int value, size_t count, cudaStream_t stream)
{
    guard held(lock());
    return result(queue_fill({(char *)ptr, count, count, 1}, value, stream));
}

cudaError_t cudaMemset2DAsync(void *ptr, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream)
{
    guard held(lock());
    return result(queue_fill({(char *)ptr, pitch, width, height}, value, stream));
}
