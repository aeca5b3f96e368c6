/* The race detector: of every byte that kernels touch, who wrote it and who read it last.
 *
 * Threads of a block are ordered by a barrier of the block, and lanes of a warp by a __syncwarp that names both;
 * shuffles and ballots order no memory (CUDA C++ Programming Guide, warp shuffle functions), nor does anything order
 * the blocks of one launch. Two accesses of different threads to a byte, of which one is a plain write, must be
 * ordered. What a kernel may do under every schedule is judged, not what it did under this one. Reads of bytes that
 * nobody wrote, accesses outside allocations, and misaligned ones are found too. The first finding ends the process. */
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <sys/mman.h>

#include <map>

#include "kernels/cuda_on_cpu/race.h"

namespace vl_sim
{
enum { NOBODY = 0xfffe, SEVERAL = 0xffff, LARGEST_SHARED = 256 << 10 };

/* What is known of one byte. Times are of the one clock below; 0 is never. */
struct cell {
    uint64_t written, read; /* last */
    uint64_t first_read;    /* since the last write */
    uint32_t readers;       /* lanes of the warp that read it since that warp last met as a whole */
    uint16_t reading_warp;  /* the only one since the last barrier, or SEVERAL */
    uint16_t writer;        /* thread of its block; SEVERAL after atomic operations of more than one */
    bool atomic;            /* the last write was an atomic operation */
    bool atomic_elsewhere;  /* and so was one of another block of the launch */
};

struct region {
    const char *low, *high;
    cell *cells;       /* one a byte; pages come into being when touched */
    uint8_t *is_known; /* 1 for bytes with a value (global memory) */
    bool shared;
};

static struct {
    uint64_t now, kernel, block, barrier; /* the clock, and when the present ones began */
    uint64_t whole_warp[MAX_THREADS / WARP_SIZE];
    uint64_t pairs[MAX_THREADS / WARP_SIZE][WARP_SIZE][WARP_SIZE]; /* lanes that met by a mask of a part of the warp */
    bool has_pairs[MAX_THREADS / WARP_SIZE];
    const char *name;
    const char *arguments, *arguments_end;
    region dynamic, fixed; /* shared memory: dynamic, and the variables of the plug-in */
    region recent;         /* the allocation last used */
} state;

static std::map<const char *, region> &regions()
{
    static std::map<const char *, region> all;
    return all;
}

static void *zeros(size_t bytes)
{
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        stop("no memory for the race detector");
    return map;
}

static region new_region(const char *low, size_t bytes, bool shared)
{
    uint8_t *known = shared ? NULL : (uint8_t *)zeros(bytes);
    return {low, low + bytes, (cell *)zeros(bytes * sizeof(cell)), known, shared};
}

/* ---- findings ---------------------------------------------------------------------------------------------- */

/* Where the code is, by addr2line where that is installed. */
static void print_source(const void *code)
{
    Dl_info info;
    char command[600], line[600];
    if (!dladdr(code, &info) || !info.dli_fname)
        return;
    size_t offset = (size_t)((const char *)code - (const char *)info.dli_fbase) - 1; /* a return address */
    snprintf(command, sizeof command, "addr2line -Cifpe '%s' 0x%zx 2>/dev/null", info.dli_fname, offset);
    FILE *pipe = popen(command, "r");
    while (pipe && fgets(line, sizeof line, pipe))
        fprintf(stderr, "  %s", line);
    if (pipe)
        pclose(pipe);
}

struct access {
    const char *at;
    size_t bytes;
    bool write, atomic;
    const void *code;
};

[[noreturn]] static void found(const char *what, const access &a, int other)
{
    fprintf(stderr, "cuda_on_cpu: %s: kernel %s, block (%u, %u, %u), thread %d, %s of %zu bytes", what, state.name,
            here.block.x, here.block.y, here.block.z, here.fiber->index,
            a.atomic  ? "atomic operation"
            : a.write ? "write"
                      : "read",
            a.bytes);
    if (other < NOBODY)
        fprintf(stderr, ", the other by thread %d", other);
    fputc('\n', stderr);
    print_source(a.code);
    stop("stopped by the race detector");
}

/* ---- order ------------------------------------------------------------------------------------------------- */

/* Whether what lane `other` of the own warp did at `time` is before what the running thread does now. */
static bool warp_ordered(uint64_t time, int other)
{
    int warp = here.fiber->index / WARP_SIZE;
    return time < state.whole_warp[warp] || (state.has_pairs[warp] && time < state.pairs[warp][other][here.lane]);
}

/* Whether a write of this launch is unordered with the running thread. `began`: of the launch, or of the block. */
static bool unordered_write(const cell &c, uint64_t began)
{
    if (c.written < began || c.written == 0)
        return false;
    if (c.written < state.block || c.atomic_elsewhere)
        return true;
    if (c.written < state.barrier || c.writer == here.fiber->index)
        return false;
    if (c.writer == SEVERAL || c.writer / WARP_SIZE != here.fiber->index / WARP_SIZE)
        return true;
    return !warp_ordered(c.written, c.writer % WARP_SIZE);
}

static bool unordered_read(const cell &c, uint64_t began)
{
    if (c.read < began || c.read == 0)
        return false;
    if (c.first_read >= began && c.first_read < state.block)
        return true;
    if (c.read < state.barrier)
        return false;
    if (c.reading_warp != here.fiber->index / WARP_SIZE) /* or SEVERAL */
        return true;
    for (int lane = 0; lane < WARP_SIZE; lane++)
        if (c.readers >> lane & 1 && lane != here.lane && !warp_ordered(c.read, lane))
            return true;
    return false;
}

static void note_read(cell *c, uint64_t began)
{
    uint16_t warp = (uint16_t)(here.fiber->index / WARP_SIZE);
    if (c->first_read < began)
        c->first_read = state.now;
    if (c->read < state.barrier || c->read == 0) {
        c->reading_warp = warp;
        c->readers = 0;
    } else if (c->reading_warp != warp) {
        c->reading_warp = SEVERAL;
    } else if (c->read < state.whole_warp[warp]) {
        c->readers = 0;
    }
    c->readers |= 1u << here.lane;
    c->read = state.now;
}

static void note_write(cell *c, bool atomic, uint64_t began)
{
    bool joins = atomic && c->atomic && c->written >= began && c->written != 0;
    bool joins_block = joins && c->written >= state.block;
    c->atomic_elsewhere = joins && (c->atomic_elsewhere || !joins_block);
    c->writer = joins_block && c->written >= state.barrier && c->writer != here.fiber->index
                    ? (uint16_t)SEVERAL
                    : (uint16_t)here.fiber->index;
    c->atomic = atomic;
    c->written = state.now;
    c->read = c->first_read = 0;
}

static void check_byte(cell *c, bool known, const access &a, uint64_t began)
{
    bool both_atomic = a.atomic && c->atomic && c->written >= began;
    if ((!a.write || a.atomic) && !known)
        found("a read of memory that nothing was written to", a, NOBODY);
    if (!both_atomic && unordered_write(*c, began))
        found(a.write ? "a race of two writes" : "a race of a read with an earlier write", a, c->writer);
    if (a.write && unordered_read(*c, began))
        found("a race of a write with an earlier read", a, NOBODY);
    if (a.write)
        note_write(c, a.atomic, began);
    else
        note_read(c, began);
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

static bool holds(const region &r, const char *at)
{
    return at >= r.low && at < r.high;
}

static int find_segment(dl_phdr_info *info, size_t, void *writable)
{
    const char *own = (const char *)&state;
    bool mine = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &p = info->dlpi_phdr[i];
        const char *low = (const char *)info->dlpi_addr + p.p_vaddr;
        if (p.p_type != PT_LOAD)
            continue;
        if (own >= low && own < low + p.p_memsz) {
            mine = true;
            if (writable)
                *(region *)writable = new_region(low, p.p_memsz, true);
        }
    }
    return mine;
}

/* Constants of the program: neither device nor shared memory, and only ever read. */
static bool is_constant(const char *at)
{
    Dl_info info;
    return dladdr(at, &info) != 0;
}

static const region *find_region(const access &a)
{
    const region *r = NULL;
    if (holds(state.dynamic, a.at))
        r = &state.dynamic;
    else if (holds(state.recent, a.at))
        r = &state.recent;
    else if (holds(state.fixed, a.at))
        r = &state.fixed;
    const allocation *memory = r ? NULL : find_allocation(a.at);
    if (memory && !memory->pinned) {
        state.recent = regions()[memory->start];
        r = &state.recent;
    }
    if (!r && !a.write && is_constant(a.at))
        return NULL;
    if (!r)
        found("an access to memory that is not the device's", a, NOBODY);
    if (a.bytes > (size_t)(r->high - a.at))
        found("an access beyond the end of its memory", a, NOBODY);
    return r;
}

/* What a kernel touches without its being device memory: its stack, its arguments, its place in the grid. */
static bool is_own(const char *at)
{
    const char *stack = here.fiber->stack, *place_at = (const char *)&here;
    return (at >= stack && at < stack + STACK_BYTES) || (at >= place_at && at < place_at + sizeof here) ||
           (at >= state.arguments && at < state.arguments_end);
}

void race_access(const void *at, size_t bytes, bool write, const void *code)
{
    access a = {(const char *)at, bytes, write, false, code};
    if (!here.fiber || is_own(a.at))
        return;
    const region *r = find_region(a);
    if (!r)
        return;
    if (bytes <= 16 && (uintptr_t)at % bytes != 0)
        found("a misaligned access", a, NOBODY);
    size_t first = (size_t)(a.at - r->low);
    uint64_t began = r->shared ? state.block : state.kernel;
    for (size_t i = first; i < first + bytes; i++) {
        bool known = r->shared ? r->cells[i].written >= state.block : r->is_known[i];
        check_byte(&r->cells[i], known, a, began);
        if (write && !r->shared)
            r->is_known[i] = 1;
    }
}

void note_atomic(const void *at, size_t size, const void *code)
{
    access a = {(const char *)at, size, true, true, code};
    const region *r = find_region(a);
    if (!r)
        found("an access to memory that is not the device's", a, NOBODY);
    size_t first = (size_t)(a.at - r->low);
    for (size_t i = first; i < first + size; i++) {
        bool known = r->shared ? r->cells[i].written >= state.block : r->is_known[i];
        check_byte(&r->cells[i], known, a, r->shared ? state.block : state.kernel);
    }
}

/* ---- what the device tells --------------------------------------------------------------------------------- */

void race_allocated(const allocation &memory)
{
    if (!memory.pinned)
        regions()[memory.start] = new_region(memory.start, memory.bytes, false);
}

void race_freed(const allocation &memory)
{
    auto entry = regions().find(memory.start);
    if (entry == regions().end())
        return;
    munmap(entry->second.cells, memory.bytes * sizeof(cell));
    munmap(entry->second.is_known, memory.bytes);
    regions().erase(entry);
    state.recent = region();
}

void race_kernel(const char *name, const kernel_call *call, size_t shared_bytes)
{
    if (!state.fixed.cells) {
        dl_iterate_phdr(find_segment, &state.fixed);
        state.dynamic = new_region(NULL, LARGEST_SHARED, true);
    }
    state.name = name;
    state.arguments = (const char *)call;
    state.arguments_end = state.arguments + call->size;
    state.dynamic.low = here.shared;
    state.dynamic.high = here.shared + shared_bytes;
    state.kernel = ++state.now;
}

void race_block()
{
    state.block = state.barrier = ++state.now;
    memset(state.whole_warp, 0, sizeof state.whole_warp);
    memset(state.has_pairs, 0, sizeof state.has_pairs);
}

void race_barrier()
{
    state.barrier = ++state.now;
}

void race_warp_barrier(warp *w, unsigned lanes)
{
    int index = here.fiber->index / WARP_SIZE;
    state.now++;
    if (lanes == w->existing) {
        state.whole_warp[index] = state.now;
        return;
    }
    if (!state.has_pairs[index])
        memset(state.pairs[index], 0, sizeof state.pairs[index]);
    state.has_pairs[index] = true;
    for (int i = 0; i < WARP_SIZE; i++)
        for (int j = 0; j < WARP_SIZE; j++)
            if (lanes >> i & lanes >> j & 1)
                state.pairs[index][i][j] = state.now;
}

void race_written(const void *at, size_t bytes)
{
    const allocation *memory = find_allocation(at);
    if (!memory || memory->pinned)
        return;
    const region &r = regions()[memory->start];
    memset(r.is_known + ((const char *)at - r.low), 1, bytes);
}

void race_read(const void *at, size_t bytes, const char *by)
{
    const allocation *memory = find_allocation(at);
    if (!memory || memory->pinned)
        return;
    const region &r = regions()[memory->start];
    const uint8_t *known = r.is_known + ((const char *)at - r.low);
    const void *unknown = memchr(known, 0, bytes);
    if (unknown)
        stop("%s of %zu bytes reads device memory that nothing was written to, from byte %zu on", by, bytes,
             (size_t)((const uint8_t *)unknown - known));
}
} // namespace vl_sim
