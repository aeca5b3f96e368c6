/* Mllama's vision encoder: a picture as tiles of one size, all tiles in one sequence.
 *
 * Semantics: transformers 4.46.3, src/transformers/models/mllama/modeling_mllama.py (MllamaVisionModel,
 * MllamaVisionEncoderLayer, MllamaPrecomputedAspectRatioEmbedding, MllamaPrecomputedPositionEmbedding,
 * _prepare_aspect_ratio_attention_mask). Letters: G tiles of a picture, P patches of a tile, N = P + 1 rows of a tile
 * (the class row comes first), N' = N rounded up to a multiple of 8, C width, F width of the MLP, I intermediate
 * states that are kept, O = C * (1 + I). */
#ifndef VL_MODEL_FAMILIES_MLLAMA_VISION_H
#define VL_MODEL_FAMILIES_MLLAMA_VISION_H

#include "trainer/model/weights.h"

enum { VL_MLLAMA_INDICES = 64, VL_MLLAMA_RATIOS = 64 };

/* MllamaVisionConfig. */
typedef struct vl_mllama_vision_config {
    int hidden_size, intermediate_size, n_layers, n_global_layers, n_heads, head_dim;
    int image_size, patch_size, n_channels, max_tiles;
    int grid;       /* image_size / patch_size */
    int n_patches;  /* rows of one tile: grid * grid + 1 (class) */
    int output_dim; /* hidden_size * (1 + n_indices), checked */
    double norm_eps;
    vl_activation hidden_act;
    int indices[VL_MLLAMA_INDICES]; /* intermediate_layers_indices, ascending: i = the input of local layer i */
    int n_indices;
    int ratios[VL_MLLAMA_RATIOS][2]; /* {tiles high, tiles wide}; aspect ratio id = index + 1; checked to be the list
                                        that the processor numbers by */
    int n_ratios;
} vl_mllama_vision_config;

typedef struct vl_mllama_vision_layer {
    vl_norm norm1, norm2;
    vl_linear q, k, v, o;           /* [C, C], no bias */
    vl_linear fc1;                  /* [F, C] */
    vl_linear fc2;                  /* [C, F] */
    float attention_gate, mlp_gate; /* tanh of what is stored; 1 in a local layer, which has none */
} vl_mllama_vision_layer;

typedef struct vl_mllama_vision {
    const vl_mllama_vision_config *config;    /* borrowed */
    int64_t n_rows, padded_rows;              /* N, N' */
    vl_matrix *patch;                         /* [C, channels * p * p] */
    vl_tensor class_row;                      /* [1, C] */
    vl_tensor position;                       /* [N, C] */
    vl_matrix *tile_position;                 /* [ratios + 1, G * N * C]: a row for each aspect ratio id */
    vl_matrix *pre_tile, *post_tile;          /* [ratios + 1, G * C] */
    float position_gate, pre_gate, post_gate; /* tanh of what is stored */
    vl_norm pre_norm, post_norm;
    vl_mllama_vision_layer *layers; /* [n_layers + n_global_layers]: the local ones first */
} vl_mllama_vision;

/* Freed with vl_mllama_vision_free, also after a failure. */
vl_status vl_mllama_vision_load(vl_mllama_vision *out, vl_loader *loader, vl_error *err);
void vl_mllama_vision_free(vl_mllama_vision *vision, vl_device *device);

typedef struct vl_mllama_vision_args {
    const float *pixels; /* host array [G, channels, size, size]; tiles that are not used hold 0 */
    int n_tiles;         /* used tiles: the first of the G */
    int aspect_ratio_id;
    vl_tensor out; /* [G * N, O] */
    /* Called for every hidden state, rows [G * N', C], in the order of the reference: state 0 is the input of the
     * first local layer, then the output of each; then the same again for the global layers. May be NULL. */
    vl_status (*hidden)(void *user, int state, vl_tensor rows, vl_error *err);
    void *user;
} vl_mllama_vision_args;

/* One picture. Errors: VL_EINVAL (an aspect ratio id or number of tiles that the model does not know). */
vl_status vl_mllama_vision_forward(const vl_mllama_vision *vision, vl_device *device, const vl_mllama_vision_args *args,
                                   vl_error *err);

#endif
