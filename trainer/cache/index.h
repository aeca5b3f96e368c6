/* cache/index.h - index.h5: all shards as one. */
#ifndef VL_CACHE_INDEX_H
#define VL_CACHE_INDEX_H

#include "trainer/cache/meta.h"
#include "trainer/cache/tables.h"
#include "trainer/model/head.h"

/* What a shard says about itself. */
typedef struct vl_shard_summary {
    vl_cache_meta meta; /* meta.dtype is set */
    int64_t n_tokens;
    vl_tables tables;
} vl_shard_summary;

/* Opens, checks and closes one shard by itself. Errors as in vl_meta_read and vl_tables_read. */
vl_status vl_shard_read(vl_shard_summary *out, const char *path, vl_error *err);
void vl_shard_summary_clear(vl_shard_summary *summary);

/* The rows of an index: runs of rows of shards, and the tables that belong to them. */
typedef struct vl_index_run {
    int64_t shard;           /* its number */
    char uuid[VL_UUID_SIZE]; /* of the shard */
    int64_t first, n, total; /* rows [first, first + n) of its `total` */
} vl_index_run;

typedef struct vl_index_rows {
    vl_tables tables;
    vl_index_run *runs; /* [n] */
    int64_t n, capacity;
} vl_index_rows;

void vl_index_rows_clear(vl_index_rows *rows);
/* Joins a run; one that goes on where the last ends lengthens that. Errors: VL_ENOMEM. */
vl_status vl_index_add_run(vl_index_rows *rows, const vl_index_run *run, vl_error *err);

typedef struct vl_index_spec {
    const char *directory;
    const vl_cache_meta *meta;  /* with created and config, which shards leave out */
    int64_t n_shards;           /* shard-00000.h5 ... must lie in the directory, whole */
    const vl_head_source *head; /* or NULL */
    const char *const *pieces;  /* [V] text of each token, entries may be NULL; or NULL */
    vl_index_rows *rows;        /* what the index presents; NULL: all rows of the n_shards shards, in their order */
} vl_index_spec;

/* Reads the shards' tables and writes index.h5 whole or not at all. */
vl_status vl_index_write(const vl_index_spec *spec, vl_error *err);

#endif
