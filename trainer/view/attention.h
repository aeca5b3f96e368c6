/* view/attention.h - where the cross-attention blocks of a model look (Mllama: its patches are no rows of the residual
 * stream, so a lens cannot read them; what a token takes from each of them can be shown).
 *
 * The weights are those of MllamaTextCrossAttention (transformers 4.46.3, modeling_mllama.py): softmax of the scaled
 * products of the normed queries and keys, over the tiles that the token sees; here their mean over heads. Keys of a
 * sequence: picture by picture, tile by tile (also the unused ones), first the tile's class row, then its patches row
 * by row. */
#ifndef VL_VIEW_ATTENTION_H
#define VL_VIEW_ATTENTION_H

#include <vlens/model.h>

typedef struct vl_attention_map {
    int n_layers;         /* 0: none */
    int *layers;          /* [n_layers] block numbers */
    int64_t n_positions;  /* as in the reading */
    int64_t n_keys;       /* pictures * tiles * rows_of_tile */
    int n_tiles;          /* of one picture, the unused ones too */
    int64_t rows_of_tile; /* 1 + rows * columns */
    int rows, columns;    /* patches of a tile */
    float *weights;       /* [n_layers, n_positions, n_keys] */
} vl_attention_map;

void vl_attention_map_clear(vl_attention_map *map);

/* Collects the map while a forward runs: pass vl_attention_stage as its stage, through whatever `user` is there. */
typedef struct vl_attention_capture {
    vl_device *device;
    const vl_model_info *model;
    const vl_sequence *sequence;
    const int64_t *rows; /* [map->n_positions] of the sequence */
    vl_attention_map *map;
    vl_tensor query; /* of the block under way; on the device, valid until its keys come */
    vl_error *err;
    vl_status status;
} vl_attention_capture;

/* Whether this sequence has such blocks at work. */
bool vl_attention_exists(const vl_model_info *model, const vl_sequence *sequence);
/* Takes "cross_attention.query.NN" and "cross_attention.key.NN"; non-zero stops the forward (see `status`). */
int vl_attention_stage(vl_attention_capture *capture, const char *name, const vl_tensor *x);

#endif
