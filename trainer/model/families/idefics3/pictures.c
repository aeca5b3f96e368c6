/* A picture is resized three times, each result rounded to bytes: the longer side to `longest_edge`, both sides to
 * multiples of the tile, and that once more to one tile, the global picture, which comes last. */
#include "trainer/image/sizes.h"
#include "trainer/model/families/idefics3/idefics3.h"

#define IMAGE "<image>"
#define FAKE  "<fake_token_around_image>"

vl_status vl_idefics3_read_pictures(vl_idefics3_own *out, const vl_model_spec *spec, const vl_hf_reader *image,
                                    const vl_hf_reader *processor)
{
    const vl_tower_spec *tower = &spec->vision.tower;
    const int shuffle = spec->vision.connector.shuffle;
    vl_hf_section section;
    int wanted;
    *out = (vl_idefics3_own){
        .processor = {.resample = VL_RESAMPLE_LANCZOS, .longest_edge = 4 * 364, .normalise = vl_normalise_half},
        .tile = 364,
        .splitting = true};
    VL_TRY(vl_processor_read(&out->processor, image));
    VL_TRY(vl_hf_section_open(&section, image, "max_image_size"));
    VL_TRY(vl_hf_key_int(&out->tile, &section.reader, "longest_edge", 1, VL_PROCESSOR_MAX_SIDE));
    VL_TRY(vl_hf_key_bool(&out->splitting, image, "do_image_splitting"));
    out->per_side = tower->grid / shuffle;
    if (out->tile != tower->image_size || out->processor.longest_edge > VL_PROCESSOR_MAX_SIDE)
        return vl_fail(image->err, VL_EMISMATCH, "%s: tiles of %d pixels from pictures of %d, the tower reads %d",
                       image->where, out->tile, out->processor.longest_edge, tower->image_size);
    wanted = out->per_side * out->per_side;
    VL_TRY(vl_hf_key_int(&wanted, processor, "image_seq_len", 1, VL_HF_MAX_SIZE));
    if (wanted != out->per_side * out->per_side)
        return vl_fail(processor->err, VL_EMISMATCH, "%s: \"image_seq_len\" is %d, a tile becomes %d rows",
                       processor->where, wanted, out->per_side * out->per_side);
    return VL_OK;
}

/* What the tower sees of a tile that shows `box`: whole patches only (384 pixels are 27 patches of 14, and 6 more). */
static vl_box seen(const vl_model_spec *spec, vl_box box)
{
    const vl_tower_spec *tower = &spec->vision.tower;
    const double part = (double)(tower->grid * tower->patch_size) / tower->image_size;
    return vl_box_part(box, 0, 0, part, part);
}

/* The arrangement of tiles; 0 x 0 where the picture is one tile. */
static vl_size arrange(const vl_idefics3_own *own, vl_size picture)
{
    const vl_size tiled = vl_idefics3_tiled(vl_idefics3_resize(picture, own->processor.longest_edge), own->tile);
    if (!own->splitting || (tiled.height <= own->tile && tiled.width <= own->tile))
        return (vl_size){0, 0};
    return (vl_size){tiled.height / own->tile, tiled.width / own->tile};
}

vl_status vl_idefics3_measure(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height,
                              vl_error *err)
{
    const vl_idefics3_own *own = spec->own;
    const vl_size cells = {own->per_side, own->per_side}, tiles = arrange(own, (vl_size){height, width});
    const int n = tiles.height * tiles.width;
    const vl_box whole = {0, 0, width, height};
    VL_TRY(vl_image_set_grids(out, n + 1, err));
    for (int i = 0; i < n; i++) {
        const double r = i / tiles.width, c = i % tiles.width, R = tiles.height, C = tiles.width;
        vl_image_put_grid(out, i, cells, seen(spec, vl_box_part(whole, c / C, r / R, (c + 1) / C, (r + 1) / R)));
    }
    vl_image_put_grid(out, n, cells, seen(spec, whole));
    out->tile_rows = tiles.height;
    out->tile_columns = tiles.width;
    out->n_tiles = n + 1;
    out->n_rows = (int64_t)out->n_tiles * cells.height * cells.width;
    return VL_OK;
}

vl_status vl_idefics3_pixels(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image,
                             vl_error *err)
{
    const vl_idefics3_own *own = spec->own;
    const vl_processor *p = &own->processor;
    const vl_bitmap original = vl_bitmap_of(image);
    const vl_size tile = {own->tile, own->tile}, first_size = vl_idefics3_resize(original.size, p->longest_edge);
    const vl_size second_size = own->splitting ? vl_idefics3_tiled(first_size, own->tile) : tile;
    const int n = out->n_tiles - 1;
    vl_bitmap first = {0}, second = {0}, global = {0};
    vl_value_table table;
    vl_status status = VL_OK;
    VL_GOTO(vl_image_set_tiles(out, own->tile, err));
    VL_GOTO(vl_bitmap_resize(&first, &original, first_size, p->resample, p->kernel, err));
    VL_GOTO(vl_bitmap_resize(&second, &first, second_size, p->resample, p->kernel, err));
    VL_GOTO(vl_bitmap_resize(&global, &second, tile, p->resample, p->kernel, err));
    vl_value_table_make(table, &p->normalise);
    if (n > 0)
        vl_pixels_tiles(out->pixels, &second, own->tile, table);
    vl_pixels_tiles(out->pixels + (size_t)n * 3 * (size_t)own->tile * (size_t)own->tile, &global, own->tile, table);
    VL_GOTO(vl_image_set_seen_bitmap(out, &second, err));
done:
    vl_bitmap_clear(&first);
    vl_bitmap_clear(&second);
    vl_bitmap_clear(&global);
    return status;
}

static void expand(vl_str *out, const vl_model_spec *spec, const struct vl_sequence_image *image)
{
    const vl_idefics3_own *own = spec->own;
    const int per_tile = own->per_side * own->per_side;
    for (int r = 0; r < image->tile_rows; r++) {
        for (int c = 0; c < image->tile_columns; c++) {
            vl_str_printf(out, FAKE "<row_%d_col_%d>", r + 1, c + 1);
            vl_str_repeat(out, IMAGE, per_tile);
        }
        vl_str_putc(out, '\n');
    }
    vl_str_puts(out, image->tile_rows > 0 ? "\n" FAKE "<global-img>" : FAKE "<global-img>");
    vl_str_repeat(out, IMAGE, per_tile);
    vl_str_puts(out, FAKE);
}

vl_status vl_idefics3_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                           const struct vl_sequence_image *images, vl_error *err)
{
    static const vl_placeholder how = {.text = IMAGE, .expand = expand};
    return vl_wrap_pictures(out, model, prompt, images, &how, err);
}
