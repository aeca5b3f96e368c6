/* readout/loader.h - brings the rows of one tile to the device, one state at a time: from a cache, whose next rows are
 * read ahead, or from memory. */
#ifndef VL_READOUT_LOADER_H
#define VL_READOUT_LOADER_H

#include "kernels/ops.h"
#include "trainer/base/log.h"
#include "trainer/readout/prefetch.h"
#include "trainer/readout/rows.h"

/* What to read ahead, in the place of a state. */
enum { VL_LOADER_NOTHING = -1, VL_LOADER_NEXT_TILE = -2 };

/* Where rows come from. Borrowed. */
typedef struct vl_loader_source {
    vl_cache *cache;            /* NULL: from memory */
    const float *const *memory; /* [n_states] of [n_rows, D] */
    int64_t d_model;
    int64_t capacity; /* rows of a tile at most */
    bool background;  /* read ahead in a thread of its own; the bits are the same */
} vl_loader_source;

typedef struct vl_kept vl_kept; /* kept.h: states that stay on the device */

typedef struct vl_loader {
    vl_loader_source source;
    vl_device *device;
    vl_log *log;      /* asked before every tile whether to stop; may be NULL */
    vl_dtype dtype;   /* of the stored states */
    int64_t capacity; /* rows of a tile at most */
    int64_t d_model;
    /* The tile: */
    int64_t rows, n_pieces;
    vl_run *pieces;         /* [capacity] */
    float *weight;          /* [capacity] weight of each row's class; from memory: 1 */
    int32_t *target;        /* [capacity] next token; from memory: -1 */
    uint8_t *token_class;   /* [capacity]; from memory: 0 */
    int64_t shuffled_state; /* read with its rows turned by half a tile (lens.targets); -1: none */
    uint8_t *sound;         /* [capacity] of the state that was read last: 0 where a value was not finite */
    int64_t n_unsound;      /* rows of it that are not: they read as zeros */
    vl_prefetch *prefetch;  /* NULL: from memory */
    vl_kept *kept;          /* or NULL */
    float *masked;          /* [capacity] what vl_loader_mask writes */
    bool is_masked;
    /* Of the tile that follows: */
    const vl_sampler *sampler;
    int64_t asked, first_state;    /* rows that it will be asked for; the state that was read first */
    vl_run *next_pieces;           /* [capacity] */
    vl_tensor stored, wide;        /* [capacity, D] on the device, as stored and f32 */
    vl_tensor row_weight, targets; /* [capacity] f32, i32 on the device */
} vl_loader;

/* Freed with vl_loader_clear. Errors: VL_ENOMEM, VL_EDEVICE, VL_EIO (no thread). */
vl_status vl_loader_new(vl_loader *out, vl_device *device, const vl_loader_source *source, vl_error *err);
void vl_loader_clear(vl_loader *loader);
/* Moves to the sampler's next `rows` rows (at most `capacity`); rows == 0 afterwards: the walk is over. `then`: rows
 * that the tile after this one will be asked for. On the device a row's weight is scale * weight[class].
 * Error: VL_ECANCELLED. */
typedef struct vl_loader_order {
    vl_sampler *sampler;
    int64_t rows, then;
    double scale;
} vl_loader_order;
vl_status vl_loader_next(vl_loader *loader, const vl_loader_order *order, vl_error *err);
/* The tile's rows of one state as stored [rows, D], on the host; valid until the next read. A row of a cache that holds
 * a value that is not finite reads as zeros, and `sound` says so. `next` is the state of this
 * tile that will be asked for next, VL_LOADER_NEXT_TILE (the next tile begins as this one did) or VL_LOADER_NOTHING: it
 * is read ahead. Errors: those of vl_cache_read. */
vl_status vl_loader_read(const void **rows, vl_loader *loader, int64_t state, int64_t next, vl_error *err);
/* The same on the device, f32 [rows, D]; valid until the next load. */
vl_status vl_loader_load(vl_tensor *out, vl_loader *loader, int64_t state, int64_t next, vl_error *err);
/* Reads states whole and keeps them on the device, as stored (but those with a row that is not finite): of these rows
 * nothing travels any more. The bits are the same. `weight_scale` is that of walks over parts[0], whose weights are
 * kept too. vl_loader_drop frees them. Errors: VL_ENOMEM, VL_ECANCELLED, those of vl_cache_read. */
typedef struct vl_keep_args {
    const int64_t *states; /* [n_states] */
    int64_t n_states;
    const vl_rows *const *parts; /* [n_parts]; parts[0] is borrowed until they are dropped */
    int64_t n_parts;
    double weight_scale;
} vl_keep_args;
vl_status vl_loader_keep(vl_loader *loader, const vl_keep_args *args, vl_error *err);
void vl_loader_drop(vl_loader *loader);
/* Whether all values of a row as stored [d] are finite. */
bool vl_row_is_finite(const void *row, vl_dtype dtype, int64_t d);

/* Any rows [n] of one state of the cache, beside the walk: out [n, D] f32 on the host. */
vl_status vl_loader_fetch(float *out, vl_loader *loader, int64_t state, const int64_t *rows, int64_t n, vl_error *err);
/* The row of the cache that row 0..rows-1 of the tile is. */
int64_t vl_loader_cache_row(const vl_loader *loader, int64_t row);
/* The tile's weights on the device from now on: 0 where `sound` [rows] is 0; NULL: all of them. */
vl_status vl_loader_mask(vl_loader *loader, const uint8_t *sound, vl_error *err);
/* The tile's weights and targets on the device. */
vl_tensor vl_loader_row_weight(const vl_loader *loader);
vl_tensor vl_loader_targets(const vl_loader *loader);

#endif
