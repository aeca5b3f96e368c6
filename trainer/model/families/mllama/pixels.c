/* From a picture to tiles: what MllamaImageProcessor computes, bit for bit. The order of rounding is that of
 * transformers 4.46.3, models/mllama/image_processing_mllama.py; keys, defaults and checks too. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/model/families/mllama/mllama.h"

enum { MAX_TILES = 64 };

static const vl_preprocess defaults = {
    .do_resize = true,
    .do_rescale = true,
    .do_normalize = true,
    .do_convert_rgb = true,
    .do_pad = true,
    .height = 224,
    .width = 224,
    .resample = VL_RESAMPLE_BILINEAR,
    .rescale_factor = 1.0 / 255,
    .mean = {0.5, 0.5, 0.5}, /* IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD */
    .std = {0.5, 0.5, 0.5},
    .max_image_tiles = 4,
    .alpha = VL_ALPHA_ON_WHITE,
};

/* The checks of _validate_mllama_preprocess_arguments. */
vl_status vl_mllama_read_preprocess(vl_preprocess *out, const vl_hf_reader *in)
{
    static const char *const classes[] = {"MllamaImageProcessor", "MllamaImageProcessorFast", NULL};
    *out = defaults;
    VL_TRY(vl_preprocess_check_class(in, classes));
    VL_TRY(vl_preprocess_read_common(out, in));
    VL_TRY(vl_preprocess_read_rectangle(&out->height, &out->width, in, "size"));
    VL_TRY(vl_hf_key_int(&out->max_image_tiles, in, "max_image_tiles", 1, MAX_TILES));
    if (out->height != out->width)
        return vl_fail(in->err, VL_EFORMAT, "%s: tiles of %d x %d pixels, expected squares", in->where, out->width,
                       out->height);
    int64_t pixels = (int64_t)out->max_image_tiles * out->height * out->width;
    if (pixels > VL_IMAGE_MAX_PIXELS)
        return vl_fail(in->err, VL_EFORMAT, "%s: %d tiles of %d x %d pixels, more than the limit of %lld pixels",
                       in->where, out->max_image_tiles, out->width, out->height, (long long)VL_IMAGE_MAX_PIXELS);
    if (!out->do_pad || !out->do_resize)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"do_pad\" and \"do_resize\" must be true for Mllama", in->where);
    return VL_OK;
}

/* get_optimal_tiled_canvas: of all arrangements of at most max_image_tiles tiles, the one whose scale is the
 * smallest that does not shrink the picture, else the largest; of equals the one of least area, then the first. */
static void choose_canvas(vl_mllama_plan *plan, const vl_preprocess *pp, int width, int height)
{
    double best = 0;
    int id = 0;
    for (int high = 1; high <= pp->max_image_tiles; high++) {
        for (int wide = 1; high * wide <= pp->max_image_tiles; wide++) {
            const double down = (double)(high * plan->tile) / height, across = (double)(wide * plan->tile) / width;
            const double scale = across > down ? down : across;
            const bool better = best >= 1 ? scale >= 1 && scale < best : scale > best;
            const bool smaller = scale == best && high * wide < plan->tiles_high * plan->tiles_wide;
            id++;
            if (id > 1 && !better && !smaller)
                continue;
            best = scale;
            plan->tiles_high = high;
            plan->tiles_wide = wide;
            plan->aspect_ratio_id = id;
        }
    }
}

static int clamp(int value, int low, int high)
{
    return value < low ? low : value > high ? high : value;
}

vl_mllama_plan vl_mllama_make_plan(const vl_preprocess *pp, int width, int height)
{
    assert(width > 0 && height > 0);
    vl_mllama_plan plan = {.tile = pp->height};
    choose_canvas(&plan, pp, width, height);
    /* get_image_size_fit_to_canvas */
    const int target_w = clamp(width, plan.tile, plan.tiles_wide * plan.tile);
    const int target_h = clamp(height, plan.tile, plan.tiles_high * plan.tile);
    const double across = (double)target_w / width, down = (double)target_h / height;
    if (across < down) {
        const double h = floor(height * across);
        plan.resized_width = target_w;
        plan.resized_height = h < target_h ? (int)h : target_h;
    } else {
        const double w = floor(width * down);
        plan.resized_height = target_h;
        plan.resized_width = w < target_w ? (int)w : target_w;
    }
    /* 4.46.3 fails where a side becomes 0; later versions give it one pixel. */
    plan.resized_width = plan.resized_width > 0 ? plan.resized_width : 1;
    plan.resized_height = plan.resized_height > 0 ? plan.resized_height : 1;
    return plan;
}

vl_status vl_mllama_pixels(float *out, uint8_t *bytes, const vl_preprocess *pp, const vl_image *image, vl_error *err)
{
    const vl_mllama_plan plan = vl_mllama_make_plan(pp, image->width, image->height);
    const int tile = plan.tile, w = plan.resized_width, h = plan.resized_height;
    const size_t tile_size = 3 * (size_t)tile * (size_t)tile;
    uint8_t *resized = vl_alloc((size_t)w * (size_t)h, 3);
    if (!resized)
        return vl_fail_nomem(err, "resizing a picture");
    vl_status status = vl_resize(
        resized, &(vl_resize_args){image->rgb, image->width, image->height, w, h, 0, 0, w, h, pp->resample}, err);
    if (status != VL_OK) {
        vl_free(resized);
        return status;
    }
    memset(out, 0, (size_t)pp->max_image_tiles * tile_size * sizeof *out);
    for (int i = 0; i < plan.tiles_high * plan.tiles_wide; i++) {
        const int x = i % plan.tiles_wide * tile, y = i / plan.tiles_wide * tile;
        vl_placement part = {.row = (size_t)w,
                             .width = clamp(w - x, 0, tile),
                             .height = clamp(h - y, 0, tile),
                             .out_width = tile,
                             .out_height = tile};
        part.rgb = part.width > 0 && part.height > 0 ? resized + 3 * ((size_t)y * (size_t)w + (size_t)x) : resized;
        vl_preprocess_place(out + (size_t)i * tile_size, &part, pp);
    }
    if (bytes)
        memcpy(bytes, resized, 3 * (size_t)w * (size_t)h);
    vl_free(resized);
    return VL_OK;
}

vl_box vl_mllama_box(const vl_mllama_plan *plan, int tile, int width, int height)
{
    const double sx = (double)width / plan->resized_width, sy = (double)height / plan->resized_height;
    const double x = tile % plan->tiles_wide * plan->tile, y = tile / plan->tiles_wide * plan->tile;
    return (vl_box){x * sx, y * sy, (x + plan->tile) * sx, (y + plan->tile) * sy};
}
