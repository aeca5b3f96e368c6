/* checkpoint.c - everything that a run needs to go on with the same bits: the parameters, what the optimiser
 * remembers, the best so far, and the step. The order of the rows follows from the seed and the step (sampler.c), so
 * no generator is stored. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/fit/session.h"
#include "trainer/fit/settings.h"
#include "trainer/hf/safetensors_write.h"

enum { NAME_SIZE = 48, PER_LAYER = 12, TEXT_SIZE = 32, CHECKPOINT_VERSION = 2 };

/* The tensors of the file as they are listed for writing. */
typedef struct listing {
    vl_fit_session *session;
    vl_safetensors_entry *entries;
    char (*names)[NAME_SIZE];
    void **copies; /* what was read from a device with memory of its own */
    size_t n;
} listing;

static vl_safetensors_entry *add(listing *l, const char *kind, int64_t layer, const char *part)
{
    snprintf(l->names[l->n], NAME_SIZE, "%s.%lld%s%s", kind, (long long)layer, part[0] ? "." : "", part);
    vl_safetensors_entry *entry = &l->entries[l->n];
    entry->name = l->names[l->n++];
    return entry;
}

static void add_host(listing *l, const char *kind, int64_t layer, const char *part, const float *data)
{
    int64_t d = l->session->d_model;
    if (!data)
        return;
    vl_safetensors_entry *e = add(l, kind, layer, part);
    e->dtype = VL_F32;
    e->ndim = part[0] == 'w' ? 2 : 1;
    e->shape[0] = e->shape[1] = d;
    e->data = data;
}

static void add_doubles(listing *l, const char *kind, int64_t layer, const double *data, int64_t n)
{
    vl_safetensors_entry *e = add(l, kind, layer, "");
    e->dtype = VL_F64;
    e->ndim = 1;
    e->shape[0] = n;
    e->data = data;
}

/* On the CPU the tensor's own memory is written, without a copy. */
static vl_status add_device(listing *l, const char *kind, int64_t layer, vl_tensor t, vl_error *err)
{
    if (!t.data)
        return VL_OK;
    const char *part = t.ndim == 2 ? "weight" : "bias";
    const float *data = t.data;
    if (strcmp(vl_device_name(l->session->device), "cpu") != 0) {
        size_t size = (size_t)t.shape[0] * (size_t)(t.ndim == 2 ? t.shape[1] : 1) * sizeof(float);
        void *copy = vl_alloc_aligned(size, 1);
        if (!copy)
            return vl_fail_nomem(err, "checkpoint");
        l->copies[l->n] = copy;
        data = copy;
        VL_TRY(vl_device_read(l->session->device, copy, &t, err));
    }
    add_host(l, kind, layer, part, data);
    return VL_OK;
}

static vl_status add_in_flight(listing *l, const vl_fit_layer *layer, vl_error *err)
{
    int64_t i = layer->index;
    if (!(layer->numbers.started > 0))
        return VL_OK;
    VL_TRY(add_device(l, "adapter", i, layer->adapter.weight, err));
    VL_TRY(add_device(l, "adapter", i, layer->adapter.bias, err));
    VL_TRY(add_device(l, "first", i, layer->weight_state.first, err));
    VL_TRY(add_device(l, "first", i, layer->bias_state.first, err));
    VL_TRY(add_device(l, "second", i, layer->weight_state.second, err));
    VL_TRY(add_device(l, "second", i, layer->bias_state.second, err));
    if (!isfinite(layer->numbers.best_loss))
        return VL_OK;
    VL_TRY(add_device(l, "best", i, layer->best.weight, err));
    return add_device(l, "best", i, layer->best.bias, err);
}

static vl_status list_all(listing *l, vl_error *err)
{
    vl_fit_session *s = l->session;
    size_t most = (size_t)s->n_trained * PER_LAYER;
    l->entries = vl_calloc(most, sizeof *l->entries);
    l->names = vl_calloc(most, NAME_SIZE);
    l->copies = vl_calloc(most, sizeof *l->copies);
    if (!l->entries || !l->names || !l->copies)
        return vl_fail_nomem(err, "checkpoint");
    int64_t n;
    const vl_fit_layer *group = vl_fit_group(s, &n);
    for (int64_t k = 0; k < s->n_trained; k++) {
        const vl_fit_layer *layer = &s->layers[k];
        add_doubles(l, "numbers", layer->index, (const double *)&layer->numbers, VL_FIT_NUMBERS);
        add_doubles(l, "history", layer->index, layer->history, s->plan.steps);
        add_host(l, "kept", layer->index, "weight", layer->kept_weight);
        add_host(l, "kept", layer->index, "bias", layer->kept_bias);
        if (layer >= group && layer < group + n)
            VL_TRY(add_in_flight(l, layer, err));
    }
    return VL_OK;
}

vl_status vl_fit_checkpoint_save(vl_fit_session *s, vl_error *err)
{
    vl_status status = VL_OK;
    listing l = {.session = s};
    char texts[5][TEXT_SIZE];
    VL_GOTO(list_all(&l, err));
    snprintf(texts[0], TEXT_SIZE, "%lld", (long long)s->group);
    snprintf(texts[1], TEXT_SIZE, "%lld", (long long)s->per_group);
    snprintf(texts[2], TEXT_SIZE, "%lld", (long long)s->step);
    snprintf(texts[3], TEXT_SIZE, "%lld", (long long)s->validated);
    snprintf(texts[4], TEXT_SIZE, "%.3f", s->earlier_seconds + vl_clock() - s->began);
    const vl_safetensors_pair pairs[] = {
        {"format", "vlens-checkpoint"}, {"version", "2"},   {"settings", s->settings}, {"group", texts[0]},
        {"layers_in_flight", texts[1]}, {"step", texts[2]}, {"validated", texts[3]},   {"seconds", texts[4]}};
    VL_GOTO(vl_safetensors_write(s->checkpoint_path, l.entries, l.n, pairs, sizeof pairs / sizeof *pairs, err));
done:
    for (size_t k = 0; l.copies && k < l.n; k++)
        vl_free(l.copies[k]);
    vl_free(l.copies);
    vl_free(l.names);
    vl_free(l.entries);
    return status;
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

static vl_status read_integer(int64_t *out, const vl_safetensors *file, const char *key, int64_t min, int64_t max,
                              vl_error *err)
{
    const char *text = vl_safetensors_metadata(file, key);
    char *end = NULL;
    *out = text ? strtoll(text, &end, 10) : 0;
    if (!text || *end || *out < min || *out > max)
        return vl_fail(err, VL_EFORMAT, "%s: metadata %s is '%.30s', expected %lld to %lld", vl_safetensors_path(file),
                       key, text ? text : "(missing)", (long long)min, (long long)max);
    return VL_OK;
}

/* A tensor of that shape; *found NULL where there is none and it may be missing. */
static vl_status find(const vl_weight_view **found, const vl_safetensors *file, const char *name, vl_dtype dtype,
                      size_t bytes, vl_error *err)
{
    const vl_weight_view *view = vl_safetensors_find(file, name);
    *found = view;
    if (view && (view->raw || view->dtype != dtype || view->bytes != bytes))
        return vl_fail(err, VL_EFORMAT, "%s: %s has %zu bytes of %s, expected %zu of %s", vl_safetensors_path(file),
                       name, view->bytes, view->dtype_name, bytes, vl_dtype_name(dtype));
    return VL_OK;
}

static vl_status read_doubles(double *out, const vl_safetensors *file, const char *kind, int64_t layer, int64_t n,
                              vl_error *err)
{
    char name[NAME_SIZE];
    const vl_weight_view *view;
    snprintf(name, sizeof name, "%s.%lld", kind, (long long)layer);
    VL_TRY(find(&view, file, name, VL_F64, (size_t)n * sizeof(double), err));
    if (!view)
        return vl_fail(err, VL_EFORMAT, "%s: %s is missing", vl_safetensors_path(file), name);
    memcpy(out, view->data, view->bytes);
    return VL_OK;
}

static vl_status read_host(float **out, const vl_fit_session *s, const vl_safetensors *file, int64_t layer,
                           const char *part, vl_error *err)
{
    char name[NAME_SIZE];
    const vl_weight_view *view;
    size_t d = (size_t)s->d_model, n = part[0] == 'w' ? d * d : d;
    snprintf(name, sizeof name, "kept.%lld.%s", (long long)layer, part);
    VL_TRY(find(&view, file, name, VL_F32, n * sizeof(float), err));
    if (!view)
        return VL_OK;
    *out = vl_alloc_aligned(n, sizeof **out);
    if (!*out)
        return vl_fail_nomem(err, "checkpoint");
    memcpy(*out, view->data, view->bytes);
    return VL_OK;
}

static vl_status read_device(const vl_fit_session *s, const vl_safetensors *file, const char *kind, int64_t layer,
                             vl_tensor t, vl_error *err)
{
    char name[NAME_SIZE];
    const vl_weight_view *view;
    if (!t.data)
        return VL_OK;
    size_t n = (size_t)t.shape[0] * (size_t)(t.ndim == 2 ? t.shape[1] : 1);
    snprintf(name, sizeof name, "%s.%lld.%s", kind, (long long)layer, t.ndim == 2 ? "weight" : "bias");
    VL_TRY(find(&view, file, name, VL_F32, n * sizeof(float), err));
    if (!view)
        return vl_fail(err, VL_EFORMAT, "%s: %s is missing", vl_safetensors_path(file), name);
    return vl_device_write(s->device, &t, view->data, err);
}

static vl_status read_in_flight(const vl_fit_session *s, const vl_safetensors *file, const vl_fit_layer *l,
                                vl_error *err)
{
    int64_t i = l->index;
    if (!(l->numbers.started > 0))
        return VL_OK;
    VL_TRY(read_device(s, file, "adapter", i, l->adapter.weight, err));
    VL_TRY(read_device(s, file, "adapter", i, l->adapter.bias, err));
    VL_TRY(read_device(s, file, "first", i, l->weight_state.first, err));
    VL_TRY(read_device(s, file, "first", i, l->bias_state.first, err));
    VL_TRY(read_device(s, file, "second", i, l->weight_state.second, err));
    VL_TRY(read_device(s, file, "second", i, l->bias_state.second, err));
    if (!isfinite(l->numbers.best_loss))
        return VL_OK;
    VL_TRY(read_device(s, file, "best", i, l->best.weight, err));
    return read_device(s, file, "best", i, l->best.bias, err);
}

static vl_status read_all(vl_fit_session *s, const vl_safetensors *file, vl_error *err)
{
    int64_t per_group, n;
    const char *settings = vl_safetensors_metadata(file, "settings");
    const char *seconds = vl_safetensors_metadata(file, "seconds"), *format = vl_safetensors_metadata(file, "format");
    if (!format || strcmp(format, "vlens-checkpoint") != 0)
        return vl_fail(err, VL_EFORMAT, "%s: no vlens checkpoint", s->checkpoint_path);
    int64_t version;
    VL_TRY(read_integer(&version, file, "version", 0, INT64_MAX, err));
    if (version != CHECKPOINT_VERSION)
        return vl_fail(err, VL_EMISMATCH, "%s: a checkpoint of form %lld, this vlens has %d: start over (--fresh)",
                       s->checkpoint_path, (long long)version, CHECKPOINT_VERSION);
    VL_TRY(vl_fit_settings_compare(s->checkpoint_path, settings ? settings : "", s->settings, err));
    VL_TRY(read_integer(&per_group, file, "layers_in_flight", 1, INT64_MAX, err));
    if (per_group != s->per_group)
        return vl_fail(err, VL_EMISMATCH,
                       "%s: made with fit.layers_in_flight %lld, is %lld; set it back or start over "
                       "(--fresh)",
                       s->checkpoint_path, (long long)per_group, (long long)s->per_group);
    VL_TRY(read_integer(&s->group, file, "group", 0, s->n_groups - 1, err));
    VL_TRY(read_integer(&s->step, file, "step", 0, s->plan.steps, err));
    VL_TRY(read_integer(&s->validated, file, "validated", -1, s->plan.steps, err));
    s->earlier_seconds = seconds ? strtod(seconds, NULL) : 0;
    s->resumed_from_step = s->step;
    for (int64_t k = 0; k < s->n_trained; k++) {
        vl_fit_layer *layer = &s->layers[k];
        VL_TRY(read_doubles((double *)&layer->numbers, file, "numbers", layer->index, VL_FIT_NUMBERS, err));
        VL_TRY(read_doubles(layer->history, file, "history", layer->index, s->plan.steps, err));
        VL_TRY(read_host(&layer->kept_weight, s, file, layer->index, "weight", err));
        VL_TRY(read_host(&layer->kept_bias, s, file, layer->index, "bias", err));
    }
    VL_TRY(vl_fit_group_open(s, err));
    const vl_fit_layer *group = vl_fit_group(s, &n);
    for (int64_t k = 0; k < n; k++)
        VL_TRY(read_in_flight(s, file, &group[k], err));
    return VL_OK;
}

vl_status vl_fit_checkpoint_load(vl_fit_session *s, vl_error *err)
{
    vl_safetensors *file;
    VL_TRY(vl_safetensors_open(&file, s->checkpoint_path, err));
    vl_status status = read_all(s, file, err);
    vl_safetensors_close(file);
    return status;
}
