/* The threads of a block: who runs next, and where they wait for each other. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda_on_cpu/race.h"
#include "kernels/cuda_on_cpu/sim.h"

namespace vl_sim
{
static struct {
    const char *name;
    kernel_call *call;
    fiber fibers[MAX_THREADS];
    warp warps[MAX_THREADS / WARP_SIZE];
    int order[MAX_THREADS];
    int threads, warps_used;
    int alive, waiting; /* threads that have not exited; those at the block's barrier */
    int barrier_result;
} block;

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

void stop_block(const char *what)
{
    enum { SHOWN = 8 };
    fprintf(stderr, "cuda_on_cpu: %s: kernel %s, block (%u, %u, %u)\n", what, block.name, here.block.x, here.block.y,
            here.block.z);
    for (int i = 0, shown = 0; i < block.threads && shown < SHOWN; i++) {
        const fiber *f = &block.fibers[i];
        if (f->state == READY)
            continue;
        shown++;
        if (f->state == EXITED)
            fprintf(stderr, "  thread %d has exited\n", i);
        else
            fprintf(stderr, "  thread %d waits at %s:%d%s\n", i, file_name(f->at.file), f->at.line,
                    f->state == AT_BARRIER ? " for the block" : " for its warp");
    }
    abort();
}

void run_thread()
{
    block.call->run();
    here.fiber->state = EXITED;
    block.alive--;
}

int block_barrier(barrier_kind kind, int predicate, source_line at)
{
    fiber *f = here.fiber;
    f->state = AT_BARRIER;
    f->at = at;
    f->kind = kind;
    f->value = predicate != 0;
    block.waiting++;
    fiber_wait();
    return block.barrier_result;
}

/* All threads that live wait at the barrier: they go on. Stricter than hardware, which also lets threads meet at
 * different barriers, and lets some exit first: CUDA C++ allows a barrier only where the whole block comes to it. */
static void release_barrier()
{
    const fiber *first = &block.fibers[0];
    int count = 0;
    for (int i = 0; i < block.threads; i++) {
        fiber *f = &block.fibers[i];
        if (f->state != AT_BARRIER)
            stop_block("a barrier that some threads of the block do not reach (they have exited)");
        if (f->at.line != first->at.line || f->kind != first->kind || strcmp(f->at.file, first->at.file) != 0)
            stop_block("a divergent barrier (threads of one block wait at different ones)");
        count += (int)f->value;
    }
    for (int i = 0; i < block.threads; i++)
        block.fibers[i].state = READY;
    block.barrier_result = first->kind == BARRIER_COUNT ? count
                           : first->kind == BARRIER_AND ? count == block.threads
                                                        : count > 0;
    block.waiting = 0;
    race_barrier();
}

static bool run_if_ready(fiber *f)
{
    if (!f || f->state != READY)
        return false;
    fiber_resume(f);
    return true;
}

static void shuffle_order(int n)
{
    for (int i = n - 1; i > 0; i--)
        std::swap(block.order[i], block.order[next_random() % (uint64_t)(i + 1)]);
}

/* Each thread once, in the order of the schedule. */
static bool run_all_once()
{
    bool reverse = setting().schedule == REVERSE, ran = false;
    if (setting().schedule == RANDOM)
        shuffle_order(block.threads);
    for (int i = 0; i < block.threads; i++)
        ran |= run_if_ready(&block.fibers[block.order[reverse ? block.threads - 1 - i : i]]);
    return ran;
}

/* One warp as far as it can go alone, then the next: warps are as far apart as barriers let them. */
static bool run_warps_greedily()
{
    bool ran = false;
    shuffle_order(block.warps_used);
    for (int i = 0; i < block.warps_used; i++) {
        warp *w = &block.warps[block.order[i]];
        for (bool more = true; more;) {
            unsigned first = (unsigned)next_random();
            more = false;
            for (unsigned lane = 0; lane < WARP_SIZE; lane++)
                more |= run_if_ready(w->lanes[(first + lane) % WARP_SIZE]);
            ran |= more;
        }
    }
    return ran;
}

static void start_threads()
{
    const dim3 &size = here.block_size;
    block.threads = (int)(size.x * size.y * size.z);
    block.warps_used = (block.threads + WARP_SIZE - 1) / WARP_SIZE;
    block.alive = block.threads;
    block.waiting = 0;
    memset(block.warps, 0, sizeof(warp) * (size_t)block.warps_used);
    for (int i = 0; i < block.threads; i++) {
        fiber *f = &block.fibers[i];
        unsigned n = (unsigned)i;
        f->index = i;
        f->lane = i % WARP_SIZE;
        f->warp = &block.warps[i / WARP_SIZE];
        f->warp->lanes[f->lane] = f;
        f->warp->existing |= 1u << f->lane;
        f->thread = {n % size.x, n / size.x % size.y, n / (size.x * size.y)};
        f->state = READY;
        fiber_prepare(f, i);
        block.order[i] = i;
    }
}

void run_block(const char *kernel_name, kernel_call *call)
{
    block.name = kernel_name;
    block.call = call;
    start_threads();
    race_block();
    while (block.alive) {
        bool ran = setting().schedule == WARP_GREEDY ? run_warps_greedily() : run_all_once();
        if (block.alive && block.waiting == block.alive)
            release_barrier();
        else if (block.alive && !ran)
            stop_block("a deadlock (a divergent barrier or warp operation)");
    }
}
} // namespace vl_sim
