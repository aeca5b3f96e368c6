/* hf/preprocess.h - from a picture to pixel values: the settings of image processors, what all of them do (rescale,
 * normalise), and CLIPImageProcessor of transformers 4.46.3, bit for bit. Processors of one family alone stand in its
 * folder. */
#ifndef VL_HF_PREPROCESS_H
#define VL_HF_PREPROCESS_H

#include <stdbool.h>

#include "trainer/base/status.h"
#include "trainer/hf/config.h"
#include "trainer/image/image.h"
#include "trainer/image/resize.h"

/* Settings of an image processor, with the defaults of its class where a key is missing. */
typedef struct vl_preprocess {
    bool do_resize, do_center_crop, do_rescale, do_normalize, do_convert_rgb, do_pad;
    int shortest_edge; /* 0 where height and width are given instead */
    int height, width; /* of the resized picture, or of a tile */
    int crop_height, crop_width;
    vl_resample resample;
    double rescale_factor;
    double mean[3], std[3];
    int max_image_tiles; /* of processors that cut tiles */
    vl_alpha alpha;      /* what becomes of transparency */
} vl_preprocess;

extern const vl_preprocess vl_preprocess_clip_defaults;

/* VL_EUNSUPPORTED unless "image_processor_type" (in old files "feature_extractor_type") is one of `classes`, NULL at
 * the end, or not written. */
vl_status vl_preprocess_check_class(const vl_hf_reader *in, const char *const *classes);
/* do_*, resample, rescale_factor, image_mean, image_std. *out holds the defaults. Errors: VL_EFORMAT. */
vl_status vl_preprocess_read_common(vl_preprocess *out, const vl_hf_reader *in);
/* `key` as a number (both sides) or {"height", "width"}. Errors: VL_EFORMAT. */
vl_status vl_preprocess_read_rectangle(int *height, int *width, const vl_hf_reader *in, const char *key);
/* All of CLIPImageProcessor. Errors: VL_EFORMAT, VL_EUNSUPPORTED (settings that it refuses). */
vl_status vl_preprocess_read_clip(vl_preprocess *out, const vl_hf_reader *in);

/* How pictures must be opened for this processor. */
vl_image_options vl_preprocess_image_options(const vl_preprocess *pp, bool apply_exif);

/* A rectangle in pixels of the picture (x to the right, y down; edges, so that 0, 0, width, height is all of it).
 * It reaches beyond the picture where the model saw padding. */
typedef struct vl_box {
    double x0, y0, x1, y1;
} vl_box;

/* A part of a picture in bytes, put into one plane-by-plane array of pixel values. */
typedef struct vl_placement {
    const uint8_t *rgb; /* [.., row, 3], first pixel of the part */
    size_t row;         /* pixels from row to row of rgb */
    int width, height;  /* of the part */
    int left, top;      /* where it lands */
    int out_width, out_height;
} vl_placement;

/* out: [3, out_height, out_width], rescaled and normalised; around the part the pixels are those of byte 0, as the
 * padding comes before the normalisation. */
void vl_preprocess_place(float *out, const vl_placement *placement, const vl_preprocess *pp);
/* The same in bytes, [out_height, out_width, 3]. */
void vl_preprocess_place_bytes(uint8_t *out, const vl_placement *placement);

/* ---- CLIP: resize, crop the middle, normalise ---- */

typedef struct vl_clip_plan {
    int resized_width, resized_height;
    int width, height; /* of the pixel values */
    int left, top;     /* where the crop starts in the resized picture; negative where it is padded */
} vl_clip_plan;

/* What becomes of a picture of that size. Error: VL_EFORMAT (pixel values over VL_IMAGE_MAX_PIXELS). */
vl_status vl_preprocess_clip_plan(vl_clip_plan *out, const vl_preprocess *pp, int width, int height, vl_error *err);
/* out: [3, plan.height, plan.width]; bytes (may be NULL): the same before rescaling, [plan.height, plan.width, 3].
 * Errors: of the plan, VL_ENOMEM, VL_EUNSUPPORTED (the filter). */
vl_status vl_preprocess_clip(float *out, uint8_t *bytes, const vl_preprocess *pp, const vl_image *image, vl_error *err);
/* The part of the picture that the pixel values show. Patch (row, column) of a grid of R x C patches is the
 * rectangle row/R .. (row+1)/R, column/C .. (column+1)/C of this one. */
vl_status vl_preprocess_clip_box(vl_box *out, const vl_preprocess *pp, int width, int height, vl_error *err);

#endif
