/* A fidelity run as aligned text and as JSON. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/base/str.h"
#include "trainer/base/version.h"
#include "trainer/fidelity/fidelity_result.h"

/* ---- text -------------------------------------------------------------------------------------------------- */

static void put_estimate(vl_str *out, vl_estimate e)
{
    if (isnan(e.mean))
        vl_str_printf(out, "  %-21s", "-");
    else if (isnan(e.low))
        vl_str_printf(out, "  %5.2f%16s", e.mean, "");
    else
        vl_str_printf(out, "  %5.2f [%5.2f, %5.2f]", e.mean, e.low, e.high);
}

typedef enum measure { CORRELATION, PARTIAL, ALIGNMENT } measure;

static void put_table(vl_str *out, const vl_fidelity *f, const char *title, measure which)
{
    vl_str_printf(out, "\n%s\n%5s", title, "state");
    for (vl_fidelity_lens lens = 0; lens < VL_FIDELITY_LENS_COUNT; lens++)
        if (f->cell[lens].measured)
            vl_str_printf(out, "  %-21s", vl_fidelity_lens_name(lens));
    vl_str_putc(out, '\n');
    for (int i = 0; i < f->info.n_layers; i++) {
        vl_str_printf(out, "%5lld", (long long)f->state[i]);
        for (vl_fidelity_lens lens = 0; lens < VL_FIDELITY_LENS_COUNT; lens++) {
            vl_fidelity_cell cell = vl_fidelity_get_cell(f, i, lens);
            if (cell.measured)
                put_estimate(out, which == CORRELATION ? cell.correlation
                                  : which == PARTIAL   ? cell.partial
                                                       : cell.alignment);
        }
        vl_str_putc(out, '\n');
    }
}

/* The transfer matrix is for programs; a person gets what it says. */
static void put_transfer(vl_str *out, const vl_fidelity *f)
{
    vl_str_puts(out, "\nKL in nats of a state through its own adapter, its neighbour's, the farthest\n");
    int64_t n = f->n_model_layers;
    for (int64_t i = 0; i < n; i++) {
        const double *row = f->transfer + i * n;
        int64_t far = i < n - 1 - i ? n - 1 : 0;
        int64_t near = i > 0 ? i - 1 : n - 1 > 0;
        vl_str_printf(out, "%5lld %10.4f %10.4f %10.4f\n", (long long)i, row[i], row[near], row[far]);
    }
}

static void put_patches(vl_str *out, const vl_fidelity *f)
{
    vl_str_printf(out,
                  "\npatches replaced at the input, %lld pictures; with the whole picture the model's answer has"
                  " probability %.2f [%.2f, %.2f]\n",
                  (long long)f->info.n_pictures, f->info.probability.mean, f->info.probability.low,
                  f->info.probability.high);
    vl_str_printf(out, "%-7s %-4s%7s  %-21s  %-21s  %-21s  %-21s  %-21s\n", "patches", "by", "number", "probability",
                  "answer kept", "elsewhere: prob.", "answer kept", "lost beyond elsewhere");
    for (vl_patch_set set = 0; set < VL_PATCH_SET_COUNT; set++)
        for (vl_patch_value value = 0; value < VL_PATCH_VALUE_COUNT; value++) {
            const vl_patch_effect *effect = vl_fidelity_patches(f, set, value);
            vl_str_printf(out, "%-7s %-4s%7.1f", vl_patch_set_name(set), vl_patch_value_name(value), effect->patches);
            put_estimate(out, effect->probability);
            put_estimate(out, effect->kept);
            put_estimate(out, effect->probability_elsewhere);
            put_estimate(out, effect->kept_elsewhere);
            put_estimate(out, effect->beyond_elsewhere);
            vl_str_putc(out, '\n');
        }
}

vl_status vl_fidelity_table(char **out, const vl_fidelity *f, vl_error *err)
{
    vl_str text = VL_STR_INIT;
    *out = NULL;
    vl_str_printf(&text, "%lld rows of %lld held-out samples, %d directions a state, %s ablation\n",
                  (long long)f->info.n_rows, (long long)f->info.n_samples, f->info.n_directions, f->info.ablation);
    if (f->info.other_model)
        vl_str_puts(&text, "Warning: the lens was fitted for another model (fingerprints differ).\n");
    put_table(&text, f, "rank correlation: how much a direction matters to the lens and to the model [95 %]",
              CORRELATION);
    put_table(&text, f, "the same with how far ablation moves the rows held fixed (partial rank correlation) [95 %]",
              PARTIAL);
    put_table(&text, f, "alignment of their changes when all directions are ablated [95 %]", ALIGNMENT);
    vl_str_puts(&text, "\nrandom: the tuned lens on random directions.");
    if (f->info.control[0])
        vl_str_printf(&text, " control: %s.", f->info.control);
    vl_str_putc(&text, '\n');
    if (f->transfer)
        put_transfer(&text, f);
    if (f->patches)
        put_patches(&text, f);
    if (text.failed) {
        vl_str_clear(&text);
        return vl_fail_nomem(err, "text of a result");
    }
    *out = text.data;
    return VL_OK;
}

/* ---- JSON -------------------------------------------------------------------------------------------------- */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *numbers(const double *values, int64_t n)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(list, number(values[i]));
    return list;
}

static json_t *estimate(vl_estimate e)
{
    return json_pack("{s:o, s:o, s:o}", "mean", number(e.mean), "low", number(e.low), "high", number(e.high));
}

static json_t *state_json(const vl_fidelity *f, int index)
{
    json_t *object = json_pack("{s:I}", "state", (json_int_t)f->state[index]);
    for (vl_fidelity_lens lens = 0; lens < VL_FIDELITY_LENS_COUNT; lens++) {
        vl_fidelity_cell cell = vl_fidelity_get_cell(f, index, lens);
        if (cell.measured)
            json_object_set_new(object, vl_fidelity_lens_name(lens),
                                json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "correlation", estimate(cell.correlation),
                                          "partial", estimate(cell.partial), "alignment", estimate(cell.alignment),
                                          "lens_kl", numbers(cell.lens_kl, f->info.n_directions), "model_kl",
                                          numbers(cell.model_kl, f->info.n_directions), "displacement",
                                          numbers(cell.displacement, f->info.n_directions)));
    }
    return object;
}

static json_t *cells(const vl_patch_sample *sample, vl_patch_set set, int elsewhere)
{
    json_t *list = json_array();
    for (int k = 0; k < sample->n[set][elsewhere]; k++) {
        const int16_t *patch = sample->patch[set][elsewhere][k];
        json_array_append_new(list, json_pack("[i, i]", (int)patch[0], (int)patch[1]));
    }
    return list;
}

static json_t *sample_json(const vl_patch_sample *sample)
{
    json_t *object = json_pack("{s:I, s:i, s:o}", "sample", (json_int_t)sample->number, "token", (int)sample->token,
                               "probability", number(sample->probability));
    for (vl_patch_set set = 0; set < VL_PATCH_SET_COUNT; set++) {
        json_t *entry = json_pack("{s:o, s:o}", "patches", cells(sample, set, 0), "elsewhere", cells(sample, set, 1));
        for (vl_patch_value value = 0; value < VL_PATCH_VALUE_COUNT; value++)
            json_object_set_new(entry, vl_patch_value_name(value), numbers(sample->changed[set][value], 2));
        json_object_set_new(object, vl_patch_set_name(set), entry);
    }
    return object;
}

static json_t *effect_json(const vl_fidelity *f, vl_patch_set set, vl_patch_value value)
{
    const vl_patch_effect *e = vl_fidelity_patches(f, set, value);
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "set", vl_patch_set_name(set), "by",
                     vl_patch_value_name(value), "patches", number(e->patches), "probability", estimate(e->probability),
                     "kept", estimate(e->kept), "probability_elsewhere", estimate(e->probability_elsewhere),
                     "kept_elsewhere", estimate(e->kept_elsewhere), "beyond_elsewhere", estimate(e->beyond_elsewhere));
}

static json_t *patches_json(const vl_fidelity *f)
{
    if (!f->patches)
        return json_null();
    json_t *effects = json_array(), *samples = json_array();
    for (vl_patch_set set = 0; set < VL_PATCH_SET_COUNT; set++)
        for (vl_patch_value value = 0; value < VL_PATCH_VALUE_COUNT; value++)
            json_array_append_new(effects, effect_json(f, set, value));
    for (int64_t i = 0; i < f->patches->n; i++)
        json_array_append_new(samples, sample_json(&f->patches->samples[i]));
    return json_pack("{s:I, s:o, s:o, s:o}", "pictures", (json_int_t)f->info.n_pictures, "probability",
                     estimate(f->info.probability), "effects", effects, "samples", samples);
}

vl_status vl_fidelity_json(char **out, const vl_fidelity *f, vl_error *err)
{
    json_t *states = json_array(), *transfer = f->transfer ? json_array() : json_null();
    for (int i = 0; i < f->info.n_layers; i++)
        json_array_append_new(states, state_json(f, i));
    for (int64_t i = 0; f->transfer && i < f->n_model_layers; i++)
        json_array_append_new(transfer, numbers(f->transfer + i * f->n_model_layers, f->n_model_layers));
    json_t *root =
        json_pack("{s:s, s:i, s:s, s:s, s:s, s:s, s:b, s:s, s:i, s:I, s:I, s:o, s:o, s:o}", "format", "vlens-fidelity",
                  "version", 1, "vlens_version", VLENS_VERSION, "model", f->info.model, "lens", f->info.lens, "control",
                  f->info.control, "other_model", f->info.other_model, "ablation", f->info.ablation, "directions",
                  f->info.n_directions, "samples", (json_int_t)f->info.n_samples, "rows", (json_int_t)f->info.n_rows,
                  "states", states, "transfer", transfer, "patches", patches_json(f));
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    *out = text;
    return text ? VL_OK : vl_fail_nomem(err, "JSON of a result");
}

vl_status vl_fidelity_write(const vl_fidelity *f, const char *path, vl_error *err)
{
    char *text;
    VL_TRY(vl_fidelity_json(&text, f, err));
    vl_status status = vl_atomic_write(path, text, strlen(text), err);
    vl_release(text);
    return status;
}
