/* eval/fidelity_result.h - what a fidelity run found. */
#ifndef VL_EVAL_FIDELITY_RESULT_H
#define VL_EVAL_FIDELITY_RESULT_H

#include <vlens/fidelity.h>

struct vl_fidelity {
    vl_fidelity_info info;
    int64_t *state;           /* [n_layers] */
    vl_fidelity_cell *cell;   /* [n_layers, VL_FIDELITY_LENS_COUNT] */
    double *kl;               /* [n_layers, VL_FIDELITY_LENS_COUNT, 2, n_directions]: of the lens, of the model */
    int64_t n_model_layers;
    double *transfer;         /* [L, L] or NULL */
    char lens[1024], control[1024], model[1024];
};

#endif
