/* view/canvas.h - one drawing, three formats: SVG (text stays text), and through Cairo PDF and PNG. Points of 1/72 inch
 * from the top left. Nothing fails while it draws; vl_canvas_finish says what went wrong. */
#ifndef VL_VIEW_CANVAS_H
#define VL_VIEW_CANVAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trainer/base/status.h"

typedef struct vl_canvas vl_canvas;

typedef enum vl_canvas_format { VL_CANVAS_SVG, VL_CANVAS_PDF, VL_CANVAS_PNG } vl_canvas_format;

/* A colour: 0xRRGGBB, or one of these, which follow the reader's light or dark mode in an SVG that adapts. */
enum { VL_PAINT_INK = -1, VL_PAINT_SOFT = -2, VL_PAINT_FAINT = -3, VL_PAINT_PAPER = -4 };

typedef enum vl_anchor { VL_ANCHOR_START, VL_ANCHOR_MIDDLE, VL_ANCHOR_END } vl_anchor;
typedef struct vl_text_style {
    double size;
    bool bold;
    vl_anchor anchor;
    int32_t paint;
} vl_text_style;

typedef struct vl_canvas_options {
    vl_canvas_format format;
    double width, height;
    bool adapts; /* an SVG in a page: dark where the page is */
} vl_canvas_options;

/* By the end of a file's name. Error: VL_EINVAL (none of .svg, .pdf, .png). */
vl_status vl_canvas_format_of(vl_canvas_format *out, const char *path, vl_error *err);
/* The caller frees *out. Errors: VL_EUNSUPPORTED (built without Cairo, and no SVG), VL_ENOMEM. */
vl_status vl_canvas_new(vl_canvas **out, const vl_canvas_options *options, vl_error *err);
void vl_canvas_free(vl_canvas *canvas);

/* box: left, top, width, height. */
void vl_canvas_rect(vl_canvas *canvas, const double box[4], int32_t paint, double alpha);
/* (x, y) is the anchor on the baseline. text: UTF-8; what is none, and control characters, are shown as "?". */
void vl_canvas_text(vl_canvas *canvas, double x, double y, const char *text, vl_text_style style);
/* xy: [n, 2] points. */
void vl_canvas_lines(vl_canvas *canvas, const double *xy, int n, int32_t paint, double width, bool dashed);
void vl_canvas_area(vl_canvas *canvas, const double *xy, int n, int32_t paint, double alpha);
/* rgb: [height, width, 3] pixels into a box. */
void vl_canvas_image(vl_canvas *canvas, const double box[4], const uint8_t *rgb, int width, int height);

/* The bytes of the finished file; vl_free. The canvas is good for nothing afterwards. */
vl_status vl_canvas_finish(uint8_t **out, size_t *size, vl_canvas *canvas, vl_error *err);

/* ---- for the formats ---------------------------------------------------------------------------------------- */

typedef struct vl_canvas_ops {
    void (*rect)(void *self, const double box[4], int32_t paint, double alpha);
    void (*text)(void *self, double x, double y, const char *text, vl_text_style style);
    void (*lines)(void *self, const double *xy, int n, int32_t paint, double width, bool dashed);
    void (*area)(void *self, const double *xy, int n, int32_t paint, double alpha);
    void (*image)(void *self, const double box[4], const uint8_t *rgb, int width, int height);
    vl_status (*finish)(uint8_t **out, size_t *size, void *self, vl_error *err);
    void (*free)(void *self);
} vl_canvas_ops;
extern const vl_canvas_ops vl_canvas_svg_ops;
void *vl_canvas_svg_new(const vl_canvas_options *options); /* NULL when out of memory */
#ifdef VL_HAS_CAIRO
extern const vl_canvas_ops vl_canvas_cairo_ops;
void *vl_canvas_cairo_new(const vl_canvas_options *options);
#endif
/* 0xRRGGBB of a paint on white paper. */
uint32_t vl_paint_rgb(int32_t paint);

#endif
