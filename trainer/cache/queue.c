#include "trainer/cache/queue.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "trainer/base/mem.h"

enum { WAITING = 8 }; /* pieces; each is one state of one batch */

typedef enum work_kind { WORK_STATES = 0, WORK_TABLES, WORK_FINISH, WORK_STOP } work_kind;

typedef struct work {
    work_kind kind;
    int64_t shard, state, first, n;
    void *data;
    vl_tables tables;
} work;

struct vl_write_queue {
    vl_queue_spec spec;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    work waiting[WAITING]; /* a ring */
    int head, count;
    vl_status status; /* the first failure */
    vl_error error;
    int64_t shard;           /* of the caller alone: the one that is being filled */
    vl_shard_writer *writer; /* of the thread alone */
};

static void free_work(work *w)
{
    vl_free(w->data);
    vl_tables_clear(&w->tables);
}

static vl_status begin_shard(vl_write_queue *queue, int64_t number, vl_error *err)
{
    vl_shard_spec spec = {queue->spec.directory, number, queue->spec.meta, queue->spec.chunk_rows};
    return queue->writer ? VL_OK : vl_shard_begin(&queue->writer, &spec, err);
}

static vl_status do_work(vl_write_queue *queue, work *w, vl_error *err)
{
    VL_TRY(begin_shard(queue, w->shard, err));
    vl_shard_writer *writer = queue->writer;
    switch (w->kind) {
    case WORK_STATES: return vl_shard_states(writer, w->state, w->first, w->n, w->data, err);
    case WORK_TABLES: return vl_shard_tables(writer, &w->tables, err);
    case WORK_FINISH: queue->writer = NULL; return vl_shard_finish(writer, err);
    case WORK_STOP: break;
    }
    return VL_OK;
}

static void *run(void *user)
{
    vl_write_queue *queue = user;
    for (bool stop = false; !stop;) {
        pthread_mutex_lock(&queue->lock);
        while (queue->count == 0)
            pthread_cond_wait(&queue->changed, &queue->lock);
        work w = queue->waiting[queue->head];
        bool failed = queue->status != VL_OK;
        pthread_mutex_unlock(&queue->lock);

        vl_error error = VL_ERROR_INIT;
        stop = w.kind == WORK_STOP;
        vl_status status = failed || stop ? VL_OK : do_work(queue, &w, &error);
        free_work(&w);

        /* The place is given back after the work, so that what waits and what is written are bounded together. */
        pthread_mutex_lock(&queue->lock);
        queue->head = (queue->head + 1) % WAITING;
        queue->count--;
        if (status != VL_OK) {
            queue->status = status;
            queue->error = error;
        }
        pthread_cond_broadcast(&queue->changed);
        pthread_mutex_unlock(&queue->lock);
    }
    vl_shard_drop(queue->writer);
    return NULL;
}

static vl_status push(vl_write_queue *queue, work *w, vl_error *err)
{
    pthread_mutex_lock(&queue->lock);
    while (queue->count == WAITING)
        pthread_cond_wait(&queue->changed, &queue->lock);
    vl_status status = queue->status;
    w->shard = queue->shard;
    if (status == VL_OK || w->kind == WORK_STOP) {
        queue->waiting[(queue->head + queue->count++) % WAITING] = *w;
        pthread_cond_broadcast(&queue->changed);
    } else {
        free_work(w);
    }
    if (status != VL_OK && err)
        *err = queue->error;
    pthread_mutex_unlock(&queue->lock);
    return status;
}

vl_status vl_queue_open(vl_write_queue **out, const vl_queue_spec *spec, vl_error *err)
{
    *out = NULL;
    vl_write_queue *queue = vl_calloc(1, sizeof *queue);
    if (!queue)
        return vl_fail_nomem(err, "write queue");
    queue->spec = *spec;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->changed, NULL);
    /* Signals belong to the program's own threads. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&queue->thread, NULL, run, queue);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed) {
        pthread_mutex_destroy(&queue->lock);
        pthread_cond_destroy(&queue->changed);
        vl_free(queue);
        return vl_fail(err, VL_ENOMEM, "cannot start the writer thread: %s", strerror(failed));
    }
    *out = queue;
    return VL_OK;
}

void vl_queue_start_shard(vl_write_queue *queue, int64_t number)
{
    queue->shard = number;
}

vl_status vl_queue_states(vl_write_queue *queue, int64_t state, int64_t first, int64_t n, void *data, vl_error *err)
{
    work w = {.kind = WORK_STATES, .state = state, .first = first, .n = n, .data = data};
    return push(queue, &w, err);
}

vl_status vl_queue_tables(vl_write_queue *queue, vl_tables *tables, vl_error *err)
{
    work w = {.kind = WORK_TABLES, .tables = *tables};
    memset(tables, 0, sizeof *tables);
    return push(queue, &w, err);
}

vl_status vl_queue_finish_shard(vl_write_queue *queue, vl_error *err)
{
    work w = {.kind = WORK_FINISH};
    return push(queue, &w, err);
}

vl_status vl_queue_close(vl_write_queue *queue, vl_error *err)
{
    if (!queue)
        return VL_OK;
    work w = {.kind = WORK_STOP};
    push(queue, &w, NULL);
    pthread_join(queue->thread, NULL);
    vl_status status = queue->status;
    if (status != VL_OK && err)
        *err = queue->error;
    pthread_mutex_destroy(&queue->lock);
    pthread_cond_destroy(&queue->changed);
    vl_free(queue);
    return status;
}
