/* tuned_lens.c - the folder that the Python package tuned-lens loads: config.json and params.pt.
 *
 * params.pt holds {"0.weight": [D, D], "0.bias": [D], ...}. A weight is that of an nn.Linear, [out, in], and is added
 * to the identity, as here; index i reads state i, as here (tuned_lens/nn/lenses.py). The package needs every layer and
 * every bias, so that zeros stand for what was not trained. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/lens/export.h"
#include "trainer/lens/torch_write.h"
#include "trainer/lens/unembed_hash.h"

enum { NAME_SIZE = 48 };

static void tensor_name(char name[NAME_SIZE], int64_t k)
{
    snprintf(name, NAME_SIZE, "%lld.%s", (long long)k / 2, k % 2 ? "bias" : "weight");
}

/* Storage k: weight (even) or bias (odd) of layer k / 2; zeros where the lens has none. */
static vl_status add_storage(vl_torch_writer *file, const vl_export_job *job, int64_t k, const float *zeros,
                             vl_error *err)
{
    size_t d = (size_t)vl_lens_get_info(job->lens)->d_model, n = k % 2 ? d : d * d;
    const float *values = k % 2 ? vl_lens_bias(job->lens, k / 2) : vl_lens_weight(job->lens, k / 2);
    char name[NAME_SIZE];
    tensor_name(name, k);
    return vl_torch_add(file, values ? values : zeros, n, name, err);
}

static void put_state_dict(vl_str *pickle, const vl_export_job *job)
{
    const vl_lens_info *info = vl_lens_get_info(job->lens);
    char name[NAME_SIZE];
    vl_str_puts(pickle, "}("); /* EMPTY_DICT, MARK */
    for (int64_t k = 0; k < 2 * info->n_layers; k++) {
        tensor_name(name, k);
        vl_torch_put_text(pickle, name);
        vl_torch_put_tensor(pickle, k, info->d_model, k % 2 == 0, job->dtype);
    }
    vl_str_puts(pickle, "u"); /* SETITEMS */
}

static vl_status write_params(const char *path, const vl_export_job *job, vl_error *err)
{
    const vl_lens_info *info = vl_lens_get_info(job->lens);
    vl_torch_writer file;
    vl_str pickle = VL_STR_INIT;
    vl_status status = VL_OK;
    float *zeros = vl_calloc((size_t)info->d_model * (size_t)info->d_model, sizeof *zeros);
    if (!zeros)
        return vl_fail_nomem(err, path);
    put_state_dict(&pickle, job);
    status = vl_torch_begin(&file, path, &pickle, job->dtype, err);
    for (int64_t k = 0; status == VL_OK && k < 2 * info->n_layers; k++)
        status = add_storage(&file, job, k, zeros, err);
    vl_str_clear(&pickle);
    vl_free(zeros);
    return vl_torch_end(&file, status, err);
}

/* Keys of the package first, in its order; it warns about keys that it does not know, and goes on. "bias": false
 * would make it fail, whatever the lens. */
static json_t *make_config(const vl_export_job *job)
{
    const vl_lens_info *info = vl_lens_get_info(job->lens);
    char hash[65] = "";
    if (job->head)
        vl_unembed_hash(hash, job->head);
    json_t *kl = info->heldout_kl ? json_array() : json_null();
    for (int64_t i = 0; info->heldout_kl && i < info->n_layers; i++)
        json_array_append_new(kl, isfinite(info->heldout_kl[i]) ? json_real(info->heldout_kl[i]) : json_null());
    return json_pack("{s:s, s:I, s:I, s:b, s:n, s:o, s:s, s:s, s:s, s:I, s:o}",                                   //
                     "base_model_name_or_path", info->model_id[0] ? info->model_id : "unknown",                   //
                     "d_model", (json_int_t)info->d_model, "num_hidden_layers", (json_int_t)info->n_layers,       //
                     "bias", 1, "base_model_revision", "unembed_hash", hash[0] ? json_string(hash) : json_null(), //
                     "lens_type", "linear_tuned_lens", "vlens_version", VLENS_VERSION,                            //
                     "vlens_fingerprint", info->fingerprint, "vlens_tokens_seen", (json_int_t)info->tokens_seen,  //
                     "vlens_heldout_kl", kl);
}

/* A folder may be that of a model, whose config.json would be lost. */
static vl_status claim(const char *json_path, const char *params, vl_error *err)
{
    json_t *old = NULL;
    bool there = vl_path_exists(json_path);
    bool ours = there && vl_json_read(&old, json_path, 1 << 20, NULL) == VL_OK && json_object_get(old, "lens_type");
    json_decref(old);
    if (ours || (!there && !vl_path_exists(params)))
        return VL_OK;
    return vl_fail(err, VL_EMISMATCH, "%s: exists and is not of a lens: choose another folder",
                   there ? json_path : params);
}

vl_status vl_export_tuned_lens(const vl_export_job *job, vl_error *err)
{
    vl_status status = VL_OK;
    json_t *config = make_config(job);
    char *params = vl_path_join(job->path, "params.pt"), *json = vl_path_join(job->path, "config.json");
    if (!config || !params || !json)
        VL_GOTO(vl_fail_nomem(err, job->path));
    VL_GOTO(vl_make_directories(job->path, err));
    VL_GOTO(claim(json, params, err));
    VL_GOTO(write_params(params, job, err));
    VL_GOTO(vl_json_write(json, config, err));
done:
    json_decref(config);
    vl_free(params);
    vl_free(json);
    return status;
}
