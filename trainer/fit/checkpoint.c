/* checkpoint.c - everything that a run needs to go on with the same bits: the parameters, what the optimiser
 * remembers, the best so far, and the step. The order of the rows follows from the seed and the step (sampler.c), so
 * no generator is stored. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/fit/session.h"
#include "trainer/hf/safetensors.h"
#include "trainer/hf/safetensors_write.h"

const char *const vl_fit_kinds[VL_FIT_KINDS] = {"adapter", "first", "second", "best"};

enum { NAME_SIZE = VL_FIT_NAME, PER_LAYER = 12, TEXT_SIZE = 32 };

void vl_fit_tensors(vl_adapter out[VL_FIT_KINDS], const vl_fit_layer *layer)
{
    const vl_optimizer_state *weight = &layer->weight_state, *bias = &layer->bias_state;
    out[0] = layer->adapter;
    out[1] = (vl_adapter){weight->exp_avg, bias->exp_avg};
    out[2] = (vl_adapter){weight->exp_avg_sq, bias->exp_avg_sq};
    out[3] = layer->best;
}

/* The tensors of the file as they are listed for writing. */
typedef struct listing {
    vl_fit_session *session;
    vl_safetensors_entry *entries;
    char (*names)[NAME_SIZE];
    void **copies;                     /* what was read from a device with memory of its own */
    double (*numbers)[VL_FIT_NUMBERS]; /* [n_trained] */
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
    vl_adapter tensors[VL_FIT_KINDS];
    int kinds = isfinite(layer->progress.best_loss) ? VL_FIT_KINDS : VL_FIT_KINDS - 1;
    if (layer->progress.phase == VL_FIT_NEW || layer->progress.phase == VL_FIT_DONE)
        return VL_OK;
    vl_fit_tensors(tensors, layer);
    for (int k = 0; k < kinds; k++) {
        VL_TRY(add_device(l, vl_fit_kinds[k], layer->index, tensors[k].weight, err));
        VL_TRY(add_device(l, vl_fit_kinds[k], layer->index, tensors[k].bias, err));
    }
    return VL_OK;
}

/* What a checkpoint holds of a layer whose group has not come yet goes into the next one. */
static void add_resumed(listing *l, const vl_fit_layer *layer)
{
    const vl_fit_session *s = l->session;
    int64_t file = s->resume ? s->resume->file_of[layer - s->layers] : -1;
    if (file < 0 || layer->progress.phase == VL_FIT_DONE)
        return;
    for (int k = 0; k < 2 * VL_FIT_KINDS; k++) {
        char name[VL_FIT_NAME];
        const char *part = k % 2 ? "bias" : "weight";
        snprintf(name, sizeof name, "%s.%lld.%s", vl_fit_kinds[k / 2], (long long)layer->index, part);
        const vl_weight_view *view = vl_safetensors_find(s->resume->files[file], name);
        if (view)
            add_host(l, vl_fit_kinds[k / 2], layer->index, part, (const float *)view->data);
    }
}

static vl_status list_all(listing *l, vl_error *err)
{
    vl_fit_session *s = l->session;
    size_t most = (size_t)s->n_trained * PER_LAYER;
    l->entries = vl_calloc(most, sizeof *l->entries);
    l->names = vl_calloc(most, NAME_SIZE);
    l->copies = vl_calloc(most, sizeof *l->copies);
    l->numbers = vl_alloc((size_t)s->n_trained, sizeof *l->numbers);
    if (!l->entries || !l->names || !l->copies || !l->numbers)
        return vl_fail_nomem(err, "checkpoint");
    int64_t n;
    const vl_fit_layer *flying = vl_fit_in_flight(s, &n);
    for (int64_t k = s->share.first; k < s->share.first + s->share.n; k++) {
        const vl_fit_layer *layer = &s->layers[k];
        vl_fit_progress_pack(l->numbers[k], &layer->progress);
        add_doubles(l, "numbers", layer->index, l->numbers[k], VL_FIT_NUMBERS);
        add_doubles(l, "history", layer->index, layer->history, s->plan.steps);
        add_host(l, "kept", layer->index, "weight", layer->kept_weight);
        add_host(l, "kept", layer->index, "bias", layer->kept_bias);
        if (layer >= flying && layer < flying + n)
            VL_TRY(add_in_flight(l, layer, err));
        else
            add_resumed(l, layer);
    }
    return VL_OK;
}

vl_status vl_fit_checkpoint_save(vl_fit_session *s, vl_error *err)
{
    vl_status status = VL_OK;
    listing l = {.session = s};
    char seconds[TEXT_SIZE];
    VL_GOTO(list_all(&l, err));
    snprintf(seconds, sizeof seconds, "%.3f", s->earlier_seconds + vl_clock() - s->began);
    const vl_safetensors_pair pairs[] = {{"format", "vlens-checkpoint"},
                                         {"version", VL_FIT_CHECKPOINT},
                                         {"settings", s->settings},
                                         {"model_digest", vl_cache_get_info(s->cache)->model_digest},
                                         {"seconds", seconds}};
    VL_GOTO(vl_safetensors_write(s->checkpoint_path, l.entries, l.n, pairs, sizeof pairs / sizeof *pairs, err));
    s->saved_at = vl_clock();
done:
    for (size_t k = 0; l.copies && k < l.n; k++)
        vl_free(l.copies[k]);
    vl_free(l.copies);
    vl_free(l.numbers);
    vl_free(l.names);
    vl_free(l.entries);
    return status;
}

vl_status vl_fit_checkpoint_if_due(vl_fit_session *s, bool after_step, vl_error *err)
{
    const vl_interval *every = &s->config->fit.checkpoint_every;
    bool by_steps = after_step && every->steps > 0 && s->step % every->steps == 0;
    bool by_time = every->seconds > 0 && vl_clock() - s->saved_at >= every->seconds;
    if (!vl_fit_is_root(s) || (!by_steps && !by_time))
        return VL_OK;
    vl_error why = VL_ERROR_INIT;
    vl_status status = vl_fit_checkpoint_save(s, &why);
    if (status == VL_OK)
        return VL_OK;
    return vl_fail(err, status, "%.400s; the checkpoint before it stays: make room and run the same command to go on",
                   why.message);
}
