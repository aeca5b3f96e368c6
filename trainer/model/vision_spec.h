/* model/vision_spec.h - from pixels to rows of the decoder's width, as a description: pure data, filled by a family.
 *
 * A tower is a vision transformer over the patches of a square tile (tower.c); a connector brings its rows to the
 * decoder's width (connector.c). A family whose tower is another machine (Mllama) brings an `encode` of its own and
 * uses of this only what the rest asks for. Letters: P patches of a tile, N rows of a tile in the tower, C width, F
 * width of its MLP, D width of the decoder. */
#ifndef VL_MODEL_VISION_SPEC_H
#define VL_MODEL_VISION_SPEC_H

#include "trainer/model/decoder_spec.h"

/* Tensor names below the part VL_PART_VISION; as in vl_decoder_names. */
typedef struct vl_tower_names {
    const char *patch, *class_row, *position, *pre_norm, *post_norm, *layer;
    const char *norm1, *norm2, *q, *k, *v, *o, *gate, *fc1, *fc2; /* without gate: fc2(act(fc1)) */
} vl_tower_names;

typedef struct vl_tower_spec {
    int hidden_size, intermediate_size, n_layers, n_heads, head_dim; /* n_layers: of the checkpoint */
    int image_size, patch_size, n_channels;
    int grid;       /* patches along a side: image_size / patch_size, rounded down */
    int n_patches;  /* grid * grid */
    bool class_row; /* N = P + 1, the class row first; else N = P */
    bool patch_bias, attention_bias, mlp_bias;
    bool pre_norm;  /* behind the embeddings */
    bool post_norm; /* of the state that is read */
    vl_norm_form norm_form;
    double norm_eps;
    vl_activation hidden_act;
    int state; /* which is read: 0 the embeddings, i the output of layer i - 1. Later layers are not loaded */
    vl_tower_names names;
} vl_tower_spec;

typedef enum vl_connector_kind {
    VL_CONNECTOR_LINEAR = 0, /* names[0] */
    VL_CONNECTOR_MLP         /* names[1](act(names[0])) */
} vl_connector_kind;

typedef struct vl_connector_spec {
    vl_connector_kind kind;
    vl_activation act;
    bool bias;
    bool keep_class_row; /* the decoder reads it too, before the patches */
    const char *names[2];
} vl_connector_spec;

typedef enum vl_vision_path {
    VL_VISION_NONE = 0,  /* a text model */
    VL_VISION_IN_STREAM, /* rows of pictures are rows of the residual stream, in the place of image tokens */
    VL_VISION_CROSS      /* blocks of cross-attention read them */
} vl_vision_path;

typedef struct vl_vision_spec {
    vl_vision_path path;
    vl_tower_spec tower;
    vl_connector_spec connector;
    int32_t image_token; /* the id of a picture's rows; -1 in a text model */
    int image_size;      /* pixels of a side of a tile */
    int rows, columns;   /* of the grid that the decoder sees of a tile; 0 where it differs from picture to picture */
    int max_tiles;       /* that a picture can have */
    int tile_rows;       /* cross-attention: rows of each of its max_tiles, used or not */
    bool rows_fixed; /* every picture becomes as many rows, whatever its size: it need not be opened to count them */
    int pictures_at_once; /* that share a pass over the tower's weights; at least 1 */
    int sample_side;      /* pixels of a side of a square picture that fills the model's usual grid (benchmarks) */
} vl_vision_spec;

#endif
