/* hf/image_decode.h - between image.c and its decoders; nobody else includes it. */
#ifndef VL_HF_IMAGE_DECODE_H
#define VL_HF_IMAGE_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "trainer/base/status.h"

/* A file in memory. */
typedef struct vl_image_bytes {
    const uint8_t *data;
    size_t size;
    const char *name; /* for messages */
    int64_t max_pixels;
} vl_image_bytes;

/* 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha. Alpha is there only where Pillow's conversion to RGBA
 * finds one. */
typedef struct vl_pixels {
    int width, height, channels;
    uint8_t *data; /* [height, width, channels], freed with vl_free */
} vl_pixels;

vl_status vl_decode_png(vl_pixels *out, const vl_image_bytes *bytes, vl_error *err);
vl_status vl_decode_bmp(vl_pixels *out, const vl_image_bytes *bytes, vl_error *err);
/* VL_EUNSUPPORTED in a build without libwebp. */
vl_status vl_decode_webp(vl_pixels *out, const vl_image_bytes *bytes, vl_error *err);
vl_status vl_decode_jpeg(vl_pixels *out, const vl_image_bytes *bytes, vl_error *err);

/* What every decoder asks of the size in a header, before it allocates. */
vl_status vl_image_check_size(const vl_image_bytes *bytes, int64_t width, int64_t height, vl_error *err);

#endif
