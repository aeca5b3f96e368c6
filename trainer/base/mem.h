/* base/mem.h - allocation and size arithmetic that cannot overflow silently.
 *
 * Every size that comes from a file goes through these. A failed call returns NULL (or VL_ENOMEM);
 * nothing here aborts. Memory is freed with vl_free, whatever function gave it. */
#ifndef VL_BASE_MEM_H
#define VL_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trainer/base/status.h"

/* count * size bytes, uninitialised / zeroed; NULL on overflow, exhaustion, or when both are 0. */
void *vl_alloc(size_t count, size_t size);
void *vl_calloc(size_t count, size_t size);
/* Grows or shrinks an array of vl_alloc; the old block stays valid when NULL is returned. */
void *vl_realloc(void *block, size_t count, size_t size);
void vl_free(void *block);

/* 64-byte aligned (huge-page aligned from 4 MiB), for arrays that vector code streams through.
 * Freed with vl_free. */
void *vl_alloc_aligned(size_t count, size_t size);

char *vl_strdup(const char *text);
char *vl_strndup(const char *text, size_t n);

/* *out = a * b, or a + b; false on overflow. */
bool vl_mul_size(size_t *out, size_t a, size_t b);
bool vl_add_size(size_t *out, size_t a, size_t b);

/* The failure of an allocation as a status: `if (!p) return vl_fail_nomem(err, "tokenizer");` */
vl_status vl_fail_nomem(vl_error *err, const char *what);
#ifdef __clang_analyzer__ /* as in status.h */
#define vl_fail_nomem(err, what) ((void)vl_fail_nomem(err, what), VL_ENOMEM)
#endif

#endif
