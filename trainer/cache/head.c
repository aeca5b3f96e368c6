#include <math.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/cache/open.h"

/* Shape and type of one array of /head. Sets *dtype. */
static vl_status check_array(vl_dtype *dtype, vl_cache *cache, const char *name, vl_h5_shape expected, vl_error *err)
{
    vl_h5_dataset dataset;
    VL_TRY(vl_h5_dataset_open(&dataset, cache->index, name, false, err));
    vl_h5_shape found = dataset.shape;
    *dtype = dataset.dtype;
    vl_h5_dataset_close(&dataset);
    if (*dtype == VL_F64)
        return vl_h5_refuse(err, VL_EFORMAT, cache->index,
                            "%s has an element type other than bfloat16, float16 and "
                            "float32",
                            name);
    bool same = found.ndim == expected.ndim;
    for (int i = 0; same && i < expected.ndim; i++)
        same = found.size[i] == expected.size[i];
    if (!same)
        return vl_h5_refuse(err, VL_ESHAPE, cache->index,
                            "%s has %d dimensions, the first of %lld; expected %d, the "
                            "first of %lld (vocab_size %lld, d_model %lld)",
                            name, found.ndim, (long long)found.size[0], expected.ndim, (long long)expected.size[0],
                            (long long)cache->meta.vocab_size, (long long)cache->meta.d_model);
    return VL_OK;
}

/* What some models do behind the projection. Only a soft cap is done here, and dropping another would make another
 * teacher. */
static vl_status refuse_transforms(const vl_cache *cache, vl_error *err)
{
    static const char *const names[] = {"logit_scale", "logit_bias"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (vl_h5_has_attribute(cache->index, "/head", names[i]))
            return vl_h5_refuse(err, VL_EUNSUPPORTED, cache->index,
                                "attribute \"%s\" of /head: what changes the logits behind the projection is not "
                                "supported in a cache, and without it the model's distribution is another one",
                                names[i]);
    return VL_OK;
}

static vl_status read_norm(vl_cache *cache, vl_error *err)
{
    char *norm;
    vl_head_source *head = &cache->head;
    VL_TRY(vl_h5_get_text(&norm, cache->index, "/head", "norm", err));
    bool layer = strcmp(norm, "layer") == 0, none = strcmp(norm, "none") == 0;
    vl_status status = layer || none || strcmp(norm, "rms") == 0
                           ? VL_OK
                           : vl_h5_refuse(err, VL_EFORMAT, cache->index,
                                          "attribute \"norm\" of /head "
                                          "is \"%.20s\", expected \"rms\", \"layer\" or \"none\"",
                                          norm);
    vl_free(norm);
    VL_TRY(status);
    VL_TRY(refuse_transforms(cache, err));
    head->norm = layer ? VL_NORM_LAYER : none ? VL_NORM_NONE : VL_NORM_RMS;
    VL_TRY(vl_h5_get_double(&head->eps, cache->index, "/head", "eps", err));
    if (!isfinite(head->eps) || head->eps < 0)
        return vl_h5_refuse(err, VL_EFORMAT, cache->index, "attribute \"eps\" of /head is %g", head->eps);
    if (!vl_h5_has_attribute(cache->index, "/head", "softcap"))
        return VL_OK;
    VL_TRY(vl_h5_get_double(&head->softcap, cache->index, "/head", "softcap", err));
    if (!isfinite(head->softcap) || head->softcap < 0)
        return vl_h5_refuse(err, VL_EFORMAT, cache->index, "attribute \"softcap\" of /head is %g", head->softcap);
    return VL_OK;
}

vl_status vl_cache_head_describe(vl_cache *cache, vl_error *err)
{
    const vl_cache_meta *meta = &cache->meta;
    vl_head_source *head = &cache->head;
    vl_h5_shape matrix = {2, {meta->vocab_size, meta->d_model}}, rows = {1, {meta->vocab_size}};
    vl_h5_shape columns = {1, {meta->d_model}};
    vl_dtype other;
    if (!vl_h5_has(cache->index, "/head"))
        return VL_OK;
    *head = (vl_head_source){.d_model = meta->d_model, .vocab_size = meta->vocab_size, .n_layers = meta->n_layers};
    VL_TRY(read_norm(cache, err));
    VL_TRY(check_array(&head->weight_dtype, cache, "/head/weight", matrix, err));
    VL_TRY(check_array(&head->norm_dtype, cache, "/head/norm_weight", columns, err));
    if (vl_h5_has(cache->index, "/head/bias")) {
        VL_TRY(check_array(&other, cache, "/head/bias", rows, err));
        if (other != head->weight_dtype)
            return vl_h5_refuse(err, VL_EFORMAT, cache->index, "/head/bias is %s, but /head/weight %s",
                                vl_dtype_name(other), vl_dtype_name(head->weight_dtype));
    }
    if (vl_h5_has(cache->index, "/head/norm_bias")) {
        VL_TRY(check_array(&other, cache, "/head/norm_bias", columns, err));
        if (other != head->norm_dtype)
            return vl_h5_refuse(err, VL_EFORMAT, cache->index, "/head/norm_bias is %s, but /head/norm_weight %s",
                                vl_dtype_name(other), vl_dtype_name(head->norm_dtype));
    }
    cache->has_head = true;
    return VL_OK;
}

/* Reads an array whole into cache->head_memory[slot]. */
static vl_status load_array(vl_cache *cache, const char *name, int slot, vl_error *err)
{
    vl_h5_dataset dataset;
    VL_TRY(vl_h5_dataset_open(&dataset, cache->index, name, false, err));
    int64_t rows = dataset.shape.size[0], columns = dataset.shape.ndim == 2 ? dataset.shape.size[1] : 1;
    size_t count = 0;
    vl_status status = VL_OK;
    if (!cache->head_memory[slot] && vl_mul_size(&count, (size_t)rows, (size_t)columns))
        cache->head_memory[slot] = vl_alloc_aligned(count, vl_dtype_size(dataset.dtype));
    if (!cache->head_memory[slot])
        status = vl_fail_nomem(err, name);
    else
        status = vl_h5_read_rows(cache->head_memory[slot], &dataset, 0, rows, err);
    vl_h5_dataset_close(&dataset);
    return status;
}

vl_status vl_cache_head_load(vl_cache *cache, vl_error *err)
{
    char computed[65];
    if (cache->head_loaded)
        return VL_OK;
    VL_TRY(load_array(cache, "/head/weight", 0, err));
    if (vl_h5_has(cache->index, "/head/bias"))
        VL_TRY(load_array(cache, "/head/bias", 1, err));
    VL_TRY(load_array(cache, "/head/norm_weight", 2, err));
    if (vl_h5_has(cache->index, "/head/norm_bias"))
        VL_TRY(load_array(cache, "/head/norm_bias", 3, err));
    cache->head.weight = cache->head_memory[0];
    cache->head.bias = cache->head_memory[1];
    cache->head.norm_weight = cache->head_memory[2];
    cache->head.norm_bias = cache->head_memory[3];
    vl_head_fingerprint(computed, &cache->head);
    if (!cache->fingerprint[0])
        memcpy(cache->fingerprint, computed, sizeof computed);
    if (strcmp(cache->fingerprint, computed) != 0)
        return vl_h5_refuse(err, VL_EMISMATCH, cache->index, "fingerprint is %s, but /head has the fingerprint %s",
                            cache->fingerprint, computed);
    cache->head_loaded = true;
    return VL_OK;
}

vl_status vl_cache_head(vl_head **out, vl_cache *cache, vl_device *device, vl_precision precision, vl_error *err)
{
    *out = NULL;
    if (!cache->has_head)
        return vl_h5_refuse(err, VL_EFORMAT, cache->index,
                            "the cache has no /head (the unembedding), which this needs");
    VL_TRY(vl_cache_head_load(cache, err));
    return vl_head_new(out, device, &cache->head, precision, NULL, err);
}
