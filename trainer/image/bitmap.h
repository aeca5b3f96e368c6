/* image/bitmap.h - pictures in memory between their file and their pixel values: resized, cropped, padded. */
#ifndef VL_IMAGE_BITMAP_H
#define VL_IMAGE_BITMAP_H

#include <stdint.h>

#include "trainer/base/status.h"
#include "trainer/image/resize.h"

/* The sides of a picture, of a tile, or of a grid of rows and columns; height first, as the papers and files have it.
 */
typedef struct vl_size {
    int height, width;
} vl_size;

typedef struct vl_bitmap {
    vl_size size;
    uint8_t *rgb; /* [height, width, 3]; owned, freed with vl_bitmap_clear */
} vl_bitmap;

void vl_bitmap_clear(vl_bitmap *bitmap);

/* A picture of one colour. Errors: VL_EINVAL (a side below 1), VL_EFORMAT (over VL_IMAGE_MAX_PIXELS), VL_ENOMEM. In
 * every function *out is empty after a failure, and must not be `from`. */
vl_status vl_bitmap_new(vl_bitmap *out, vl_size size, const uint8_t rgb[3], vl_error *err);

/* The whole of `from` at another size. Errors: of vl_bitmap_new and vl_resize. */
vl_status vl_bitmap_resize(vl_bitmap *out, const vl_bitmap *from, vl_size size, vl_resample filter,
                           vl_resize_kernel kernel, vl_error *err);

/* A rectangle, cut at the edges of `from`. Error: VL_EINVAL where nothing is left of it. */
vl_status vl_bitmap_crop(vl_bitmap *out, const vl_bitmap *from, int top, int left, vl_size size, vl_error *err);

/* `from` in the middle of a canvas that is at least as large; an odd pixel goes to the right and the bottom. */
vl_status vl_bitmap_center(vl_bitmap *out, const vl_bitmap *from, vl_size canvas, const uint8_t rgb[3], vl_error *err);

#endif
