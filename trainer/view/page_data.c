#include "trainer/view/page_data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/base/version.h"
#include "trainer/view/base64.h"
#include "trainer/view/json_text.h"
#include "trainer/image/png.h"
#include "trainer/view/template.h"

/* ---- bytes ------------------------------------------------------------------------------------------------- */

/* A growing array of little-endian integers that becomes a JSON string. */
typedef struct packed {
    uint8_t *bytes;
    size_t n;
} packed;

static void put_integer(packed *p, uint32_t value, int width)
{
    for (int i = 0; i < width; i++)
        p->bytes[p->n++] = (uint8_t)(value >> 8 * i);
}

static json_t *packed_json(const packed *p)
{
    vl_str text = VL_STR_INIT;
    vl_base64_put(&text, p->bytes, p->n);
    json_t *json = text.failed ? NULL : json_string(text.data ? text.data : "");
    vl_str_clear(&text);
    return json;
}

/* ---- numbers ----------------------------------------------------------------------------------------------- */

uint16_t vl_page_code(float value, int lowest)
{
    char text[40];
    if (!isfinite(value))
        return VL_PAGE_NOT_FINITE;
    if (value <= 0)
        return 0;
    /* through nine digits first, as JSON has them: then rounding the JSON gives the page */
    snprintf(text, sizeof text, "%.9g", (double)value);
    snprintf(text, sizeof text, "%.3e", strtod(text, NULL)); /* d.ddde+xx */
    int mantissa = (text[0] - '0') * 1000 + (text[2] - '0') * 100 + (text[3] - '0') * 10 + (text[4] - '0');
    long code = 1 + (strtol(text + 6, NULL, 10) - lowest) * 9000 + mantissa - 1000;
    return code < 1 ? 0 : code >= VL_PAGE_NOT_FINITE ? VL_PAGE_NOT_FINITE : (uint16_t)code;
}

uint8_t vl_page_weight_code(float weight)
{
    double code = 1 + 254 * (log10((double)weight) + 6) / 6;
    return !(weight > 0) || code < 0.5 ? 0 : (uint8_t)fmin(fmax(lrint(code), 1), 255);
}

static json_t *attention_json(const vl_attention_map *map)
{
    size_t n = (size_t)map->n_layers * (size_t)map->n_positions * (size_t)map->n_keys;
    packed weights = {vl_alloc(n, 1), 0};
    json_t *layers = json_array();
    for (int i = 0; i < map->n_layers; i++)
        json_array_append_new(layers, json_integer(map->layers[i]));
    for (size_t i = 0; weights.bytes && i < n; i++)
        put_integer(&weights, vl_page_weight_code(map->weights[i]), 1);
    json_t *json = json_pack("{s:o, s:i, s:i, s:i, s:o}", "layers", layers, "tiles", map->n_tiles, "rows", map->rows,
                             "columns", map->columns, "weights", weights.bytes ? packed_json(&weights) : NULL);
    vl_free(weights.bytes);
    return json;
}

static json_t *cells_json(const vl_reading *r, bool tuned, const int32_t *index, int index_bytes)
{
    size_t cells = (size_t)r->n_positions * (size_t)r->n_states, entries = cells * (size_t)r->k;
    packed top = {vl_alloc(entries, (size_t)index_bytes), 0}, p = {vl_alloc(entries, 2), 0};
    packed entropy = {vl_alloc(cells, 2), 0}, kl = {vl_alloc(cells, 2), 0};
    packed tracked = {vl_alloc(cells * (size_t)r->n_tracked + 1, 2), 0};
    json_t *json = NULL;
    if (top.bytes && p.bytes && entropy.bytes && kl.bytes && tracked.bytes) {
        for (int64_t i = 0; i < r->n_positions; i++)
            for (int64_t s = 0; s < r->n_states; s++) {
                vl_reading_cell cell = vl_reading_get_cell(r, i, s, tuned);
                for (int64_t j = 0; j < r->k; j++) {
                    put_integer(&top, (uint32_t)index[cell.ids[j]], index_bytes);
                    put_integer(&p, vl_page_code(cell.probability[j], VL_PAGE_LOWEST_P), 2);
                }
                put_integer(&entropy, vl_page_code(cell.entropy, VL_PAGE_LOWEST_NATS), 2);
                put_integer(&kl, vl_page_code(cell.kl, VL_PAGE_LOWEST_NATS), 2);
                for (int64_t j = 0; j < r->n_tracked; j++)
                    put_integer(&tracked, vl_page_code(cell.tracked[j], VL_PAGE_LOWEST_P), 2);
            }
        json = json_pack("{s:o, s:o, s:o, s:o, s:o}", "top", packed_json(&top), "p", packed_json(&p), "entropy",
                         packed_json(&entropy), "kl", packed_json(&kl), "tracked", packed_json(&tracked));
    }
    vl_free(top.bytes);
    vl_free(p.bytes);
    vl_free(entropy.bytes);
    vl_free(kl.bytes);
    vl_free(tracked.bytes);
    return json;
}

/* ---- tokens, positions, pictures --------------------------------------------------------------------------- */

/* Numbers the tokens that are tracked, then those that occur in a cell: index is [vocab_size]. Returns how many. */
static int32_t number_tokens(int32_t *index, const vl_reading *r, json_t *texts, json_t *ids)
{
    size_t entries = (size_t)(1 + r->has_lens) * (size_t)r->n_positions * (size_t)r->n_states * (size_t)r->k;
    size_t tracked = (size_t)r->n_tracked;
    int32_t n = 0;
    for (int64_t i = 0; i < r->vocab_size; i++)
        index[i] = -1;
    for (size_t i = 0; i < tracked + entries; i++) {
        int32_t id = i < tracked ? r->tracked[i] : r->ids[i - tracked];
        if (index[id] >= 0)
            continue;
        index[id] = n++;
        json_array_append_new(texts, vl_json_text(vl_reading_piece(r, id)));
        json_array_append_new(ids, json_integer(id));
    }
    return n;
}

static json_t *positions_json(const vl_reading *r)
{
    json_t *positions = json_array();
    for (int64_t i = 0; i < r->n_positions; i++) {
        const vl_reading_position *p = &r->positions[i];
        json_array_append_new(positions, json_pack("{s:I, s:i, s:i, s:o, s:s, s:i, s:[i, i, i]}", "position",
                                                   (json_int_t)p->position, "part", p->part, "id", p->id, "token",
                                                   vl_json_text(p->piece), "class", vl_token_class_name(p->token_class),
                                                   "image", p->image, "patch", p->patch[0], p->patch[1], p->patch[2]));
    }
    return positions;
}

static json_t *tiles_json(const vl_picture *p)
{
    json_t *tiles = json_array();
    for (int i = 0; i < p->n_tiles; i++) {
        const vl_picture_tile *t = &p->tiles[i];
        json_array_append_new(tiles, json_pack("{s:i, s:i, s:[f, f, f, f]}", "rows", t->rows, "columns", t->columns,
                                               "box", t->left, t->top, t->width, t->height));
    }
    return tiles;
}

static vl_status picture_json(json_t **out, const vl_picture *p, vl_error *err)
{
    vl_str uri = VL_STR_INIT;
    if (p->rgb) {
        uint8_t *png;
        size_t n;
        VL_TRY(vl_png_encode(&png, &n, p->rgb, p->width, p->height, err));
        vl_str_puts(&uri, "data:image/png;base64,");
        vl_base64_put(&uri, png, n);
        vl_free(png);
    }
    if (!uri.failed)
        *out = json_pack("{s:i, s:i, s:i, s:o, s:i, s:i, s:f, s:f, s:o, s:s}", "image", p->image, "width", p->width,
                         "height", p->height, "tiles", tiles_json(p), "tiles_high", p->tiles_high, "tiles_wide",
                         p->tiles_wide, "cover_width", p->cover_width, "cover_height", p->cover_height, "note",
                         vl_json_text(p->note), "src", uri.data ? uri.data : "");
    vl_str_clear(&uri);
    return *out ? VL_OK : vl_fail_nomem(err, "picture of a page");
}

static vl_status pictures_json(json_t **out, const vl_reading *r, vl_error *err)
{
    *out = json_array();
    for (int i = 0; i < r->pictures.n; i++) {
        json_t *one = NULL;
        VL_TRY(picture_json(&one, &r->pictures.items[i], err));
        json_array_append_new(*out, one);
    }
    return VL_OK;
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

static vl_status fill(json_t *root, const vl_reading *r, vl_error *err)
{
    json_t *vocab = json_array(), *ids = json_array(), *pictures = NULL;
    int32_t *index = vl_alloc((size_t)r->vocab_size, sizeof *index);
    int bad = json_object_set_new(root, "vocab", vocab) | json_object_set_new(root, "ids", ids);
    if (!index || bad) {
        vl_free(index);
        return vl_fail_nomem(err, "page");
    }
    int width = number_tokens(index, r, vocab, ids) > 65535 ? 4 : 2;
    bad = json_object_set_new(root, "index_bytes", json_integer(width));
    bad |= json_object_set_new(root, "logit", cells_json(r, false, index, width));
    if (r->has_lens)
        bad |= json_object_set_new(root, "tuned", cells_json(r, true, index, width));
    if (r->trajectories)
        bad |= json_object_set_new(root, "paths",
                                   json_pack("{s:o}", r->has_lens ? "tuned" : "logit", vl_page_paths(r, index, width)));
    if (r->attention.n_layers)
        bad |= json_object_set_new(root, "attention", attention_json(&r->attention));
    json_t *tracked = json_array(); /* indices into vocab */
    for (int64_t j = 0; j < r->n_tracked; j++)
        json_array_append_new(tracked, json_integer(index[r->tracked[j]]));
    bad |= json_object_set_new(root, "tracked", tracked);
    vl_free(index);
    bad |= json_object_set_new(root, "positions", positions_json(r));
    vl_status status = pictures_json(&pictures, r, err);
    bad |= json_object_set_new(root, "pictures", pictures);
    if (status == VL_OK && bad)
        return vl_fail_nomem(err, "JSON of a reading");
    return status;
}

static json_t *links_json(const vl_page_links *links)
{
    return json_pack("{s:s?, s:s?, s:s?}", "index", links->index, "previous", links->previous, "next", links->next);
}

vl_status vl_page_data(vl_str *out, const vl_reading *r, const vl_page_links *links, vl_error *err)
{
    json_t *root =
        json_pack("{s:s, s:i, s:s, s:o, s:o, s:o, s:o, s:s, s:I, s:I, s:b, s:i, s:i}", "format", "vlens-page",
                  "version", 1, "vlens", VLENS_VERSION, "model", vl_json_text(r->model_id), "lens",
                  vl_json_text(r->lens_path), "prompt", vl_json_text(r->prompt), "answer", vl_json_text(r->answer),
                  "warning", r->warning, "n_states", (json_int_t)r->n_states, "k", (json_int_t)r->k, "has_lens",
                  r->has_lens, "lowest_p", VL_PAGE_LOWEST_P, "lowest_nats", VL_PAGE_LOWEST_NATS);
    if (!root)
        return vl_fail_nomem(err, "page");
    vl_status status = fill(root, r, err);
    if (status == VL_OK && links && json_object_set_new(root, "study", links_json(links)) != 0)
        status = vl_fail_nomem(err, "page");
    char *text = status == VL_OK ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (status == VL_OK && !text)
        return vl_fail_nomem(err, "page");
    if (text)
        vl_template_put_json(out, text);
    vl_free(text);
    return status;
}
