/* model/picture.h - for families that see pictures: from a prompt to its text with a row's token for each row, and
 * boxes of pictures. */
#ifndef VL_MODEL_PICTURE_H
#define VL_MODEL_PICTURE_H

#include "trainer/image/bitmap.h"
#include "trainer/model/family.h"

/* What stands for a picture in a prompt, and what replaces it. */
typedef struct vl_placeholder {
    const char *text;
    void (*expand)(vl_str *out, const vl_model_spec *spec, const struct vl_sequence_image *image);
} vl_placeholder;

/* vl_family.wrap: replaces each placeholder, so that the whole is tokenised at once: newlines at the seams may be one
 * token with their neighbours. The template is applied already. Errors: VL_EINVAL (another number of placeholders than
 * of pictures). */
vl_status vl_wrap_pictures(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                           const struct vl_sequence_image *images, const vl_placeholder *how, vl_error *err);

/* Writes `text` n times. */
void vl_str_repeat(vl_str *out, const char *text, int64_t n);

/* Grid `i` of a picture: rows x columns cells over a box of it, without newlines. */
void vl_image_put_grid(struct vl_sequence_image *image, int i, vl_size cells, vl_box box);
/* Room for n_tiles tiles of 3 x side x side values. Errors: VL_EFORMAT (over VL_IMAGE_MAX_VALUES), VL_ENOMEM. */
vl_status vl_image_set_tiles(struct vl_sequence_image *image, int side, vl_error *err);
/* seen = a copy of the bitmap. */
vl_status vl_image_set_seen_bitmap(struct vl_sequence_image *image, const vl_bitmap *bitmap, vl_error *err);

/* The pixels of one picture stay below 1 GiB of f32. */
#define VL_IMAGE_MAX_VALUES ((int64_t)1 << 28)

/* A part of a box: columns x0 .. x1 and rows y0 .. y1 as fractions of it. */
vl_box vl_box_part(vl_box box, double x0, double y0, double x1, double y1);
/* All of a picture. */
vl_box vl_box_whole(const struct vl_sequence_image *image);
/* A decoded picture as a bitmap that borrows it. */
vl_bitmap vl_bitmap_of(const vl_image *image);

#endif
