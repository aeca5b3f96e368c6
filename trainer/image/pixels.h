/* image/pixels.h - from the bytes of a picture to the pixel values that a vision tower reads. */
#ifndef VL_IMAGE_PIXELS_H
#define VL_IMAGE_PIXELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trainer/image/bitmap.h"

/* In which order bytes are scaled and normalised; it decides the last bit of about every second value. */
typedef enum vl_normalise_order {
    VL_NORMALISE_STEPS, /* f32(f64(byte) * factor), then (y - f32 mean) / f32 std: image_transforms.py rescale and
                           normalize, 4.x and the *Pil classes */
    VL_NORMALISE_FUSED  /* (byte - mean * k) / (std * k), k = f32(1 / factor), all f32: the torchvision classes,
                           image_processing_backends.py _fuse_mean_std_and_rescale_factor */
} vl_normalise_order;

typedef struct vl_normalise {
    bool do_rescale, do_normalize;
    double rescale_factor;
    double mean[3], std[3];
    vl_normalise_order order;
} vl_normalise;

/* Byte to pixel value, per channel: a picture has only 256 of them. */
typedef float vl_value_table[3][256];
void vl_value_table_make(vl_value_table table, const vl_normalise *settings);

/* out: [rows * columns, 3, tile, tile]: the tiles of a bitmap of rows * tile by columns * tile pixels, row by row. */
void vl_pixels_tiles(float *out, const vl_bitmap *bitmap, int tile, vl_value_table table);

/* What Qwen2-VL makes of a picture (models/qwen2_vl/image_processing_qwen2_vl.py, patchify): patches in merge-block
 * order, each [3, frames, patch, patch] with the picture repeated for every frame. */
typedef struct vl_patchify {
    int patch;  /* pixels of a side */
    int merge;  /* patches of a side of a block */
    int frames; /* temporal_patch_size */
} vl_patchify;

/* Patch number n of that order, as the row and the column of a grid that is `columns` patches wide. */
vl_size vl_merge_block_patch(int64_t n, int columns, int merge);

/* out: [(height / patch) * (width / patch), 3 * frames * patch * patch]; both sides of the bitmap are multiples of
 * patch * merge. */
void vl_pixels_patches(float *out, const vl_bitmap *bitmap, const vl_patchify *how, vl_value_table table);

#endif
