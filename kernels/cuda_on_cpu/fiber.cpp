/* Fibers: stacks of their own that one processor thread switches between (x86-64). */
#include <stdlib.h>
#include <sys/mman.h>

#include "kernels/cuda_on_cpu/sim.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

/* Saves what the System V ABI has a called function preserve, and goes on with another stack. The floating-point
 * control words are the same on all. */
extern "C" void vl_sim_switch(void **save, void *to) __attribute__((visibility("hidden")));
__asm__(".text\n"
        ".hidden vl_sim_switch\n"
        ".globl vl_sim_switch\n"
        ".type vl_sim_switch, @function\n"
        "vl_sim_switch:\n"
        "    push %rbp\n"
        "    push %rbx\n"
        "    push %r12\n"
        "    push %r13\n"
        "    push %r14\n"
        "    push %r15\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n"
        "    pop %r14\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbx\n"
        "    pop %rbp\n"
        "    ret\n"
        ".size vl_sim_switch, . - vl_sim_switch\n");

namespace vl_sim
{
place here;

enum { GUARD_BYTES = 4096, SAVED_REGISTERS = 6 };

static void *scheduler_stack;
#ifdef __SANITIZE_ADDRESS__
static const void *scheduler_bottom;
static size_t scheduler_size;
static void *scheduler_bookkeeping;
#endif

/* Of the thread with this index in its block; made at first use and kept. */
static char *stack_of(int index)
{
    static char *stacks[MAX_THREADS];
    if (!stacks[index]) {
        void *map = mmap(NULL, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED)
            stop("no memory for the stack of thread %d", index);
        mprotect(map, GUARD_BYTES, PROT_NONE);
        stacks[index] = (char *)map + GUARD_BYTES;
    }
    return stacks[index];
}

static void leave(bool for_good)
{
    fiber *f = here.fiber;
    (void)for_good;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(for_good ? NULL : &f->sanitizer, scheduler_bottom, scheduler_size);
#endif
    vl_sim_switch(&f->stack_pointer, scheduler_stack);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(f->sanitizer, NULL, NULL);
#endif
}

void run_thread(); /* block.cpp */

static void entry()
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(NULL, &scheduler_bottom, &scheduler_size);
#endif
    run_thread();
    leave(true);
    abort();
}

void fiber_prepare(fiber *f, int index)
{
    f->stack = stack_of(index);
    /* tops at different distances from a page's start: otherwise all stacks share a few sets of the cache */
    void **top = (void **)(f->stack + STACK_BYTES - (index & 127) * 320);
    *--top = NULL; /* a return address for entry(), and the alignment that a call gives */
    *--top = (void *)entry;
    f->stack_pointer = top - SAVED_REGISTERS;
    f->sanitizer = NULL;
}

void fiber_resume(fiber *f)
{
    here.fiber = f;
    here.thread = f->thread;
    here.lane = f->lane;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&scheduler_bookkeeping, f->stack, STACK_BYTES);
#endif
    vl_sim_switch(&scheduler_stack, f->stack_pointer);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(scheduler_bookkeeping, NULL, NULL);
#endif
    here.fiber = NULL;
}

void fiber_wait()
{
    leave(false);
}
} // namespace vl_sim
