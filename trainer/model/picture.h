/* model/picture.h - from a picture to what a vision tower reads of it, and to what the decoder sees of it.
 *
 * A family fills one table of rules; the prompt is expanded from what they say of each picture, so that a picture is
 * opened before its tokens are counted. */
#ifndef VL_MODEL_PICTURE_H
#define VL_MODEL_PICTURE_H

#include "trainer/base/str.h"
#include "trainer/hf/preprocess.h" /* vl_box */
#include "trainer/image/bitmap.h"

/* One row of the residual stream that a picture fills. */
typedef struct vl_picture_row {
    int16_t tile, row, column; /* of what the decoder sees; row and column are -1 where the row is no patch (newline) */
    vl_box box;                /* of the original picture, in pixels; all 0 where the row is no patch */
} vl_picture_row;

typedef struct vl_picture {
    vl_size original; /* upright, as opened */
    vl_size grid;     /* tiles (rows, columns) beside the overview, 0 x 0 without any; Qwen: patches */
    int n_tiles;      /* pictures that the tower reads; Qwen: 1 */
    vl_size tile;     /* pixels of each */
    float *pixels;    /* [n_tiles, 3, tile.height, tile.width]; Qwen: [grid.height * grid.width, 3 * frames * p * p] */
    int64_t n_rows;   /* rows of the residual stream */
    vl_picture_row *rows; /* [n_rows] */
    int64_t capacity;     /* of rows */
} vl_picture;

void vl_picture_clear(vl_picture *picture);

/* Appends n.height * n.width rows, raster order: tile `tile` of what the decoder sees, evenly over `whole`. */
vl_status vl_picture_add_grid(vl_picture *picture, int tile, vl_size n, vl_box whole, vl_error *err);
/* Appends one row. Error: VL_ENOMEM. */
vl_status vl_picture_add_row(vl_picture *picture, vl_picture_row row, vl_error *err);
/* Room for n_tiles tiles of 3 x tile.height x tile.width values, `frames` times. Errors: VL_EFORMAT (over
 * VL_PICTURE_MAX_VALUES), VL_ENOMEM. */
vl_status vl_picture_alloc_pixels(vl_picture *picture, int frames, vl_error *err);

/* Every picture of one sequence stays below this: 4 GiB of f32. */
#define VL_PICTURE_MAX_VALUES ((int64_t)1 << 30)

typedef struct vl_picture_rules {
    const char *placeholder; /* what stands for a picture in a prompt */
    /* From picture->original: grid, n_tiles, tile and rows. n_pictures: of the prompt. */
    vl_status (*plan)(vl_picture *picture, const void *settings, int n_pictures, vl_error *err);
    /* picture->pixels of a picture that is planned. */
    vl_status (*pixels)(vl_picture *picture, const void *settings, const vl_bitmap *bitmap, vl_error *err);
    /* Writes what replaces the placeholder. */
    void (*expand)(vl_str *out, const void *settings, const vl_picture *picture);
} vl_picture_rules;

/* `text` with the k-th placeholder replaced by what the k-th picture needs. The whole string is tokenised afterwards:
 * newlines at the seams may be one token with their neighbours. Errors: VL_EINVAL (another number of placeholders than
 * of pictures). */
vl_status vl_picture_expand(vl_str *out, const vl_picture_rules *rules, const void *settings, const char *text,
                            const vl_picture *pictures, int n, vl_error *err);

/* Writes `text` n times. */
void vl_str_repeat(vl_str *out, const char *text, int64_t n);

/* A part of a box: columns x0 .. x1 and rows y0 .. y1 as fractions of it. */
vl_box vl_box_part(vl_box box, double x0, double y0, double x1, double y1);
/* All of a picture. */
vl_box vl_box_whole(vl_size size);

#endif
