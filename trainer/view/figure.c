#include "trainer/view/figure.h"

#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/version.h"
#include "trainer/view/scale.h"

void vl_figure_words(vl_str *out, const char *text, int columns, bool token)
{
    vl_str cut = VL_STR_INIT;
    vl_put_token(&cut, text, columns);
    size_t n = cut.size;
    while (n > 0 && cut.data[n - 1] == ' ')
        n--;
    for (size_t i = 0; i < n; i++) {
        bool dot = !token && i + 1 < n && !memcmp(cut.data + i, "\xc2\xb7", 2);
        vl_str_putc(out, dot ? ' ' : cut.data[i]);
        i += dot;
    }
    out->failed |= cut.failed;
    vl_str_clear(&cut);
}

void vl_figure_token(vl_canvas *canvas, double x, double y, const char *piece, int columns, vl_text_style style)
{
    vl_str text = VL_STR_INIT;
    vl_figure_words(&text, piece, columns, true);
    if (text.data && !text.failed)
        vl_canvas_text(canvas, x, y, text.data, style);
    vl_str_clear(&text);
}

/* ---- captions ---------------------------------------------------------------------------------------------- */

/* Appends a text, broken at spaces where a line would pass `columns`. */
static void put_wrapped(vl_str *out, const char *text, int columns)
{
    int used = 0;
    while (*text) {
        size_t word = strcspn(text, " ");
        if (used > 0 && used + 1 + (int)word > columns) {
            vl_str_putc(out, '\n');
            used = 0;
        }
        if (used > 0)
            vl_str_putc(out, ' ');
        vl_str_append(out, text, word);
        used += (int)word + (used > 0);
        text += word + strspn(text + word, " ");
    }
    vl_str_putc(out, '\n');
}

static void put_part(vl_str *out, const char *name, const char *text)
{
    if (!text || !*text)
        return;
    vl_str_printf(out, "%s%s \xe2\x80\x9c", out->size ? ". " : "", name);
    vl_figure_words(out, text, 400, false);
    vl_str_puts(out, "\xe2\x80\x9d");
}

vl_str vl_caption_lines(const vl_caption *c, int columns)
{
    vl_str whole = VL_STR_INIT, lines = VL_STR_INIT;
    put_part(&whole, "Model", c->model);
    put_part(&whole, "Lens", c->lens);
    put_part(&whole, "Picture", c->picture);
    put_part(&whole, "Prompt", c->prompt);
    vl_str_printf(&whole, "%svlens %s.", whole.size ? ". " : "", VLENS_VERSION);
    put_wrapped(&lines, c->title, columns);
    if (whole.data)
        put_wrapped(&lines, whole.data, columns);
    lines.failed |= whole.failed;
    vl_str_clear(&whole);
    return lines;
}

int vl_count_lines(const vl_str *text)
{
    int n = 0;
    for (size_t i = 0; i < text->size; i++)
        n += text->data[i] == '\n';
    return n;
}

void vl_caption_draw(vl_canvas *canvas, double x, double y, const vl_str *lines, double size)
{
    char line[1024];
    const char *at = lines->data ? lines->data : "";
    for (const char *end; (end = strchr(at, '\n')); at = end + 1) {
        snprintf(line, sizeof line, "%.*s", (int)(end - at), at);
        vl_canvas_text(canvas, x, y, line, (vl_text_style){size, false, VL_ANCHOR_START, VL_PAINT_INK});
        y += 1.35 * size;
    }
}

/* ---- the end of a figure ----------------------------------------------------------------------------------- */

void vl_figure_legend(vl_canvas *canvas, double x, double y, const char *name)
{
    const vl_text_style style = {11, false, VL_ANCHOR_START, VL_PAINT_INK};
    for (int i = 0; i < 100; i++)
        vl_canvas_rect(canvas, (double[4]){x + 12 + 2 * i, y, 2.2, 10}, vl_scale_colour(i / 99.0), 1);
    vl_canvas_text(canvas, x, y + 9, "0", style);
    vl_canvas_text(canvas, x + 218, y + 9, "1", style);
    vl_canvas_text(canvas, x + 234, y + 9, name, style);
}

vl_status vl_figure_write(const char *path, vl_canvas *canvas, vl_error *err)
{
    uint8_t *bytes = NULL;
    size_t n = 0;
    vl_status status = vl_canvas_finish(&bytes, &n, canvas, err);
    if (status == VL_OK)
        status = vl_atomic_write(path, bytes, n, err);
    vl_free(bytes);
    vl_canvas_free(canvas);
    return status;
}
