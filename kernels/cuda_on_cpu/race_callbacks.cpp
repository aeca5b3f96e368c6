/* What a compiler calls for each access of code that it builds with -fsanitize=thread. The sanitizer's own library is
 * not linked: these functions take its place, and hand the accesses of kernels to the race detector. */
#include <stddef.h>
#include <stdint.h>

namespace vl_sim
{
void race_access(const void *at, size_t bytes, bool write, const void *code);
}

using vl_sim::race_access;

#define CODE __builtin_return_address(0)
#define OF_SIZE(n)                                                                                                     \
    void __tsan_read##n(void *at)                                                                                      \
    {                                                                                                                  \
        race_access(at, n, false, CODE);                                                                               \
    }                                                                                                                  \
    void __tsan_write##n(void *at)                                                                                     \
    {                                                                                                                  \
        race_access(at, n, true, CODE);                                                                                \
    }
/* Accesses that the compiler knows to be less aligned. */
#define UNALIGNED_OF_SIZE(n)                                                                                           \
    void __tsan_unaligned_read##n(void *at)                                                                            \
    {                                                                                                                  \
        race_bytes(at, n, false, CODE);                                                                                \
    }                                                                                                                  \
    void __tsan_unaligned_write##n(void *at)                                                                           \
    {                                                                                                                  \
        race_bytes(at, n, true, CODE);                                                                                 \
    }

/* Byte by byte, so that it is not called misaligned. */
static void race_bytes(void *at, size_t bytes, bool write, const void *code)
{
    for (size_t i = 0; i < bytes; i++)
        race_access((char *)at + i, 1, write, code);
}

extern "C" {
OF_SIZE(1)
OF_SIZE(2)
OF_SIZE(4)
OF_SIZE(8)
OF_SIZE(16)

void __tsan_read_range(void *at, size_t bytes)
{
    race_bytes(at, bytes, false, CODE);
}

void __tsan_write_range(void *at, size_t bytes)
{
    race_bytes(at, bytes, true, CODE);
}

UNALIGNED_OF_SIZE(2)
UNALIGNED_OF_SIZE(4)
UNALIGNED_OF_SIZE(8)
UNALIGNED_OF_SIZE(16)

void __tsan_init()
{
}
void __tsan_func_entry(void *)
{
}
void __tsan_func_exit()
{
}
void __tsan_vptr_update(void **, void *)
{
}
void __tsan_vptr_read(void **)
{
}
/* The guards of static variables in host code. */
uint8_t __tsan_atomic8_load(const volatile uint8_t *at, int)
{
    return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}
/* The reference counts of C++'s shared pointers. */
int32_t __tsan_atomic32_fetch_add(volatile int32_t *at, int32_t value, int)
{
    return __atomic_fetch_add(at, value, __ATOMIC_ACQ_REL);
}
}
