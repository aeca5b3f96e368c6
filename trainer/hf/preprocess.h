/* hf/preprocess.h - from a picture to pixel values: what CLIPImageProcessor (LLaVA) and MllamaImageProcessor of
 * transformers 4.46.3 compute, bit for bit. */
#ifndef VL_HF_PREPROCESS_H
#define VL_HF_PREPROCESS_H

#include <stdbool.h>

#include "trainer/base/status.h"
#include "trainer/image/image.h"
#include "trainer/image/resize.h"

typedef enum vl_preprocess_kind { VL_PREPROCESS_CLIP, VL_PREPROCESS_MLLAMA } vl_preprocess_kind;

/* preprocessor_config.json, with the defaults of the class where a key is missing. */
typedef struct vl_preprocess {
    vl_preprocess_kind kind;
    bool do_resize, do_center_crop, do_rescale, do_normalize, do_convert_rgb, do_pad;
    int shortest_edge; /* CLIP: 0 where height and width are given instead */
    int height, width; /* CLIP: of the resized picture; Mllama: of a tile (equal) */
    int crop_height, crop_width;
    vl_resample resample;
    double rescale_factor;
    double mean[3], std[3];
    int max_image_tiles; /* Mllama */
} vl_preprocess;

/* Errors: VL_EIO, VL_EFORMAT, VL_EUNSUPPORTED (another class, or settings that its own class refuses). */
vl_status vl_preprocess_read(vl_preprocess *out, const char *path, vl_error *err);

/* How pictures must be opened for this processor. */
vl_image_options vl_preprocess_image_options(const vl_preprocess *pp, bool apply_exif);

/* A rectangle in pixels of the picture (x to the right, y down; edges, so that 0, 0, width, height is all of it).
 * It reaches beyond the picture where the model saw padding. */
typedef struct vl_box {
    double x0, y0, x1, y1;
} vl_box;

/* ---- CLIP: resize, crop the middle, normalise ---- */

typedef struct vl_clip_plan {
    int resized_width, resized_height;
    int width, height; /* of the pixel values */
    int left, top;     /* where the crop starts in the resized picture; negative where it is padded */
} vl_clip_plan;

/* What becomes of a picture of that size. Error: VL_EFORMAT (pixel values over VL_IMAGE_MAX_PIXELS). */
vl_status vl_preprocess_clip_plan(vl_clip_plan *out, const vl_preprocess *pp, int width, int height, vl_error *err);
/* out: [3, plan.height, plan.width]. Errors: of the plan, VL_ENOMEM, VL_EUNSUPPORTED (the filter). */
vl_status vl_preprocess_clip(float *out, const vl_preprocess *pp, const vl_image *image, vl_error *err);
/* The part of the picture that the pixel values show. Patch (row, column) of a grid of R x C patches is the
 * rectangle row/R .. (row+1)/R, column/C .. (column+1)/C of this one. */
vl_status vl_preprocess_clip_box(vl_box *out, const vl_preprocess *pp, int width, int height, vl_error *err);

/* ---- Mllama: fit into a canvas of tiles, pad, normalise, split ---- */

typedef struct vl_mllama_plan {
    int tile;                   /* side of a tile in pixels */
    int tiles_high, tiles_wide; /* of the canvas; the first tiles_high * tiles_wide of the mask are 1, row by row */
    int aspect_ratio_id;        /* from 1 (0 is the model's padding picture) */
    int resized_width, resized_height; /* of the picture, at the left and top of the canvas */
} vl_mllama_plan;

/* What becomes of a picture of that size. */
vl_mllama_plan vl_preprocess_mllama_plan(const vl_preprocess *pp, int width, int height);
/* out: [max_image_tiles, 3, tile, tile]; tiles that are not used are 0. *plan (may be NULL) says how. Errors:
 * VL_ENOMEM, VL_EUNSUPPORTED (the filter). */
vl_status vl_preprocess_mllama(float *out, vl_mllama_plan *plan, const vl_preprocess *pp, const vl_image *image,
                               vl_error *err);
/* The part of a picture of that size that tile number `tile` (row by row) shows. */
vl_box vl_preprocess_mllama_box(const vl_mllama_plan *plan, int tile, int width, int height);

#endif
