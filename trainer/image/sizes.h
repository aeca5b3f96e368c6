/* image/sizes.h - into which size, canvas or grid of tiles a processor of transformers fits a picture.
 *
 * Every function equals its namesake in transformers 5.24 for all sizes, rounding of intermediate doubles included. */
#ifndef VL_IMAGE_SIZES_H
#define VL_IMAGE_SIZES_H

#include <stdint.h>

#include "trainer/image/bitmap.h"

/* Qwen2-VL's smart_resize: sides that are multiples of `factor` and an area within min_pixels .. max_pixels. Python's
 * round goes to the even neighbour. Error: VL_EINVAL where one side is more than 200 times the other. */
vl_status vl_smart_resize(vl_size *out, vl_size picture, int factor, int64_t min_pixels, int64_t max_pixels,
                          vl_error *err);

/* LLaVA-NeXT's select_best_resolution: the index of the canvas that keeps most pixels, then wastes fewest; the first
 * of equals. n >= 1. */
int vl_best_resolution(vl_size picture, const vl_size *canvases, int n);

/* get_patch_output_size: the picture's size when it fills the canvas in one direction. */
vl_size vl_fit_inside(vl_size picture, vl_size canvas);

/* LLaVA-NeXT's unpad_image on the map of patches of a canvas: what is cut at the top and bottom (height), or at the
 * left and right (width). It comes from the picture's aspect, not from its pixels; an odd remainder stays. */
vl_size vl_unpad_cut(vl_size picture, vl_size map);

/* InternVL's get_optimal_tiled_canvas: rows and columns of tiles, min_tiles <= rows * columns <= max_tiles. */
vl_size vl_tiled_grid(vl_size picture, int tile, int min_tiles, int max_tiles);

/* Idefics3's two sizes: the longer side becomes `longest` (the other one even), and then both sides become multiples
 * of `tile` without regard to the aspect. Neither exceeds 4096 before the second. */
vl_size vl_idefics3_resize(vl_size picture, int longest);
vl_size vl_idefics3_tiled(vl_size resized, int tile);

/* Gemma 3's pan and scan: into how many rows and columns the picture is cropped; 0 x 0 where it is not. */
typedef struct vl_pan_and_scan {
    int min_crop_size, max_num_crops;
    double min_ratio;
} vl_pan_and_scan;
vl_size vl_pan_and_scan_grid(vl_size picture, const vl_pan_and_scan *settings);

#endif
