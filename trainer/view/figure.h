/* view/figure.h - what the figures share: captions, legends, words. */
#ifndef VL_VIEW_FIGURE_H
#define VL_VIEW_FIGURE_H

#include <vlens/figure.h>

#include "trainer/base/str.h"
#include "trainer/view/canvas.h"
#include "trainer/view/reading.h"

/* Cut to `columns`, without the spaces that pad it. Only in a token is a space made visible. */
void vl_figure_words(vl_str *out, const char *text, int columns, bool token);
/* A token, cut to `columns`, with its anchor at (x, y). */
void vl_figure_token(vl_canvas *canvas, double x, double y, const char *piece, int columns, vl_text_style style);

/* A caption: what the figure shows, then model, lens, picture, prompt and version, each where it is known. */
typedef struct vl_caption {
    const char *title, *model, *lens, *picture, *prompt;
} vl_caption;
/* Its lines, broken at `columns`; vl_str_clear. Lines end with '\n'. */
vl_str vl_caption_lines(const vl_caption *caption, int columns);
int vl_count_lines(const vl_str *text);
/* Draws lines of text at `size` from (x, y) down. */
void vl_caption_draw(vl_canvas *canvas, double x, double y, const vl_str *lines, double size);

/* A bar from `low` to 1 of the scale with its name behind it; 250 points wide. */
void vl_figure_legend(vl_canvas *canvas, double x, double y, const char *name);
/* Finishes a canvas into a file, which appears whole or not at all; frees the canvas either way. */
vl_status vl_figure_write(const char *path, vl_canvas *canvas, vl_error *err);

#endif
