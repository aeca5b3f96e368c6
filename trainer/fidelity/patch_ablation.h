/* eval/patch_ablation.h - patches replaced where the picture enters the decoder, and what becomes of the answer. */
#ifndef VL_EVAL_PATCH_ABLATION_H
#define VL_EVAL_PATCH_ABLATION_H

#include <vlens/fidelity.h>

#include "trainer/base/rng.h"

enum { VL_PATCH_VARIANTS = VL_PATCH_SET_COUNT * VL_PATCH_VALUE_COUNT * 2 };

/* One question. */
typedef struct vl_patch_sample {
    int64_t number;                                              /* of the sample */
    int32_t token;                                               /* the model's own first token of the answer */
    double probability;                                          /* of it, with the whole picture */
    int n[VL_PATCH_SET_COUNT][2];                                /* patches of each set, and as many elsewhere */
    int16_t (*patch[VL_PATCH_SET_COUNT][2])[2];                  /* row, column */
    double changed[VL_PATCH_SET_COUNT][VL_PATCH_VALUE_COUNT][2]; /* probability of `token`; last index: elsewhere */
    bool kept[VL_PATCH_SET_COUNT][VL_PATCH_VALUE_COUNT][2];      /* `token` is still the first */
} vl_patch_sample;

typedef struct vl_patch_ablation {
    int64_t n;
    vl_patch_sample *samples; /* [n] */
    vl_estimate probability;  /* with the whole picture */
    vl_patch_effect effect[VL_PATCH_SET_COUNT][VL_PATCH_VALUE_COUNT];
} vl_patch_ablation;

/* The caller frees *out with vl_patch_ablation_free. Errors: VL_EINVAL (no sample asks about an object, or the model's
 * patches are no rows of its residual stream), those of vl_objects_read. */
vl_status vl_patch_ablation_run(vl_patch_ablation **out, const vl_fidelity_inputs *inputs, const vl_observer *observer,
                                vl_error *err);
void vl_patch_ablation_free(vl_patch_ablation *ablation);

/* Fills `probability` and `effect` from the samples: means, with intervals over samples by eval.bootstrap and
 * eval.seed. Errors: VL_ENOMEM. */
vl_status vl_patch_summarise(vl_patch_ablation *ablation, const vl_config *config, vl_error *err);

/* Sets of a grid, in reading order: the object's patches, the ring of patches around them, both together, and for each
 * as many that belong to neither, drawn at random (fewer where the grid has no more). Fills n and patch of `out`. */
vl_status vl_patch_sets(vl_patch_sample *out, int16_t (*object)[2], int n_object, const int grid[2], vl_rng *rng,
                        vl_error *err);

#endif
