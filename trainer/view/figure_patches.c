/* view/figure_patches.c - the picture at chosen states, through both lenses. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/view/figure.h"
#include "trainer/view/scale.h"

enum { PANEL = 230, MARGIN = 10, NAME_WIDTH = 22, TOP = 24, GAP = 6, LEGEND = 26, CAPTION_SIZE = 8, MOST_STATES = 64 };
static const double COVER = 0.6;     /* of the photograph by the strongest colour */
static const double LEAST_PATCH = 5; /* points; on narrower patches no word could be read in print */
static const double CHARACTER = 0.6; /* width of an average character, of its size */

typedef struct patch_map {
    const vl_reading *r;
    const vl_figure_options *options;
    const vl_picture *picture;
    vl_canvas *canvas;
    int64_t states[MOST_STATES];
    int n_states;
    int32_t word; /* token id, -1: the top-1 probability */
    double panel_height;
} patch_map;

/* A tile that lies over a later one is the same picture seen at once: the pieces are drawn in its place. */
static bool is_covered(const vl_picture *p, int tile)
{
    const vl_picture_tile *a = &p->tiles[tile];
    for (int i = tile + 1; i < p->n_tiles; i++) {
        const vl_picture_tile *b = &p->tiles[i];
        if (a->left < b->left + b->width - 1e-6 && b->left < a->left + a->width - 1e-6 &&
            a->top < b->top + b->height - 1e-6 && b->top < a->top + a->height - 1e-6)
            return true;
    }
    return false;
}

/* The probability that colours a cell; NaN where the reading does not hold it. */
static double value_of(const patch_map *m, const vl_reading_cell *cell)
{
    if (m->word < 0)
        return (double)cell->probability[0];
    for (int64_t j = 0; j < m->r->n_tracked; j++)
        if (m->r->tracked[j] == m->word)
            return (double)cell->tracked[j];
    for (int64_t j = 0; j < m->r->k; j++)
        if (cell->ids[j] == m->word)
            return (double)cell->probability[j];
    return NAN;
}

static void put_word(const patch_map *m, const double box[4], const char *piece)
{
    char text[64];
    vl_str word = VL_STR_INIT;
    vl_figure_words(&word, piece + (*piece == ' '), 10, true);
    snprintf(text, sizeof text, "%s", word.data ? word.data : "");
    vl_str_clear(&word);
    double n = 0;
    for (const char *at = text; *at; at++)
        n += ((unsigned char)*at & 0xc0) != 0x80;
    double size = fmin(0.42 * box[3], n > 0 ? 0.94 * box[2] / (CHARACTER * n) : 0);
    if (size < 1.2)
        return;
    double x = box[0] + box[2] / 2, y = box[1] + box[3] / 2, wide = CHARACTER * n * size;
    vl_canvas_rect(m->canvas, (double[4]){x - wide / 2, y - 0.55 * size, wide, 1.1 * size}, 0x000000, 0.55);
    vl_canvas_text(m->canvas, x, y + 0.35 * size, text, (vl_text_style){size, false, VL_ANCHOR_MIDDLE, 0xffffff});
}

static void put_patch(const patch_map *m, const double panel[4], int64_t index, int64_t state, bool tuned)
{
    const vl_reading_position *p = &m->r->positions[index];
    const vl_picture_tile *t = &m->picture->tiles[p->patch[0] > 0 ? p->patch[0] : 0];
    vl_reading_cell cell = vl_reading_get_cell(m->r, index, state, tuned);
    double w = t->width / t->columns, h = t->height / t->rows, value = value_of(m, &cell);
    double box[4] = {panel[0] + (t->left + p->patch[2] * w) * panel[2],
                     panel[1] + (t->top + p->patch[1] * h) * panel[3], w * panel[2], h * panel[3]};
    if (isfinite(value))
        vl_canvas_rect(m->canvas, box, vl_scale_colour(value), COVER * fmin(fmax(value, 0), 1));
    if (!m->options->no_words && box[2] >= LEAST_PATCH)
        put_word(m, box, vl_reading_piece(m->r, cell.ids[0]));
}

static void put_panel(const patch_map *m, const double panel[4], int64_t state, bool tuned)
{
    vl_canvas_image(m->canvas, panel, m->picture->rgb, m->picture->width, m->picture->height);
    for (int64_t i = 0; i < m->r->n_positions; i++) {
        const vl_reading_position *p = &m->r->positions[i];
        int tile = p->patch[0] > 0 ? p->patch[0] : 0;
        if (p->token_class == VL_IMAGE && p->image == m->picture->image && p->patch[1] >= 0 &&
            tile < m->picture->n_tiles && !is_covered(m->picture, tile))
            put_patch(m, panel, i, state, tuned);
    }
}

static void put_panels(const patch_map *m)
{
    char text[32];
    for (int row = 0; row <= m->r->has_lens; row++) {
        double y = TOP + row * (m->panel_height + GAP + 14);
        vl_canvas_text(m->canvas, MARGIN, y + 4, row ? "Tuned lens" : "Logit lens",
                       (vl_text_style){10, true, VL_ANCHOR_START, VL_PAINT_INK});
        for (int i = 0; i < m->n_states; i++) {
            double x = MARGIN + i * (PANEL + GAP);
            snprintf(text, sizeof text, m->states[i] == m->r->n_states - 1 ? "state %lld (the model)" : "state %lld",
                     (long long)m->states[i]);
            vl_canvas_text(m->canvas, x + PANEL, y + 4, text, (vl_text_style){10, false, VL_ANCHOR_END, VL_PAINT_INK});
            put_panel(m, (double[4]){x, y + 8, PANEL, m->panel_height}, m->states[i], row);
        }
    }
}

/* ---- what is asked for ------------------------------------------------------------------------------------- */

static vl_status choose_states(patch_map *m, vl_error *err)
{
    const vl_figure_options *o = m->options;
    int64_t last = m->r->n_states - 1;
    m->n_states = o->states ? o->n_states : last < 4 ? (int)last + 1 : 5;
    if (m->n_states < 1 || m->n_states > MOST_STATES)
        return vl_fail(err, VL_EINVAL, "%d states in one figure, expected 1 to %d", m->n_states, MOST_STATES);
    for (int i = 0; i < m->n_states; i++) {
        int64_t s = o->states ? o->states[i] : last * i / (m->n_states > 1 ? m->n_states - 1 : 1);
        m->states[i] = s < 0 ? last + 1 + s : s;
        if (m->states[i] < 0 || m->states[i] > last)
            return vl_fail(err, VL_EINVAL, "state %lld is not there: states are 0 to %lld", (long long)s,
                           (long long)last);
    }
    return VL_OK;
}

/* The token whose text a word is, a space in front of it or not; the tracked ones first. */
static vl_status choose_word(patch_map *m, vl_error *err)
{
    const char *word = m->options->word;
    m->word = -1;
    for (int64_t j = 0; word && j < m->r->n_tracked && m->word < 0; j++) {
        const char *piece = vl_reading_piece(m->r, m->r->tracked[j]);
        if (!strcmp(piece, word) || (*piece == ' ' && !strcmp(piece + 1, word)))
            m->word = m->r->tracked[j];
    }
    for (int64_t id = 0; word && id < m->r->vocab_size && m->word < 0; id++) {
        const char *piece = vl_reading_piece(m->r, (int32_t)id);
        if (!strcmp(piece, word) || (*piece == ' ' && !strcmp(piece + 1, word)))
            m->word = (int32_t)id;
    }
    if (word && m->word < 0)
        return vl_fail(err, VL_EINVAL,
                       "\"%.80s\" is among the top-%lld tokens nowhere in this reading, and not tracked", word,
                       (long long)m->r->k);
    return VL_OK;
}

static vl_status choose_picture(patch_map *m, vl_error *err)
{
    for (int i = 0; i < m->r->pictures.n; i++) {
        m->picture = &m->r->pictures.items[i];
        if (m->picture->n_tiles && m->picture->rgb)
            return VL_OK;
    }
    return vl_fail(err, VL_EINVAL, "this reading holds no picture whose patches are rows of the residual stream");
}

vl_status vl_figure_patches(const char *path, const vl_reading *r, const vl_figure_options *options, vl_error *err)
{
    patch_map m = {.r = r, .options = options};
    vl_canvas_format format;
    char title[200], name[96] = "top-1 probability";
    VL_TRY(vl_canvas_format_of(&format, path, err));
    VL_TRY(choose_picture(&m, err));
    VL_TRY(choose_states(&m, err));
    VL_TRY(choose_word(&m, err));
    if (options->word)
        snprintf(name, sizeof name, "probability of \"%.60s\"", options->word);
    snprintf(title, sizeof title, "Patches at %d of %lld states: the first token of each, coloured by %s.", m.n_states,
             (long long)r->n_states, name);
    vl_caption caption = {title, r->model_id, r->has_lens ? r->lens_path : "logit lens", options->picture, r->prompt};
    double width = 2 * MARGIN + m.n_states * (PANEL + GAP) - GAP;
    width = width < 420 ? 420 : width;
    vl_str lines = vl_caption_lines(&caption, (int)(width / 4.9));
    m.panel_height = PANEL * (double)m.picture->height / m.picture->width;
    double body = TOP + (1 + r->has_lens) * (m.panel_height + GAP + 14);
    double height = body + LEGEND + 1.35 * CAPTION_SIZE * vl_count_lines(&lines) + MARGIN;
    vl_status status = vl_canvas_new(&m.canvas, &(vl_canvas_options){format, width, height, false}, err);
    if (status == VL_OK) {
        put_panels(&m);
        vl_figure_legend(m.canvas, MARGIN, body, name);
        vl_caption_draw(m.canvas, MARGIN, body + LEGEND + CAPTION_SIZE, &lines, CAPTION_SIZE);
    }
    vl_str_clear(&lines);
    return status == VL_OK ? vl_figure_write(path, m.canvas, err) : status;
}
