/* hdf5.c - one HDF5 file: /adapter/{i}/weight [D, D] and /adapter/{i}/bias [D], and what is known as attributes. */
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/str.h"
#include "trainer/cache/h5.h"
#include "trainer/lens/export.h"

enum { NAME_SIZE = 48, LENS_VERSION = 1 };

static vl_status put_attributes(vl_h5 file, const vl_lens_info *info, vl_error *err)
{
    VL_TRY(vl_h5_put_text(file, "/", "format", "vlens-lens", err));
    VL_TRY(vl_h5_put_int(file, "/", "version", LENS_VERSION, err));
    VL_TRY(vl_h5_put_int(file, "/", "d_model", info->d_model, err));
    VL_TRY(vl_h5_put_int(file, "/", "n_layers", info->n_layers, err));
    VL_TRY(vl_h5_put_text(file, "/", "fingerprint", info->fingerprint, err));
    VL_TRY(vl_h5_put_text(file, "/", "model_id", info->model_id, err));
    VL_TRY(vl_h5_put_text(file, "/", "config", info->config, err));
    VL_TRY(vl_h5_put_text(file, "/", "vlens_version", VLENS_VERSION, err));
    return vl_h5_put_int(file, "/", "tokens_seen", info->tokens_seen, err);
}

static vl_status put_array(vl_h5 file, const char *group, const float *values, int64_t d, bool matrix, vl_dtype dtype,
                           vl_error *err)
{
    char name[NAME_SIZE + 16];
    const void *data;
    void *copy;
    snprintf(name, sizeof name, "%s/%s", group, matrix ? "weight" : "bias");
    VL_TRY(vl_export_narrow(&data, &copy, values, (size_t)d * (matrix ? (size_t)d : 1), dtype, name, err));
    vl_status status = vl_h5_write(file, name, vl_h5_type_of(dtype), (vl_h5_shape){matrix ? 2 : 1, {d, d}}, data, err);
    vl_free(copy);
    return status;
}

static vl_status put_adapter(vl_h5 file, const vl_export_job *job, int64_t i, vl_error *err)
{
    const vl_lens_info *info = vl_lens_get_info(job->lens);
    const float *weight = vl_lens_weight(job->lens, i), *bias = vl_lens_bias(job->lens, i);
    char group[NAME_SIZE];
    if (!bias)
        return VL_OK;
    snprintf(group, sizeof group, "/adapter/%lld", (long long)i);
    VL_TRY(vl_h5_make_group(file, group, err));
    if (info->heldout_kl && isfinite(info->heldout_kl[i]))
        VL_TRY(vl_h5_put_double(file, group, "heldout_kl", info->heldout_kl[i], err));
    if (weight)
        VL_TRY(put_array(file, group, weight, info->d_model, true, job->dtype, err));
    return put_array(file, group, bias, info->d_model, false, job->dtype, err);
}

static vl_status write_file(const char *path, const vl_export_job *job, vl_error *err)
{
    vl_h5 file;
    vl_status status = VL_OK;
    VL_TRY(vl_h5_create(&file, path, err));
    VL_GOTO(put_attributes(file, vl_lens_get_info(job->lens), err));
    VL_GOTO(vl_h5_make_group(file, "/adapter", err));
    for (int64_t i = 0; i < vl_lens_get_info(job->lens)->n_layers; i++)
        VL_GOTO(put_adapter(file, job, i, err));
    VL_GOTO(vl_h5_finish(&file, err));
done:
    vl_h5_close(&file);
    return status;
}

vl_status vl_export_hdf5(const vl_export_job *job, vl_error *err)
{
    if (job->dtype != VL_F32 && job->dtype != VL_BF16 && job->dtype != VL_F16)
        return vl_fail(err, VL_EINVAL, "hdf5: element type %s, expected float32, bfloat16 or float16",
                       vl_dtype_name(job->dtype));
    vl_str temporary = VL_STR_INIT;
    vl_str_printf(&temporary, "%s.tmp-%ld", job->path, (long)getpid());
    if (temporary.failed) {
        vl_str_clear(&temporary);
        return vl_fail_nomem(err, job->path);
    }
    vl_status status = write_file(temporary.data, job, err);
    if (status == VL_OK)
        status = vl_publish_file(temporary.data, job->path, err);
    if (status != VL_OK)
        unlink(temporary.data);
    vl_str_clear(&temporary);
    return status;
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

static vl_status get_array(vl_imported *lens, vl_h5 file, const char *path, int64_t i, bool matrix, vl_error *err)
{
    char name[NAME_SIZE];
    vl_h5_dataset dataset;
    vl_status status = VL_OK;
    snprintf(name, sizeof name, "/adapter/%lld/%s", (long long)i, matrix ? "weight" : "bias");
    if (!vl_h5_has(file, name))
        return VL_OK;
    VL_TRY(vl_h5_dataset_open(&dataset, file, name, false, err));
    const int64_t *shape = dataset.shape.size;
    vl_imported_tensor t = {.where = path,
                            .layer = i,
                            .matrix = matrix,
                            .dtype = dataset.dtype,
                            .ndim = dataset.shape.ndim,
                            .shape = shape};
    void *data = NULL;
    if (dataset.dtype == VL_F64 || t.ndim != (matrix ? 2 : 1) || shape[0] != lens->d_model ||
        (matrix && shape[1] != lens->d_model))
        VL_GOTO(vl_fail(err, VL_ESHAPE, "%s: %s is no float32, float16 or bfloat16 array of width %lld", path, name,
                        (long long)lens->d_model));
    size_t n = (size_t)lens->d_model * (matrix ? (size_t)lens->d_model : 1);
    t.bytes = n * vl_dtype_size(t.dtype);
    if (!(data = vl_alloc(t.bytes, 1)))
        VL_GOTO(vl_fail_nomem(err, name));
    VL_GOTO(vl_h5_read_rows(data, &dataset, 0, lens->d_model, err));
    t.data = data;
    VL_GOTO(vl_imported_put(lens, &t, err));
done:
    vl_free(data);
    vl_h5_dataset_close(&dataset);
    return status;
}

static vl_status get_known(vl_imported *lens, vl_h5 file, vl_error *err)
{
    int64_t d, layers;
    VL_TRY(vl_h5_get_int(&d, file, "/", "d_model", err));
    VL_TRY(vl_h5_get_int(&layers, file, "/", "n_layers", err));
    if (d != lens->d_model || layers != lens->n_layers)
        return vl_h5_refuse(err, VL_EMISMATCH, file, "made for %lld layers of width %lld, the model has %lld of %lld",
                            (long long)layers, (long long)d, (long long)lens->n_layers, (long long)lens->d_model);
    if (vl_h5_has_attribute(file, "/", "fingerprint"))
        VL_TRY(vl_h5_get_text(&lens->fingerprint, file, "/", "fingerprint", err));
    if (vl_h5_has_attribute(file, "/", "model_id"))
        VL_TRY(vl_h5_get_text(&lens->model_id, file, "/", "model_id", err));
    if (vl_h5_has_attribute(file, "/", "tokens_seen"))
        VL_TRY(vl_h5_get_int(&lens->tokens_seen, file, "/", "tokens_seen", err));
    return lens->tokens_seen < 0 ? vl_h5_refuse(err, VL_EFORMAT, file, "attribute tokens_seen is below 0") : VL_OK;
}

/* KL of each layer, where a layer has it. */
static vl_status get_heldout(vl_imported *lens, vl_h5 file, vl_error *err)
{
    char group[NAME_SIZE];
    for (int64_t i = 0; i < lens->n_layers; i++) {
        snprintf(group, sizeof group, "/adapter/%lld", (long long)i);
        if (!vl_h5_has(file, group) || !vl_h5_has_attribute(file, group, "heldout_kl"))
            continue;
        if (!lens->heldout_kl && !(lens->heldout_kl = vl_imported_unknown(lens->n_layers)))
            return vl_fail_nomem(err, "hdf5");
        VL_TRY(vl_h5_get_double(&lens->heldout_kl[i], file, group, "heldout_kl", err));
    }
    return VL_OK;
}

vl_status vl_import_hdf5(vl_imported *lens, const char *path, vl_error *err)
{
    vl_h5 file;
    vl_status status = VL_OK;
    VL_TRY(vl_h5_open(&file, path, err));
    VL_GOTO(get_known(lens, file, err));
    for (int64_t i = 0; i < lens->n_layers; i++) {
        VL_GOTO(get_array(lens, file, path, i, true, err));
        VL_GOTO(get_array(lens, file, path, i, false, err));
    }
    VL_GOTO(get_heldout(lens, file, err));
done:
    vl_h5_close(&file);
    return status;
}
