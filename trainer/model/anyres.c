#include "trainer/model/anyres.h"

#include <math.h>

#include "trainer/base/json.h"
#include "trainer/image/sizes.h"

/* ---- settings ---- */

static vl_status read_canvas(vl_size *out, const json_t *pair, const vl_anyres *s, vl_error *err)
{
    const json_t *h = json_array_get(pair, 0), *w = json_array_get(pair, 1);
    const int64_t high = json_integer_value(h), wide = json_integer_value(w);
    if (json_array_size(pair) != 2 || high < 1 || wide < 1 || high > VL_PROCESSOR_MAX_SIDE ||
        wide > VL_PROCESSOR_MAX_SIDE || high % s->tile != 0 || wide % s->tile != 0)
        return vl_fail(err, VL_EFORMAT,
                       "%s: \"image_grid_pinpoints\" has %lld x %lld, expected [height, width], multiples of %d",
                       s->processor.image_path, (long long)high, (long long)wide, s->tile);
    *out = (vl_size){(int)high, (int)wide};
    return VL_OK;
}

static vl_status read_canvases(vl_anyres *out, vl_error *err)
{
    const json_t *list = json_object_get(out->processor.image, "image_grid_pinpoints");
    const size_t n = json_array_size(list);
    if (n < 1 || n > VL_ANYRES_MAX_CANVASES)
        return vl_fail(err, VL_EFORMAT, "%s: \"image_grid_pinpoints\" has %zu entries, expected 1 to %d",
                       out->processor.image_path, n, VL_ANYRES_MAX_CANVASES);
    for (size_t i = 0; i < n; i++)
        VL_TRY(read_canvas(&out->canvases[i], json_array_get(list, i), out, err));
    out->n_canvases = (int)n;
    return VL_OK;
}

/* The side of a tile: crop_size where the file has one, else size. */
static vl_status read_tile(vl_anyres *out, vl_error *err)
{
    const vl_processor *p = &out->processor;
    const json_t *crop = json_object_get(p->image, "crop_size");
    int64_t tile = p->size.height > 0 ? p->size.height : p->shortest_edge;
    VL_TRY(vl_json_int(&tile, crop, "height", 1, VL_PROCESSOR_MAX_SIDE, p->image_path, err));
    if (json_is_integer(crop))
        VL_TRY(vl_json_int(&tile, p->image, "crop_size", 1, VL_PROCESSOR_MAX_SIDE, p->image_path, err));
    out->tile = (int)tile;
    return VL_OK;
}

vl_status vl_anyres_read(vl_anyres *out, const char *directory, const vl_processor *defaults, int image_size,
                         vl_error *err)
{
    VL_TRY(vl_processor_open(&out->processor, directory, defaults, err));
    VL_TRY(read_tile(out, err));
    if (out->tile != image_size || image_size / out->patch != out->per_side)
        return vl_fail(err, VL_EMISMATCH, "%s: tiles of %d pixels, the vision tower reads %d",
                       out->processor.image_path, out->tile, image_size);
    return read_canvases(out, err);
}

/* ---- layout ---- */

static vl_size pool(vl_size kept, const vl_anyres *s)
{
    if (s->max_tiles == 0)
        return kept;
    const double area = (double)kept.height * kept.width;
    const double ratio = sqrt(area / ((double)s->max_tiles * s->per_side * s->per_side));
    if (ratio <= 1.1)
        return kept;
    return (vl_size){(int)floor(kept.height / ratio), (int)floor(kept.width / ratio)};
}

vl_anyres_layout vl_anyres_plan(const vl_anyres *s, vl_size original, int n_pictures)
{
    vl_anyres_layout out = {0};
    if (s->one_tile_each && n_pictures > 1)
        return out;
    const vl_size canvas = s->canvases[vl_best_resolution(original, s->canvases, s->n_canvases)];
    out.tiles = (vl_size){canvas.height / s->tile, canvas.width / s->tile};
    out.map = (vl_size){out.tiles.height * s->per_side, out.tiles.width * s->per_side};
    out.cut = vl_unpad_cut(original, out.map);
    out.kept = (vl_size){out.map.height - 2 * out.cut.height, out.map.width - 2 * out.cut.width};
    out.pooled = pool(out.kept, s);
    return out;
}

/* ---- rows ---- */

/* Where patch number u of a side of the canvas starts, in pixels: tiles may end with pixels that no patch covers. */
static double edge(const vl_anyres *s, double u, bool is_end)
{
    const double tile = is_end ? ceil(u / s->per_side) - 1 : floor(u / s->per_side);
    return tile * s->tile + (u - tile * s->per_side) * s->patch;
}

/* What part of the picture, as a fraction of one side of it, patches u0 .. u1 of the canvas show. */
static void show(double out[2], const vl_anyres *s, double u0, double u1, int canvas, int fitted)
{
    const int before = (canvas - fitted) / 2;
    out[0] = (edge(s, u0, false) - before) / fitted;
    out[1] = (edge(s, u1, true) - before) / fitted;
}

static vl_status add_newline(vl_picture *out, int tile, vl_error *err)
{
    return vl_picture_add_row(out, (vl_picture_row){.tile = (int16_t)tile, .row = -1, .column = -1}, err);
}

static vl_status add_canvas(vl_picture *out, const vl_anyres *s, const vl_anyres_layout *l, vl_error *err)
{
    const vl_size canvas = {l->tiles.height * s->tile, l->tiles.width * s->tile};
    const vl_size fitted = vl_fit_inside(out->original, canvas);
    const double down = (double)l->kept.height / l->pooled.height, across = (double)l->kept.width / l->pooled.width;
    for (int i = 0; i < l->pooled.height; i++) {
        double y[2], x[2];
        show(y, s, l->cut.height + i * down, l->cut.height + (i + 1) * down, canvas.height, fitted.height);
        for (int j = 0; j < l->pooled.width; j++) {
            show(x, s, l->cut.width + j * across, l->cut.width + (j + 1) * across, canvas.width, fitted.width);
            const vl_box box = vl_box_part(vl_box_whole(out->original), x[0], y[0], x[1], y[1]);
            VL_TRY(vl_picture_add_row(out, (vl_picture_row){1, (int16_t)i, (int16_t)j, box}, err));
        }
        VL_TRY(add_newline(out, 1, err));
    }
    return VL_OK;
}

static vl_status plan(vl_picture *out, const void *settings, int n_pictures, vl_error *err)
{
    const vl_anyres *s = settings;
    const vl_anyres_layout l = vl_anyres_plan(s, out->original, n_pictures);
    const vl_size base = {s->per_side, s->per_side};
    const double seen = (double)(s->per_side * s->patch) / s->tile;
    vl_box whole = vl_box_whole(out->original);
    out->tile = (vl_size){s->tile, s->tile};
    out->grid = l.tiles;
    out->n_tiles = 1 + l.tiles.height * l.tiles.width;
    if (l.tiles.height > 0) {
        VL_TRY(vl_picture_add_grid(out, 0, base, vl_box_part(whole, 0, 0, seen, seen), err));
        return add_canvas(out, s, &l, err);
    }
    /* The square into which the picture is padded. */
    const int h = out->original.height, w = out->original.width, side = h > w ? h : w;
    const double top = (side - h) / 2, left = (side - w) / 2; /* whole pixels */
    whole = (vl_box){-left, -top, side - left, side - top};
    VL_TRY(vl_picture_add_grid(out, 0, base, vl_box_part(whole, 0, 0, seen, seen), err));
    return add_newline(out, 0, err);
}

/* ---- pixels ---- */

static vl_status put_square(vl_picture *out, const vl_anyres *s, const vl_bitmap *bitmap, vl_value_table table,
                            vl_error *err)
{
    const vl_processor *p = &s->processor;
    const int h = bitmap->size.height, w = bitmap->size.width, side = h > w ? h : w;
    vl_bitmap square = {0}, tile = {0};
    vl_status status = VL_OK;
    uint8_t mean[3];
    for (int c = 0; c < 3; c++)
        mean[c] = (uint8_t)(p->normalise.mean[c] * 255);
    VL_GOTO(vl_bitmap_center(&square, bitmap, (vl_size){side, side}, mean, err));
    VL_GOTO(vl_bitmap_resize(&tile, &square, out->tile, p->resample, p->kernel, err));
    vl_pixels_tiles(out->pixels, &tile, s->tile, table);
done:
    vl_bitmap_clear(&square);
    vl_bitmap_clear(&tile);
    return status;
}

static vl_status put_canvas(vl_picture *out, const vl_anyres *s, const vl_bitmap *bitmap, vl_value_table table,
                            vl_error *err)
{
    static const uint8_t black[3] = {0, 0, 0};
    const vl_processor *p = &s->processor;
    const vl_size size = {out->grid.height * s->tile, out->grid.width * s->tile};
    vl_bitmap base = {0}, fitted = {0}, canvas = {0};
    vl_status status = VL_OK;
    VL_GOTO(vl_bitmap_resize(&base, bitmap, out->tile, p->resample, p->kernel, err));
    VL_GOTO(vl_bitmap_resize(&fitted, bitmap, vl_fit_inside(out->original, size), p->resample, p->kernel, err));
    VL_GOTO(vl_bitmap_center(&canvas, &fitted, size, black, err));
    vl_pixels_tiles(out->pixels, &base, s->tile, table);
    vl_pixels_tiles(out->pixels + 3 * (size_t)s->tile * (size_t)s->tile, &canvas, s->tile, table);
done:
    vl_bitmap_clear(&base);
    vl_bitmap_clear(&fitted);
    vl_bitmap_clear(&canvas);
    return status;
}

static vl_status pixels(vl_picture *out, const void *settings, const vl_bitmap *bitmap, vl_error *err)
{
    const vl_anyres *s = settings;
    vl_value_table table;
    VL_TRY(vl_picture_alloc_pixels(out, 1, err));
    vl_value_table_make(table, &s->processor.normalise);
    if (out->grid.height == 0)
        return put_square(out, s, bitmap, table, err);
    return put_canvas(out, s, bitmap, table, err);
}

static void expand(vl_str *out, const void *settings, const vl_picture *picture)
{
    (void)settings;
    vl_str_repeat(out, "<image>", picture->n_rows);
}

const vl_picture_rules vl_anyres_rules = {"<image>", plan, pixels, expand};
