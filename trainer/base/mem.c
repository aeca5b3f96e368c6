#include "trainer/base/mem.h"

#include <stdlib.h>
#include <string.h>

#include <vlens/memory.h>

bool vl_mul_size(size_t *out, size_t a, size_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool vl_add_size(size_t *out, size_t a, size_t b)
{
    return !__builtin_add_overflow(a, b, out);
}

void *vl_alloc(size_t count, size_t size)
{
    size_t bytes;
    if (!vl_mul_size(&bytes, count, size) || bytes > PTRDIFF_MAX)
        return NULL;
    return malloc(bytes ? bytes : 1);
}

void *vl_calloc(size_t count, size_t size)
{
    size_t bytes;
    if (!vl_mul_size(&bytes, count, size) || bytes > PTRDIFF_MAX)
        return NULL;
    return calloc(1, bytes ? bytes : 1);
}

void *vl_realloc(void *block, size_t count, size_t size)
{
    size_t bytes;
    if (!vl_mul_size(&bytes, count, size) || bytes > PTRDIFF_MAX)
        return NULL;
    return realloc(block, bytes ? bytes : 1);
}

void vl_free(void *block)
{
    free(block);
}

void vl_release(void *block)
{
    vl_free(block);
}

void *vl_alloc_aligned(size_t count, size_t size)
{
    size_t bytes;
    if (!vl_mul_size(&bytes, count, size) || bytes > PTRDIFF_MAX - (1 << 21))
        return NULL;
    size_t alignment = bytes >= ((size_t)4 << 20) ? (size_t)2 << 20 : 64;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    return aligned_alloc(alignment, bytes ? bytes : alignment);
}

char *vl_strndup(const char *text, size_t n)
{
    char *copy = vl_alloc(n + 1, 1);
    if (copy) {
        memcpy(copy, text, n);
        copy[n] = 0;
    }
    return copy;
}

char *vl_strdup(const char *text)
{
    return vl_strndup(text, strlen(text));
}

#undef vl_fail_nomem
vl_status vl_fail_nomem(vl_error *err, const char *what)
{
    return vl_fail(err, VL_ENOMEM, "out of memory: %s", what);
}
