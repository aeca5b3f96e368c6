#include "trainer/model/picture.h"

#include <string.h>

/* ---- prompts ----------------------------------------------------------------------------------------------- */

void vl_str_repeat(vl_str *out, const char *text, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        vl_str_puts(out, text);
}

vl_status vl_wrap_pictures(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                           const struct vl_sequence_image *images, const vl_placeholder *how, vl_error *err)
{
    const char *text = prompt->text;
    VL_TRY(vl_check_image_count(vl_count_token(text, how->text), prompt->n_images, err));
    for (int i = 0; i < prompt->n_images; i++) {
        const char *at = strstr(text, how->text);
        vl_str_append(out, text, (size_t)(at - text));
        how->expand(out, &model->spec, &images[i]);
        text = at + strlen(how->text);
    }
    vl_str_puts(out, text);
    return VL_OK;
}

/* ---- pictures ---------------------------------------------------------------------------------------------- */

void vl_image_put_grid(struct vl_sequence_image *image, int i, vl_size cells, vl_box box)
{
    image->grids[i] = (vl_image_grid){
        .rows = cells.height, .columns = cells.width, .x0 = box.x0, .y0 = box.y0, .x1 = box.x1, .y1 = box.y1};
}

vl_status vl_image_set_tiles(struct vl_sequence_image *image, int side, vl_error *err)
{
    const int64_t values = 3 * (int64_t)side * side;
    if (image->n_tiles > VL_IMAGE_MAX_VALUES / values)
        return vl_fail(err, VL_EFORMAT, "a picture would become %d tiles of %d x %d pixels", image->n_tiles, side,
                       side);
    return vl_image_set_pixels(image, image->n_tiles * values, err);
}

vl_status vl_image_set_seen_bitmap(struct vl_sequence_image *image, const vl_bitmap *bitmap, vl_error *err)
{
    VL_TRY(vl_image_set_seen(image, bitmap->size.width, bitmap->size.height, err));
    memcpy(image->seen, bitmap->rgb, 3 * (size_t)bitmap->size.width * (size_t)bitmap->size.height);
    return VL_OK;
}

vl_box vl_box_part(vl_box box, double x0, double y0, double x1, double y1)
{
    const double w = box.x1 - box.x0, h = box.y1 - box.y0;
    return (vl_box){box.x0 + x0 * w, box.y0 + y0 * h, box.x0 + x1 * w, box.y0 + y1 * h};
}

vl_box vl_box_whole(const struct vl_sequence_image *image)
{
    return (vl_box){0, 0, image->width, image->height};
}

vl_bitmap vl_bitmap_of(const vl_image *image)
{
    return (vl_bitmap){{image->height, image->width}, image->rgb};
}
