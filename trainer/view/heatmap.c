/* view/heatmap.c - one position of a reading as a heat map: a row per state, a column per rank, both lenses. */
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/view/figure.h"
#include "trainer/view/scale.h"

enum { CELL_WIDTH = 92, CELL_HEIGHT = 32, LEFT = 48, TOP = 86, GAP = 28, BOTTOM = 44 };
enum { COLUMNS = 12, TITLE_COLUMNS = 90, CAPTION_COLUMNS = 100, CAPTION_SIZE = 9 };

static const vl_text_style plain = {11, false, VL_ANCHOR_MIDDLE, VL_PAINT_INK};

static void put_cell(vl_canvas *canvas, const vl_reading *r, const vl_reading_cell *cell, int64_t rank,
                     const double at[2])
{
    char number[32];
    double p = (double)cell->probability[rank], middle = at[0] + CELL_WIDTH / 2.0;
    int32_t colour = vl_scale_colour(p), ink = vl_scale_ink_on(colour);
    vl_canvas_rect(canvas, (double[4]){at[0], at[1], CELL_WIDTH - 1, CELL_HEIGHT - 1}, colour, 1);
    vl_figure_token(canvas, middle, at[1] + 14, vl_reading_piece(r, cell->ids[rank]), COLUMNS,
                    (vl_text_style){11, false, VL_ANCHOR_MIDDLE, ink});
    snprintf(number, sizeof number, "%.4g", p);
    vl_canvas_text(canvas, middle, at[1] + 26, number, (vl_text_style){9, false, VL_ANCHOR_MIDDLE, ink});
}

static void put_lens(vl_canvas *canvas, const vl_reading *r, int64_t index, bool tuned, double left)
{
    char text[32];
    vl_canvas_text(canvas, left + (double)r->k * CELL_WIDTH / 2, TOP - 24, tuned ? "Tuned lens" : "Logit lens",
                   (vl_text_style){11, true, VL_ANCHOR_MIDDLE, VL_PAINT_INK});
    for (int64_t j = 0; j < r->k; j++) {
        snprintf(text, sizeof text, "%lld", (long long)j + 1);
        vl_canvas_text(canvas, left + ((double)j + 0.5) * CELL_WIDTH, TOP - 7, text, plain);
    }
    for (int64_t s = 0; s < r->n_states; s++) {
        vl_reading_cell cell = vl_reading_get_cell(r, index, s, tuned);
        for (int64_t j = 0; j < r->k; j++)
            put_cell(canvas, r, &cell, j,
                     (double[2]){left + (double)(j * CELL_WIDTH), TOP + (double)(s * CELL_HEIGHT)});
    }
}

static void put_title(vl_canvas *canvas, const vl_reading *r, int64_t index)
{
    const vl_reading_position *p = &r->positions[index];
    vl_str text = VL_STR_INIT;
    vl_figure_words(&text, r->prompt, TITLE_COLUMNS, false);
    vl_canvas_text(canvas, 8, 20, text.data ? text.data : "", (vl_text_style){13, true, VL_ANCHOR_START, VL_PAINT_INK});
    vl_str_clear(&text);
    vl_str_printf(&text, "position %lld (%s), token ", (long long)p->position, vl_token_class_name(p->token_class));
    vl_figure_words(&text, p->piece, 24, true);
    vl_str_puts(&text, " - ");
    vl_figure_words(&text, r->model_id, TITLE_COLUMNS - 40, false);
    vl_canvas_text(canvas, 8, 38, text.data ? text.data : "",
                   (vl_text_style){11, false, VL_ANCHOR_START, VL_PAINT_INK});
    vl_str_clear(&text);
}

static void put_states(vl_canvas *canvas, const vl_reading *r)
{
    char text[32];
    vl_canvas_text(canvas, LEFT / 2.0, TOP - 7, "state", plain);
    for (int64_t s = 0; s < r->n_states; s++) {
        snprintf(text, sizeof text, "%lld", (long long)s);
        vl_canvas_text(canvas, LEFT / 2.0, (double)(TOP + s * CELL_HEIGHT) + CELL_HEIGHT / 2.0 + 4, text, plain);
    }
}

/* caption: NULL for the graph of a page, which has its own texts around it. */
static vl_status draw(vl_canvas **out, const vl_reading *r, int64_t index, vl_canvas_format format,
                      const vl_caption *caption, vl_error *err)
{
    double lens_width = (double)r->k * CELL_WIDTH, body = (double)r->n_states * CELL_HEIGHT;
    double width = LEFT + lens_width * (1 + r->has_lens) + (r->has_lens ? GAP : 0) + 8;
    vl_str lines = VL_STR_INIT;
    width = width < 420 ? 420 : width;
    if (caption)
        lines = vl_caption_lines(caption, (int)(width / 5.6));
    double height = TOP + body + BOTTOM + 1.35 * CAPTION_SIZE * vl_count_lines(&lines);
    vl_canvas *canvas;
    vl_status status = vl_canvas_new(&canvas, &(vl_canvas_options){format, width, height, !caption}, err);
    if (status == VL_OK) {
        put_title(canvas, r, index);
        put_states(canvas, r);
        put_lens(canvas, r, index, false, LEFT);
        if (r->has_lens)
            put_lens(canvas, r, index, true, LEFT + lens_width + GAP);
        vl_figure_legend(canvas, LEFT + 10, TOP + body + 16, "probability");
        vl_caption_draw(canvas, 8, TOP + body + BOTTOM, &lines, CAPTION_SIZE);
        *out = canvas;
    }
    vl_str_clear(&lines);
    return status;
}

vl_status vl_reading_svg(char **out, const vl_reading *r, int64_t index, vl_error *err)
{
    vl_canvas *canvas;
    size_t n;
    *out = NULL;
    VL_TRY(draw(&canvas, r, index, VL_CANVAS_SVG, NULL, err));
    vl_status status = vl_canvas_finish((uint8_t **)out, &n, canvas, err);
    vl_canvas_free(canvas);
    return status;
}

vl_status vl_reading_write_svg(const char *path, const vl_reading *r, int64_t index, vl_error *err)
{
    char *text = NULL;
    VL_TRY(vl_reading_svg(&text, r, index, err));
    vl_status status = vl_atomic_write(path, text, strlen(text), err);
    vl_release(text);
    return status;
}

vl_status vl_figure_topk(const char *path, const vl_reading *r, const vl_figure_options *options, vl_error *err)
{
    vl_canvas_format format;
    vl_canvas *canvas;
    int64_t index = options->position < 0 ? r->n_positions + options->position : options->position;
    if (index < 0 || index >= r->n_positions)
        return vl_fail(err, VL_EINVAL, "position %lld is outside the reading of %lld rows",
                       (long long)options->position, (long long)r->n_positions);
    VL_TRY(vl_canvas_format_of(&format, path, err));
    char title[160];
    snprintf(title, sizeof title, "The top-%lld tokens of every state at position %lld, with their probabilities.",
             (long long)r->k, (long long)r->positions[index].position);
    vl_caption caption = {title, r->model_id, r->has_lens ? r->lens_path : "logit lens", options->picture, r->prompt};
    VL_TRY(draw(&canvas, r, index, format, &caption, err));
    return vl_figure_write(path, canvas, err);
}
