/* hf/preprocess.c - sizes and pixel values. The order of rounding is that of transformers' image_transforms.py
 * (get_resize_output_image_size, center_crop, rescale, normalize). */
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
    return (vl_image_options){.apply_exif = apply_exif, .alpha = pp->alpha};
}

void vl_preprocess_place(float *out, const vl_placement *p, const vl_preprocess *pp)
{
    const size_t w = (size_t)p->out_width, plane = w * (size_t)p->out_height;
    value_table table;
    make_table(table, pp);
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

void vl_preprocess_place_bytes(uint8_t *out, const vl_placement *p)
{
    const size_t row = 3 * (size_t)p->out_width;
    memset(out, 0, row * (size_t)p->out_height);
    for (int y = 0; y < p->height; y++)
        memcpy(out + (size_t)(p->top + y) * row + 3 * (size_t)p->left, p->rgb + 3 * (size_t)y * p->row,
               3 * (size_t)p->width);
}

/* ---- CLIP ---- */

vl_status vl_preprocess_clip_plan(vl_clip_plan *out, const vl_preprocess *pp, int width, int height, vl_error *err)
{
    int64_t w = width, h = height;
    assert(width > 0 && height > 0);
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

vl_status vl_preprocess_clip(float *out, uint8_t *bytes, const vl_preprocess *pp, const vl_image *image, vl_error *err)
{
    vl_clip_plan plan = {0};
    VL_TRY(vl_preprocess_clip_plan(&plan, pp, image->width, image->height, err));
    /* Only what the crop keeps is resized: it is all that a very long picture needs. */
    const int x = plan.left > 0 ? plan.left : 0, y = plan.top > 0 ? plan.top : 0;
    const int w = plan.resized_width - x < plan.width ? plan.resized_width - x : plan.width;
    const int h = plan.resized_height - y < plan.height ? plan.resized_height - y : plan.height;
    vl_placement part = {.rgb = image->rgb + 3 * ((size_t)y * (size_t)image->width + (size_t)x),
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
    vl_preprocess_place(out, &part, pp);
    if (bytes)
        vl_preprocess_place_bytes(bytes, &part);
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
