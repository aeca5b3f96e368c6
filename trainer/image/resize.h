/* image/resize.h - resampling of 8-bit pictures as Pillow and as torchvision do it, bit for bit. */
#ifndef VL_IMAGE_RESIZE_H
#define VL_IMAGE_RESIZE_H

#include <stdint.h>

#include "trainer/base/status.h"

/* The numbers of PIL.Image.Resampling, which preprocessor_config.json stores as "resample". NEAREST (0) works in
 * another way and is not here. */
typedef enum vl_resample {
    VL_RESAMPLE_LANCZOS = 1,
    VL_RESAMPLE_BILINEAR = 2,
    VL_RESAMPLE_BICUBIC = 3,
    VL_RESAMPLE_BOX = 4,
    VL_RESAMPLE_HAMMING = 5
} vl_resample;

typedef struct vl_resize_args {
    const uint8_t *rgb; /* [height, width, 3] */
    int width, height;
    int new_width, new_height; /* of the whole resized picture */
    int x, y, w, h;            /* the part of it that is wanted; only that is computed */
    vl_resample filter;
} vl_resize_args;

/* out: [h, w, 3]. Image.resize((new_width, new_height), filter).crop((x, y, x + w, y + h)), as Pillow 11.0 computes
 * it: the horizontal pass first, rounded to 8 bits, then the vertical one (Pillow 13 takes the other order for some
 * tall pictures, which moves values by 1). Errors: VL_EINVAL, VL_EUNSUPPORTED (the filter), VL_ENOMEM. */
vl_status vl_resize(uint8_t *out, const vl_resize_args *args, vl_error *err);

/* The same as torchvision's resize(antialias=True) of a uint8 tensor computes it (torch 2.15,
 * ATen/native/cpu/UpSampleKernel.cpp): equal weights in double, but with as many fractional bits as the largest weight
 * of the axis leaves in an int16, where Pillow has 22. That moves 0.1 to 2 % of the bytes by 1. */
vl_status vl_resize_torch(uint8_t *out, const vl_resize_args *args, vl_error *err);

typedef enum vl_resize_kernel { VL_RESIZE_PILLOW, VL_RESIZE_TORCH } vl_resize_kernel;

#endif
