/* eval/fidelity_result.h - what a fidelity run found. */
#ifndef VL_EVAL_FIDELITY_RESULT_H
#define VL_EVAL_FIDELITY_RESULT_H

#include "trainer/fidelity/patch_ablation.h"

struct vl_fidelity {
    vl_fidelity_info info;
    int64_t *state;         /* [n_layers] */
    vl_fidelity_cell *cell; /* [n_layers, VL_FIDELITY_LENS_COUNT] */
    double *kl; /* [n_layers, VL_FIDELITY_LENS_COUNT, 3, n_directions]: of the lens, of the model, displacement */
    int64_t n_model_layers;
    double *transfer;           /* [L, L] or NULL */
    vl_patch_ablation *patches; /* or NULL */
    char lens[1024], control[1024], model[1024];
};

#endif
