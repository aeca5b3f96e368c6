/* tuned_lens_read.c - a folder of the Python package tuned-lens, as TunedLens.save of any version writes it. */
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/lens/export.h"
#include "trainer/lens/pickle.h"
#include "trainer/lens/zip.h"

enum { CONFIG_LIMIT = 1 << 24, NAME_SIZE = 512 };

static vl_status keep_text(char **out, const json_t *config, const char *key, const char *where, vl_error *err)
{
    const char *text = NULL;
    VL_TRY(vl_json_string(&text, config, key, where, err));
    if (text && !(*out = vl_strdup(text)))
        return vl_fail_nomem(err, where);
    return VL_OK;
}

static vl_status read_heldout(vl_imported *lens, const json_t *config, vl_error *err)
{
    const json_t *list = json_object_get(config, "vlens_heldout_kl");
    if (!json_is_array(list) || json_array_size(list) != (size_t)lens->n_layers)
        return VL_OK; /* written by another program, or for no one */
    if (!(lens->heldout_kl = vl_imported_unknown(lens->n_layers)))
        return vl_fail_nomem(err, "config.json");
    for (size_t i = 0; i < (size_t)lens->n_layers; i++)
        if (json_is_number(json_array_get(list, i)))
            lens->heldout_kl[i] = json_number_value(json_array_get(list, i));
    return VL_OK;
}

static vl_status read_config(vl_imported *lens, const char *path, vl_error *err)
{
    json_t *config;
    int64_t d = -1, layers = -1;
    vl_status status = VL_OK;
    VL_TRY(vl_json_read(&config, path, CONFIG_LIMIT, err));
    VL_GOTO(vl_json_int(&d, config, "d_model", 1, 1 << 20, path, err));
    VL_GOTO(vl_json_int(&layers, config, "num_hidden_layers", 1, 1 << 16, path, err));
    if (d < 0 || layers < 0)
        VL_GOTO(vl_fail(err, VL_EFORMAT, "%s: d_model or num_hidden_layers is missing", path));
    if (d != lens->d_model || layers != lens->n_layers)
        VL_GOTO(vl_fail(err, VL_EMISMATCH, "%s: made for %lld layers of width %lld, the model has %lld of width %lld",
                        path, (long long)layers, (long long)d, (long long)lens->n_layers, (long long)lens->d_model));
    VL_GOTO(keep_text(&lens->model_id, config, "base_model_name_or_path", path, err));
    VL_GOTO(keep_text(&lens->unembed_hash, config, "unembed_hash", path, err));
    VL_GOTO(keep_text(&lens->fingerprint, config, "vlens_fingerprint", path, err));
    VL_GOTO(vl_json_int(&lens->tokens_seen, config, "vlens_tokens_seen", 0, INT64_MAX, path, err));
    VL_GOTO(read_heldout(lens, config, err));
done:
    json_decref(config);
    return status;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* The one member <archive>/data.pkl; *prefix is the length of "<archive>/". */
static const vl_zip_entry *find_pickle(size_t *prefix, const vl_zip *zip)
{
    const vl_zip_entry *found = NULL;
    for (size_t i = 0; i < zip->n; i++) {
        const char *name = zip->entries[i].name, *slash = strchr(name, '/');
        if (!slash || strcmp(slash, "/data.pkl") != 0)
            continue;
        if (found)
            return NULL;
        found = &zip->entries[i];
        *prefix = (size_t)(slash - name) + 1;
    }
    return found && *prefix < NAME_SIZE - 32 ? found : NULL;
}

static vl_status check_byte_order(const vl_zip *zip, const char *archive, size_t prefix, vl_error *err)
{
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "%.*sbyteorder", (int)prefix, archive);
    const vl_zip_entry *order = vl_zip_find(zip, name);
    if (order && (order->size != 6 || memcmp(order->data, "little", 6) != 0))
        return vl_fail(err, VL_EUNSUPPORTED, "%s: written on a machine of another byte order than little", zip->path);
    return VL_OK;
}

static vl_status put_tensor(vl_imported *lens, const vl_zip *zip, const char *archive, size_t prefix,
                            const vl_pickle_tensor *tensor, vl_error *err)
{
    char name[NAME_SIZE];
    vl_imported_tensor t = {.where = zip->path, .dtype = tensor->dtype, .ndim = tensor->ndim, .shape = tensor->shape};
    if (!vl_imported_name(&t.layer, &t.matrix, tensor->name.text, tensor->name.size))
        return vl_fail(err, VL_EFORMAT, "%s: a tensor is called otherwise than 0.weight or 0.bias", zip->path);
    snprintf(name, sizeof name, "%.*sdata/%.*s", (int)prefix, archive, (int)tensor->storage.size, tensor->storage.text);
    const vl_zip_entry *storage = vl_zip_find(zip, name);
    size_t element = vl_dtype_size(tensor->dtype), elements = 1;
    if (!storage)
        return vl_fail(err, VL_EFORMAT, "%s: the member data/%.*s is missing", zip->path, (int)tensor->storage.size,
                       tensor->storage.text);
    if (storage->size / element < (size_t)tensor->storage_elements)
        return vl_fail(err, VL_EFORMAT, "%s: the member data/%.*s holds %zu bytes, expected %lld elements of %zu",
                       zip->path, (int)tensor->storage.size, tensor->storage.text, storage->size,
                       (long long)tensor->storage_elements, element);
    VL_TRY(vl_zip_check(zip, storage, err));
    for (int k = 0; k < tensor->ndim; k++)
        elements *= (size_t)tensor->shape[k];
    t.data = storage->data + (size_t)tensor->offset * element;
    t.bytes = elements * element;
    return vl_imported_put(lens, &t, err);
}

static vl_status read_params(vl_imported *lens, const char *path, vl_error *err)
{
    vl_zip zip;
    vl_pickle_tensor *tensors = NULL;
    size_t n = 0, prefix = 0;
    vl_status status = VL_OK;
    VL_TRY(vl_zip_open(&zip, path, err));
    const vl_zip_entry *pickle = find_pickle(&prefix, &zip);
    if (!pickle)
        VL_GOTO(vl_fail(err, VL_EFORMAT, "%s: no PyTorch file: expected one member <name>/data.pkl", path));
    VL_GOTO(vl_zip_check(&zip, pickle, err));
    VL_GOTO(check_byte_order(&zip, pickle->name, prefix, err));
    VL_GOTO(vl_pickle_read(&tensors, &n, pickle->data, pickle->size, path, err));
    for (size_t i = 0; i < n; i++)
        VL_GOTO(put_tensor(lens, &zip, pickle->name, prefix, &tensors[i], err));
    for (int64_t i = 0; i < lens->n_layers; i++)
        if (!lens->weight[i] || !lens->bias[i])
            VL_GOTO(vl_fail(err, VL_EFORMAT, "%s: %lld.%s is missing", path, (long long)i,
                            lens->weight[i] ? "bias" : "weight"));
done:
    vl_free(tensors);
    vl_zip_close(&zip);
    return status;
}

vl_status vl_import_tuned_lens(vl_imported *lens, const char *path, vl_error *err)
{
    /* The folder, or one of its two files. */
    char *folder =
        ends_with(path, "params.pt") || ends_with(path, "config.json") ? vl_path_parent(path) : vl_strdup(path);
    char *config = folder ? vl_path_join(folder, "config.json") : NULL;
    char *params = folder ? vl_path_join(folder, "params.pt") : NULL;
    vl_status status = VL_OK;
    if (!config || !params)
        VL_GOTO(vl_fail_nomem(err, path));
    VL_GOTO(read_config(lens, config, err));
    VL_GOTO(read_params(lens, params, err));
done:
    vl_free(folder);
    vl_free(config);
    vl_free(params);
    return status;
}
