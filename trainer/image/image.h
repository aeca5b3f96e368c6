/* hf/image.h - pictures: PNG, JPEG, WebP and BMP files as 8-bit RGB, equal to what Pillow 11 hands to the image
 * processors of transformers (Image.open, optionally ImageOps.exif_transpose, then convert_rgb). */
#ifndef VL_HF_IMAGE_H
#define VL_HF_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trainer/base/sha256.h"
#include "trainer/base/status.h"

typedef struct vl_image {
    int width, height;          /* of rgb, after the EXIF transposition where one was applied */
    uint8_t *rgb;               /* [height, width, 3] */
    int orientation;            /* EXIF 1-8 that the file carries; 1 where it has none, or where it was not asked for */
    char sha256[VL_SHA256_HEX]; /* of the file's bytes */
} vl_image;

/* What becomes of transparency. */
typedef enum vl_alpha {
    VL_ALPHA_DROP,    /* Pillow's convert("RGB"): colours stay as stored (CLIP) */
    VL_ALPHA_ON_WHITE /* convert("RGBA"), then alpha_composite on opaque white (Mllama) */
} vl_alpha;

typedef struct vl_image_options {
    bool apply_exif; /* turn the picture upright as ImageOps.exif_transpose does */
    vl_alpha alpha;
    int64_t max_pixels; /* 0: VL_IMAGE_MAX_PIXELS. Checked on the header, before anything is decoded */
    size_t max_bytes;   /* of the file; 0: VL_IMAGE_MAX_BYTES */
} vl_image_options;

/* The limits when none is given. The first is where Pillow raises DecompressionBombError (its warning comes at
 * half of it); max_pixels cannot be raised above it. The second is far above any real photograph. */
#define VL_IMAGE_MAX_PIXELS INT64_C(178956970)
#define VL_IMAGE_MAX_BYTES  ((size_t)512 << 20)

/* Reads and decodes a file; options may be NULL (all zero). The caller clears *out, which is empty on failure.
 * Errors: VL_EIO, VL_EFORMAT (damaged, cut short, no picture, over a limit), VL_EUNSUPPORTED (GIF, TIFF, HEIC, ...
 * and the rarer kinds of BMP and PNG), VL_ENOMEM. */
vl_status vl_image_open(vl_image *out, const char *path, const vl_image_options *options, vl_error *err);
/* The same for bytes in memory; `name` stands in the messages. */
vl_status vl_image_decode(vl_image *out, const void *data, size_t size, const char *name,
                          const vl_image_options *options, vl_error *err);
void vl_image_clear(vl_image *image); /* frees; NULL is fine */

#endif
