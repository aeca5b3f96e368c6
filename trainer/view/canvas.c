#include "trainer/view/canvas.h"

#include <string.h>
#include <strings.h>

#include <utf8proc.h>

#include "trainer/base/mem.h"
#include "trainer/base/str.h"

struct vl_canvas {
    const vl_canvas_ops *ops;
    void *self;
    bool failed;
};

uint32_t vl_paint_rgb(int32_t paint)
{
    static const uint32_t light[] = {0x1c1e21, 0x5a6068, 0xd9dbde, 0xffffff};
    return paint >= 0 ? (uint32_t)paint : light[-1 - paint];
}

vl_status vl_canvas_format_of(vl_canvas_format *out, const char *path, vl_error *err)
{
    static const char *const ends[] = {".svg", ".pdf", ".png"};
    size_t n = strlen(path);
    for (int i = 0; i < 3; i++)
        if (n > 4 && !strcasecmp(path + n - 4, ends[i])) {
            *out = (vl_canvas_format)i;
            return VL_OK;
        }
    return vl_fail(err, VL_EINVAL, "%.200s: the name of a figure ends with .svg, .pdf or .png", path);
}

vl_status vl_canvas_new(vl_canvas **out, const vl_canvas_options *options, vl_error *err)
{
    *out = NULL;
#ifndef VL_HAS_CAIRO
    if (options->format != VL_CANVAS_SVG)
        return vl_fail(err, VL_EUNSUPPORTED,
                       "this vlens was built without Cairo (libcairo2-dev): figures are SVG only");
#endif
    vl_canvas *canvas = vl_calloc(1, sizeof *canvas);
    if (!canvas)
        return vl_fail_nomem(err, "figure");
    canvas->ops = &vl_canvas_svg_ops;
    if (options->format == VL_CANVAS_SVG)
        canvas->self = vl_canvas_svg_new(options);
#ifdef VL_HAS_CAIRO
    else {
        canvas->ops = &vl_canvas_cairo_ops;
        canvas->self = vl_canvas_cairo_new(options);
    }
#endif
    if (!canvas->self) {
        vl_free(canvas);
        return vl_fail_nomem(err, "figure");
    }
    *out = canvas;
    return VL_OK;
}

void vl_canvas_free(vl_canvas *canvas)
{
    if (!canvas)
        return;
    canvas->ops->free(canvas->self);
    vl_free(canvas);
}

void vl_canvas_rect(vl_canvas *canvas, const double box[4], int32_t paint, double alpha)
{
    canvas->ops->rect(canvas->self, box, paint, alpha);
}

void vl_canvas_text(vl_canvas *canvas, double x, double y, const char *text, vl_text_style style)
{
    vl_str clean = VL_STR_INIT;
    for (const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)text; *at;) {
        utf8proc_int32_t point;
        utf8proc_ssize_t n = utf8proc_iterate(at, -1, &point);
        utf8proc_category_t kind = n > 0 ? utf8proc_category(point) : UTF8PROC_CATEGORY_CC;
        if (n > 0 && kind != UTF8PROC_CATEGORY_CC && kind != UTF8PROC_CATEGORY_CF)
            vl_str_append(&clean, (const char *)at, (size_t)n);
        else
            vl_str_putc(&clean, '?');
        at += n > 0 ? n : 1;
    }
    canvas->failed |= clean.failed;
    if (clean.data && !clean.failed)
        canvas->ops->text(canvas->self, x, y, clean.data, style);
    vl_str_clear(&clean);
}

void vl_canvas_lines(vl_canvas *canvas, const double *xy, int n, int32_t paint, double width, bool dashed)
{
    if (n > 1)
        canvas->ops->lines(canvas->self, xy, n, paint, width, dashed);
}

void vl_canvas_area(vl_canvas *canvas, const double *xy, int n, int32_t paint, double alpha)
{
    if (n > 2)
        canvas->ops->area(canvas->self, xy, n, paint, alpha);
}

void vl_canvas_image(vl_canvas *canvas, const double box[4], const uint8_t *rgb, int width, int height)
{
    canvas->ops->image(canvas->self, box, rgb, width, height);
}

vl_status vl_canvas_finish(uint8_t **out, size_t *size, vl_canvas *canvas, vl_error *err)
{
    *out = NULL;
    *size = 0;
    return canvas->failed ? vl_fail_nomem(err, "figure") : canvas->ops->finish(out, size, canvas->self, err);
}
