/* The result of an evaluation as aligned text and as JSON. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/base/str.h"
#include "trainer/eval/transfer.h"

/* ---- text -------------------------------------------------------------------------------------------------- */

static void put_number(vl_str *out, double value, int width, int digits)
{
    if (isnan(value))
        vl_str_printf(out, "%*s", width, "-");
    else
        vl_str_printf(out, "%*.*f", width, digits, value);
}

static bool shows(const vl_eval_result *r, vl_metric metric)
{
    return r->metrics & 1u << metric;
}

static void put_kl_header(vl_str *out, const vl_eval_result *r, int group)
{
    const vl_eval_group *info = &r->group_info[group];
    vl_str_printf(out, "\nclass %s: %lld rows of %lld %s, KL(model || lens) in nats\n", info->name,
                  (long long)info->rows, (long long)info->clusters, r->has_pictures ? "pictures" : "samples");
    vl_str_printf(out, "%5s %8s", "state", "logit");
    if (r->has_baseline)
        vl_str_printf(out, " %8s", "baseline");
    vl_str_printf(out, " %8s  %-23s", "tuned", "logit - tuned [95 %]");
    if (r->has_baseline)
        vl_str_printf(out, "  %-23s", "baseline - tuned [95 %]");
    if (info->wrong_picture_rows)
        vl_str_printf(out, " %9s", "wrong pic");
    for (vl_metric m = VL_METRIC_CE; m < VL_METRIC_COLUMNS; m++)
        if (shows(r, m))
            vl_str_printf(out, " %7s", vl_metric_name(m));
    vl_str_putc(out, '\n');
}

/* A difference with its interval; small ones with a digit more, so that one sees on which side of 0 they lie. */
static void put_gain(vl_str *out, vl_estimate e)
{
    char text[64];
    int digits = fabs(e.mean) < 0.1 ? 4 : 3;
    if (isnan(e.mean))
        snprintf(text, sizeof text, "-");
    else if (isnan(e.low))
        snprintf(text, sizeof text, "%.*f", digits, e.mean);
    else
        snprintf(text, sizeof text, "%.*f [%.*f, %.*f]", digits, e.mean, digits, e.low, digits, e.high);
    vl_str_printf(out, "  %-23s", text);
}

static void put_state(vl_str *out, const vl_eval_result *r, int group, int64_t state)
{
    vl_eval_cell tuned = vl_eval_get_cell(r, group, state, VL_EVAL_TUNED);
    vl_str_printf(out, "%5lld", (long long)state);
    put_number(out, vl_eval_get_cell(r, group, state, VL_EVAL_LOGIT).kl.mean, 9, 4);
    if (r->has_baseline)
        put_number(out, vl_eval_get_cell(r, group, state, VL_EVAL_BASELINE).kl.mean, 9, 4);
    put_number(out, tuned.kl.mean, 9, 4);
    put_gain(out, vl_eval_get_gain(r, group, state, VL_EVAL_LOGIT));
    if (r->has_baseline)
        put_gain(out, vl_eval_get_gain(r, group, state, VL_EVAL_BASELINE));
    if (r->group_info[group].wrong_picture_rows)
        put_number(out, vl_eval_get_cell(r, group, state, VL_EVAL_WRONG_PICTURE).kl.mean, 10, 4);
    for (vl_metric m = VL_METRIC_CE; m < VL_METRIC_COLUMNS; m++)
        if (shows(r, m))
            put_number(out, tuned.metric[m], 8, m == VL_METRIC_RANK ? 1 : m >= VL_METRIC_BIAS ? 4 : 3);
    vl_str_putc(out, '\n');
}

static int64_t left_out(const vl_eval_result *r, int64_t state, vl_eval_lens lens)
{
    return r->left_out ? r->left_out[state * VL_EVAL_LENS_COUNT + (int64_t)lens] : 0;
}

static void put_left_out(vl_str *out, const vl_eval_result *r)
{
    for (int64_t s = 0; s <= r->n_layers; s++)
        for (vl_eval_lens lens = 0; lens < VL_EVAL_LENS_COUNT; lens++)
            if (left_out(r, s, lens))
                vl_str_printf(out, "Left out at state %lld, %s: %lld rows whose numbers are not finite.\n",
                              (long long)s, vl_eval_lens_name(lens), (long long)left_out(r, s, lens));
}

static void put_depth(vl_str *out, const vl_eval_result *r, int group)
{
    vl_str_puts(out, "prediction depth:");
    for (vl_eval_lens lens = 0; lens < VL_EVAL_LENS_COUNT; lens++) {
        vl_estimate e = vl_eval_get_depth(r, group, lens);
        if (!isnan(e.mean))
            vl_str_printf(out, " %s %.2f", vl_eval_lens_name(lens), e.mean);
        if (!isnan(e.low))
            vl_str_printf(out, " [%.2f, %.2f]", e.low, e.high);
    }
    vl_str_putc(out, '\n');
}

static vl_status hand_over(char **out, vl_str *text, vl_error *err)
{
    if (text->failed) {
        vl_str_clear(text);
        return vl_fail_nomem(err, "text of a result");
    }
    *out = text->data;
    return VL_OK;
}

vl_status vl_eval_table(char **out, const vl_eval_result *r, vl_error *err)
{
    vl_str text = VL_STR_INIT;
    *out = NULL;
    if (r->other_model)
        vl_str_puts(&text, "Warning: the lens was fitted for another model.\n");
    if (r->heldout && r->seen.seen > 0)
        vl_str_printf(&text, "Warning: %lld of %lld held-out %s were in this lens' training split (--allow-seen).\n",
                      (long long)r->seen.seen, (long long)r->seen.of, r->seen.pictures ? "pictures" : "samples");
    if (!r->heldout)
        vl_str_puts(&text, "Rows that the lens was fitted on (eval.split: train): no measure of how good it is.\n");
    for (int g = 0; g < r->n_groups; g++) {
        if (r->group[g] >= VL_GROUP_ANSWER_1)
            continue; /* parts of a class: in the short table alone */
        put_kl_header(&text, r, g);
        for (int64_t s = 0; s <= r->n_layers; s++)
            put_state(&text, r, g, s);
        put_depth(&text, r, g);
    }
    vl_status status = vl_transfer_put(&text, r, err);
    if (status != VL_OK) {
        vl_str_clear(&text);
        return status;
    }
    vl_str_printf(
        &text,
        "\nState %lld is the model itself. The columns on the right are the tuned lens'; intervals are over %s.\n",
        (long long)r->n_layers, r->has_pictures ? "pictures" : "samples");
    vl_str_puts(&text, "Prediction depth: mean first state from which on the lens' first token stays the model's.\n");
    if (r->heldout && !r->seen.known)
        vl_str_puts(&text, "What the lens was fitted on is unknown: whether these rows were among it, too.\n");
    put_left_out(&text, r);
    if (r->has_baseline)
        vl_str_printf(&text, "baseline: %s\n", r->baseline_path);
    if (r->n_skipped)
        vl_str_printf(&text, "%lld samples of the data were left out: skipped.jsonl of the cache has the reasons.\n",
                      (long long)r->n_skipped);
    if (r->wrong_rows)
        vl_str_puts(&text,
                    "wrong pic: states of one picture against the model's distribution for another with the same "
                    "prompt.\n");
    return hand_over(out, &text, err);
}

/* ---- JSON -------------------------------------------------------------------------------------------------- */

/* JSON has no NaN: an absent value is null. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *estimate_json(vl_estimate e)
{
    return json_pack("{s:o, s:o, s:o}", "mean", number(e.mean), "low", number(e.low), "high", number(e.high));
}

static json_t *cell_json(const vl_eval_result *r, int group, int64_t state, vl_eval_lens lens)
{
    vl_eval_cell cell = vl_eval_get_cell(r, group, state, lens);
    json_t *object = json_object();
    json_object_set_new(object, "rows", json_integer(cell.rows));
    json_object_set_new(object, "kl", number(cell.kl.mean));
    json_object_set_new(object, "kl_low", number(cell.kl.low));
    json_object_set_new(object, "kl_high", number(cell.kl.high));
    for (vl_metric m = VL_METRIC_CE; m < VL_METRIC_COLUMNS; m++)
        if (m < VL_METRIC_COUNT || shows(r, m))
            json_object_set_new(object, vl_metric_name(m), number(cell.metric[m]));
    if (lens == VL_EVAL_LOGIT || lens == VL_EVAL_BASELINE)
        json_object_set_new(object, "minus_tuned", estimate_json(vl_eval_get_gain(r, group, state, lens)));
    return object;
}

static json_t *group_json(const vl_eval_result *r, int group)
{
    const vl_eval_group *info = &r->group_info[group];
    json_t *object = json_pack("{s:s, s:I, s:I, s:I}", "class", info->name, "rows", (json_int_t)info->rows, "clusters",
                               (json_int_t)info->clusters, "wrong_picture_rows", (json_int_t)info->wrong_picture_rows);
    json_t *states = json_array();
    for (int64_t s = 0; s <= r->n_layers; s++) {
        json_t *state = json_pack("{s:I}", "state", (json_int_t)s);
        for (vl_eval_lens lens = 0; lens < VL_EVAL_LENS_COUNT; lens++)
            if (vl_eval_get_cell(r, group, s, lens).rows)
                json_object_set_new(state, vl_eval_lens_name(lens), cell_json(r, group, s, lens));
        json_array_append_new(states, state);
    }
    json_object_set_new(object, "states", states);
    json_t *depth = json_object();
    for (vl_eval_lens lens = 0; lens < VL_EVAL_LENS_COUNT; lens++)
        if (!isnan(vl_eval_get_depth(r, group, lens).mean))
            json_object_set_new(depth, vl_eval_lens_name(lens), estimate_json(vl_eval_get_depth(r, group, lens)));
    json_object_set_new(object, "prediction_depth", depth);
    return object;
}

/* Means over the states 0..L-1. */
static json_t *transfer_json(const vl_eval_result *r, const vl_transfer *t)
{
    json_t *object = json_object();
    for (vl_eval_lens lens = VL_EVAL_LOGIT; lens <= VL_EVAL_BASELINE; lens++) {
        char name[48];
        if (lens == VL_EVAL_BASELINE && !r->has_baseline)
            continue;
        json_object_set_new(object, vl_eval_lens_name(lens), estimate_json(t->kl[lens]));
        snprintf(name, sizeof name, "%s_minus_tuned", vl_eval_lens_name(lens));
        if (lens != VL_EVAL_TUNED)
            json_object_set_new(object, name, estimate_json(t->gain[lens]));
    }
    return object;
}

/* What is held out and was in the lens' training split; null where the lens does not know. */
static json_t *seen_json(const vl_eval_result *r)
{
    const vl_lens_seen *seen = &r->seen;
    if (!seen->known)
        return json_null();
    return json_pack("{s:s, s:I, s:I}", "unit", seen->pictures ? "pictures" : "samples", "seen", (json_int_t)seen->seen,
                     "of", (json_int_t)seen->of);
}

/* Rows whose numbers are not finite, by state and lens; empty as it should be. */
static json_t *left_out_json(const vl_eval_result *r)
{
    json_t *list = json_array();
    for (int64_t s = 0; s <= r->n_layers; s++)
        for (vl_eval_lens lens = 0; lens < VL_EVAL_LENS_COUNT; lens++)
            if (left_out(r, s, lens))
                json_array_append_new(list,
                                      json_pack("{s:I, s:s, s:I}", "state", (json_int_t)s, "lens",
                                                vl_eval_lens_name(lens), "rows", (json_int_t)left_out(r, s, lens)));
    return list;
}

vl_status vl_eval_json(char **out, const vl_eval_result *r, vl_error *err)
{
    json_t *root =
        json_pack("{s:s, s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:I, s:s, s:I, s:I, s:s}", "format", "vlens-eval",
                  "version", 1, "vlens_version", r->version, "model", r->model_id, "fingerprint", r->fingerprint,
                  "lens_fingerprint", r->lens_fingerprint, "lens", r->lens_path, "cache", r->cache_path, "other_model",
                  r->other_model, "n_layers", (json_int_t)r->n_layers, "split", r->heldout ? "heldout" : "train",
                  "bootstrap", (json_int_t)r->bootstrap.resamples, "bootstrap_seed", (json_int_t)r->bootstrap.seed,
                  "baseline", r->baseline_path);
    json_t *groups = json_array();
    json_object_set_new(root, "digest", json_string(r->digest));
    json_object_set_new(root, "seen", seen_json(r));
    json_object_set_new(root, "skipped_samples", json_integer(r->n_skipped));
    json_object_set_new(root, "model_digest", r->model_digest[0] ? json_string(r->model_digest) : json_null());
    json_object_set_new(root, "lens_model_digest",
                        r->lens_model_digest[0] ? json_string(r->lens_model_digest) : json_null());
    json_object_set_new(root, "rules", r->rules[0] ? json_string(r->rules) : json_null());
    vl_transfer means[VL_GROUP_COUNT];
    vl_status status = vl_transfer_measure(means, r, err);
    for (int g = 0; g < r->n_groups && status == VL_OK; g++) {
        json_t *group = group_json(r, g);
        json_object_set_new(group, "all_states", transfer_json(r, &means[g]));
        json_array_append_new(groups, group);
    }
    json_object_set_new(root, "left_out", left_out_json(r));
    json_object_set_new(root, "classes", groups);
    char *text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(root);
    if (status == VL_OK && !text)
        status = vl_fail_nomem(err, "JSON of a result");
    if (status == VL_OK)
        *out = text;
    else
        vl_free(text);
    return status;
}

vl_status vl_eval_write(const vl_eval_result *r, const char *path, vl_error *err)
{
    char *text;
    VL_TRY(vl_eval_json(&text, r, err));
    vl_status status = vl_atomic_write(path, text, strlen(text), err);
    vl_release(text);
    return status;
}
