#include "trainer/model/picture.h"

#include <string.h>

#include "trainer/base/mem.h"

void vl_picture_clear(vl_picture *picture)
{
    if (!picture)
        return;
    vl_free(picture->pixels);
    vl_free(picture->rows);
    *picture = (vl_picture){0};
}

static vl_status reserve(vl_picture *picture, int64_t more, vl_error *err)
{
    if (picture->n_rows + more <= picture->capacity)
        return VL_OK;
    const int64_t capacity =
        2 * picture->capacity > picture->n_rows + more ? 2 * picture->capacity : picture->n_rows + more;
    vl_picture_row *rows = vl_realloc(picture->rows, (size_t)capacity, sizeof *rows);
    if (!rows)
        return vl_fail_nomem(err, "rows of a picture");
    picture->rows = rows;
    picture->capacity = capacity;
    return VL_OK;
}

vl_status vl_picture_add_row(vl_picture *picture, vl_picture_row row, vl_error *err)
{
    VL_TRY(reserve(picture, 1, err));
    picture->rows[picture->n_rows++] = row;
    return VL_OK;
}

vl_status vl_picture_add_grid(vl_picture *picture, int tile, vl_size n, vl_box whole, vl_error *err)
{
    VL_TRY(reserve(picture, (int64_t)n.height * n.width, err));
    for (int i = 0; i < n.height; i++) {
        for (int j = 0; j < n.width; j++) {
            const vl_box box = vl_box_part(whole, (double)j / n.width, (double)i / n.height, (double)(j + 1) / n.width,
                                           (double)(i + 1) / n.height);
            picture->rows[picture->n_rows++] =
                (vl_picture_row){.tile = (int16_t)tile, .row = (int16_t)i, .column = (int16_t)j, .box = box};
        }
    }
    return VL_OK;
}

vl_status vl_picture_alloc_pixels(vl_picture *picture, int frames, vl_error *err)
{
    const int64_t values = 3 * (int64_t)picture->tile.height * picture->tile.width * frames;
    if (values <= 0 || picture->n_tiles > VL_PICTURE_MAX_VALUES / values)
        return vl_fail(err, VL_EFORMAT, "a picture would become %d tiles of %d x %d pixels", picture->n_tiles,
                       picture->tile.width, picture->tile.height);
    picture->pixels = vl_alloc((size_t)picture->n_tiles * (size_t)values, sizeof *picture->pixels);
    return picture->pixels ? VL_OK : vl_fail_nomem(err, "pixel values");
}

static int count(const char *text, const char *token)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, token)); at += strlen(token))
        n++;
    return n;
}

vl_status vl_picture_expand(vl_str *out, const vl_picture_rules *rules, const void *settings, const char *text,
                            const vl_picture *pictures, int n, vl_error *err)
{
    const int written = count(text, rules->placeholder);
    if (written != n)
        return vl_fail(err, VL_EINVAL, "prompt has %d image tokens (%s) for %d images", written, rules->placeholder, n);
    for (int i = 0; i < n; i++) {
        const char *at = strstr(text, rules->placeholder);
        vl_str_append(out, text, (size_t)(at - text));
        rules->expand(out, settings, &pictures[i]);
        text = at + strlen(rules->placeholder);
    }
    vl_str_puts(out, text);
    return out->failed ? vl_fail_nomem(err, "prompt") : VL_OK;
}

void vl_str_repeat(vl_str *out, const char *text, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        vl_str_puts(out, text);
}

vl_box vl_box_part(vl_box box, double x0, double y0, double x1, double y1)
{
    const double w = box.x1 - box.x0, h = box.y1 - box.y0;
    return (vl_box){box.x0 + x0 * w, box.y0 + y0 * h, box.x0 + x1 * w, box.y0 + y1 * h};
}

vl_box vl_box_whole(vl_size size)
{
    return (vl_box){0, 0, size.width, size.height};
}
