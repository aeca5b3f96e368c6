/* view/heatmap.c - one position of a reading as a heat map in SVG. */
#include <math.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/view/reading.h"

enum { CELL_WIDTH = 92, CELL_HEIGHT = 32, LEFT = 48, TOP = 86, GAP = 28, BOTTOM = 44 };
enum { COLUMNS = 12, TITLE_COLUMNS = 90 }; /* of text */

/* Cividis, as on the page: perceptually uniform, and the same to people with and without red-green blindness. */
static const double cividis[10][3] = {{0, 34, 78},     {18, 53, 112},   {59, 73, 108},   {87, 93, 109},
                                      {112, 113, 115}, {138, 134, 120}, {165, 156, 116}, {195, 179, 105},
                                      {225, 204, 85},  {254, 232, 56}};

static void colour_at(int rgb[3], double t)
{
    double x = fmin(fmax(t, 0), 1) * 9;
    int n = x >= 9 ? 8 : (int)x;
    for (int c = 0; c < 3; c++)
        rgb[c] = (int)lrint(cividis[n][c] + (cividis[n + 1][c] - cividis[n][c]) * (x - n));
}

/* Black or white, whichever can be read on it. */
static const char *ink_on(const int rgb[3])
{
    static const double weight[3] = {0.2126, 0.7152, 0.0722};
    double luminance = 0;
    for (int c = 0; c < 3; c++) {
        double v = rgb[c] / 255.0;
        luminance += weight[c] * (v <= 0.04045 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4));
    }
    return luminance > 0.179 ? "#000" : "#fff";
}

/* Cut to `width` columns, and escaped. Only in a token is a space made visible. */
static void put_text(vl_str *out, const char *text, int width, bool token)
{
    vl_str cut = VL_STR_INIT;
    vl_put_token(&cut, text, width);
    size_t n = cut.size;
    while (n > 0 && cut.data[n - 1] == ' ')
        n--;
    for (size_t i = 0; i < n; i++) {
        if (!token && i + 1 < n && !memcmp(cut.data + i, "\xc2\xb7", 2)) {
            vl_str_putc(out, ' ');
            i++;
            continue;
        }
        switch (cut.data[i]) {
        case '<': vl_str_puts(out, "&lt;"); break;
        case '>': vl_str_puts(out, "&gt;"); break;
        case '&': vl_str_puts(out, "&amp;"); break;
        case '"': vl_str_puts(out, "&quot;"); break;
        default: vl_str_putc(out, cut.data[i]);
        }
    }
    out->failed |= cut.failed;
    vl_str_clear(&cut);
}

static void put_cell(vl_str *out, const vl_reading *r, const vl_reading_cell *cell, int64_t rank, const double at[2])
{
    int rgb[3];
    double p = (double)cell->probability[rank];
    colour_at(rgb, p);
    vl_str_printf(out, "<g fill=\"%s\"><rect x=\"%g\" y=\"%g\" width=\"%d\" height=\"%d\" fill=\"#%02x%02x%02x\"/>",
                  ink_on(rgb), at[0], at[1], CELL_WIDTH - 1, CELL_HEIGHT - 1, (unsigned)rgb[0], (unsigned)rgb[1],
                  (unsigned)rgb[2]);
    vl_str_printf(out, "<text x=\"%g\" y=\"%g\">", at[0] + CELL_WIDTH / 2.0, at[1] + 14);
    put_text(out, vl_reading_piece(r, cell->ids[rank]), COLUMNS, true);
    vl_str_printf(out, "</text><text x=\"%g\" y=\"%g\" font-size=\"9\">%.4g</text></g>\n", at[0] + CELL_WIDTH / 2.0,
                  at[1] + 26, p);
}

static void put_lens(vl_str *out, const vl_reading *r, int64_t index, bool tuned, double left)
{
    vl_str_printf(out, "<text x=\"%g\" y=\"%d\" font-weight=\"bold\">%s lens</text>\n",
                  left + (double)r->k * CELL_WIDTH / 2, TOP - 24, tuned ? "Tuned" : "Logit");
    for (int64_t j = 0; j < r->k; j++)
        vl_str_printf(out, "<text x=\"%g\" y=\"%d\" font-size=\"10\">%lld</text>\n",
                      left + ((double)j + 0.5) * CELL_WIDTH, TOP - 7, (long long)j + 1);
    for (int64_t s = 0; s < r->n_states; s++) {
        vl_reading_cell cell = vl_reading_get_cell(r, index, s, tuned);
        for (int64_t j = 0; j < r->k; j++)
            put_cell(out, r, &cell, j, (double[2]){left + (double)(j * CELL_WIDTH), TOP + (double)(s * CELL_HEIGHT)});
    }
}

static void put_legend(vl_str *out, double y)
{
    int rgb[3];
    for (int i = 0; i < 100; i++) {
        colour_at(rgb, i / 99.0);
        vl_str_printf(out, "<rect x=\"%g\" y=\"%g\" width=\"2.2\" height=\"10\" fill=\"#%02x%02x%02x\"/>\n",
                      LEFT + 20 + 2.0 * i, y, (unsigned)rgb[0], (unsigned)rgb[1], (unsigned)rgb[2]);
    }
    vl_str_printf(out, "<text x=\"%d\" y=\"%g\">0</text><text x=\"%d\" y=\"%g\">1</text>\n", LEFT + 10, y + 9,
                  LEFT + 230, y + 9);
    vl_str_printf(out, "<text x=\"%d\" y=\"%g\" text-anchor=\"start\">probability</text>\n", LEFT + 242, y + 9);
}

static void put_title(vl_str *out, const vl_reading *r, int64_t index)
{
    const vl_reading_position *p = &r->positions[index];
    vl_str_puts(out, "<text x=\"8\" y=\"20\" text-anchor=\"start\" font-size=\"13\" font-weight=\"bold\">");
    put_text(out, r->prompt, TITLE_COLUMNS, false);
    vl_str_printf(out, "</text>\n<text x=\"8\" y=\"38\" text-anchor=\"start\">position %lld (%s), token ",
                  (long long)p->position, vl_token_class_name(p->token_class));
    put_text(out, p->piece, 24, true);
    vl_str_puts(out, " - ");
    put_text(out, r->model_id, TITLE_COLUMNS - 40, false);
    vl_str_puts(out, "</text>\n");
}

vl_status vl_reading_svg(char **out, const vl_reading *r, int64_t index, vl_error *err)
{
    vl_str text = VL_STR_INIT;
    long long lens_width = (long long)r->k * CELL_WIDTH;
    long long width = LEFT + lens_width * (1 + r->has_lens) + (r->has_lens ? GAP : 0) + 8;
    long long body = (long long)r->n_states * CELL_HEIGHT;
    *out = NULL;
    width = width < 420 ? 420 : width;
    vl_str_printf(&text,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %lld %lld\" width=\"%lld\" height=\"%lld\" "
                  "font-family=\"DejaVu Sans, sans-serif\" font-size=\"11\" text-anchor=\"middle\" fill=\"#1c1e21\">\n"
                  "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
                  width, TOP + body + BOTTOM, width, TOP + body + BOTTOM);
    put_title(&text, r, index);
    vl_str_printf(&text, "<text x=\"%d\" y=\"%d\" font-size=\"10\">state</text>\n", LEFT / 2, TOP - 7);
    for (int64_t s = 0; s < r->n_states; s++)
        vl_str_printf(&text, "<text x=\"%d\" y=\"%lld\">%lld</text>\n", LEFT / 2,
                      TOP + (long long)s * CELL_HEIGHT + CELL_HEIGHT / 2 + 4, (long long)s);
    put_lens(&text, r, index, false, LEFT);
    if (r->has_lens)
        put_lens(&text, r, index, true, (double)(LEFT + lens_width + GAP));
    put_legend(&text, (double)(TOP + body + 16));
    vl_str_puts(&text, "</svg>\n");
    if (text.failed) {
        vl_str_clear(&text);
        return vl_fail_nomem(err, "heat map");
    }
    *out = text.data;
    return VL_OK;
}

vl_status vl_reading_write_svg(const char *path, const vl_reading *r, int64_t index, vl_error *err)
{
    char *text = NULL;
    VL_TRY(vl_reading_svg(&text, r, index, err));
    vl_status status = vl_atomic_write(path, text, strlen(text), err);
    vl_release(text);
    return status;
}
