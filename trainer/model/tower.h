/* model/tower.h - a vision transformer over the patches of tiles, as its vl_tower_spec says.
 *
 * Semantics of the plain one: transformers 4.46.3, src/transformers/models/clip/modeling_clip.py (CLIPVisionEmbeddings,
 * CLIPAttention, CLIPMLP, CLIPEncoderLayer, CLIPVisionTransformer). Letters: P patches, N rows of a tile (the class row
 * comes first where there is one), C width of the tower, F width of its MLP. Tiles do not see each other. */
#ifndef VL_MODEL_TOWER_H
#define VL_MODEL_TOWER_H

#include "trainer/model/vision_spec.h"
#include "trainer/model/weights.h"

typedef struct vl_tower_layer {
    vl_norm norm1, norm2;
    vl_linear q, k, v, o;     /* [C, C] */
    vl_norm q_norm, k_norm;   /* [C] or none */
    vl_tensor scale1, scale2; /* [C], or NULL: what the branches are multiplied by */
    vl_linear fc1;            /* [F, C] */
    vl_linear fc2;            /* [C, F] */
} vl_tower_layer;

typedef struct vl_tower {
    const vl_tower_spec *spec; /* borrowed */
    vl_linear patch;           /* [C, channels * p * p] */
    vl_tensor class_row;       /* [1, C], or NULL */
    vl_tensor position;        /* [N, C] */
    vl_norm pre_norm, post_norm;
    vl_tower_layer *layers; /* [spec->state] */
} vl_tower;

/* Loads what the state that is read needs. Freed with vl_tower_free, also after a failure. */
vl_status vl_tower_load(vl_tower *out, vl_loader *loader, vl_error *err);
void vl_tower_free(vl_tower *tower, vl_device *device);

typedef struct vl_tower_args {
    const float *const *pixels; /* [n_tiles] host arrays [channels, size, size] */
    int n_tiles;
    vl_tensor out; /* [n_tiles * N, C]: the state that is read */
    /* Called for each hidden state up to that, rows [n_tiles * N, C]; may be NULL. */
    vl_status (*hidden)(void *user, int state, vl_tensor rows, vl_error *err);
    void *user;
} vl_tower_args;
vl_status vl_tower_forward(const vl_tower *tower, vl_device *device, const vl_tower_args *args, vl_error *err);

#endif
