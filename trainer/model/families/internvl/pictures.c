/* A picture is resized to the grid of tiles whose aspect is nearest, and cut; a thumbnail follows where there is more
 * than one tile. "crop_to_patches" is false in the files and true in the processor: the processor wins. */
#include "trainer/model/families/internvl/internvl.h"

#include "trainer/image/sizes.h"

static vl_status check(const vl_internvl_pictures *s, vl_internvl_shape shape, vl_error *err)
{
    const vl_processor *p = &s->processor;
    int tokens = s->per_side * s->per_side;
    VL_TRY(vl_processor_int(&tokens, p, "image_seq_length", VL_PROCESSOR_MAX_SIDE, err));
    if (p->size.height != shape.image_size || p->size.width != shape.image_size)
        return vl_fail(err, VL_EMISMATCH, "%s: tiles of %d x %d pixels, the vision tower reads %d x %d", p->image_path,
                       p->size.width, p->size.height, shape.image_size, shape.image_size);
    if (s->per_side < 1 || shape.image_size / shape.patch_size % shape.shuffle != 0 ||
        tokens != s->per_side * s->per_side)
        return vl_fail(err, VL_EMISMATCH, "%s: \"image_seq_length\" is %d, a tile of %d x %d patches gives %d",
                       p->processor_path, tokens, shape.image_size / shape.patch_size,
                       shape.image_size / shape.patch_size, s->per_side * s->per_side);
    if (s->min_tiles > s->max_tiles)
        return vl_fail(err, VL_EFORMAT, "%s: \"min_patches\" is %d, \"max_patches\" %d", p->image_path, s->min_tiles,
                       s->max_tiles);
    return VL_OK;
}

vl_status vl_internvl_pictures_read(vl_internvl_pictures *out, const char *directory, vl_internvl_shape shape,
                                    vl_error *err)
{
    static const vl_processor defaults = {
        .resample = VL_RESAMPLE_BICUBIC,
        .do_resize = true,
        .size = {384, 384},
        .normalise = {.do_rescale = true,
                      .do_normalize = true,
                      .rescale_factor = 1.0 / 255,
                      .mean = {0.48145466, 0.4578275, 0.40821073}, /* OPENAI_CLIP_MEAN, OPENAI_CLIP_STD */
                      .std = {0.26862954, 0.26130258, 0.27577711}},
    };
    *out = (vl_internvl_pictures){.min_tiles = 1, .max_tiles = 12};
    VL_TRY(vl_processor_open(&out->processor, directory, &defaults, err));
    VL_TRY(vl_processor_image_int(&out->min_tiles, &out->processor, "min_patches", 256, err));
    VL_TRY(vl_processor_image_int(&out->max_tiles, &out->processor, "max_patches", 256, err));
    out->tile = shape.image_size;
    out->per_side = shape.image_size / shape.patch_size / shape.shuffle;
    out->seen = (double)(out->per_side * shape.shuffle * shape.patch_size) / shape.image_size;
    return check(out, shape, err);
}

static vl_status plan(vl_picture *out, const void *settings, int n_pictures, vl_error *err)
{
    const vl_internvl_pictures *s = settings;
    const vl_size n = {s->per_side, s->per_side};
    const vl_box whole = vl_box_whole(out->original);
    (void)n_pictures;
    out->tile = (vl_size){s->tile, s->tile};
    out->grid = vl_tiled_grid(out->original, s->tile, s->min_tiles, s->max_tiles);
    const int R = out->grid.height, C = out->grid.width;
    for (int i = 0; i < R * C; i++) {
        const double r = i / C, c = i % C;
        const vl_box tile = vl_box_part(whole, c / C, r / R, (c + 1) / C, (r + 1) / R);
        VL_TRY(vl_picture_add_grid(out, i, n, vl_box_part(tile, 0, 0, s->seen, s->seen), err));
    }
    out->n_tiles = R * C;
    if (R * C == 1)
        return VL_OK;
    return vl_picture_add_grid(out, out->n_tiles++, n, vl_box_part(whole, 0, 0, s->seen, s->seen), err);
}

static vl_status pixels(vl_picture *out, const void *settings, const vl_bitmap *bitmap, vl_error *err)
{
    const vl_internvl_pictures *s = settings;
    const vl_processor *p = &s->processor;
    const vl_size size = {out->grid.height * s->tile, out->grid.width * s->tile};
    const size_t tile = 3 * (size_t)s->tile * (size_t)s->tile;
    vl_bitmap tiles = {0}, thumbnail = {0};
    vl_value_table table;
    vl_status status = VL_OK;
    VL_GOTO(vl_picture_alloc_pixels(out, 1, err));
    VL_GOTO(vl_bitmap_resize(&tiles, bitmap, size, p->resample, p->kernel, err));
    vl_value_table_make(table, &p->normalise);
    vl_pixels_tiles(out->pixels, &tiles, s->tile, table);
    if (out->n_tiles > 1) {
        VL_GOTO(vl_bitmap_resize(&thumbnail, bitmap, out->tile, p->resample, p->kernel, err));
        vl_pixels_tiles(out->pixels + (size_t)(out->n_tiles - 1) * tile, &thumbnail, s->tile, table);
    }
done:
    vl_bitmap_clear(&tiles);
    vl_bitmap_clear(&thumbnail);
    return status;
}

static void expand(vl_str *out, const void *settings, const vl_picture *picture)
{
    (void)settings;
    vl_str_puts(out, "<img>");
    vl_str_repeat(out, "<IMG_CONTEXT>", picture->n_rows);
    vl_str_puts(out, "</img>");
}

const vl_picture_rules vl_internvl_rules = {"<IMG_CONTEXT>", plan, pixels, expand};
