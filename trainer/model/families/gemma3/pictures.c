/* A picture is resized to one square without regard to its aspect; with pan and scan its crops follow it. */
#include "trainer/model/families/gemma3/gemma3.h"

#include <math.h>

#define START "<start_of_image>"

vl_status vl_gemma3_read_pictures(vl_gemma3_own *out, const vl_model_spec *spec, const vl_hf_reader *image,
                                  const vl_hf_reader *processor, int rows)
{
    const vl_tower_spec *tower = &spec->vision.tower;
    int wanted = rows;
    *out = (vl_gemma3_own){
        .processor = {.resample = VL_RESAMPLE_BILINEAR, .size = {224, 224}, .normalise = vl_normalise_half},
        .per_side = (int)(sqrt(rows) + 0.5),
        .pan_and_scan = {.min_crop_size = 256, .max_num_crops = 4, .min_ratio = 1.2}};
    VL_TRY(vl_processor_read(&out->processor, image));
    VL_TRY(vl_hf_key_bool(&out->crops, image, "do_pan_and_scan"));
    VL_TRY(
        vl_hf_key_int(&out->pan_and_scan.min_crop_size, image, "pan_and_scan_min_crop_size", 1, VL_PROCESSOR_MAX_SIDE));
    VL_TRY(vl_hf_key_int(&out->pan_and_scan.max_num_crops, image, "pan_and_scan_max_num_crops", 1, 64));
    VL_TRY(vl_hf_key_double(&out->pan_and_scan.min_ratio, image, "pan_and_scan_min_ratio_to_activate", 0, 1e6));
    VL_TRY(vl_hf_key_int(&wanted, processor, "image_seq_length", 1, VL_HF_MAX_SIZE));
    if (wanted != rows)
        return vl_fail(processor->err, VL_EMISMATCH,
                       "%s: \"image_seq_length\" is %d, config.json gives a picture %d rows", processor->where, wanted,
                       rows);
    const vl_size size = out->processor.size;
    if (size.height != tower->image_size || size.width != tower->image_size)
        return vl_fail(image->err, VL_EMISMATCH, "%s: pictures of %d x %d pixels, the vision tower reads %d x %d",
                       image->where, size.width, size.height, tower->image_size, tower->image_size);
    return VL_OK;
}

static vl_size crops_of(const vl_gemma3_own *own, int width, int height)
{
    return own->crops ? vl_pan_and_scan_grid((vl_size){height, width}, &own->pan_and_scan) : (vl_size){0, 0};
}

/* Crop number i of a grid of n: where it starts, and its size before it is cut at the picture's edge. */
static void find_crop(vl_size *at, vl_size *size, vl_size original, vl_size n, int i)
{
    *size = (vl_size){(original.height + n.height - 1) / n.height, (original.width + n.width - 1) / n.width};
    *at = (vl_size){i / n.width * size->height, i % n.width * size->width};
}

/* What the pooled patches cover of a square that shows `box`. */
static vl_box seen(const vl_model_spec *spec, vl_box box)
{
    const vl_tower_spec *tower = &spec->vision.tower;
    const int pool = spec->vision.connector.pool;
    const double part = (double)(tower->grid / pool * pool * tower->patch_size) / tower->image_size;
    return vl_box_part(box, 0, 0, part, part);
}

vl_status vl_gemma3_measure(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height,
                            vl_error *err)
{
    const vl_gemma3_own *own = spec->own;
    const vl_size cells = {own->per_side, own->per_side}, n = crops_of(own, width, height);
    const int crops = n.height * n.width;
    VL_TRY(vl_image_set_grids(out, 1 + crops, err));
    vl_image_put_grid(out, 0, cells, seen(spec, (vl_box){0, 0, width, height}));
    for (int i = 0; i < crops; i++) {
        vl_size at, size;
        find_crop(&at, &size, (vl_size){height, width}, n, i);
        const vl_box box = {at.width, at.height, fmin(at.width + size.width, width),
                            fmin(at.height + size.height, height)};
        vl_image_put_grid(out, 1 + i, cells, seen(spec, box));
    }
    out->tile_rows = n.height;
    out->tile_columns = n.width;
    out->n_tiles = 1 + crops;
    out->n_rows = (int64_t)out->n_tiles * cells.height * cells.width;
    return VL_OK;
}

/* One square of pixel values; `shown` (may be NULL) receives it in bytes. */
static vl_status put(float *to, struct vl_sequence_image *shown, const vl_gemma3_own *own, const vl_bitmap *bitmap,
                     vl_error *err)
{
    const vl_processor *p = &own->processor;
    vl_bitmap resized;
    vl_value_table table;
    vl_status status = VL_OK;
    VL_TRY(vl_bitmap_resize(&resized, bitmap, p->size, p->resample, p->kernel, err));
    vl_value_table_make(table, &p->normalise);
    vl_pixels_tiles(to, &resized, p->size.height, table);
    if (shown)
        status = vl_image_set_seen_bitmap(shown, &resized, err);
    vl_bitmap_clear(&resized);
    return status;
}

vl_status vl_gemma3_pixels(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image,
                           vl_error *err)
{
    const vl_gemma3_own *own = spec->own;
    const vl_bitmap original = vl_bitmap_of(image);
    const vl_size n = crops_of(own, image->width, image->height);
    const size_t tile = 3 * (size_t)own->processor.size.height * (size_t)own->processor.size.width;
    VL_TRY(vl_image_set_tiles(out, own->processor.size.height, err));
    VL_TRY(put(out->pixels, out, own, &original, err));
    for (int i = 0; i + 1 < out->n_tiles; i++) {
        vl_size at, size;
        vl_bitmap crop;
        find_crop(&at, &size, original.size, n, i);
        VL_TRY(vl_bitmap_crop(&crop, &original, at.height, at.width, size, err));
        vl_status status = put(out->pixels + (size_t)(i + 1) * tile, NULL, own, &crop, err);
        vl_bitmap_clear(&crop);
        VL_TRY(status);
    }
    return VL_OK;
}

static void put_one(vl_str *out, const vl_gemma3_own *own)
{
    vl_str_puts(out, "\n\n" START);
    vl_str_repeat(out, "<image_soft_token>", (int64_t)own->per_side * own->per_side);
    vl_str_puts(out, "<end_of_image>\n\n");
}

static void expand(vl_str *out, const vl_model_spec *spec, const struct vl_sequence_image *image)
{
    if (image->n_tiles == 1) {
        put_one(out, spec->own);
        return;
    }
    vl_str_puts(out, "Here is the original image ");
    put_one(out, spec->own);
    vl_str_puts(out, " and here are some crops to help you see better ");
    for (int i = 1; i < image->n_tiles; i++) {
        if (i > 1)
            vl_str_putc(out, ' ');
        put_one(out, spec->own);
    }
}

vl_status vl_gemma3_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                         const struct vl_sequence_image *images, vl_error *err)
{
    static const vl_placeholder how = {.text = START, .expand = expand};
    return vl_wrap_pictures(out, model, prompt, images, &how, err);
}
