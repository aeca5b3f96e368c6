/* fit/reader.h - reads rows of the cache in a thread of its own, while the device works on those before.
 *
 * One read is under way at a time, and nobody else reads the cache meanwhile: HDF5 is not made for two threads. */
#ifndef VL_FIT_READER_H
#define VL_FIT_READER_H

#include "trainer/fit/plan.h"

/* Some rows of one state: neighbours in pieces. */
typedef struct vl_reading_order {
    const vl_run *pieces; /* [n], borrowed */
    int64_t n, state;
} vl_reading_order;

typedef struct vl_reader vl_reader;

/* For at most `capacity` rows. Without `background` nothing is read ahead. The caller frees *out.
 * Errors: VL_ENOMEM, VL_EIO (no thread). */
vl_status vl_reader_new(vl_reader **out, vl_cache *cache, int64_t capacity, bool background, vl_error *err);
void vl_reader_free(vl_reader *reader);

/* *rows [n, D] as stored, the caller's to change until the next call: what was read ahead where that is what is wanted,
 * read now where it is not. An error of a read ahead is reported here, by the read that it was for. */
vl_status vl_reader_take(void **rows, vl_reader *reader, const vl_reading_order *wanted, vl_error *err);
/* Begins to read what will probably be wanted next. */
void vl_reader_ask(vl_reader *reader, const vl_reading_order *next);
/* Waits until nothing is being read: before anything else reads the cache. */
void vl_reader_rest(vl_reader *reader);
/* Reads that were ready or under way when they were wanted, and all. For tests and measurements. */
void vl_reader_count(const vl_reader *reader, int64_t *ahead, int64_t *all);

#endif
