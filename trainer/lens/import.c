/* import.c - lenses that other programs wrote, into our format. */
#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "trainer/base/file.h"
#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/lens/export.h"
#include "trainer/lens/unembed_hash.h"

bool vl_imported_name(int64_t *layer, bool *matrix, const char *name, size_t size)
{
    size_t digits = 0;
    int64_t value = 0;
    for (; digits < size && digits < 6 && name[digits] >= '0' && name[digits] <= '9'; digits++)
        value = 10 * value + (name[digits] - '0');
    if (!digits || (digits > 1 && name[0] == '0'))
        return false;
    const char *rest = name + digits;
    size_t left = size - digits;
    *layer = value;
    *matrix = left == 7 && memcmp(rest, ".weight", 7) == 0;
    return *matrix || (left == 5 && memcmp(rest, ".bias", 5) == 0);
}

double *vl_imported_unknown(int64_t n)
{
    double *list = vl_alloc((size_t)n, sizeof *list);
    for (int64_t i = 0; list && i < n; i++)
        list[i] = (double)NAN;
    return list;
}

vl_status vl_imported_put(vl_imported *lens, const vl_imported_tensor *t, vl_error *err)
{
    const char *kind = t->matrix ? "weight" : "bias";
    int64_t d = lens->d_model;
    size_t n = t->matrix ? (size_t)d * (size_t)d : (size_t)d;
    if (t->layer >= lens->n_layers)
        return vl_fail(err, VL_EMISMATCH, "%s: it has layer %lld, the model has layers 0 to %lld", t->where,
                       (long long)t->layer, (long long)lens->n_layers - 1);
    if (t->ndim != (t->matrix ? 2 : 1) || t->shape[0] != d || (t->matrix && t->shape[1] != d) ||
        t->bytes != n * vl_dtype_size(t->dtype)) {
        char found[64], wanted[64];
        return vl_fail(err, VL_ESHAPE, "%s: %lld.%s is %s in %zu bytes, expected %s in %zu", t->where,
                       (long long)t->layer, kind, vl_shape_text(found, sizeof found, t->ndim, t->shape), t->bytes,
                       vl_shape_text(wanted, sizeof wanted, t->matrix ? 2 : 1, (int64_t[2]){d, d}),
                       n * vl_dtype_size(t->dtype));
    }
    float **slot = &(t->matrix ? lens->weight : lens->bias)[t->layer];
    if (*slot)
        return vl_fail(err, VL_EFORMAT, "%s: %lld.%s is there twice", t->where, (long long)t->layer, kind);
    if (!(*slot = vl_alloc_aligned(n, sizeof **slot)))
        return vl_fail_nomem(err, t->where);
    vl_widen(*slot, t->data, t->dtype, n);
    for (size_t i = 0; i < n; i++)
        if ((*slot)[i] - (*slot)[i] != 0)
            return vl_fail(err, VL_EFORMAT, "%s: %lld.%s holds a value that is no number", t->where,
                           (long long)t->layer, kind);
    lens->dtype = lens->any && lens->dtype != t->dtype ? VL_F32 : t->dtype;
    lens->any = true;
    return VL_OK;
}

static vl_status imported_new(vl_imported *lens, const vl_head_info *head, vl_error *err)
{
    *lens = (vl_imported){.d_model = head->d_model, .n_layers = head->n_layers};
    lens->weight = vl_calloc((size_t)head->n_layers, sizeof *lens->weight);
    lens->bias = vl_calloc((size_t)head->n_layers, sizeof *lens->bias);
    return lens->weight && lens->bias ? VL_OK : vl_fail_nomem(err, "lens");
}

static void imported_clear(vl_imported *lens)
{
    for (int64_t i = 0; i < lens->n_layers; i++) {
        if (lens->weight)
            vl_free(lens->weight[i]);
        if (lens->bias)
            vl_free(lens->bias[i]);
    }
    vl_free(lens->weight);
    vl_free(lens->bias);
    vl_free(lens->fingerprint);
    vl_free(lens->unembed_hash);
    vl_free(lens->model_id);
    vl_free(lens->heldout_kl);
}

static bool all_zero(const float *values, int64_t n)
{
    for (int64_t i = 0; values && i < n; i++)
        if (values[i] != 0)
            return false;
    return true;
}

/* Zeros stand for what was not trained, so that a lens that goes out and comes back is the same. A matrix alone gets
 * a bias of zeros: our format has no matrix without one. */
static vl_status drop_zeros(vl_imported *lens, bool *bias_only, vl_error *err)
{
    int64_t d = lens->d_model;
    *bias_only = lens->any;
    for (int64_t i = 0; i < lens->n_layers; i++) {
        float **weight = &lens->weight[i], **bias = &lens->bias[i];
        if (all_zero(*weight, d * d)) {
            vl_free(*weight);
            *weight = NULL;
            if (all_zero(*bias, d)) {
                vl_free(*bias);
                *bias = NULL;
            }
        } else {
            *bias_only = false;
            if (!*bias && !(*bias = vl_calloc((size_t)d, sizeof **bias)))
                return vl_fail_nomem(err, "bias");
        }
    }
    return VL_OK;
}

/* What the file says about its model against the model that was given. */
static vl_status check_identity(const vl_imported *lens, const vl_import_options *options, bool *warned, vl_error *err)
{
    char hash[65];
    const char *fingerprint = vl_head_get_info(options->head)->fingerprint;
    if (lens->fingerprint && strcmp(lens->fingerprint, fingerprint) != 0) {
        if (!options->allow_other_model)
            return vl_fail(err, VL_EMISMATCH, "%s: made for the model with fingerprint %.64s, this one has %.64s",
                           options->path, lens->fingerprint, fingerprint);
        *warned = true;
    }
    if (!lens->fingerprint && lens->unembed_hash && vl_unembed_hash(hash, vl_head_get_source(options->head)) &&
        strcmp(lens->unembed_hash, hash) != 0) {
        if (!options->allow_other_model)
            return vl_fail(err, VL_EMISMATCH,
                           "%s: unembed_hash is %.64s, this model has %.64s (the hash sees 36 rounded numbers, in the "
                           "type that the model was loaded in)",
                           options->path, lens->unembed_hash, hash);
        *warned = true;
    }
    return VL_OK;
}

/* The training curves of the lens that lay there before are not those of this one. */
static vl_status remove_metrics(const char *folder, vl_error *err)
{
    char *path = vl_path_join(folder, "metrics.json");
    if (!path)
        return vl_fail_nomem(err, folder);
    bool failed = unlink(path) != 0 && errno != ENOENT;
    vl_status status = failed ? vl_fail_errno(err, VL_EIO, "%s: cannot remove", path) : VL_OK;
    vl_free(path);
    return status;
}

static vl_status write_lens(vl_imported *lens, const vl_import_options *options, bool warned, vl_error *err)
{
    bool bias_only;
    const vl_head_info *head = vl_head_get_info(options->head);
    VL_TRY(drop_zeros(lens, &bias_only, err));
    vl_lens_content content = {.d_model = lens->d_model,
                               .n_layers = lens->n_layers,
                               .weight = (const float *const *)lens->weight,
                               .bias = (const float *const *)lens->bias,
                               .dtype = lens->dtype,
                               .bias_only = bias_only,
                               .fingerprint = head->fingerprint,
                               .model_id = lens->model_id ? lens->model_id : options->model_id,
                               .tokens_seen = lens->tokens_seen,
                               /* measured on another model: not this lens's number */
                               .heldout_kl = warned ? NULL : lens->heldout_kl};
    VL_TRY(vl_make_directories(options->out, err));
    VL_TRY(vl_lens_claim(options->out, err));
    VL_TRY(remove_metrics(options->out, err));
    char *file = vl_path_join(options->out, "lens.safetensors");
    vl_status status = file ? vl_lens_write(file, &content, err) : vl_fail_nomem(err, options->out);
    vl_free(file);
    return status;
}

/* Our own format: everything that it knows is kept. */
static vl_status import_own(const vl_import_options *options, bool *warned, vl_error *err)
{
    vl_lens *lens;
    vl_lens_content content;
    char *file = NULL;
    vl_status status = VL_OK;
    const vl_head_info *head = vl_head_get_info(options->head);
    VL_TRY(vl_lens_open(&lens, options->path, err));
    VL_GOTO(vl_lens_check(lens, head, options->allow_other_model, warned, err));
    vl_lens_describe(&content, lens);
    content.fingerprint = head->fingerprint;
    if (*warned)
        content.heldout_kl = NULL;
    VL_GOTO(vl_make_directories(options->out, err));
    VL_GOTO(vl_lens_claim(options->out, err));
    VL_GOTO(remove_metrics(options->out, err));
    if (!(file = vl_path_join(options->out, "lens.safetensors")))
        VL_GOTO(vl_fail_nomem(err, options->out));
    VL_GOTO(vl_lens_write(file, &content, err));
done:
    vl_free(file);
    vl_lens_close(lens);
    return status;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool holds(const char *folder, const char *name)
{
    char *path = vl_path_join(folder, name);
    bool there = path && vl_path_exists(path);
    vl_free(path);
    return there;
}

vl_status vl_lens_import(const vl_import_options *options, bool *warned, vl_error *err)
{
    vl_imported lens;
    vl_status status = VL_OK;
    bool other = false;
    const char *path = options->path;
    if (warned)
        *warned = false;
    if (ends_with(path, ".safetensors") || holds(path, "lens.safetensors")) {
        status = import_own(options, &other, err);
        if (warned)
            *warned = other;
        return status;
    }
    bool npz = ends_with(path, ".npz"), hdf5 = ends_with(path, ".h5") || ends_with(path, ".hdf5");
    if (!npz && !hdf5 && !ends_with(path, "params.pt") && !ends_with(path, "config.json") && !holds(path, "params.pt"))
        return vl_fail(err, VL_EUNSUPPORTED,
                       "%s: expected a folder with params.pt and config.json (tuned-lens), one with lens.safetensors, "
                       "or a .npz, .h5 or .hdf5 file",
                       path);
    VL_GOTO(imported_new(&lens, vl_head_get_info(options->head), err));
    VL_GOTO(npz    ? vl_import_npz(&lens, path, err)
            : hdf5 ? vl_import_hdf5(&lens, path, err)
                   : vl_import_tuned_lens(&lens, path, err));
    VL_GOTO(check_identity(&lens, options, &other, err));
    VL_GOTO(write_lens(&lens, options, other, err));
    if (warned)
        *warned = other;
done:
    imported_clear(&lens);
    return status;
}
