/* cache/store.h - the shards of a folder as a set of samples: what is there already, by content.
 *
 * A shard is never changed once it is whole. Which of its samples belong to the cache, and in which order, the index
 * says; a sample whose line was deleted stays in its shard, and is found again where the line comes back. */
#ifndef VL_CACHE_STORE_H
#define VL_CACHE_STORE_H

#include "trainer/cache/index.h"

/* Where a sample lies. */
typedef struct vl_sample_place {
    int64_t shard;  /* in vl_store.shards; -1: nowhere */
    int64_t sample; /* in the shard's /samples */
    int64_t first_row, n_rows;
    int64_t first_image, n_images;
} vl_sample_place;

typedef struct vl_store_shard {
    int64_t number; /* in its name */
    vl_shard_summary summary;
    vl_sample_place *places; /* [summary.tables.samples.n] */
} vl_store_shard;

typedef struct vl_store {
    vl_store_shard *shards; /* [n] by rising number */
    int64_t n, capacity;
    const vl_sample_place **sorted; /* [n_samples] by key, then by place */
    bool *used;                     /* [n_samples] given out by vl_store_find */
    int64_t n_samples;
} vl_store;

void vl_store_clear(vl_store *store);
/* Takes a whole shard over (its summary is emptied). Errors: VL_ENOMEM; VL_EMISMATCH (its samples have no keys). */
vl_status vl_store_add(vl_store *store, int64_t number, vl_shard_summary *summary, const char *path, vl_error *err);
/* After the last vl_store_add. */
vl_status vl_store_sort(vl_store *store, vl_error *err);
/* A place of that key that was not given out yet: equal samples are stored as often as they are asked for. NULL: none.
 */
const vl_sample_place *vl_store_find(vl_store *store, const char *key);
/* Whether a shard has that number. */
bool vl_store_has(const vl_store *store, int64_t number);

#endif
