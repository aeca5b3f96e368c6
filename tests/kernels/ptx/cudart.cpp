/* A stand-in for libcudart that runs what nvcc emitted: it finds the PTX in the plug-in's fat binary and gives it to
 * ptxsim, an interpreter of PTX. Memory, copies, streams and products are those of kernels/cuda_on_cpu.
 *
 * nvcc's host stubs call the functions below; CUDA documents none of them. Their arguments are as in
 * crt/host_runtime.h of CUDA 13. */
#include <stdio.h>
#include <stdlib.h>

#include <map>
#include <string>

#include "kernels/cuda_on_cpu/race.h"
#include "ptxsim.h"
#include "tests/kernels/ptx/parameters.h"

using namespace vl_sim;

/* ---- memory: what the host writes and reads there ---------------------------------------------------------- */

namespace vl_sim
{
void race_allocated(const allocation &)
{
    ptxsim::flush_cache();
}

void race_freed(const allocation &)
{
    ptxsim::flush_cache();
}

void race_written(const void *at, size_t bytes)
{
    if (on_device(at, bytes))
        ptxsim::host_write(at, bytes);
}

void race_read(const void *at, size_t bytes, const char *)
{
    if (on_device(at, bytes))
        ptxsim::host_read(at, bytes);
}
} // namespace vl_sim

static bool find_bounds(uint64_t address, uint64_t *first, uint64_t *end)
{
    const allocation *a = find_allocation((const void *)address);
    if (!a || a->pinned)
        return false;
    *first = (uint64_t)a->start;
    *end = *first + a->bytes;
    return true;
}

/* ---- the fat binary ---------------------------------------------------------------------------------------- */

enum { FATBIN_MAGIC = 0xBA55ED50, KIND_PTX = 1, FLAG_COMPRESSED = 0x8000 };

struct fatbin_wrapper {
    int magic, version;
    const char *data;
    void *unused;
};
struct fatbin_header {
    uint32_t magic;
    uint16_t version, size;
    uint64_t bytes; /* of all entries */
};
struct fatbin_entry {
    uint16_t kind, version;
    uint32_t header_size;
    uint64_t payload_size;
    uint32_t unused_sizes[2];
    uint16_t minor, major;
    uint32_t architecture; /* 75 of compute_75 */
    uint32_t unused_names[2];
    uint64_t flags;
};

struct kernel {
    const std::string *ptx;
    std::string name;
};

static std::map<const void *, kernel> &kernels()
{
    static std::map<const void *, kernel> all;
    return all;
}

struct configuration {
    dim3 grid, block;
    size_t shared_bytes;
    cudaStream_t stream;
};
static configuration pushed;

/* Errors that ptxsim only counts end the program with this. */
struct at_exit {
    ~at_exit()
    {
        if (ptxsim::errors()) {
            fprintf(stderr, "ptxsim: %ld errors\n", ptxsim::errors());
            fflush(stdout);
            _Exit(99);
        }
    }
};
static at_exit check_at_exit;

static cudaError_t launch(const void *function, const configuration &c, void **arguments)
{
    guard held(lock());
    auto found = kernels().find(function);
    std::vector<std::pair<int, int>> parameters; /* offset and size of each */
    if (found == kernels().end())
        stop("a kernel that was never registered");
    const kernel *k = &found->second;
    uint64_t threads = (uint64_t)c.block.x * c.block.y * c.block.z;
    if (threads == 0 || threads > MAX_THREADS || c.grid.y > 65535 || c.grid.z > 65535 || !c.grid.x || !c.grid.y)
        return result(cudaErrorInvalidConfiguration);
    if (c.shared_bytes > shared_limit(function))
        return result(cudaErrorInvalidValue);
    if (ptxsim::entry_params(k->ptx->c_str(), k->name.c_str(), parameters))
        stop("no PTX of %s", k->name.c_str());
    std::vector<char> bytes(4096);
    for (size_t i = 0; i < parameters.size(); i++)
        memcpy(&bytes[(size_t)parameters[i].first], arguments[i], (size_t)parameters[i].second);
    return result(queue(c.stream, [=] {
        ptxsim::set_find(find_bounds);
        ptxsim::run(k->ptx->c_str(), k->name.c_str(), bytes.data(), {c.grid.x, c.grid.y, c.grid.z},
                    {c.block.x, c.block.y, c.block.z}, c.shared_bytes);
    }));
}

extern "C" {
void **__cudaRegisterFatBinary(void *wrapper)
{
    const char *data = ((const fatbin_wrapper *)wrapper)->data;
    fatbin_header header;
    std::string *ptx = new std::string; /* for the life of the program, as kernels are */
    memcpy(&header, data, sizeof header);
    if (header.magic != FATBIN_MAGIC)
        stop("a fat binary of an unknown format");
    const char *at = data + header.size, *end = at + header.bytes;
    unsigned best = 0; /* the newest that the device runs, as the real runtime chooses */
    while (at < end) {
        fatbin_entry entry;
        memcpy(&entry, at, sizeof entry);
        if (entry.kind == KIND_PTX && (entry.flags & FLAG_COMPRESSED))
            stop("the PTX of the plug-in is compressed: build it with --no-compress");
        if (entry.kind == KIND_PTX && entry.architecture <= (unsigned)setting().capability &&
            entry.architecture >= best) {
            best = entry.architecture;
            ptx->assign(at + entry.header_size, strnlen(at + entry.header_size, entry.payload_size));
        }
        at += entry.header_size + entry.payload_size;
    }
    *ptx = parameters_by_name(*ptx);
    return (void **)ptx;
}

void __cudaRegisterFatBinaryEnd(void **)
{
}

void __cudaUnregisterFatBinary(void **)
{
}

char __cudaInitModule(void **)
{
    return 0;
}

void __cudaRegisterFunction(void **binary, const char *host, char *, const char *name, int, uint3 *, uint3 *, dim3 *,
                            dim3 *, int *)
{
    kernels()[host] = {(const std::string *)binary, name};
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, void *stream)
{
    pushed = {grid, block, shared_bytes, (cudaStream_t)stream};
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared_bytes, void *stream)
{
    *grid = pushed.grid, *block = pushed.block, *shared_bytes = pushed.shared_bytes;
    *(cudaStream_t *)stream = pushed.stream;
    return cudaSuccess;
}

cudaError_t __cudaGetKernel(void **kernel, const void *function)
{
    *kernel = (void *)function;
    return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared_bytes,
                               cudaStream_t stream)
{
    return launch(kernel, {grid, block, shared_bytes, stream}, arguments);
}
}
