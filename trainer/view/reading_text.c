/* A reading as table, JSON and CSV. */
#include <math.h>
#include <string.h>
#include <utf8proc.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/base/str.h"
#include "trainer/view/json_text.h"
#include "trainer/view/reading.h"

enum { TOKEN_WIDTH = 9 };

void vl_put_token(vl_str *out, const char *piece, int width)
{
    int used = 0;
    const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)piece;
    while (*at) {
        utf8proc_int32_t point;
        utf8proc_ssize_t n = utf8proc_iterate(at, -1, &point);
        const char *shown = NULL;
        int columns = 1;
        if (n <= 0 || point < 0) {
            n = 1;
            shown = "?";
        } else if (point == ' ') {
            shown = "\xc2\xb7"; /* middle dot: a space that can be seen */
        } else if (point == '\n') {
            shown = "\\n";
            columns = 2;
        } else if (utf8proc_category(point) == UTF8PROC_CATEGORY_CC ||
                   utf8proc_category(point) == UTF8PROC_CATEGORY_CF) {
            shown = "?";
        } else {
            columns = utf8proc_charwidth(point);
        }
        if (used + columns > width - (at[n] ? 1 : 0) && used + columns > width - 1 && at[n]) {
            vl_str_puts(out, "\xe2\x80\xa6"); /* an ellipsis for what does not fit */
            used++;
            break;
        }
        if (used + columns > width)
            break;
        if (shown)
            vl_str_puts(out, shown);
        else
            vl_str_append(out, (const char *)at, (size_t)n);
        used += columns;
        at += n;
    }
    vl_str_printf(out, "%*s", width > used ? width - used : 0, "");
}

/* How a table is laid out for the columns that there are. */
typedef struct table {
    const vl_reading *r;
    int64_t index, k; /* position; tokens a cell */
    bool beside;      /* both lenses in one line; else one under the other */
    bool colour;
} table;

enum { STATE_WIDTH = 7, KL_WIDTH = 6, ENTRY_WIDTH = TOKEN_WIDTH + 6, BETWEEN = 3 };

static table lay_out(const vl_reading *r, int64_t index, const vl_table_options *options)
{
    table t = {r, index, r->k, r->has_lens, options && options->colour};
    int64_t columns = options ? options->columns : 0, lens = r->k * ENTRY_WIDTH + KL_WIDTH;
    if (columns <= 0 || STATE_WIDTH + lens + (r->has_lens ? BETWEEN + lens : 0) <= columns)
        return t;
    t.beside = false;
    if (STATE_WIDTH + lens > columns)
        t.k = (columns - STATE_WIDTH - KL_WIDTH) / ENTRY_WIDTH;
    t.k = t.k < 1 ? 1 : t.k;
    return t;
}

/* What is likely stands out, what is not steps back. */
static void put_cell(vl_str *out, const table *t, int64_t state, bool tuned)
{
    vl_reading_cell cell = vl_reading_get_cell(t->r, t->index, state, tuned);
    for (int64_t j = 0; j < t->k; j++) {
        float p = cell.probability[j];
        const char *style = !t->colour ? "" : p >= 0.5f ? "\033[1m" : p < 0.05f ? "\033[2m" : "";
        vl_str_puts(out, style);
        vl_put_token(out, vl_reading_piece(t->r, cell.ids[j]), TOKEN_WIDTH);
        vl_str_printf(out, " %.2f ", (double)p);
        vl_str_puts(out, *style ? "\033[0m" : "");
    }
    vl_str_printf(out, "%*.2f", KL_WIDTH, (double)cell.kl);
}

static vl_status hand_over(char **out, vl_str *text, vl_error *err)
{
    if (text->failed) {
        vl_str_clear(text);
        return vl_fail_nomem(err, "text of a reading");
    }
    *out = text->data;
    return VL_OK;
}

static void put_rows(vl_str *out, const table *t, bool tuned)
{
    for (int64_t s = 0; s < t->r->n_states; s++) {
        vl_str_printf(out, "\n%5lld  ", (long long)s);
        put_cell(out, t, s, tuned);
        if (t->beside) {
            vl_str_puts(out, " | ");
            put_cell(out, t, s, true);
        }
    }
}

vl_status vl_reading_table(char **out, const vl_reading *r, int64_t index, const vl_table_options *options,
                           vl_error *err)
{
    bool narrow = options && options->columns > 0 && options->columns < 64;
    const char *legend = narrow ? "(p; KL in nats)" : "(token, probability; last column KL in nats)";
    vl_str text = VL_STR_INIT;
    vl_reading_position p = vl_reading_get_position(r, index);
    table t = lay_out(r, index, options);
    int width = (int)t.k * ENTRY_WIDTH + KL_WIDTH;
    *out = NULL;
    vl_str_printf(&text, "position %lld (%s), token ", (long long)p.position, vl_token_class_name(p.token_class));
    vl_put_token(&text, p.piece, 24);
    if (t.k < r->k)
        vl_str_printf(&text, "\n%lld of %lld tokens fit into %d columns", (long long)t.k, (long long)r->k,
                      options->columns);
    if (t.beside) {
        char head[80];
        snprintf(head, sizeof head, "logit lens %s", legend);
        vl_str_printf(&text, "\nstate  %-*s | tuned lens", width, head);
        put_rows(&text, &t, false);
    } else {
        vl_str_printf(&text, "\nstate  logit lens %s", legend);
        put_rows(&text, &t, false);
        vl_str_puts(&text, r->has_lens ? "\nstate  tuned lens" : "");
        if (r->has_lens)
            put_rows(&text, &t, true);
    }
    vl_str_putc(&text, '\n');
    if (r->warning[0])
        vl_str_printf(&text, "warning: %s\n", r->warning);
    return hand_over(out, &text, err);
}

/* JSON has no word for what is not finite. */
static json_t *number_json(float x)
{
    return isfinite(x) ? json_real((double)x) : json_null();
}

static json_t *cell_json(const vl_reading *r, int64_t index, int64_t state, bool tuned)
{
    vl_reading_cell cell = vl_reading_get_cell(r, index, state, tuned);
    json_t *top = json_array();
    for (int64_t j = 0; j < r->k; j++)
        json_array_append_new(top, json_pack("{s:i, s:o, s:o}", "id", cell.ids[j], "token",
                                             vl_json_text(vl_reading_piece(r, cell.ids[j])), "p",
                                             number_json(cell.probability[j])));
    json_t *json =
        json_pack("{s:o, s:o, s:o}", "kl", number_json(cell.kl), "entropy", number_json(cell.entropy), "top", top);
    json_t *tracked = r->n_tracked ? json_array() : NULL;
    for (int64_t j = 0; j < r->n_tracked; j++)
        json_array_append_new(tracked, number_json(cell.tracked[j]));
    if (tracked)
        json_object_set_new(json, "tracked", tracked);
    return json;
}

/* What a position takes from the pictures, block by block: the share of each tile, and of all class rows. */
static json_t *attention_json(const vl_attention_map *map, int64_t index)
{
    json_t *blocks = json_array();
    for (int b = 0; b < map->n_layers; b++) {
        const float *w = map->weights + (b * map->n_positions + index) * map->n_keys;
        json_t *tiles = json_array();
        double class_rows = 0;
        for (int64_t first = 0; first < map->n_keys; first += map->rows_of_tile) {
            double sum = 0;
            for (int64_t i = 0; i < map->rows_of_tile; i++)
                sum += (double)w[first + i];
            class_rows += (double)w[first];
            json_array_append_new(tiles, json_real(sum));
        }
        json_array_append_new(
            blocks, json_pack("{s:i, s:o, s:f}", "block", map->layers[b], "tiles", tiles, "class_rows", class_rows));
    }
    return blocks;
}

vl_status vl_reading_json(char **out, const vl_reading *r, vl_error *err)
{
    json_t *positions = json_array();
    for (int64_t i = 0; i < r->n_positions; i++) {
        vl_reading_position p = vl_reading_get_position(r, i);
        json_t *states = json_array();
        for (int64_t s = 0; s < r->n_states; s++) {
            json_t *state = json_pack("{s:I, s:o}", "state", (json_int_t)s, "logit", cell_json(r, i, s, false));
            if (r->has_lens)
                json_object_set_new(state, "tuned", cell_json(r, i, s, true));
            json_array_append_new(states, state);
        }
        json_t *position =
            json_pack("{s:I, s:i, s:o, s:s, s:i, s:[i, i, i], s:o}", "position", (json_int_t)p.position, "id", p.id,
                      "token", vl_json_text(p.piece), "class", vl_token_class_name(p.token_class), "image", p.image,
                      "patch", p.patch[0], p.patch[1], p.patch[2], "states", states);
        if (r->attention.n_layers)
            json_object_set_new(position, "attention", attention_json(&r->attention, i));
        if (r->n_parts > 1)
            json_object_set_new(position, "part", json_integer(p.part));
        json_array_append_new(positions, position);
    }
    json_t *root =
        json_pack("{s:s, s:i, s:o, s:o, s:s, s:I, s:I, s:b, s:o}", "format", "vlens-topk", "version", 1, "model",
                  vl_json_text(r->model_id), "prompt", vl_json_text(r->prompt), "warning", r->warning, "n_states",
                  (json_int_t)r->n_states, "k", (json_int_t)r->k, "has_lens", r->has_lens, "positions", positions);
    json_t *tracked = json_array();
    for (int64_t j = 0; j < r->n_tracked; j++)
        json_array_append_new(tracked, json_pack("{s:i, s:o}", "id", r->tracked[j], "token",
                                                 vl_json_text(vl_reading_piece(r, r->tracked[j]))));
    json_object_set_new(root, "tracked", tracked);
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    *out = text;
    return text ? VL_OK : vl_fail_nomem(err, "JSON of a reading");
}

/* RFC 4180: quoted, quotes doubled. */
static void put_csv_text(vl_str *out, const char *text)
{
    vl_str_putc(out, '"');
    for (; *text; text++) {
        if (*text == '"')
            vl_str_putc(out, '"');
        vl_str_putc(out, *text);
    }
    vl_str_putc(out, '"');
}

vl_status vl_reading_csv(char **out, const vl_reading *r, vl_error *err)
{
    vl_str text = VL_STR_INIT;
    *out = NULL;
    vl_str_puts(&text, "position,state,lens,rank,id,token,probability,kl,entropy\n");
    for (int64_t i = 0; i < r->n_positions; i++)
        for (int64_t s = 0; s < r->n_states; s++)
            for (int tuned = 0; tuned <= r->has_lens; tuned++) {
                vl_reading_cell cell = vl_reading_get_cell(r, i, s, tuned);
                for (int64_t j = 0; j < r->k; j++) {
                    vl_str_printf(&text, "%lld,%lld,%s,%lld,%d,", (long long)r->positions[i].position, (long long)s,
                                  tuned ? "tuned" : "logit", (long long)j, cell.ids[j]);
                    put_csv_text(&text, vl_reading_piece(r, cell.ids[j]));
                    vl_str_printf(&text, ",%.9g,%.9g,%.9g\n", (double)cell.probability[j], (double)cell.kl,
                                  (double)cell.entropy);
                }
            }
    return hand_over(out, &text, err);
}
