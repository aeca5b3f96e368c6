/* cache/open.h - an open cache, as open.c, read.c and head.c see it. */
#ifndef VL_CACHE_OPEN_H
#define VL_CACHE_OPEN_H

#include <vlens/cache.h>

#include "trainer/cache/meta.h"
#include "trainer/cache/tables.h"
#include "trainer/model/head.h"

/* Files that are open at a time: more shards than a process may open files must still work. */
enum { VL_CACHE_OPEN_SHARDS = 8 };

typedef struct vl_cache_part {
    char *path;    /* of the file that holds the rows: a shard, or the index of a cache of one file */
    char *uuid;    /* expected; "" in a cache of one file */
    int64_t first; /* its first row */
    int64_t n;
    vl_h5 file; /* none while it is closed */
    vl_h5_dataset states;
    uint64_t used; /* when it was last read */
} vl_cache_part;

struct vl_cache {
    vl_cache_info info;
    vl_cache_tokens tokens;
    vl_cache_samples samples;
    char *path; /* the directory */
    char *index_path;
    vl_h5 index;
    vl_cache_meta meta;
    vl_tables tables;
    int32_t *sample_row;
    char fingerprint[65];
    char **pieces; /* [V] or NULL */
    vl_cache_part *parts;
    int64_t n_parts;
    uint64_t clock;
    /* The head, read when it is first asked for. */
    vl_head_source head;
    void *head_memory[4]; /* weight, bias, norm weight, norm bias */
    bool has_head, head_loaded;
};

/* Opens a part that is closed (and closes the one that was not used for longest). */
vl_status vl_cache_part_open(vl_cache *cache, vl_cache_part *part, vl_error *err);

/* Checks the shapes of /head and fills cache->head but for the arrays. */
vl_status vl_cache_head_describe(vl_cache *cache, vl_error *err);
/* Reads the arrays, and computes the fingerprint or compares it (VL_EMISMATCH). */
vl_status vl_cache_head_load(vl_cache *cache, vl_error *err);

#endif
