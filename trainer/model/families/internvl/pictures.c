/* A picture is resized to the grid of tiles whose aspect is nearest, and cut; a thumbnail follows where there is more
 * than one tile. "crop_to_patches" is false in the files and true in the processor: the processor wins. */
#include "trainer/image/sizes.h"
#include "trainer/model/families/internvl/internvl.h"

#define IMAGE "<IMG_CONTEXT>"

vl_status vl_internvl_read_pictures(vl_internvl_own *out, const vl_model_spec *spec, const vl_hf_reader *image,
                                    const vl_hf_reader *processor)
{
    const vl_tower_spec *tower = &spec->vision.tower;
    int wanted;
    *out = (vl_internvl_own){
        .processor = {.resample = VL_RESAMPLE_BICUBIC, .size = {384, 384}, .normalise = vl_normalise_clip},
        .per_side = tower->grid / spec->vision.connector.shuffle,
        .min_tiles = 1,
        .max_tiles = 12};
    VL_TRY(vl_processor_read(&out->processor, image));
    VL_TRY(vl_hf_key_int(&out->min_tiles, image, "min_patches", 1, 256));
    VL_TRY(vl_hf_key_int(&out->max_tiles, image, "max_patches", 1, 256));
    if (out->min_tiles > out->max_tiles)
        return vl_fail(image->err, VL_EFORMAT, "%s: \"min_patches\" is %d, \"max_patches\" %d", image->where,
                       out->min_tiles, out->max_tiles);
    wanted = out->per_side * out->per_side;
    VL_TRY(vl_hf_key_int(&wanted, processor, "image_seq_length", 1, VL_HF_MAX_SIZE));
    if (wanted != out->per_side * out->per_side)
        return vl_fail(processor->err, VL_EMISMATCH, "%s: \"image_seq_length\" is %d, a tile becomes %d rows",
                       processor->where, wanted, out->per_side * out->per_side);
    const vl_size size = out->processor.size;
    if (size.height != tower->image_size || size.width != tower->image_size)
        return vl_fail(image->err, VL_EMISMATCH, "%s: tiles of %d x %d pixels, the vision tower reads %d x %d",
                       image->where, size.width, size.height, tower->image_size, tower->image_size);
    return VL_OK;
}

static vl_size arrange(const vl_internvl_own *own, int width, int height)
{
    return vl_tiled_grid((vl_size){height, width}, own->processor.size.height, own->min_tiles, own->max_tiles);
}

vl_status vl_internvl_measure(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height,
                              vl_error *err)
{
    const vl_internvl_own *own = spec->own;
    const vl_size cells = {own->per_side, own->per_side}, tiles = arrange(own, width, height);
    const int n = tiles.height * tiles.width;
    const vl_box whole = {0, 0, width, height};
    VL_TRY(vl_image_set_grids(out, n > 1 ? n + 1 : 1, err));
    for (int i = 0; i < n; i++) {
        const double r = i / tiles.width, c = i % tiles.width, R = tiles.height, C = tiles.width;
        vl_image_put_grid(out, i, cells, vl_box_part(whole, c / C, r / R, (c + 1) / C, (r + 1) / R));
    }
    if (n > 1)
        vl_image_put_grid(out, n, cells, whole);
    out->tile_rows = tiles.height;
    out->tile_columns = tiles.width;
    out->n_tiles = out->n_grids;
    out->n_rows = (int64_t)out->n_tiles * cells.height * cells.width;
    return VL_OK;
}

vl_status vl_internvl_pixels(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image,
                             vl_error *err)
{
    const vl_internvl_own *own = spec->own;
    const vl_processor *p = &own->processor;
    const int side = p->size.height;
    const vl_bitmap original = vl_bitmap_of(image);
    const vl_size tiles = arrange(own, image->width, image->height), size = {tiles.height * side, tiles.width * side};
    vl_bitmap cut = {0}, thumbnail = {0};
    vl_value_table table;
    vl_status status = VL_OK;
    VL_GOTO(vl_image_set_tiles(out, side, err));
    VL_GOTO(vl_bitmap_resize(&cut, &original, size, p->resample, p->kernel, err));
    vl_value_table_make(table, &p->normalise);
    vl_pixels_tiles(out->pixels, &cut, side, table);
    if (out->n_tiles > 1) {
        const size_t before = (size_t)(out->n_tiles - 1) * 3 * (size_t)side * (size_t)side;
        VL_GOTO(vl_bitmap_resize(&thumbnail, &original, p->size, p->resample, p->kernel, err));
        vl_pixels_tiles(out->pixels + before, &thumbnail, side, table);
    }
    VL_GOTO(vl_image_set_seen_bitmap(out, &cut, err));
done:
    vl_bitmap_clear(&cut);
    vl_bitmap_clear(&thumbnail);
    return status;
}

static void expand(vl_str *out, const vl_model_spec *spec, const struct vl_sequence_image *image)
{
    (void)spec;
    vl_str_puts(out, "<img>");
    vl_str_repeat(out, IMAGE, image->n_rows);
    vl_str_puts(out, "</img>");
}

vl_status vl_internvl_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                           const struct vl_sequence_image *images, vl_error *err)
{
    static const vl_placeholder how = {.text = IMAGE, .expand = expand};
    return vl_wrap_pictures(out, model, prompt, images, &how, err);
}
