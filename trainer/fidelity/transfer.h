/* eval/transfer.h - the adapter of one state on the states of another. */
#ifndef VL_EVAL_TRANSFER_H
#define VL_EVAL_TRANSFER_H

#include <vlens/fidelity.h>

/* *out [L, L], freed with vl_free: mean KL in nats of state i (row) through adapter j (column), over the first
 * fidelity.transfer_rows held-out rows of the cache that are no patches. */
vl_status vl_transfer_matrix(double **out, const vl_fidelity_inputs *inputs, int64_t n_layers,
                             const vl_observer *observer, vl_error *err);

#endif
