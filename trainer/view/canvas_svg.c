/* Drawings as SVG: text stays text, so that it can be searched, edited, and drawn in the reader's fonts. */
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/str.h"
#include "trainer/image/png.h"
#include "trainer/view/base64.h"
#include "trainer/view/canvas.h"

typedef struct svg {
    vl_str text;
    bool failed;
} svg;

static void put_escaped(vl_str *out, const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '<': vl_str_puts(out, "&lt;"); break;
        case '>': vl_str_puts(out, "&gt;"); break;
        case '&': vl_str_puts(out, "&amp;"); break;
        case '"': vl_str_puts(out, "&quot;"); break;
        default: vl_str_putc(out, *text);
        }
}

/* ` fill="#123456"`, or the class of a paint that adapts: f1 to f4, s1 to s4. */
static void put_paint(vl_str *out, const char *what, int32_t paint)
{
    if (paint < 0)
        vl_str_printf(out, " class=\"%c%d\"", what[0], -paint);
    else
        vl_str_printf(out, " %s=\"#%06x\"", what, (unsigned)paint);
}

static void put_classes(vl_str *out, const uint32_t rgb[4])
{
    for (int i = 0; i < 4; i++)
        vl_str_printf(out, ".f%d{fill:#%06x}.s%d{stroke:#%06x}", i + 1, (unsigned)rgb[i], i + 1, (unsigned)rgb[i]);
}

void *vl_canvas_svg_new(const vl_canvas_options *o)
{
    static const uint32_t dark[4] = {0xe8e9eb, 0xa2a8b0, 0x363a40, 0x1d2024}; /* as on the page */
    uint32_t light[4];
    svg *s = vl_calloc(1, sizeof *s);
    if (!s)
        return NULL;
    for (int i = 0; i < 4; i++)
        light[i] = vl_paint_rgb(-1 - i);
    vl_str_printf(&s->text,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\" "
                  "font-family=\"DejaVu Sans, sans-serif\">\n<style>",
                  o->width, o->height, o->width, o->height);
    put_classes(&s->text, light);
    if (o->adapts) {
        vl_str_puts(&s->text, "@media (prefers-color-scheme: dark){");
        put_classes(&s->text, dark);
        vl_str_putc(&s->text, '}');
    }
    vl_str_puts(&s->text, "</style>\n<rect width=\"100%\" height=\"100%\" class=\"f4\"/>\n");
    return s;
}

static void rect(void *self, const double box[4], int32_t paint, double alpha)
{
    vl_str *out = &((svg *)self)->text;
    vl_str_printf(out, "<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\"", box[0], box[1], box[2], box[3]);
    put_paint(out, "fill", paint);
    if (alpha < 1)
        vl_str_printf(out, " fill-opacity=\"%.3g\"", alpha);
    vl_str_puts(out, "/>\n");
}

static void text(void *self, double x, double y, const char *text, vl_text_style style)
{
    static const char *const anchors[] = {"start", "middle", "end"};
    vl_str *out = &((svg *)self)->text;
    vl_str_printf(out, "<text x=\"%g\" y=\"%g\" font-size=\"%g\"", x, y, style.size);
    if (style.anchor != VL_ANCHOR_START)
        vl_str_printf(out, " text-anchor=\"%s\"", anchors[style.anchor]);
    if (style.bold)
        vl_str_puts(out, " font-weight=\"bold\"");
    put_paint(out, "fill", style.paint);
    vl_str_putc(out, '>');
    put_escaped(out, text);
    vl_str_puts(out, "</text>\n");
}

static void put_points(vl_str *out, const double *xy, int n)
{
    vl_str_puts(out, " points=\"");
    for (int i = 0; i < n; i++)
        vl_str_printf(out, "%s%.5g,%.5g", i ? " " : "", xy[2 * i], xy[2 * i + 1]);
    vl_str_putc(out, '"');
}

static void lines(void *self, const double *xy, int n, int32_t paint, double width, bool dashed)
{
    vl_str *out = &((svg *)self)->text;
    vl_str_puts(out, "<polyline fill=\"none\" stroke-linejoin=\"round\"");
    put_paint(out, "stroke", paint);
    vl_str_printf(out, " stroke-width=\"%g\"%s", width, dashed ? " stroke-dasharray=\"5 3\"" : "");
    put_points(out, xy, n);
    vl_str_puts(out, "/>\n");
}

static void area(void *self, const double *xy, int n, int32_t paint, double alpha)
{
    vl_str *out = &((svg *)self)->text;
    vl_str_puts(out, "<polygon");
    put_paint(out, "fill", paint);
    vl_str_printf(out, " fill-opacity=\"%.3g\"", alpha);
    put_points(out, xy, n);
    vl_str_puts(out, "/>\n");
}

static void image(void *self, const double box[4], const uint8_t *rgb, int width, int height)
{
    svg *s = self;
    uint8_t *png;
    size_t n;
    if (vl_png_encode(&png, &n, rgb, width, height, NULL) != VL_OK) {
        s->failed = true;
        return;
    }
    vl_str_printf(&s->text,
                  "<image x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\" preserveAspectRatio=\"none\" "
                  "href=\"data:image/png;base64,",
                  box[0], box[1], box[2], box[3]);
    vl_base64_put(&s->text, png, n);
    vl_str_puts(&s->text, "\"/>\n");
    vl_free(png);
}

static vl_status finish(uint8_t **out, size_t *size, void *self, vl_error *err)
{
    svg *s = self;
    vl_str_puts(&s->text, "</svg>\n");
    if (s->failed || s->text.failed)
        return vl_fail_nomem(err, "figure");
    *out = (uint8_t *)s->text.data;
    *size = s->text.size;
    s->text = (vl_str)VL_STR_INIT;
    return VL_OK;
}

static void free_svg(void *self)
{
    vl_str_clear(&((svg *)self)->text);
    vl_free(self);
}

const vl_canvas_ops vl_canvas_svg_ops = {rect, text, lines, area, image, finish, free_svg};
