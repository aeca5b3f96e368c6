/* fit/feeder.h - brings the rows of one tile from the cache to the device: one state at a time. */
#ifndef VL_FIT_FEEDER_H
#define VL_FIT_FEEDER_H

#include "kernels/ops.h"
#include "trainer/fit/notice.h"
#include "trainer/fit/plan.h"
#include "trainer/fit/reader.h"

/* What to read ahead, in the place of a state. */
enum { VL_FEEDER_NOTHING = -1, VL_FEEDER_NEXT_TILE = -2 };

typedef struct vl_feeder {
    vl_cache *cache;
    vl_device *device;
    vl_notice *notice;         /* asked before every tile; may be NULL */
    int64_t d_model, capacity; /* rows of a tile at most */
    vl_dtype dtype;            /* of the stored states */
    /* The tile: */
    int64_t rows, n_pieces;
    vl_run *pieces;         /* [capacity] */
    float *weight;          /* [capacity] weight of each row's class */
    int32_t *target;        /* [capacity] next token */
    uint8_t *token_class;   /* [capacity] */
    int64_t shuffled_state; /* read with its rows turned by half a tile (lens.targets); -1: none */
    vl_reader *reader;
    /* Of the tile that follows: */
    const vl_sampler *sampler;
    int64_t asked, first_state;    /* rows that this tile was asked for; the state that was read first */
    vl_run *next_pieces;           /* [capacity] */
    vl_tensor stored, wide;        /* [capacity, D] on the device, as stored and f32 */
    vl_tensor row_weight, targets; /* [capacity] f32, i32 on the device */
} vl_feeder;

/* `background`: read ahead in a thread of its own. The bits are the same. */
vl_status vl_feeder_new(vl_feeder *out, vl_cache *cache, vl_device *device, int64_t capacity, bool background,
                        vl_error *err);
void vl_feeder_clear(vl_feeder *feeder);
/* Moves to the sampler's next `rows` rows (at most `capacity`); rows == 0 afterwards: the walk is over. On the device
 * a row's weight is scale * weight[class]. Errors: VL_ECANCELLED. */
vl_status vl_feeder_next(vl_feeder *feeder, vl_sampler *sampler, int64_t rows, double scale, vl_error *err);
/* The tile's rows of one state as stored [rows, D]; valid until the next read. `next` is the state of this tile that
 * will be asked for next, VL_FEEDER_NEXT_TILE (the next tile begins as this one did) or VL_FEEDER_NOTHING: it is read
 * ahead. */
vl_status vl_feeder_read(const void **rows, vl_feeder *feeder, int64_t state, int64_t next, vl_error *err);
/* The same on the device, f32 [rows, D]; valid until the next load. */
vl_status vl_feeder_load(vl_tensor *out, vl_feeder *feeder, int64_t state, int64_t next, vl_error *err);
/* The row of the cache that row 0..rows-1 of the tile is. */
int64_t vl_feeder_cache_row(const vl_feeder *feeder, int64_t row);
/* The tile's weights and targets on the device. */
vl_tensor vl_feeder_row_weight(const vl_feeder *feeder);
vl_tensor vl_feeder_targets(const vl_feeder *feeder);

#endif
