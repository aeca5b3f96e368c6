#include "trainer/readout/prefetch.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "trainer/base/mem.h"

enum { RESTING, READING, DONE, QUIT };

struct vl_prefetch {
    vl_cache *cache;
    int64_t capacity;
    size_t row_bytes;
    char *front, *back; /* [capacity, D] as stored: handed out, and read ahead */
    bool has_thread;
    int64_t ahead, all;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* Guarded by the mutex: */
    int phase;
    vl_run *pieces; /* [capacity] of the read ahead */
    int64_t n, state;
    vl_status status;
    vl_error error;
};

static vl_status read_pieces(char *to, const vl_prefetch *r, const vl_prefetch_order *order, vl_error *err)
{
    for (int64_t p = 0; p < order->n; p++) {
        VL_TRY(vl_cache_read(to, r->cache, order->state, order->pieces[p].first, order->pieces[p].n, err));
        to += (size_t)order->pieces[p].n * r->row_bytes;
    }
    return VL_OK;
}

/* The thread. Only one side touches the cache, `back` and `pieces` at a time: this one while READING. */
static void *work(void *data)
{
    vl_prefetch *r = data;
    pthread_mutex_lock(&r->mutex);
    while (r->phase != QUIT) {
        if (r->phase != READING) {
            pthread_cond_wait(&r->changed, &r->mutex);
            continue;
        }
        pthread_mutex_unlock(&r->mutex);
        vl_error error = VL_ERROR_INIT;
        vl_status status = read_pieces(r->back, r, &(vl_prefetch_order){r->pieces, r->n, r->state}, &error);
        pthread_mutex_lock(&r->mutex);
        r->status = status;
        r->error = error;
        if (r->phase == READING)
            r->phase = DONE;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->mutex);
    return NULL;
}

/* With all signals blocked: those are for the program's own threads. */
static vl_status start_thread(vl_prefetch *r, vl_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&r->thread, NULL, work, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    r->has_thread = failure == 0;
    return failure ? vl_fail(err, VL_EIO, "cannot start a thread that reads the cache: %s", strerror(failure)) : VL_OK;
}

vl_status vl_prefetch_new(vl_prefetch **out, vl_cache *cache, int64_t capacity, bool background, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    size_t rows = (size_t)capacity, bytes;
    *out = NULL;
    vl_prefetch *r = vl_calloc(1, sizeof *r);
    if (!r)
        return vl_fail_nomem(err, "reader");
    vl_status status = VL_OK;
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->changed, NULL);
    r->cache = cache;
    r->capacity = capacity;
    r->row_bytes = (size_t)info->d_model * vl_dtype_size(info->dtype);
    if (vl_mul_size(&bytes, rows, r->row_bytes)) {
        r->front = vl_alloc_aligned(bytes, 1);
        r->back = background ? vl_alloc_aligned(bytes, 1) : NULL;
        r->pieces = vl_alloc(rows, sizeof *r->pieces);
    }
    if (!r->front || (background && !r->back) || !r->pieces)
        status = vl_fail_nomem(err, "rows of the cache");
    if (status == VL_OK && background)
        status = start_thread(r, err);
    if (status == VL_OK)
        *out = r;
    else
        vl_prefetch_free(r);
    return status;
}

void vl_prefetch_free(vl_prefetch *r)
{
    if (!r)
        return;
    if (r->has_thread) {
        vl_prefetch_rest(r);
        pthread_mutex_lock(&r->mutex);
        r->phase = QUIT;
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->mutex);
        pthread_join(r->thread, NULL);
    }
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->mutex);
    vl_free(r->front);
    vl_free(r->back);
    vl_free(r->pieces);
    vl_free(r);
}

void vl_prefetch_rest(vl_prefetch *r)
{
    pthread_mutex_lock(&r->mutex);
    while (r->phase == READING)
        pthread_cond_wait(&r->changed, &r->mutex);
    pthread_mutex_unlock(&r->mutex);
}

vl_status vl_prefetch_take(void **rows, vl_prefetch *r, const vl_prefetch_order *wanted, vl_error *err)
{
    vl_prefetch_rest(r);
    r->all++;
    *rows = r->front;
    bool matches = r->phase == DONE && r->n == wanted->n && r->state == wanted->state &&
                   memcmp(r->pieces, wanted->pieces, (size_t)wanted->n * sizeof *r->pieces) == 0;
    pthread_mutex_lock(&r->mutex);
    r->phase = RESTING; /* the thread waits: nothing else is shared now */
    pthread_mutex_unlock(&r->mutex);
    if (!matches)
        return read_pieces(r->front, r, wanted, err);
    if (r->status != VL_OK) {
        if (err)
            *err = r->error;
        return r->status;
    }
    char *swap = r->front;
    r->front = r->back;
    r->back = swap;
    *rows = r->front;
    r->ahead++;
    return VL_OK;
}

void vl_prefetch_ask(vl_prefetch *r, const vl_prefetch_order *next)
{
    if (!r->has_thread || next->n == 0 || next->n > r->capacity)
        return;
    vl_prefetch_rest(r);
    pthread_mutex_lock(&r->mutex);
    memcpy(r->pieces, next->pieces, (size_t)next->n * sizeof *r->pieces);
    r->n = next->n;
    r->state = next->state;
    r->phase = READING;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
}

void vl_prefetch_count(const vl_prefetch *r, int64_t *ahead, int64_t *all)
{
    *ahead = r->ahead;
    *all = r->all;
}
