/* model/clip.h - the CLIP vision tower as LLaVA uses it: hidden states, no pooling, no final norm.
 *
 * Semantics: transformers 4.46.3, src/transformers/models/clip/modeling_clip.py (CLIPVisionEmbeddings, CLIPAttention,
 * CLIPMLP, CLIPEncoderLayer, CLIPVisionTransformer). Letters: P patches, N = P + 1 rows of a picture (the class row
 * comes first), C width of the tower, F width of its MLP. */
#ifndef VL_MODEL_CLIP_H
#define VL_MODEL_CLIP_H

#include "trainer/model/weights.h"

typedef struct vl_clip_layer {
    vl_layer_norm norm1, norm2;
    vl_linear q, k, v, o; /* [C, C] */
    vl_linear fc1;        /* [F, C] */
    vl_linear fc2;        /* [C, F] */
} vl_clip_layer;

typedef struct vl_clip {
    const vl_clip_config *config; /* borrowed */
    int n_layers;                 /* as many as the wanted hidden state needs */
    vl_matrix *patch;             /* [C, channels * p * p] */
    vl_tensor class_row;          /* [1, C] */
    vl_tensor position;           /* [N, C] */
    vl_layer_norm pre_norm;
    vl_clip_layer *layers; /* [n_layers] */
} vl_clip;

/* Loads what hidden state `state` needs (0: after pre_layrnorm, i: output of layer i - 1). Freed with vl_clip_free,
 * also after a failure. */
vl_status vl_clip_load(vl_clip *out, vl_loader *loader, int state, vl_error *err);
void vl_clip_free(vl_clip *clip, vl_device *device);

typedef struct vl_clip_args {
    const float *const *pixels; /* [n_images] host arrays [channels, size, size] */
    int n_images;
    vl_tensor out; /* [n_images * N, C]: the wanted hidden state */
    /* Called for each hidden state up to the wanted one, rows [n_images * N, C]; may be NULL. */
    vl_status (*hidden)(void *user, int state, vl_tensor rows, vl_error *err);
    void *user;
} vl_clip_args;
vl_status vl_clip_forward(const vl_clip *clip, vl_device *device, const vl_clip_args *args, vl_error *err);

#endif
