/* Drawings as PDF and PNG, through Cairo. */
#include <cairo-pdf.h>
#include <cairo.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/str.h"
#include "trainer/view/canvas.h"

enum { PNG_SCALE = 3 }; /* pixels of a point: 216 dpi */

typedef struct pen {
    cairo_surface_t *surface;
    cairo_t *cr;
    vl_canvas_format format;
    vl_str bytes;
    bool failed;
} pen;

static cairo_status_t collect(void *user, const unsigned char *data, unsigned n)
{
    vl_str *out = user;
    vl_str_append(out, (const char *)data, n);
    return out->failed ? CAIRO_STATUS_NO_MEMORY : CAIRO_STATUS_SUCCESS;
}

static void set_paint(pen *p, int32_t paint, double alpha)
{
    uint32_t rgb = vl_paint_rgb(paint);
    cairo_set_source_rgba(p->cr, (rgb >> 16) / 255.0, (rgb >> 8 & 255) / 255.0, (rgb & 255) / 255.0, alpha);
}

static void free_pen(void *self)
{
    pen *p = self;
    cairo_destroy(p->cr);
    cairo_surface_destroy(p->surface);
    vl_str_clear(&p->bytes);
    vl_free(p);
}

void *vl_canvas_cairo_new(const vl_canvas_options *o)
{
    pen *p = vl_calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->format = o->format;
    double scale = o->format == VL_CANVAS_PNG ? PNG_SCALE : 1;
    p->surface = o->format == VL_CANVAS_PNG
                     ? cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)(o->width * scale), (int)(o->height * scale))
                     : cairo_pdf_surface_create_for_stream(collect, &p->bytes, o->width, o->height);
    p->cr = cairo_create(p->surface);
    cairo_scale(p->cr, scale, scale);
    set_paint(p, VL_PAINT_PAPER, 1);
    cairo_paint(p->cr);
    return p;
}

static void rect(void *self, const double box[4], int32_t paint, double alpha)
{
    pen *p = self;
    set_paint(p, paint, alpha);
    cairo_rectangle(p->cr, box[0], box[1], box[2], box[3]);
    cairo_fill(p->cr);
}

static void text(void *self, double x, double y, const char *text, vl_text_style style)
{
    pen *p = self;
    cairo_text_extents_t e;
    cairo_select_font_face(p->cr, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL,
                           style.bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(p->cr, style.size);
    cairo_text_extents(p->cr, text, &e);
    set_paint(p, style.paint, 1);
    cairo_move_to(p->cr, x - style.anchor * e.x_advance / 2, y);
    cairo_show_text(p->cr, text);
}

static void trace(pen *p, const double *xy, int n)
{
    cairo_move_to(p->cr, xy[0], xy[1]);
    for (int i = 1; i < n; i++)
        cairo_line_to(p->cr, xy[2 * i], xy[2 * i + 1]);
}

static void lines(void *self, const double *xy, int n, int32_t paint, double width, bool dashed)
{
    pen *p = self;
    set_paint(p, paint, 1);
    cairo_set_line_width(p->cr, width);
    cairo_set_line_join(p->cr, CAIRO_LINE_JOIN_ROUND);
    cairo_set_dash(p->cr, (const double[]){5, 3}, dashed ? 2 : 0, 0);
    trace(p, xy, n);
    cairo_stroke(p->cr);
}

static void area(void *self, const double *xy, int n, int32_t paint, double alpha)
{
    pen *p = self;
    set_paint(p, paint, alpha);
    trace(p, xy, n);
    cairo_close_path(p->cr);
    cairo_fill(p->cr);
}

static void image(void *self, const double box[4], const uint8_t *rgb, int width, int height)
{
    pen *p = self;
    cairo_surface_t *picture = cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height);
    if (cairo_surface_status(picture) != CAIRO_STATUS_SUCCESS) {
        cairo_surface_destroy(picture);
        p->failed = true;
        return;
    }
    unsigned char *data = cairo_image_surface_get_data(picture);
    int stride = cairo_image_surface_get_stride(picture);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const uint8_t *from = rgb + 3 * ((size_t)y * (size_t)width + (size_t)x);
            uint32_t pixel = (uint32_t)from[0] << 16 | (uint32_t)from[1] << 8 | from[2];
            memcpy(data + (size_t)y * (size_t)stride + 4 * (size_t)x, &pixel, 4);
        }
    cairo_surface_mark_dirty(picture);
    cairo_save(p->cr);
    cairo_translate(p->cr, box[0], box[1]);
    cairo_scale(p->cr, box[2] / width, box[3] / height);
    cairo_set_source_surface(p->cr, picture, 0, 0);
    cairo_pattern_set_extend(cairo_get_source(p->cr), CAIRO_EXTEND_PAD);
    cairo_rectangle(p->cr, 0, 0, width, height);
    cairo_fill(p->cr);
    cairo_restore(p->cr);
    cairo_surface_destroy(picture);
}

static vl_status finish(uint8_t **out, size_t *size, void *self, vl_error *err)
{
    pen *p = self;
    cairo_status_t status = cairo_status(p->cr);
    if (status == CAIRO_STATUS_SUCCESS && p->format == VL_CANVAS_PNG)
        status = cairo_surface_write_to_png_stream(p->surface, collect, &p->bytes);
    cairo_surface_finish(p->surface);
    if (status == CAIRO_STATUS_SUCCESS)
        status = cairo_surface_status(p->surface);
    if (status != CAIRO_STATUS_SUCCESS)
        return vl_fail(err, VL_EINTERNAL, "the figure cannot be drawn: %s", cairo_status_to_string(status));
    if (p->failed || p->bytes.failed)
        return vl_fail_nomem(err, "figure");
    *out = (uint8_t *)p->bytes.data;
    *size = p->bytes.size;
    p->bytes = (vl_str)VL_STR_INIT;
    return VL_OK;
}

const vl_canvas_ops vl_canvas_cairo_ops = {rect, text, lines, area, image, finish, free_pen};
