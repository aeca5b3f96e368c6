/* cache/open.h - an open cache, as open.c, read.c and head.c see it. */
#ifndef VL_CACHE_OPEN_H
#define VL_CACHE_OPEN_H

#include <vlens/cache.h>

#include "trainer/cache/meta.h"
#include "trainer/cache/tables.h"
#include "trainer/model/head.h"

/* Files that are open at a time: more shards than a process may open files must still work. */
enum { VL_CACHE_OPEN_SHARDS = 8 };

/* A file that holds rows: a shard, or the index of a cache of one file. */
typedef struct vl_cache_file {
    char *path;
    char *uuid; /* expected; NULL in a cache of one file */
    int64_t n;  /* rows that it has at least */
    vl_h5 file; /* none while it is closed */
    vl_h5_dataset states;
    uint64_t used; /* when it was last read */
} vl_cache_file;

/* A run of rows of one file. */
typedef struct vl_cache_part {
    int64_t file;   /* in vl_cache.files */
    int64_t offset; /* its first row in the file, */
    int64_t first;  /* and in the cache */
    int64_t n;
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
    char **pieces;    /* [V] or NULL */
    uint8_t *heldout; /* [S] vl_sample_side: of the file, or what vl_cache_split chose */
    vl_cache_file *files;
    int64_t n_files;
    vl_cache_part *parts;
    int64_t n_parts;
    uint64_t clock;
    /* The head, read when it is first asked for. */
    vl_head_source head;
    void *head_memory[4]; /* weight, bias, norm weight, norm bias */
    bool has_head, head_loaded;
};

/* Opens a file where it is closed, and checks that it is the one of the index. */
vl_status vl_cache_file_open(vl_cache *cache, vl_cache_file *file, vl_error *err);

/* Checks the shapes of /head and fills cache->head but for the arrays. */
vl_status vl_cache_head_describe(vl_cache *cache, vl_error *err);
/* Reads the arrays, and computes the fingerprint or compares it (VL_EMISMATCH). */
vl_status vl_cache_head_load(vl_cache *cache, vl_error *err);

#endif
