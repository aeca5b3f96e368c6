/* vlens/agree.h - whether two lenses give the same logits. */
#ifndef VLENS_AGREE_H
#define VLENS_AGREE_H

#include <vlens/cache.h>
#include <vlens/lens.h>
#include <vlens/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_agree_args {
    vl_lens *lens;
    vl_lens *other; /* the lens that it should be, or NULL */
    vl_head *head;  /* of the model that both belong to, prepared on `device` */
    vl_device *device;
    vl_cache *cache; /* rows are taken from here, */
    vl_model *model; /* or from one sentence that this runs; one of them is NULL */
} vl_agree_args;

typedef struct vl_agreement { /* KL in nats over a few rows of every layer; NaN where logits are no numbers */
    int64_t rows;
    double worst;                   /* KL(float64 from the lens's numbers || as computed everywhere), the largest */
    double other_worst, other_mean; /* KL(other || lens); 0 without another */
    int64_t worst_layer, other_layer;
} vl_agreement;

/* Recomputes logits from the numbers of a lens and compares them. Errors: VL_ENOMEM, VL_EIO, and those of
 * vl_model_forward. */
VL_API vl_status vl_lens_agree(vl_agreement *out, const vl_agree_args *args, vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
