/* resume.c - checkpoints of earlier runs, read. Files stay open through the run: the layers in flight are many, and
 * each is read when its group comes. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/fit/session.h"
#include "trainer/hf/safetensors.h"
#include "trainer/model/digest.h"

/* "checkpoint.safetensors", "checkpoint-2-of-4.safetensors". */
static bool is_checkpoint(const char *name)
{
    static const char start[] = "checkpoint", end[] = ".safetensors";
    size_t n = strlen(name);
    return n >= sizeof start + sizeof end - 2 && !strncmp(name, start, sizeof start - 1) &&
           (name[sizeof start - 1] == '.' || name[sizeof start - 1] == '-') && !strcmp(name + n - sizeof end + 1, end);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The checkpoints of a folder in the order of their names; freed with free_paths. */
static void free_paths(char **paths, int64_t n)
{
    for (int64_t i = 0; paths && i < n; i++)
        vl_free(paths[i]);
    vl_free(paths);
}

static vl_status list_paths(char ***out, int64_t *n, const char *folder, vl_error *err)
{
    char **paths = NULL;
    vl_status status = VL_OK;
    DIR *dir = opendir(folder);
    *out = NULL;
    *n = 0;
    if (!dir)
        return vl_fail_errno(err, VL_EIO, "%s: cannot list", folder);
    for (struct dirent *e; status == VL_OK && (e = readdir(dir)) != NULL;) {
        if (!is_checkpoint(e->d_name))
            continue;
        char *path = vl_path_join(folder, e->d_name);
        if (path && !vl_fit_checkpoint_is_ours(path)) { /* other programs name theirs so too */
            vl_free(path);
            continue;
        }
        char **more = path ? vl_realloc(paths, (size_t)*n + 1, sizeof *paths) : NULL;
        paths = more ? more : paths;
        if (more)
            paths[(*n)++] = path;
        else
            status = vl_fail_nomem(err, folder);
        if (!more)
            vl_free(path);
    }
    closedir(dir);
    if (status == VL_OK && *n > 0) {
        qsort(paths, (size_t)*n, sizeof *paths, by_name);
        *out = paths;
    } else {
        free_paths(paths, *n);
    }
    return status;
}

bool vl_fit_resume_exists(const vl_fit_session *s)
{
    char **paths;
    int64_t n;
    if (list_paths(&paths, &n, s->config->output, NULL) != VL_OK)
        return false;
    free_paths(paths, n);
    return n > 0;
}

vl_status vl_fit_resume_remove(const vl_fit_session *s, vl_error *err)
{
    char **paths;
    int64_t n;
    VL_TRY(list_paths(&paths, &n, s->config->output, err));
    for (int64_t i = 0; i < n; i++)
        unlink(paths[i]);
    free_paths(paths, n);
    return VL_OK;
}

static vl_status check(vl_fit_session *s, const vl_safetensors *file, vl_error *err)
{
    const char *path = vl_safetensors_path(file), *settings = vl_safetensors_metadata(file, "settings");
    const char *seconds = vl_safetensors_metadata(file, "seconds"), *format = vl_safetensors_metadata(file, "format");
    const char *version = vl_safetensors_metadata(file, "version");
    if (!format || strcmp(format, "vlens-checkpoint") != 0)
        return vl_fail(err, VL_EFORMAT, "%s: no vlens checkpoint", path);
    if (!version || strcmp(version, VL_FIT_CHECKPOINT) != 0)
        return vl_fail(err, VL_EMISMATCH, "%s: a checkpoint of form %.20s, this vlens has %s: start over (--fresh)",
                       path, version ? version : "(none)", VL_FIT_CHECKPOINT);
    VL_TRY(vl_fit_settings_check(s, path, settings, err));
    VL_TRY(vl_model_compare(path, vl_safetensors_metadata(file, "model_digest"), NULL,
                            vl_cache_get_info(s->cache)->model_digest, NULL, err));
    double spent = seconds ? strtod(seconds, NULL) : 0;
    s->earlier_seconds = spent > s->earlier_seconds ? spent : s->earlier_seconds;
    return VL_OK;
}

vl_status vl_fit_resume_open(vl_fit_session *s, vl_error *err)
{
    char **paths;
    int64_t n;
    VL_TRY(list_paths(&paths, &n, s->config->output, err));
    if (n == 0)
        return VL_OK;
    vl_fit_resume *r = s->resume = vl_calloc(1, sizeof *r);
    if (!r) {
        free_paths(paths, n);
        return vl_fail_nomem(err, "checkpoint");
    }
    *r = (vl_fit_resume){.paths = paths, .n = n};
    r->files = vl_calloc((size_t)n, sizeof *r->files);
    r->file_of = vl_alloc((size_t)s->n_trained, sizeof *r->file_of);
    if (!r->files || !r->file_of)
        return vl_fail_nomem(err, "checkpoint");
    for (int64_t k = 0; k < s->n_trained; k++)
        r->file_of[k] = -1;
    for (int64_t i = 0; i < n; i++) {
        VL_TRY(vl_safetensors_open(&r->files[i], paths[i], err));
        VL_TRY(check(s, r->files[i], err));
    }
    return VL_OK;
}

void vl_fit_resume_close(vl_fit_session *s)
{
    vl_fit_resume *r = s->resume;
    if (!r)
        return;
    for (int64_t i = 0; r->files && i < r->n; i++)
        vl_safetensors_close(r->files[i]);
    vl_free(r->files);
    vl_free(r->file_of);
    free_paths(r->paths, r->n);
    vl_free(r);
    s->resume = NULL;
}

/* A tensor of that shape; *found NULL where there is none. */
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

static vl_status missing(const vl_safetensors *file, const char *name, vl_error *err)
{
    return vl_fail(err, VL_EFORMAT, "%s: %s is missing", vl_safetensors_path(file), name);
}

/* Whether `a` is of a later moment than `b`. */
static bool is_further(const vl_fit_progress *a, const vl_fit_progress *b)
{
    if ((a->phase == VL_FIT_DONE) != (b->phase == VL_FIT_DONE))
        return a->phase == VL_FIT_DONE;
    if (a->position != b->position)
        return a->position > b->position;
    if (a->validated != b->validated)
        return a->validated > b->validated;
    return a->phase > b->phase;
}

/* What the file says of a layer; *found false where it says nothing. */
static vl_status read_progress(vl_fit_progress *out, bool *found, const vl_fit_session *s, const vl_safetensors *file,
                               int64_t layer, vl_error *err)
{
    char name[VL_FIT_NAME];
    double numbers[VL_FIT_NUMBERS];
    snprintf(name, sizeof name, "numbers.%lld", (long long)layer);
    const vl_weight_view *view = vl_safetensors_find(file, name);
    *found = view != NULL;
    if (!view)
        return VL_OK;
    if (view->raw || view->dtype != VL_F64 || view->bytes > sizeof numbers)
        return vl_fail(err, VL_EFORMAT, "%s: %s has %zu bytes of %s, expected at most %zu of %s",
                       vl_safetensors_path(file), name, view->bytes, view->dtype_name, sizeof numbers,
                       vl_dtype_name(VL_F64));
    memcpy(numbers, view->data, view->bytes);
    if (!vl_fit_progress_unpack(out, numbers, (int64_t)(view->bytes / sizeof *numbers)))
        return vl_fail(err, VL_EFORMAT, "%s: %s has %zu bytes, which no version wrote", vl_safetensors_path(file), name,
                       view->bytes);
    if (out->position >= 0 && out->position <= s->plan.steps && out->steps >= 0 && out->steps <= out->position)
        return VL_OK;
    return vl_fail(err, VL_EFORMAT, "%s: layer %lld is at step %lld and has taken %lld, expected 0 to %lld",
                   vl_safetensors_path(file), (long long)layer, (long long)out->position, (long long)out->steps,
                   (long long)s->plan.steps);
}

/* The progress of a layer from the file where it is furthest. */
static vl_status choose(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    vl_fit_resume *r = s->resume;
    int64_t *chosen = &r->file_of[layer - s->layers];
    for (int64_t i = 0; i < r->n; i++) {
        vl_fit_progress progress;
        bool found;
        VL_TRY(read_progress(&progress, &found, s, r->files[i], layer->index, err));
        if (!found || (*chosen >= 0 && !is_further(&progress, &layer->progress)))
            continue;
        layer->progress = progress;
        layer->followed = progress.rollbacks;
        *chosen = i;
    }
    return VL_OK;
}

/* *view NULL: there is none. */
static vl_status find_kept(const vl_weight_view **view, const vl_safetensors *file, int64_t layer, const char *part,
                           size_t n, vl_error *err)
{
    char name[VL_FIT_NAME];
    snprintf(name, sizeof name, "kept.%lld.%s", (long long)layer, part);
    return find(view, file, name, VL_F32, n * sizeof(float), err);
}

static vl_status read_kept(vl_fit_session *s, vl_fit_layer *layer, const vl_safetensors *file, vl_error *err)
{
    const vl_weight_view *weight, *bias;
    size_t d = (size_t)s->d_model;
    VL_TRY(find_kept(&weight, file, layer->index, "weight", d * d, err));
    VL_TRY(find_kept(&bias, file, layer->index, "bias", d, err));
    if (weight) {
        VL_TRY(vl_fit_kept_new(s, layer, err));
        memcpy(layer->kept_weight, weight->data, weight->bytes);
    }
    if (!bias)
        return VL_OK;
    layer->kept_bias = vl_alloc(d, sizeof(float));
    if (!layer->kept_bias)
        return vl_fail_nomem(err, "checkpoint");
    memcpy(layer->kept_bias, bias->data, bias->bytes);
    return VL_OK;
}

static vl_status read_host(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    char name[VL_FIT_NAME];
    const vl_weight_view *view;
    const vl_safetensors *file = s->resume->files[s->resume->file_of[layer - s->layers]];
    snprintf(name, sizeof name, "history.%lld", (long long)layer->index);
    VL_TRY(find(&view, file, name, VL_F64, (size_t)s->plan.steps * sizeof(double), err));
    if (!view && s->plan.steps > 0)
        return missing(file, name, err);
    if (view)
        memcpy(layer->history, view->data, view->bytes);
    if (layer->progress.phase != VL_FIT_DONE)
        return VL_OK;
    return read_kept(s, layer, file, err);
}

vl_status vl_fit_resume_layers(vl_fit_session *s, int64_t first, int64_t n, vl_error *err)
{
    for (int64_t k = first; s->resume && k < first + n; k++) {
        vl_fit_layer *layer = &s->layers[k];
        VL_TRY(choose(s, layer, err));
        if (s->resume->file_of[k] >= 0)
            VL_TRY(read_host(s, layer, err));
    }
    return VL_OK;
}

static vl_status read_device(const vl_fit_session *s, const vl_safetensors *file, const char *kind, int64_t layer,
                             vl_tensor t, vl_error *err)
{
    char name[VL_FIT_NAME];
    const vl_weight_view *view;
    if (!t.data)
        return VL_OK;
    size_t n = (size_t)t.shape[0] * (size_t)(t.ndim == 2 ? t.shape[1] : 1);
    snprintf(name, sizeof name, "%s.%lld.%s", kind, (long long)layer, t.ndim == 2 ? "weight" : "bias");
    VL_TRY(find(&view, file, name, VL_F32, n * sizeof(float), err));
    return view ? vl_device_write(s->device, &t, view->data, err) : missing(file, name, err);
}

vl_status vl_fit_resume_in_flight(vl_fit_session *s, const vl_fit_layer *layer, vl_error *err)
{
    int64_t at = s->resume ? s->resume->file_of[layer - s->layers] : -1;
    if (at < 0 || layer->progress.phase == VL_FIT_NEW)
        return VL_OK;
    const vl_safetensors *file = s->resume->files[at];
    int kinds = isfinite(layer->progress.best_loss) ? VL_FIT_KINDS : VL_FIT_KINDS - 1;
    vl_adapter state[VL_FIT_KINDS];
    vl_fit_tensors(state, layer);
    for (int k = 0; k < kinds; k++) {
        VL_TRY(read_device(s, file, vl_fit_kinds[k], layer->index, state[k].weight, err));
        VL_TRY(read_device(s, file, vl_fit_kinds[k], layer->index, state[k].bias, err));
    }
    return VL_OK;
}
