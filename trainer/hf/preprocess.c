/* hf/preprocess.c - sizes and pixel values. The order of rounding is that of transformers' image_transforms.py
 * (get_resize_output_image_size, center_crop, rescale, normalize) and models/mllama/image_processing_mllama.py. */
#include "trainer/hf/preprocess.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "trainer/base/mem.h"

/* Byte to pixel value, per channel: a picture has only 256 of them. */
typedef float value_table[3][256];

/* rescale() multiplies in float64 and rounds to float32; normalize() works in float32. */
static void make_table(value_table table, const vl_preprocess *pp)
{
    for (int c = 0; c < 3; c++) {
        const float mean = (float)pp->mean[c], std = (float)pp->std[c];
        for (int byte = 0; byte < 256; byte++) {
            float value = pp->do_rescale ? (float)(byte * pp->rescale_factor) : (float)byte;
            table[c][byte] = pp->do_normalize ? (value - mean) / std : value;
        }
    }
}

vl_image_options vl_preprocess_image_options(const vl_preprocess *pp, bool apply_exif)
{
    return (vl_image_options){.apply_exif = apply_exif,
                              .alpha = pp->kind == VL_PREPROCESS_MLLAMA ? VL_ALPHA_ON_WHITE : VL_ALPHA_DROP};
}

/* A part of a picture in bytes, put into one plane-by-plane array of pixel values. */
struct placement {
    const uint8_t *rgb; /* [.., row, 3], first pixel of the part */
    size_t row;         /* pixels from row to row of rgb */
    int width, height;  /* of the part */
    int left, top;      /* where it lands */
    int out_width, out_height;
};

/* out: [3, out_height, out_width]; around the part the pixels are those of byte 0, as the padding comes before the
 * normalisation. */
static void place(float *out, const struct placement *p, value_table table)
{
    const size_t w = (size_t)p->out_width, plane = w * (size_t)p->out_height;
#pragma omp parallel for schedule(static)
    for (int y = 0; y < p->out_height; y++) {
        const bool inside = y >= p->top && y < p->top + p->height;
        const size_t from = inside ? (size_t)(y - p->top) * p->row : 0;
        for (size_t c = 0; c < 3; c++) {
            float *to = out + c * plane + (size_t)y * w;
            for (size_t x = 0; x < w; x++)
                to[x] = table[c][0];
            for (int x = 0; inside && x < p->width; x++)
                to[p->left + x] = table[c][p->rgb[3 * (from + (size_t)x) + c]];
        }
    }
}

/* ---- CLIP ---- */

vl_status vl_preprocess_clip_plan(vl_clip_plan *out, const vl_preprocess *pp, int width, int height, vl_error *err)
{
    int64_t w = width, h = height;
    assert(pp->kind == VL_PREPROCESS_CLIP && width > 0 && height > 0);
    if (pp->do_resize && pp->shortest_edge > 0) {
        const int64_t edge = pp->shortest_edge;
        /* int(edge * long / short): the product is exact, the quotient rounded to double, then cut. */
        if (width <= height) {
            w = edge;
            h = (int64_t)((double)(edge * height) / width);
        } else {
            h = edge;
            w = (int64_t)((double)(edge * width) / height);
        }
    } else if (pp->do_resize) {
        w = pp->width;
        h = pp->height;
    }
    const int64_t out_w = pp->do_center_crop ? pp->crop_width : w, out_h = pp->do_center_crop ? pp->crop_height : h;
    if (w > INT32_MAX || h > INT32_MAX || out_w * out_h > VL_IMAGE_MAX_PIXELS)
        return vl_fail(err, VL_EFORMAT, "a picture of %d x %d pixels would become %lld x %lld pixels", width, height,
                       (long long)w, (long long)h);
    /* center_crop pads with ceil(missing / 2) at the left and top; what is too much is cut with floor(excess / 2). */
    const int64_t left = w >= out_w ? (w - out_w) / 2 : -((out_w - w + 1) / 2);
    const int64_t top = h >= out_h ? (h - out_h) / 2 : -((out_h - h + 1) / 2);
    *out = (vl_clip_plan){(int)w, (int)h, (int)out_w, (int)out_h, (int)left, (int)top};
    return VL_OK;
}

vl_status vl_preprocess_clip(float *out, const vl_preprocess *pp, const vl_image *image, vl_error *err)
{
    vl_clip_plan plan = {0};
    value_table table;
    VL_TRY(vl_preprocess_clip_plan(&plan, pp, image->width, image->height, err));
    /* Only what the crop keeps is resized: it is all that a very long picture needs. */
    const int x = plan.left > 0 ? plan.left : 0, y = plan.top > 0 ? plan.top : 0;
    const int w = plan.resized_width - x < plan.width ? plan.resized_width - x : plan.width;
    const int h = plan.resized_height - y < plan.height ? plan.resized_height - y : plan.height;
    struct placement part = {.rgb = image->rgb + 3 * ((size_t)y * (size_t)image->width + (size_t)x),
                             .row = (size_t)image->width,
                             .width = w,
                             .height = h,
                             .left = x - plan.left,
                             .top = y - plan.top,
                             .out_width = plan.width,
                             .out_height = plan.height};
    uint8_t *resized = NULL;
    if (plan.resized_width != image->width || plan.resized_height != image->height) {
        resized = vl_alloc((size_t)w * (size_t)h, 3);
        if (!resized)
            return vl_fail_nomem(err, "resizing a picture");
        vl_status status = vl_resize(resized,
                                     &(vl_resize_args){image->rgb, image->width, image->height, plan.resized_width,
                                                       plan.resized_height, x, y, w, h, pp->resample},
                                     err);
        if (status != VL_OK) {
            vl_free(resized);
            return status;
        }
        part.rgb = resized;
        part.row = (size_t)w;
    }
    make_table(table, pp);
    place(out, &part, table);
    vl_free(resized);
    return VL_OK;
}

vl_status vl_preprocess_clip_box(vl_box *out, const vl_preprocess *pp, int width, int height, vl_error *err)
{
    vl_clip_plan plan = {0};
    VL_TRY(vl_preprocess_clip_plan(&plan, pp, width, height, err));
    const double sx = (double)width / plan.resized_width, sy = (double)height / plan.resized_height;
    *out = (vl_box){plan.left * sx, plan.top * sy, (plan.left + plan.width) * sx, (plan.top + plan.height) * sy};
    return VL_OK;
}

/* ---- Mllama ---- */

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

vl_mllama_plan vl_preprocess_mllama_plan(const vl_preprocess *pp, int width, int height)
{
    assert(pp->kind == VL_PREPROCESS_MLLAMA && width > 0 && height > 0);
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

vl_status vl_preprocess_mllama(float *out, vl_mllama_plan *plan_out, const vl_preprocess *pp, const vl_image *image,
                               vl_error *err)
{
    const vl_mllama_plan plan = vl_preprocess_mllama_plan(pp, image->width, image->height);
    const int tile = plan.tile, w = plan.resized_width, h = plan.resized_height;
    const size_t tile_size = 3 * (size_t)tile * (size_t)tile;
    value_table table;
    uint8_t *resized = vl_alloc((size_t)w * (size_t)h, 3);
    if (!resized)
        return vl_fail_nomem(err, "resizing a picture");
    vl_status status = vl_resize(
        resized, &(vl_resize_args){image->rgb, image->width, image->height, w, h, 0, 0, w, h, pp->resample}, err);
    if (status != VL_OK) {
        vl_free(resized);
        return status;
    }
    make_table(table, pp);
    memset(out, 0, (size_t)pp->max_image_tiles * tile_size * sizeof *out);
    for (int i = 0; i < plan.tiles_high * plan.tiles_wide; i++) {
        const int x = i % plan.tiles_wide * tile, y = i / plan.tiles_wide * tile;
        struct placement part = {.row = (size_t)w,
                                 .width = clamp(w - x, 0, tile),
                                 .height = clamp(h - y, 0, tile),
                                 .out_width = tile,
                                 .out_height = tile};
        part.rgb = part.width > 0 && part.height > 0 ? resized + 3 * ((size_t)y * (size_t)w + (size_t)x) : resized;
        place(out + (size_t)i * tile_size, &part, table);
    }
    vl_free(resized);
    if (plan_out)
        *plan_out = plan;
    return VL_OK;
}

vl_box vl_preprocess_mllama_box(const vl_mllama_plan *plan, int tile, int width, int height)
{
    const double sx = (double)width / plan->resized_width, sy = (double)height / plan->resized_height;
    const double x = tile % plan->tiles_wide * plan->tile, y = tile / plan->tiles_wide * plan->tile;
    return (vl_box){x * sx, y * sy, (x + plan->tile) * sx, (y + plan->tile) * sy};
}
