/* view/picture.h - the pictures of a reading, as the model saw them: cropped, resized, in bytes again. */
#ifndef VL_VIEW_PICTURE_H
#define VL_VIEW_PICTURE_H

#include <vlens/cache.h>
#include <vlens/model.h>

/* A rectangle of the picture that was cut into a grid of patches; patch[0] of a position is its number. Families that
 * look at a picture twice (whole, and in pieces) have tiles that lie over each other. */
typedef struct vl_picture_tile {
    int rows, columns;
    double left, top, width, height; /* of the picture, 0 to 1 */
} vl_picture_tile;

typedef struct vl_picture {
    int32_t image; /* as in the positions of the reading */
    int width, height;
    vl_picture_tile *tiles;           /* [n_tiles]; freed with vl_free */
    int n_tiles;                      /* 0 where patches are not rows of the residual stream */
    int tiles_high, tiles_wide;       /* tiles of the canvas that it lies on, at its left and top; 0 without tiles */
    double cover_width, cover_height; /* of the canvas, 0 to 1 */
    uint8_t *rgb;   /* [height, width, 3], freed with vl_free; NULL where the file could not be read */
    char note[256]; /* "" or what a reader of the page must know about it */
} vl_picture;

typedef struct vl_pictures {
    vl_picture *items; /* [n] */
    int n;
} vl_pictures;

void vl_pictures_clear(vl_pictures *pictures);
/* Makes room for the tiles of a picture, each the whole of it until the caller says otherwise. */
vl_status vl_picture_set_tiles(vl_picture *picture, int n_tiles, vl_error *err);
/* From the pixel values of a sequence: exactly what the model saw. */
vl_status vl_pictures_from_sequence(vl_pictures *out, const vl_model *model, const vl_sequence *sequence,
                                    vl_error *err);
/* From the files that a cache names. A missing or changed file is a note, not an error: the numbers do not need it.
 * The crop is that of the model's preprocessor_config.json where it is still there, else the middle square. */
vl_status vl_pictures_from_cache(vl_pictures *out, const vl_cache *cache, int64_t sample, vl_error *err);

#endif
