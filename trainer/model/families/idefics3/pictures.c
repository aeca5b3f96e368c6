/* A picture is resized three times, each result rounded to bytes: the longer side to `longest_edge`, both sides to
 * multiples of the tile, and that once more to one tile, the global picture, which comes last. */
#include "trainer/model/families/idefics3/idefics3.h"

#include "trainer/base/json.h"
#include "trainer/image/sizes.h"

static const char FAKE[] = "<fake_token_around_image>", IMAGE[] = "<image>";

vl_status vl_idefics3_pictures_read(vl_idefics3_pictures *out, const char *directory, int patch, int shuffle,
                                    vl_error *err)
{
    static const vl_processor defaults = {
        .resample = VL_RESAMPLE_LANCZOS,
        .do_resize = true,
        .longest_edge = 4 * 364,
        .normalise = {.do_rescale = true,
                      .do_normalize = true,
                      .rescale_factor = 1.0 / 255,
                      .mean = {0.5, 0.5, 0.5},
                      .std = {0.5, 0.5, 0.5}},
    };
    int wanted = 0;
    int64_t tile = 364;
    *out = (vl_idefics3_pictures){.patch = patch, .shuffle = shuffle, .splitting = true};
    VL_TRY(vl_processor_open(&out->processor, directory, &defaults, err));
    const vl_processor *p = &out->processor;
    VL_TRY(vl_json_int(&tile, json_object_get(p->image, "max_image_size"), "longest_edge", 1, VL_PROCESSOR_MAX_SIDE,
                       p->image_path, err));
    VL_TRY(vl_json_bool(&out->splitting, p->image, "do_image_splitting", p->image_path, err));
    VL_TRY(vl_processor_int(&wanted, p, "image_seq_len", VL_PROCESSOR_MAX_SIDE, err));
    out->tile = (int)tile;
    out->per_side = out->tile / patch / shuffle;
    if (p->longest_edge > VL_PROCESSOR_MAX_SIDE || out->per_side < 1 || out->tile / patch % shuffle != 0)
        return vl_fail(err, VL_EFORMAT, "%s: tiles of %d pixels from pictures of %d, for patches of %d joined %d x %d",
                       p->image_path, out->tile, p->longest_edge, patch, shuffle, shuffle);
    if (wanted != 0 && wanted != out->per_side * out->per_side)
        return vl_fail(err, VL_EMISMATCH, "%s: \"image_seq_len\" is %d, tiles of %d pixels give %d", p->processor_path,
                       wanted, out->tile, out->per_side * out->per_side);
    return VL_OK;
}

/* What the conv sees of a tile that shows `box`: whole patches only. */
static vl_box seen(const vl_idefics3_pictures *s, vl_box box)
{
    const double part = (double)(s->per_side * s->shuffle * s->patch) / s->tile;
    return vl_box_part(box, 0, 0, part, part);
}

static vl_status plan(vl_picture *out, const void *settings, int n_pictures, vl_error *err)
{
    const vl_idefics3_pictures *s = settings;
    const vl_size n = {s->per_side, s->per_side};
    const vl_size tiled = vl_idefics3_tiled(vl_idefics3_resize(out->original, s->processor.longest_edge), s->tile);
    const vl_box whole = vl_box_whole(out->original);
    (void)n_pictures;
    out->tile = (vl_size){s->tile, s->tile};
    out->grid = (vl_size){0, 0};
    if (s->splitting && (tiled.height > s->tile || tiled.width > s->tile))
        out->grid = (vl_size){tiled.height / s->tile, tiled.width / s->tile};
    const int R = out->grid.height, C = out->grid.width;
    for (int i = 0; i < R * C; i++) {
        const double r = i / C, c = i % C;
        VL_TRY(
            vl_picture_add_grid(out, i, n, seen(s, vl_box_part(whole, c / C, r / R, (c + 1) / C, (r + 1) / R)), err));
    }
    out->n_tiles = R * C + 1;
    return vl_picture_add_grid(out, R * C, n, seen(s, whole), err);
}

static vl_status pixels(vl_picture *out, const void *settings, const vl_bitmap *bitmap, vl_error *err)
{
    const vl_idefics3_pictures *s = settings;
    const vl_processor *p = &s->processor;
    const vl_size first_size = vl_idefics3_resize(out->original, p->longest_edge);
    const vl_size second_size = s->splitting ? vl_idefics3_tiled(first_size, s->tile) : out->tile;
    vl_bitmap first = {0}, second = {0}, global = {0};
    vl_value_table table;
    vl_status status = VL_OK;
    const int n = out->n_tiles - 1;
    VL_GOTO(vl_picture_alloc_pixels(out, 1, err));
    VL_GOTO(vl_bitmap_resize(&first, bitmap, first_size, p->resample, p->kernel, err));
    VL_GOTO(vl_bitmap_resize(&second, &first, second_size, p->resample, p->kernel, err));
    VL_GOTO(vl_bitmap_resize(&global, &second, out->tile, p->resample, p->kernel, err));
    vl_value_table_make(table, &p->normalise);
    if (n > 0)
        vl_pixels_tiles(out->pixels, &second, s->tile, table);
    vl_pixels_tiles(out->pixels + (size_t)n * 3 * (size_t)s->tile * (size_t)s->tile, &global, s->tile, table);
done:
    vl_bitmap_clear(&first);
    vl_bitmap_clear(&second);
    vl_bitmap_clear(&global);
    return status;
}

static void expand(vl_str *out, const void *settings, const vl_picture *picture)
{
    const vl_idefics3_pictures *s = settings;
    const int per_tile = s->per_side * s->per_side;
    for (int r = 0; r < picture->grid.height; r++) {
        for (int c = 0; c < picture->grid.width; c++) {
            vl_str_printf(out, "%s<row_%d_col_%d>", FAKE, r + 1, c + 1);
            vl_str_repeat(out, IMAGE, per_tile);
        }
        vl_str_putc(out, '\n');
    }
    if (picture->grid.height > 0)
        vl_str_putc(out, '\n');
    vl_str_printf(out, "%s<global-img>", FAKE);
    vl_str_repeat(out, IMAGE, per_tile);
    vl_str_puts(out, FAKE);
}

const vl_picture_rules vl_idefics3_rules = {"<image>", plan, pixels, expand};
