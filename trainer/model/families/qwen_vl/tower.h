/* families/qwen_vl/tower.h - the vision towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: whole pictures of any size as rows
 * of patches in merge-block order, turned by row and column, merged 2 x 2.
 *
 * Semantics: transformers 5.24.0, models/qwen2_vl, qwen2_5_vl, qwen3_vl (modeling files, ...VisionModel) and
 * vision_utils.py. Letters: P patches of a picture, C width, F width of the MLP, D width of the decoder, m patches
 * along a side of a merged block; P / m^2 rows go to the decoder. */
#ifndef VL_FAMILIES_QWEN_VL_TOWER_H
#define VL_FAMILIES_QWEN_VL_TOWER_H

#include "trainer/image/bitmap.h"
#include "trainer/model/weights.h"

enum { VL_QWEN_MAX_LAYERS = 128, VL_QWEN_MAX_DEEP = 8 };

typedef enum vl_qwen_kind { VL_QWEN_2, VL_QWEN_2_5, VL_QWEN_3 } vl_qwen_kind;

typedef struct vl_qwen_tower_spec {
    vl_qwen_kind kind;
    int hidden_size, intermediate_size, n_layers, n_heads, out_size;
    int patch, merge, frames;
    vl_activation act;
    int window;                    /* merged blocks along a side of a window; 0: none (2.5) */
    bool full[VL_QWEN_MAX_LAYERS]; /* layers that see the whole picture all the same */
    int position_side;             /* sides of the table of positions; 0: none (3) */
    int deep[VL_QWEN_MAX_DEEP];    /* layers whose output is merged for DeepStack (3) */
    int n_deep;
} vl_qwen_tower_spec;

/* Four rows joined, and an MLP to the decoder's width. */
typedef struct vl_qwen_merger {
    vl_norm norm; /* on C before the rows are joined, or (DeepStack) on m^2 C after */
    bool joined_first;
    vl_linear fc1, fc2; /* [m^2 C, m^2 C], [D, m^2 C] */
} vl_qwen_merger;

typedef struct vl_qwen_layer {
    vl_norm norm1, norm2;
    vl_linear qkv, o;         /* [3 C, C], [C, C] */
    vl_linear gate, up, down; /* gate of 2.5 only */
} vl_qwen_layer;

typedef struct vl_qwen_tower {
    const vl_qwen_tower_spec *spec; /* borrowed */
    vl_linear patch;                /* [C, 3 * frames * p * p] */
    vl_tensor position;             /* [side * side, C], or NULL */
    vl_qwen_layer *layers;
    vl_qwen_merger merger, deep[VL_QWEN_MAX_DEEP];
} vl_qwen_tower;

/* Freed with vl_qwen_tower_free, also after a failure. */
vl_status vl_qwen_tower_load(vl_qwen_tower *out, const vl_qwen_tower_spec *spec, vl_loader *loader, vl_error *err);
void vl_qwen_tower_free(vl_qwen_tower *tower, vl_device *device);

typedef struct vl_qwen_tower_args {
    const float *pixels;   /* host [P, 3 * frames * p * p], merge-block order */
    vl_size grid;          /* patches: rows, columns */
    vl_tensor out;         /* [P / m^2, D], raster order of blocks */
    const vl_tensor *deep; /* [n_deep] of the same shape; NULL without */
    /* Called with the input of each layer and the output of the last, rows [P, C] as the layers have them (2.5: window
     * by window); may be NULL. */
    vl_status (*hidden)(void *user, int state, vl_tensor rows, vl_error *err);
    void *user;
} vl_qwen_tower_args;
vl_status vl_qwen_tower_forward(const vl_qwen_tower *tower, vl_device *device, const vl_qwen_tower_args *args,
                                vl_error *err);

/* Floating-point operations for a picture of so many patches (model/work.h). */
double vl_qwen_tower_work(const vl_qwen_tower_spec *spec, vl_size grid);

/* ---- where rows stand (windows.c) ---- */

/* The blocks of a merged grid window by window, as numbers in raster order: `order` [n]. `ends` [n] receives where each
 * window ends in it; the return value is the number of windows. Windows are cut off at the right and the bottom. */
int64_t vl_qwen_windows(int32_t *order, int64_t *ends, vl_size blocks, int window);
/* cosines, sines [P, E / 2] of the patches of blocks in that order: the row turns the first half of the pairs, the
 * column the second. */
void vl_qwen_angles(float *cosines, float *sines, const int32_t *order, vl_size grid, const int sizes[2]);
/* Four taps of the table of positions for each patch: rows [P, 4], weights [P, 4] (bilinear, corners aligned). */
void vl_qwen_positions(int32_t *rows, float *weights, vl_size grid, int merge, int side);

#endif
