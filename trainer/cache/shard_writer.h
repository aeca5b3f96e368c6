/* cache/shard_writer.h - writes one shard: under a temporary name until it is whole. */
#ifndef VL_CACHE_SHARD_WRITER_H
#define VL_CACHE_SHARD_WRITER_H

#include "trainer/cache/meta.h"
#include "trainer/cache/tables.h"

typedef struct vl_shard_writer vl_shard_writer;

typedef struct vl_shard_spec {
    const char *directory;
    int64_t number;
    const vl_cache_meta
        *meta;          /* borrowed until the shard is finished; its uuid is left out: it follows from settings */
    int64_t chunk_rows; /* rows of a chunk of /states; 0: 256 */
} vl_shard_spec;

vl_status vl_shard_begin(vl_shard_writer **out, const vl_shard_spec *spec, vl_error *err);
/* Rows [first, first + n) of one state, [n, D] in meta->dtype. Any order of states; rows rising. */
vl_status vl_shard_states(vl_shard_writer *writer, int64_t state, int64_t first, int64_t n, const void *data,
                          vl_error *err);
/* Adds tokens, samples and images (copied); image rows count from the first image of `tables`. */
vl_status vl_shard_tables(vl_shard_writer *writer, const vl_tables *tables, vl_error *err);
/* Writes the tables, closes, fsyncs, renames. Frees the writer either way; after a failure nothing is left behind. */
vl_status vl_shard_finish(vl_shard_writer *writer, vl_error *err);
/* Gives up and removes the temporary file. NULL is allowed. */
void vl_shard_drop(vl_shard_writer *writer);

#endif
