/* The data format of the logit lens widgets, version 2 (github.com/davidbau/logitlenskit, docs/DATA_FORMAT.md):
 * token texts in `topk` [layer][position][rank], and per position each text's probability at every layer. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/view/json_text.h"
#include "trainer/view/reading.h"

/* A text as a key: jansson refuses what is no UTF-8, so the same mending as for values. */
static void set(json_t *object, const char *key, json_t *value)
{
    json_t *text = vl_json_text(key);
    json_object_set_new(object, json_string_value(text), value);
    json_decref(text);
}

static float peak(const float *p, int64_t n)
{
    float best = 0;
    for (int64_t s = 0; s < n; s++)
        best = fmaxf(best, p[s]);
    return best;
}

/* Two tokens may have the same text (broken bytes): the one that is likelier somewhere stands for both. */
static json_t *tracked(const vl_reading *r, int64_t index)
{
    const vl_trajectories *t = &r->trajectories[index];
    json_t *object = json_object(), *peaks = json_object();
    for (int64_t j = 0; j < t->n; j++) {
        const float *p = t->probability + j * r->n_states;
        json_t *key = vl_json_text(vl_reading_piece(r, t->ids[j])), *path = json_array();
        const json_t *other = json_object_get(peaks, json_string_value(key));
        for (int64_t s = 0; s < r->n_states; s++)
            json_array_append_new(path, isfinite(p[s]) ? json_real((double)p[s]) : json_null());
        float highest = peak(p, r->n_states);
        if (!other || json_real_value(other) < (double)highest) {
            set(peaks, json_string_value(key), json_real((double)highest));
            set(object, json_string_value(key), path);
        } else {
            json_decref(path);
        }
        json_decref(key);
    }
    json_decref(peaks);
    return object;
}

static json_t *top(const vl_reading *r, int64_t state)
{
    json_t *positions = json_array();
    for (int64_t i = 0; i < r->n_positions; i++) {
        vl_reading_cell cell = vl_reading_get_cell(r, i, state, r->has_lens);
        json_t *texts = json_array();
        for (int64_t j = 0; j < r->k; j++)
            json_array_append_new(texts, vl_json_text(vl_reading_piece(r, cell.ids[j])));
        json_array_append_new(positions, texts);
    }
    return positions;
}

static json_t *entropies(const vl_reading *r, int64_t state)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < r->n_positions; i++) {
        float x = vl_reading_get_cell(r, i, state, r->has_lens).entropy;
        json_array_append_new(list, isfinite(x) ? json_real((double)x) : json_null());
    }
    return list;
}

vl_status vl_reading_json_v2(char **out, const vl_reading *r, vl_error *err)
{
    *out = NULL;
    if (!r->trajectories)
        return vl_fail(err, VL_EINVAL, "json-v2 needs a reading with trajectories");
    char stamp[32];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &utc);
    json_t *layers = json_array(), *input = json_array(), *paths = json_array(), *topk = json_array();
    json_t *entropy = json_array();
    for (int64_t s = 0; s < r->n_states; s++) {
        json_array_append_new(layers, json_integer((json_int_t)s));
        json_array_append_new(topk, top(r, s));
        json_array_append_new(entropy, entropies(r, s));
    }
    for (int64_t i = 0; i < r->n_positions; i++) {
        json_array_append_new(input, vl_json_text(r->positions[i].piece));
        json_array_append_new(paths, tracked(r, i));
    }
    json_t *root = json_pack("{s:{s:i, s:s, s:o, s:s}, s:o, s:o, s:o, s:o, s:o}", "meta", "version", 2, "timestamp",
                             stamp, "model", vl_json_text(r->model_id), "lens", r->has_lens ? "tuned" : "logit",
                             "layers", layers, "input", input, "tracked", paths, "topk", topk, "entropy", entropy);
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    *out = text;
    return text ? VL_OK : vl_fail_nomem(err, "JSON of a reading");
}
