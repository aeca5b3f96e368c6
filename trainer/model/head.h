/* model/head.h - the frozen end of the model: final norm and unembedding, as the fit and the cache need them. */
#ifndef VL_MODEL_HEAD_H
#define VL_MODEL_HEAD_H

#include <vlens/model.h>

#include "kernels/ops.h"

/* Host description of a head: what a cache stores under /head and what a model maps. Borrowed pointers. */
typedef struct vl_head_source {
    int64_t d_model, vocab_size, n_layers;
    vl_norm_kind norm;
    double eps;
    vl_dtype weight_dtype;   /* of head weight and bias */
    const void *weight;      /* [V, D], any alignment */
    const void *bias;        /* [V] or NULL, weight_dtype */
    vl_dtype norm_dtype;     /* of norm weight and bias */
    const void *norm_weight; /* [D] */
    const void *norm_bias;   /* [D] or NULL */
    double softcap;          /* logits = c tanh(logits / c); 0: none */
} vl_head_source;

/* The head of a model: borrows what the model maps. Nothing is prepared. */
vl_head_source vl_head_source_of(const vl_model *model);

/* The final norm on a device; freed with vl_norm_free (weights.h), also after a failure. Errors: VL_ENOMEM, VL_EDEVICE.
 */
struct vl_norm;
vl_status vl_head_source_norm(struct vl_norm *out, vl_device *device, const vl_head_source *source, vl_error *err);

/* Rows that are normed at a time on their way to the logits: bounds the scratch, not the speed. */
enum { VL_HEAD_ROWS = 1024 };

/* Everything that follows from a source, prepared on a device. `owned` (may be NULL) is freed with the head: the
 * memory that the source points into, where nobody else owns it. */
vl_status vl_head_new(vl_head **out, vl_device *device, const vl_head_source *source, vl_precision precision,
                      void *owned, vl_error *err);
const vl_head_source *vl_head_get_source(const vl_head *head);
vl_device *vl_head_device(const vl_head *head);
const vl_matrix *vl_head_matrix(const vl_head *head);
vl_tensor vl_head_bias(const vl_head *head);        /* [V] f32 or NULL data */
vl_tensor vl_head_norm_weight(const vl_head *head); /* [D] f32 */
vl_tensor vl_head_norm_bias(const vl_head *head);   /* [D] f32 or NULL data */

/* The name of a kind of norm in files: "rms", "layer", "none". */
const char *vl_norm_name(vl_norm_kind kind);

/* A head with a soft cap or without a norm: version 2, "vlens-head-2\n{D} {L} {V} {norm} {eps} softcap {cap}\n"
 * (numbers as %.9g), then the same arrays. Every other head keeps version 1: sha256 of "vlens-head-1\n{D} {L} {V}
 * {rms|layer} {eps as %.9g}\n" and then norm weight, norm bias, head weight and head bias (those that exist),
 * little-endian in their stored dtype, row-major. */
void vl_head_fingerprint(char hex[65], const vl_head_source *source);

#endif
