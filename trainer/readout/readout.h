/* readout/readout.h - the one walk over rows, states and adapters.
 *
 *     for each tile of rows        the next one's rows are read while this one is computed
 *         the teacher: unembed(norm(state L)), once for all states of the tile
 *         for each state           h, on the device
 *             for each adapter     cell(h, adapter): what the consumer makes of it
 *
 * Consumers: fit (loss and gradient), eval (metrics), view (top tokens), fidelity (ablation, transfer), the agreement
 * of two lenses. tools/check_style.py sees to it that nobody else walks. */
#ifndef VL_READOUT_READOUT_H
#define VL_READOUT_READOUT_H

#include "trainer/readout/adapter.h"
#include "trainer/readout/distribution.h"
#include "trainer/readout/loader.h"

typedef struct vl_readout {
    vl_head *head; /* NULL where states are only looked at */
    vl_loader loader;
    const vl_rows *teacher_of; /* the rows whose only tile a distribution holds the teacher of; NULL: none */
    const vl_distribution *teacher_in;
    uint8_t *teacher_sound; /* [capacity] of the teacher that is held: 0 where its state was not finite */
    uint8_t *sound;         /* [capacity] of the cell */
} vl_readout;

/* On the device of the head, or on `device` without one. Freed with vl_readout_clear. Errors: those of vl_loader_new.
 */
vl_status vl_readout_new(vl_readout *out, vl_head *head, vl_device *device, const vl_loader_source *source,
                         vl_error *err);
void vl_readout_clear(vl_readout *readout);

/* What a consumer is handed. */
typedef struct vl_readout_cell {
    int64_t first, rows; /* rows [first, first + rows) of the walk */
    int64_t index;       /* states[index] is the state */
    int64_t state;
    int64_t which; /* 0..n_adapters-1 */
    vl_adapter adapter;
    const uint8_t *sound; /* [rows] 0: a value of this state or of the teacher's is not finite. The row reads as zeros,
                           * has weight 0 on the device, and is not to be counted */
    int64_t n_unsound;
    vl_tensor h;        /* [rows, D] f32 on the device; no data in a walk on the host */
    const void *stored; /* [rows, D] as stored, in a walk on the host */
} vl_readout_cell;

typedef struct vl_walk {
    vl_sampler *sampler;
    int64_t n_rows; /* at most; a walk in order ends before */
    int64_t then;   /* rows of the walk that follows in the same sampler, to be read ahead; 0: none */
    double scale;   /* of the rows' weights */
    const int64_t *states;
    int64_t n_states;
    bool on_host;             /* hands out `stored` and no `h` */
    vl_distribution *teacher; /* filled for every tile; NULL: no teacher */
    int64_t teacher_state;    /* usually L */
    int64_t n_adapters;       /* of a state; 0: one call without an adapter */
    /* All return a status other than VL_OK to end the walk. tile and adapter may be NULL. */
    vl_status (*tile)(void *user, int64_t first, int64_t rows, vl_error *err); /* before anything is read */
    vl_status (*adapter)(vl_adapter *out, void *user, const vl_readout_cell *cell, vl_error *err);
    vl_status (*cell)(void *user, const vl_readout_cell *cell, vl_error *err);
    void *user;
} vl_walk;

/* Errors: VL_ECANCELLED (the log's observer asks to stop, before a tile), VL_EIO, and the consumer's own. */
vl_status vl_readout_walk(vl_readout *readout, const vl_walk *walk, vl_error *err);
/* out = what the cell predicts: through its adapter, computed into u [>= rows, D]. `bf16` as in adapter.h. */
vl_status vl_readout_distribution(const vl_distribution *out, const vl_readout *readout, const vl_readout_cell *cell,
                                  vl_tensor u, bool bf16, vl_error *err);

#endif
