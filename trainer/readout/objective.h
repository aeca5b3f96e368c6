/* readout/objective.h - the loss of one adapter on one tile of rows, and its gradient. */
#ifndef VL_READOUT_OBJECTIVE_H
#define VL_READOUT_OBJECTIVE_H

#include "trainer/readout/adapter.h"
#include "trainer/readout/distribution.h"

/* Of an adapter, in its shapes; `fresh` overwrites, otherwise the tile is added to what is there. */
typedef struct vl_adapter_gradient {
    vl_tensor weight, bias;
    bool fresh;
} vl_adapter_gradient;

typedef struct vl_objective {
    vl_device *device;
    vl_head *head;
    vl_loss kind;
    vl_precision precision; /* of the adapter's products (vl_adapter_in_bf16); exact until it is set */
    int64_t capacity;
    vl_tensor u;             /* [capacity, D] the adapted state */
    vl_tensor x;             /* [capacity, D] normed */
    vl_tensor dx;            /* [capacity, D] the gradient on its way back */
    vl_tensor loss;          /* [capacity] */
    float *host_loss;        /* [capacity] */
    vl_distribution teacher; /* of the tile, for all its layers; none for CE */
} vl_objective;

/* For tiles of at most `capacity` rows, on the device of the head. Freed with vl_objective_clear. */
vl_status vl_objective_new(vl_objective *out, vl_head *head, vl_loss kind, int64_t capacity, vl_error *err);
void vl_objective_clear(vl_objective *objective);

/* Starts a tile: the teacher's distribution of its states [rows, D]. CE needs only the row count. */
bool vl_objective_needs_teacher(const vl_objective *objective);
vl_status vl_objective_teacher(vl_objective *objective, vl_tensor states, vl_error *err);

typedef struct vl_objective_tile {
    vl_tensor h;          /* [rows, D] states of this layer */
    vl_tensor row_weight; /* [rows]; NULL data: 1 */
    vl_tensor targets;    /* [rows] i32, read by CE */
    bool losses_stay;     /* on the device, in objective->loss: nobody waits for them */
} vl_objective_tile;

/* The unweighted loss of each row into objective->loss, and into objective->host_loss unless they stay there; with
 * `gradient`, that of sum_r weight_r * loss_r. */
vl_status vl_objective_layer(vl_objective *objective, const vl_objective_tile *tile, const vl_adapter *adapter,
                             const vl_adapter_gradient *gradient, vl_error *err);

#endif
