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
    const char *norm1, *norm2, *q, *k, *v, *o, *q_norm, *k_norm, *fc1, *fc2;
    const char *scale1, *scale2; /* what the branches are multiplied by, column by column */
} vl_tower_names;
/* Those of CLIP and SigLIP. */
extern const vl_tower_names vl_clip_names;

typedef struct vl_tower_spec {
    int hidden_size, intermediate_size, n_layers, n_heads, head_dim; /* n_layers: of the checkpoint */
    int image_size, patch_size, n_channels;
    int grid;                                          /* patches along a side: image_size / patch_size, rounded down */
    int n_patches;                                     /* grid * grid */
    bool class_row;                                    /* N = P + 1, the class row first; else N = P */
    bool patch_bias, attention_bias, o_bias, mlp_bias; /* attention_bias: of q, k and v */
    bool tables_of_three; /* class row and positions are stored with a first dimension of 1 */
    bool scales;          /* each branch is multiplied column by column before it is added (InternVL's lambda) */
    vl_qk_norm qk_norm;   /* VL_QK_PLAIN or VL_QK_WIDTH; RMS with eps 1e-6 */
    bool pre_norm;        /* behind the embeddings */
    bool post_norm;       /* of the state that is read */
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
    bool keep_class_row;    /* the decoder reads it too, before the patches */
    int shuffle;            /* s: blocks of s x s patches of a tile become one row, patch behind patch; 0: not */
    int pool;               /* k: blocks of k x k patches become their mean; 0: not */
    vl_norm_form norm_form; /* of what the products read, joined or pooled; norm NULL: none */
    double norm_eps;
    const char *norm;
    bool bare; /* names[0] is the whole name of a matrix stored [in, out] */
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
    const char *newline; /* a row [D] behind each row of a map, tensor of VL_PART_TOP; NULL: none */
    int n_deep;          /* decoder blocks behind whose output rows of the pictures are added (DeepStack) */
    int32_t image_token; /* the id of a picture's rows; -1 in a text model */
    int image_size;      /* pixels of a side of a tile */
    int rows, columns;   /* of the grid that the decoder sees of a tile; 0 where it differs from picture to picture */
    int max_tiles;       /* that a picture can have */
    int tile_rows;       /* cross-attention: rows of each of its max_tiles, used or not */
    bool rows_fixed; /* every picture becomes as many rows, whatever its size: it need not be opened to count them */
    int pictures_at_once; /* that share a pass over the tower's weights; at least 1 */
    int sample_side;      /* pixels of a side of a square picture that fills the model's usual grid (benchmarks) */
} vl_vision_spec;

/* Rows of a tile in the tower, N. */
static inline int64_t vl_tower_rows(const vl_tower_spec *spec)
{
    return spec->n_patches + (spec->class_row ? 1 : 0);
}

/* Rows of the decoder's width that a tile becomes, before a family packs them. */
static inline int64_t vl_connector_rows(const vl_vision_spec *spec)
{
    int side = spec->connector.shuffle > 0 ? spec->connector.shuffle : spec->connector.pool;
    int64_t along = side > 0 ? spec->tower.grid / side : spec->tower.grid;
    return along * along + (spec->tower.class_row && spec->connector.keep_class_row ? 1 : 0);
}

#endif
