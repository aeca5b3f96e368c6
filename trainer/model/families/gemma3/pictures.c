/* A picture is resized to one square without regard to its aspect; with pan and scan its crops follow it. */
#include "trainer/model/families/gemma3/gemma3.h"

#include <math.h>

#include "trainer/base/json.h"

static vl_status read_pan_and_scan(vl_gemma3_pictures *out, vl_error *err)
{
    const vl_processor *p = &out->processor;
    VL_TRY(vl_json_bool(&out->crops, p->image, "do_pan_and_scan", p->image_path, err));
    VL_TRY(vl_processor_image_int(&out->pan_and_scan.min_crop_size, p, "pan_and_scan_min_crop_size",
                                  VL_PROCESSOR_MAX_SIDE, err));
    VL_TRY(vl_processor_image_int(&out->pan_and_scan.max_num_crops, p, "pan_and_scan_max_num_crops", 64, err));
    return vl_json_double(&out->pan_and_scan.min_ratio, p->image, "pan_and_scan_min_ratio_to_activate", p->image_path,
                          err);
}

vl_status vl_gemma3_pictures_read(vl_gemma3_pictures *out, const char *directory, vl_gemma3_shape shape, vl_error *err)
{
    static const vl_processor defaults = {
        .resample = VL_RESAMPLE_BILINEAR,
        .do_resize = true,
        .size = {224, 224},
        .normalise = {.do_rescale = true,
                      .do_normalize = true,
                      .rescale_factor = 1.0 / 255,
                      .mean = {0.5, 0.5, 0.5},
                      .std = {0.5, 0.5, 0.5}},
    };
    *out = (vl_gemma3_pictures){.pan_and_scan = {.min_crop_size = 256, .max_num_crops = 4, .min_ratio = 1.2}};
    VL_TRY(vl_processor_open(&out->processor, directory, &defaults, err));
    VL_TRY(read_pan_and_scan(out, err));
    const vl_processor *p = &out->processor;
    const int grid = shape.image_size / shape.patch_size;
    int tokens = shape.tokens;
    out->per_side = (int)(sqrt(shape.tokens) + 0.5);
    if (out->per_side < 1 || out->per_side * out->per_side != shape.tokens || grid < out->per_side)
        return vl_fail(err, VL_EFORMAT, "%s: %d rows for a picture of %d x %d patches, expected a smaller square",
                       directory, shape.tokens, grid, grid);
    VL_TRY(vl_processor_int(&tokens, p, "image_seq_length", VL_PROCESSOR_MAX_SIDE, err));
    if (tokens != shape.tokens)
        return vl_fail(err, VL_EMISMATCH, "%s: \"image_seq_length\" is %d, config.json gives a picture %d rows",
                       p->processor_path, tokens, shape.tokens);
    if (p->size.height != shape.image_size || p->size.width != shape.image_size)
        return vl_fail(err, VL_EMISMATCH, "%s: pictures of %d x %d pixels, the vision tower reads %d x %d",
                       p->image_path, p->size.width, p->size.height, shape.image_size, shape.image_size);
    out->seen = (double)(grid / out->per_side * out->per_side * shape.patch_size) / shape.image_size;
    return VL_OK;
}

static vl_size crops_of(const vl_gemma3_pictures *s, vl_size original)
{
    return s->crops ? vl_pan_and_scan_grid(original, &s->pan_and_scan) : (vl_size){0, 0};
}

/* Crop number i of a grid: its place and size before it is cut at the picture's edge. */
static void find_crop(vl_size *at, vl_size *size, vl_size original, vl_size grid, int i)
{
    *size =
        (vl_size){(original.height + grid.height - 1) / grid.height, (original.width + grid.width - 1) / grid.width};
    *at = (vl_size){i / grid.width * size->height, i % grid.width * size->width};
}

static vl_status plan(vl_picture *out, const void *settings, int n_pictures, vl_error *err)
{
    const vl_gemma3_pictures *s = settings;
    const vl_size n = {s->per_side, s->per_side};
    (void)n_pictures;
    out->tile = s->processor.size;
    out->grid = crops_of(s, out->original);
    const int crops = out->grid.height * out->grid.width;
    out->n_tiles = 1 + crops;
    VL_TRY(vl_picture_add_grid(out, 0, n, vl_box_part(vl_box_whole(out->original), 0, 0, s->seen, s->seen), err));
    for (int i = 0; i < crops; i++) {
        vl_size at, size;
        find_crop(&at, &size, out->original, out->grid, i);
        const double right = fmin(at.width + size.width, out->original.width);
        const double bottom = fmin(at.height + size.height, out->original.height);
        const vl_box box = {at.width, at.height, right, bottom};
        VL_TRY(vl_picture_add_grid(out, 1 + i, n, vl_box_part(box, 0, 0, s->seen, s->seen), err));
    }
    return VL_OK;
}

static vl_status put(float *to, const vl_gemma3_pictures *s, const vl_bitmap *bitmap, vl_error *err)
{
    const vl_processor *p = &s->processor;
    vl_bitmap resized;
    vl_value_table table;
    VL_TRY(vl_bitmap_resize(&resized, bitmap, p->size, p->resample, p->kernel, err));
    vl_value_table_make(table, &p->normalise);
    vl_pixels_tiles(to, &resized, p->size.height, table);
    vl_bitmap_clear(&resized);
    return VL_OK;
}

static vl_status pixels(vl_picture *out, const void *settings, const vl_bitmap *bitmap, vl_error *err)
{
    const vl_gemma3_pictures *s = settings;
    const size_t tile = 3 * (size_t)out->tile.height * (size_t)out->tile.width;
    VL_TRY(vl_picture_alloc_pixels(out, 1, err));
    VL_TRY(put(out->pixels, s, bitmap, err));
    for (int i = 0; i + 1 < out->n_tiles; i++) {
        vl_size at, size;
        vl_bitmap crop;
        find_crop(&at, &size, out->original, out->grid, i);
        VL_TRY(vl_bitmap_crop(&crop, bitmap, at.height, at.width, size, err));
        vl_status status = put(out->pixels + (size_t)(i + 1) * tile, s, &crop, err);
        vl_bitmap_clear(&crop);
        VL_TRY(status);
    }
    return VL_OK;
}

static void put_one(vl_str *out, const vl_gemma3_pictures *s)
{
    vl_str_puts(out, "\n\n<start_of_image>");
    vl_str_repeat(out, "<image_soft_token>", (int64_t)s->per_side * s->per_side);
    vl_str_puts(out, "<end_of_image>\n\n");
}

static void expand(vl_str *out, const void *settings, const vl_picture *picture)
{
    if (picture->n_tiles == 1) {
        put_one(out, settings);
        return;
    }
    vl_str_puts(out, "Here is the original image ");
    put_one(out, settings);
    vl_str_puts(out, " and here are some crops to help you see better ");
    for (int i = 1; i < picture->n_tiles; i++) {
        if (i > 1)
            vl_str_putc(out, ' ');
        put_one(out, settings);
    }
}

const vl_picture_rules vl_gemma3_rules = {"<start_of_image>", plan, pixels, expand};
