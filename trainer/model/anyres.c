#include "trainer/model/anyres.h"

#include <math.h>

#include "trainer/base/mem.h"
#include "trainer/image/sizes.h"

/* ---- settings ---- */

static vl_status read_canvas(vl_size *out, const json_t *pair, int tile, const vl_hf_reader *in)
{
    const int64_t high = json_integer_value(json_array_get(pair, 0)),
                  wide = json_integer_value(json_array_get(pair, 1));
    if (json_array_size(pair) != 2 || high < 1 || wide < 1 || high > VL_PROCESSOR_MAX_SIDE ||
        wide > VL_PROCESSOR_MAX_SIDE || high % tile != 0 || wide % tile != 0)
        return vl_fail(in->err, VL_EFORMAT,
                       "%s: \"image_grid_pinpoints\" has %lld x %lld, expected [height, width], multiples of %d",
                       in->where, (long long)high, (long long)wide, tile);
    *out = (vl_size){(int)high, (int)wide};
    return VL_OK;
}

static vl_status read_canvases(vl_anyres *out, const vl_hf_reader *in)
{
    const json_t *list = json_object_get(in->object, "image_grid_pinpoints");
    const size_t n = json_array_size(list);
    if (n < 1 || n > VL_ANYRES_MAX_CANVASES)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"image_grid_pinpoints\" has %zu entries, expected 1 to %d", in->where,
                       n, VL_ANYRES_MAX_CANVASES);
    for (size_t i = 0; i < n; i++)
        VL_TRY(read_canvas(&out->canvases[i], json_array_get(list, i), out->tile, in));
    out->n_canvases = (int)n;
    return VL_OK;
}

/* The side of a tile: crop_size where the file has one, else size. */
static vl_status read_tile(vl_anyres *out, const vl_hf_reader *in)
{
    vl_hf_section crop;
    out->tile = out->processor.size.height > 0 ? out->processor.size.height : out->processor.shortest_edge;
    if (json_is_integer(json_object_get(in->object, "crop_size")))
        return vl_hf_key_int(&out->tile, in, "crop_size", 1, VL_PROCESSOR_MAX_SIDE);
    VL_TRY(vl_hf_section_open(&crop, in, "crop_size"));
    return vl_hf_key_int(&out->tile, &crop.reader, "height", 1, VL_PROCESSOR_MAX_SIDE);
}

vl_status vl_anyres_read(vl_anyres *out, const vl_model_spec *spec, const vl_processor *defaults,
                         const vl_hf_reader *in)
{
    const vl_tower_spec *tower = &spec->vision.tower;
    out->processor = *defaults;
    out->patch = tower->patch_size;
    out->per_side = tower->grid;
    VL_TRY(vl_processor_read(&out->processor, in));
    VL_TRY(read_tile(out, in));
    if (out->tile != tower->image_size)
        return vl_fail(in->err, VL_EMISMATCH, "%s: tiles of %d pixels, the vision tower reads %d", in->where, out->tile,
                       tower->image_size);
    return read_canvases(out, in);
}

int vl_anyres_most_tiles(const vl_anyres *s)
{
    int most = 0;
    for (int i = 0; i < s->n_canvases; i++) {
        const int n = (s->canvases[i].height / s->tile) * (s->canvases[i].width / s->tile);
        most = n > most ? n : most;
    }
    return 1 + most;
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

vl_anyres_layout vl_anyres_plan(const vl_anyres *s, vl_size original, bool alone)
{
    vl_anyres_layout out = {0};
    if (s->one_tile_each && !alone)
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

/* Which part of the picture, in its own pixels, the kept patches show along one side. */
static void show(double out[2], const vl_anyres *s, const int sides[4])
{
    const int cut = sides[0], kept = sides[1], canvas = sides[2], fitted = sides[3], before = (canvas - fitted) / 2;
    out[0] = (edge(s, cut, false) - before) / fitted;
    out[1] = (edge(s, cut + kept, true) - before) / fitted;
}

static vl_box canvas_box(const vl_anyres *s, const vl_anyres_layout *l, vl_size original)
{
    const vl_size canvas = {l->tiles.height * s->tile, l->tiles.width * s->tile};
    const vl_size fitted = vl_fit_inside(original, canvas);
    double y[2], x[2];
    show(y, s, (const int[4]){l->cut.height, l->kept.height, canvas.height, fitted.height});
    show(x, s, (const int[4]){l->cut.width, l->kept.width, canvas.width, fitted.width});
    return vl_box_part((vl_box){0, 0, original.width, original.height}, x[0], y[0], x[1], y[1]);
}

/* The square into which a picture is padded. */
static vl_box square_box(vl_size original)
{
    const int side = original.height > original.width ? original.height : original.width;
    const int top = (side - original.height) / 2, left = (side - original.width) / 2;
    return (vl_box){-left, -top, side - left, side - top};
}

vl_status vl_anyres_measure(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height,
                            vl_error *err)
{
    const vl_anyres *s = spec->own;
    const vl_size original = {height, width}, base = {s->per_side, s->per_side};
    const vl_anyres_layout l = vl_anyres_plan(s, original, out->alone);
    const double seen = (double)(s->per_side * s->patch) / s->tile;
    const bool tiled = l.tiles.height > 0;
    const vl_box whole = tiled ? (vl_box){0, 0, width, height} : square_box(original);
    VL_TRY(vl_image_set_grids(out, tiled ? 2 : 1, err));
    vl_image_put_grid(out, 0, base, vl_box_part(whole, 0, 0, seen, seen));
    out->n_rows = (int64_t)base.height * base.width + (tiled ? 0 : 1); /* one newline behind a tile alone */
    if (tiled) {
        vl_image_put_grid(out, 1, l.pooled, canvas_box(s, &l, original));
        out->grids[1].newlines = true;
        out->n_rows += (int64_t)l.pooled.height * (l.pooled.width + 1);
    }
    out->tile_rows = l.tiles.height;
    out->tile_columns = l.tiles.width;
    out->n_tiles = 1 + l.tiles.height * l.tiles.width;
    return VL_OK;
}

static void expand(vl_str *out, const vl_model_spec *spec, const struct vl_sequence_image *image)
{
    (void)spec;
    vl_str_repeat(out, "<image>", image->n_rows);
}

vl_status vl_anyres_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                         const struct vl_sequence_image *images, vl_error *err)
{
    static const vl_placeholder how = {.text = "<image>", .expand = expand};
    return vl_wrap_pictures(out, model, prompt, images, &how, err);
}

vl_status vl_anyres_place(vl_sequence *sequence, const vl_model_spec *spec, vl_error *err)
{
    return vl_place_rows(sequence, spec, 0, err);
}

/* ---- pixels ---- */

static vl_status put_square(struct vl_sequence_image *out, const vl_anyres *s, const vl_bitmap *bitmap, vl_error *err)
{
    const vl_processor *p = &s->processor;
    const int h = bitmap->size.height, w = bitmap->size.width, side = h > w ? h : w;
    vl_bitmap square = {0}, tile = {0};
    vl_value_table table;
    vl_status status = VL_OK;
    uint8_t mean[3];
    for (int c = 0; c < 3; c++)
        mean[c] = (uint8_t)(p->normalise.mean[c] * 255);
    VL_GOTO(vl_bitmap_center(&square, bitmap, (vl_size){side, side}, mean, err));
    VL_GOTO(vl_bitmap_resize(&tile, &square, (vl_size){s->tile, s->tile}, p->resample, p->kernel, err));
    vl_value_table_make(table, &p->normalise);
    vl_pixels_tiles(out->pixels, &tile, s->tile, table);
    VL_GOTO(vl_image_set_seen_bitmap(out, bitmap, err));
done:
    vl_bitmap_clear(&square);
    vl_bitmap_clear(&tile);
    return status;
}

static vl_status put_canvas(struct vl_sequence_image *out, const vl_anyres *s, const vl_bitmap *bitmap, vl_error *err)
{
    static const uint8_t black[3] = {0, 0, 0};
    const vl_processor *p = &s->processor;
    const vl_size size = {out->tile_rows * s->tile, out->tile_columns * s->tile}, tile = {s->tile, s->tile};
    vl_bitmap base = {0}, fitted = {0}, canvas = {0};
    vl_value_table table;
    vl_status status = VL_OK;
    VL_GOTO(vl_bitmap_resize(&base, bitmap, tile, p->resample, p->kernel, err));
    VL_GOTO(vl_bitmap_resize(&fitted, bitmap, vl_fit_inside(bitmap->size, size), p->resample, p->kernel, err));
    VL_GOTO(vl_bitmap_center(&canvas, &fitted, size, black, err));
    vl_value_table_make(table, &p->normalise);
    vl_pixels_tiles(out->pixels, &base, s->tile, table);
    vl_pixels_tiles(out->pixels + 3 * (size_t)s->tile * (size_t)s->tile, &canvas, s->tile, table);
    VL_GOTO(vl_image_set_seen_bitmap(out, &fitted, err));
done:
    vl_bitmap_clear(&base);
    vl_bitmap_clear(&fitted);
    vl_bitmap_clear(&canvas);
    return status;
}

vl_status vl_anyres_pixels(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image,
                           vl_error *err)
{
    const vl_anyres *s = spec->own;
    const vl_bitmap bitmap = vl_bitmap_of(image);
    VL_TRY(vl_image_set_tiles(out, s->tile, err));
    return out->tile_rows > 0 ? put_canvas(out, s, &bitmap, err) : put_square(out, s, &bitmap, err);
}

/* ---- from tiles to rows ---- */

/* What every row of a picture is made of: up to four rows of the tiles. */
typedef struct taps {
    const vl_anyres *settings;
    vl_anyres_layout layout;
    int32_t *rows;      /* [n, 4] */
    float *weights;     /* [n, 4] */
    int64_t n, newline; /* newline: its row among those of the tiles */
} taps;

static void add_one(taps *t, int64_t row)
{
    for (int k = 0; k < 4; k++) {
        t->rows[4 * t->n + k] = (int32_t)row;
        t->weights[4 * t->n + k] = k == 0 ? 1 : 0;
    }
    t->n++;
}

/* The row of the tiles that holds patch (y, x) of the kept map; tile 0 is the whole picture. */
static int64_t row_of_map(const taps *t, int y, int x)
{
    const vl_anyres_layout *l = &t->layout;
    const int g = t->settings->per_side, Y = l->cut.height + y, X = l->cut.width + x;
    const int64_t tile = 1 + (int64_t)(Y / g) * l->tiles.width + X / g;
    return (tile * g + Y % g) * g + X % g;
}

/* interpolate(mode="bilinear"): half-pixel centres, no antialiasing, edges repeated. */
static float between(int out[2], int i, int n, int from)
{
    const float at = fmaxf(((float)i + 0.5F) * ((float)from / (float)n) - 0.5F, 0);
    out[0] = (int)at < from - 1 ? (int)at : from - 1;
    out[1] = out[0] + 1 < from ? out[0] + 1 : from - 1;
    return at - (float)out[0];
}

static void add_pooled(taps *t, int i, int j)
{
    const vl_anyres_layout *l = &t->layout;
    int y[2], x[2];
    const float down = between(y, i, l->pooled.height, l->kept.height);
    const float right = between(x, j, l->pooled.width, l->kept.width);
    for (int k = 0; k < 4; k++) {
        t->rows[4 * t->n + k] = (int32_t)row_of_map(t, y[k / 2], x[k % 2]);
        t->weights[4 * t->n + k] = (k / 2 ? down : 1 - down) * (k % 2 ? right : 1 - right);
    }
    t->n++;
}

/* The whole picture's tile, then the map row by row with a newline behind each; or a newline behind the tile. */
static void fill(taps *t)
{
    const vl_anyres_layout *l = &t->layout;
    const int g = t->settings->per_side;
    const bool pooled = l->pooled.height != l->kept.height || l->pooled.width != l->kept.width;
    for (int64_t i = 0; i < (int64_t)g * g; i++)
        add_one(t, i);
    for (int i = 0; i < l->pooled.height; i++) {
        for (int j = 0; j < l->pooled.width; j++) {
            if (pooled)
                add_pooled(t, i, j);
            else
                add_one(t, row_of_map(t, i, j));
        }
        add_one(t, t->newline);
    }
    if (l->tiles.height == 0)
        add_one(t, t->newline);
}

vl_status vl_anyres_pack(const vl_model *model, const struct vl_sequence_image *image, vl_tensor out, vl_tensor tiles,
                         vl_error *err)
{
    const vl_anyres *s = model->spec.own;
    const int64_t n = image->n_rows;
    vl_device *device = model->device;
    void *memory[2] = {0};
    vl_status status = VL_OK;
    taps t = {.settings = s,
              .layout = vl_anyres_plan(s, (vl_size){image->height, image->width}, image->alone),
              .rows = vl_alloc((size_t)n * 4, sizeof *t.rows),
              .weights = vl_alloc((size_t)n * 4, sizeof *t.weights),
              .newline = tiles.shape[0] - 1};
    vl_tensor rows = {0}, weights = {0};
    if (!t.rows || !t.weights) {
        status = vl_fail_nomem(err, "rows of a picture");
        goto done;
    }
    fill(&t);
    VL_GOTO(vl_tensor_new(&rows, device, VL_I32, n, 4, err));
    memory[0] = rows.data;
    VL_GOTO(vl_tensor_new(&weights, device, VL_F32, n, 4, err));
    memory[1] = weights.data;
    VL_GOTO(vl_device_write(device, &rows, t.rows, err));
    VL_GOTO(vl_device_write(device, &weights, t.weights, err));
    VL_GOTO(vl_op_mix_rows(device, &(vl_mix_rows_args){out, tiles, rows, weights}, err));
    VL_GOTO(vl_device_sync(device, err)); /* the taps are freed */
done:
    vl_device_free(device, memory[0]);
    vl_device_free(device, memory[1]);
    vl_free(t.rows);
    vl_free(t.weights);
    return status;
}
