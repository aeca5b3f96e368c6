/* fit/objective.h - the loss of one adapter on one tile of rows, and its gradient. */
#ifndef VL_FIT_OBJECTIVE_H
#define VL_FIT_OBJECTIVE_H

#include <vlens/config.h>

#include "kernels/ops.h"
#include "trainer/model/head.h"

/* y = h + h A^T + b. Tensors on the device, f32. */
typedef struct vl_adapter {
    vl_tensor weight; /* A [D, D], row-major (out, in); NULL data: A = 0 */
    vl_tensor bias;   /* b [D] */
} vl_adapter;

/* The same shapes; `fresh` overwrites, otherwise the tile is added to what is there. */
typedef struct vl_adapter_gradient {
    vl_tensor weight, bias;
    bool fresh;
} vl_adapter_gradient;

typedef struct vl_objective {
    vl_device *device;
    vl_head *head;
    vl_loss kind;
    bool fast;      /* the adapter's products in bf16 */
    bool fast_step; /* those of a step that makes a gradient */
    int64_t capacity, rows;
    vl_tensor u;      /* [capacity, D] the adapted state */
    vl_tensor x;      /* [capacity, D] normed */
    vl_tensor dx;     /* [capacity, D] the gradient on its way back */
    vl_tensor logits; /* [capacity, V] of the teacher, for all layers of the tile; none for CE */
    vl_tensor lse;    /* [capacity] */
    vl_tensor loss;   /* [capacity] */
    float *host_loss; /* [capacity] */
} vl_objective;

vl_status vl_objective_new(vl_objective *out, vl_device *device, vl_head *head, vl_loss_kind kind, int64_t capacity,
                           vl_error *err);
/* How the adapter's own products compute; fp32 until it is called. `fast`: bf16. `auto` with a bf16 head: bf16 in steps
 * that make a gradient, where states and dx come through bf16 anyway, and fp32 where a loss is only measured. */
void vl_objective_set_precision(vl_objective *objective, vl_precision precision);
void vl_objective_clear(vl_objective *objective);

/* Starts a tile: the teacher's distribution of its states [rows, D]. CE needs only the row count. */
bool vl_objective_needs_teacher(const vl_objective *objective);
vl_status vl_objective_teacher(vl_objective *objective, vl_tensor states, vl_error *err);

typedef struct vl_objective_tile {
    vl_tensor h;          /* [rows, D] states of this layer */
    vl_tensor row_weight; /* [rows]; NULL data: 1 */
    vl_tensor targets;    /* [rows] i32, read by CE */
} vl_objective_tile;

/* The unweighted loss of each row into objective->host_loss; with `gradient`, that of sum_r weight_r * loss_r. */
vl_status vl_objective_layer(vl_objective *objective, const vl_objective_tile *tile, const vl_adapter *adapter,
                             const vl_adapter_gradient *gradient, vl_error *err);
/* out[M, D] = h + h A^T + b. */
vl_status vl_adapter_apply(vl_device *device, vl_tensor out, vl_tensor h, const vl_adapter *adapter, bool fast,
                           vl_error *err);

#endif
