#define _GNU_SOURCE
#include "tests/robust/alloc_fault.h"

#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>

enum { MOST_SITES = 4096 };

typedef struct site {
    const void *address;
    int64_t calls;
} site;

static struct {
    pthread_mutex_t lock;
    site sites[MOST_SITES];
    int n_sites;
    int64_t live;
    const void *fail_site;
    int64_t fail_call;
    bool injected;
} walk = {.lock = PTHREAD_MUTEX_INITIALIZER};

void alloc_fault_begin(const void *at, int64_t call)
{
    walk.n_sites = 0;
    walk.live = 0;
    walk.fail_site = at;
    walk.fail_call = call;
    walk.injected = false;
}

bool alloc_fault_injected(void)
{
    return walk.injected;
}

int64_t alloc_fault_live(void)
{
    return walk.live;
}

int alloc_fault_sites(void)
{
    return walk.n_sites;
}

const void *alloc_fault_site(int index, int64_t *calls)
{
    *calls = walk.sites[index].calls;
    return walk.sites[index].address;
}

/* Counts a call; true: it must fail. */
static bool count(const void *address)
{
    int i = 0;
    pthread_mutex_lock(&walk.lock);
    while (i < walk.n_sites && walk.sites[i].address != address)
        i++;
    if (i == MOST_SITES)
        abort();
    if (i == walk.n_sites)
        walk.sites[walk.n_sites++] = (site){address, 0};
    bool fail = address == walk.fail_site && walk.sites[i].calls == walk.fail_call;
    walk.sites[i].calls++;
    walk.injected = walk.injected || fail;
    pthread_mutex_unlock(&walk.lock);
    return fail;
}

static void *note(void *block)
{
    __atomic_fetch_add(&walk.live, block != NULL, __ATOMIC_RELAXED);
    return block;
}

#define HERE __builtin_return_address(0)
#define WRAP(type, name, parameters, arguments)                                                                        \
    type __real_##name parameters;                                                                                     \
    type __wrap_##name parameters;                                                                                     \
    type __wrap_##name parameters                                                                                      \
    {                                                                                                                  \
        return count(HERE) ? NULL : note(__real_##name arguments);                                                     \
    }
WRAP(void *, vl_alloc, (size_t n, size_t size), (n, size))
WRAP(void *, vl_calloc, (size_t n, size_t size), (n, size))
WRAP(void *, vl_alloc_aligned, (size_t n, size_t size), (n, size))
WRAP(char *, vl_strdup, (const char *text), (text))
/* its texts are freed with vl_free */
WRAP(char *, json_dumps, (const json_t *value, size_t flags), (value, flags))
WRAP(char *, vl_strndup, (const char *text, size_t n), (text, n))

void *__real_vl_realloc(void *block, size_t n, size_t size);
void *__wrap_vl_realloc(void *block, size_t n, size_t size);
void *__wrap_vl_realloc(void *block, size_t n, size_t size)
{
    if (count(HERE))
        return NULL;
    void *grown = __real_vl_realloc(block, n, size);
    return block ? grown : note(grown);
}

void __real_vl_free(void *block);
void __wrap_vl_free(void *block);
void __wrap_vl_free(void *block)
{
    __atomic_fetch_sub(&walk.live, block != NULL, __ATOMIC_RELAXED);
    __real_vl_free(block);
}

void __real_vl_release(void *block);
void __wrap_vl_release(void *block);
void __wrap_vl_release(void *block)
{
    __atomic_fetch_sub(&walk.live, block != NULL, __ATOMIC_RELAXED);
    __real_vl_release(block);
}
