/* readout/prefetch.h - reads rows of the cache in a thread of its own, while the device works on those before.
 *
 * One read is under way at a time, and nobody else reads the cache meanwhile: HDF5 is not made for two threads. */
#ifndef VL_READOUT_PREFETCH_H
#define VL_READOUT_PREFETCH_H

#include "trainer/readout/rows.h"

/* Some rows of one state: neighbours in pieces. */
typedef struct vl_prefetch_order {
    const vl_run *pieces; /* [n], borrowed */
    int64_t n, state;
} vl_prefetch_order;

typedef struct vl_prefetch vl_prefetch;

/* For at most `capacity` rows. Without `background` nothing is read ahead. The caller frees *out.
 * Errors: VL_ENOMEM, VL_EIO (no thread). */
vl_status vl_prefetch_new(vl_prefetch **out, vl_cache *cache, int64_t capacity, bool background, vl_error *err);
void vl_prefetch_free(vl_prefetch *prefetch);

/* *rows [n, D] as stored, the caller's to change until the next call: what was read ahead where that is what is wanted,
 * read now where it is not. An error of a read ahead is reported here, by the read that it was for. */
vl_status vl_prefetch_take(void **rows, vl_prefetch *prefetch, const vl_prefetch_order *wanted, vl_error *err);
/* Begins to read what will probably be wanted next. */
void vl_prefetch_ask(vl_prefetch *prefetch, const vl_prefetch_order *next);
/* Waits until nothing is being read: before anything else reads the cache. */
void vl_prefetch_rest(vl_prefetch *prefetch);
/* Reads that were ready or under way when they were wanted, and all. For tests and measurements. */
void vl_prefetch_count(const vl_prefetch *prefetch, int64_t *ahead, int64_t *all);

#endif
