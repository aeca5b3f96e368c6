/* cache/queue.h - one thread that writes shards behind the forward pass.
 *
 * Work is done in the order of the calls. A few pieces wait at most; then the caller waits, so that memory stays
 * bounded by the disk's speed. After a failure every call returns it. While a queue is open nobody else in the process
 * needs to use HDF5, though it may. */
#ifndef VL_CACHE_QUEUE_H
#define VL_CACHE_QUEUE_H

#include "trainer/cache/shard_writer.h"

typedef struct vl_write_queue vl_write_queue;

typedef struct vl_queue_spec {
    const char *directory; /* borrowed, as is meta, until the queue is closed */
    const vl_cache_meta *meta;
    int64_t chunk_rows;
} vl_queue_spec;

vl_status vl_queue_open(vl_write_queue **out, const vl_queue_spec *spec, vl_error *err);
/* What follows belongs to this shard. */
void vl_queue_start_shard(vl_write_queue *queue, int64_t number);
/* Rows of one state of the open shard; takes `data` over (vl_free), also on failure. */
vl_status vl_queue_states(vl_write_queue *queue, int64_t state, int64_t first, int64_t n, void *data, vl_error *err);
/* Takes the contents of `tables` over and leaves it empty, also on failure. */
vl_status vl_queue_tables(vl_write_queue *queue, vl_tables *tables, vl_error *err);
/* The open shard is whole: it appears under its name. */
vl_status vl_queue_finish_shard(vl_write_queue *queue, vl_error *err);
/* Waits for all work. A shard that is not finished is dropped. NULL is allowed. Returns the first failure. */
vl_status vl_queue_close(vl_write_queue *queue, vl_error *err);

#endif
