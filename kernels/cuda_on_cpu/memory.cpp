/* Device memory and pinned host memory. */
#include <stdlib.h>
#include <sys/mman.h>

#include <map>

#include "kernels/cuda_on_cpu/race.h"
#include "kernels/cuda_on_cpu/sim.h"
#include "kernels/cuda_on_cpu/trace.h"

namespace vl_sim
{
enum { ALIGNMENT = 256, PAGE = 4096, GARBAGE = 0xff }; /* as floats, garbage is NaN */
/* What is closed to the host at each end of an allocation: changing every page of a large one takes longer than the
 * work on it. */
enum { CLOSED_EDGE = 64 << 10 };

static std::map<const char *, allocation> &allocations()
{
    static std::map<const char *, allocation> all;
    return all;
}
static size_t device_bytes;
static int open_count;

const allocation *find_allocation(const void *address)
{
    auto next = allocations().upper_bound((const char *)address);
    if (next == allocations().begin())
        return NULL;
    const allocation &a = std::prev(next)->second;
    return (const char *)address < a.start + a.bytes ? &a : NULL;
}

bool on_device(const void *address, size_t bytes)
{
    const allocation *a = find_allocation(address);
    return a && !a->pinned && bytes <= (size_t)(a->start + a->bytes - (const char *)address);
}

static void protect(const allocation &a, int protection)
{
    if (!a.map)
        return;
    size_t edge = std::min<size_t>(a.map_bytes, CLOSED_EDGE);
    mprotect(a.map, edge, protection);
    mprotect(a.map + a.map_bytes - edge, edge, protection);
}

static void protect_all(int protection)
{
    for (auto &entry : allocations())
        protect(entry.second, protection);
}

device_access::device_access()
{
    if (open_count++ == 0 && setting().guard)
        protect_all(PROT_READ | PROT_WRITE);
}

device_access::~device_access()
{
    if (--open_count == 0 && setting().guard)
        protect_all(PROT_NONE);
}

/* Pages of its own with one behind that is never open; ends at most ALIGNMENT - 1 bytes before it. */
static bool map_guarded(allocation *a)
{
    size_t bytes = (a->bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1),
           pages = (bytes + PAGE - 1) & ~(size_t)(PAGE - 1);
    void *map = mmap(NULL, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return false;
    mprotect((char *)map + pages, PAGE, PROT_NONE);
    a->map = (char *)map;
    a->map_bytes = pages;
    a->start = a->map + pages - bytes;
    return true;
}

/* Whether nothing will ever lie there. */
static bool is_dry(const allocation &a)
{
    return setting().dry && !a.pinned;
}

static bool allocate(allocation *a)
{
    if (is_dry(*a)) { /* addresses that nobody can touch */
        void *map = mmap(NULL, a->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        a->start = (char *)map;
        return map != MAP_FAILED;
    }
    if (setting().guard && !a->pinned)
        return map_guarded(a);
    return posix_memalign((void **)&a->start, ALIGNMENT, a->bytes) == 0;
}

static cudaError_t new_allocation(void **out, size_t bytes, bool pinned)
{
    traced_call trace;
    trace.say("alloc %zu %c", bytes, pinned ? 'h' : 'd');
    allocation a = {NULL, bytes, NULL, 0, pinned};
    *out = NULL;
    if (bytes == 0)
        return cudaSuccess;
    if (!pinned && bytes > setting().memory - device_bytes)
        return cudaErrorMemoryAllocation;
    if (!allocate(&a))
        return cudaErrorMemoryAllocation;
    if (!is_dry(a))
        memset(a.start, GARBAGE, bytes);
    allocations()[a.start] = a;
    race_allocated(a);
    if (open_count == 0)
        protect(a, PROT_NONE);
    device_bytes += pinned ? 0 : bytes;
    *out = a.start;
    return cudaSuccess;
}

static cudaError_t free_allocation(void *memory, bool pinned)
{
    traced_call trace;
    if (!memory)
        return cudaSuccess;
    auto found = allocations().find((const char *)memory);
    if (found == allocations().end() || found->second.pinned != pinned)
        return cudaErrorInvalidValue;
    allocation a = found->second;
    trace.say("free %zu %c", a.bytes, pinned ? 'h' : 'd');
    race_freed(a);
    allocations().erase(found);
    device_bytes -= pinned ? 0 : a.bytes;
    if (a.map)
        munmap(a.map, a.map_bytes + PAGE);
    else if (is_dry(a))
        munmap(a.start, a.bytes);
    else
        free(a.start);
    return cudaSuccess;
}
} // namespace vl_sim

using namespace vl_sim;

cudaError_t cudaMalloc(void **ptr, size_t size)
{
    guard held(lock());
    return result(new_allocation(ptr, size, false));
}

/* Waits for the device, as the real one does in practice. */
cudaError_t cudaFree(void *ptr)
{
    guard held(lock());
    finish_all();
    return result(free_allocation(ptr, false));
}

cudaError_t cudaMallocHost(void **ptr, size_t size)
{
    guard held(lock());
    return result(new_allocation(ptr, size, true));
}

cudaError_t cudaFreeHost(void *ptr)
{
    guard held(lock());
    finish_all();
    return result(free_allocation(ptr, true));
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    guard held(lock());
    *total = setting().memory;
    *free = setting().memory - device_bytes;
    return cudaSuccess;
}
