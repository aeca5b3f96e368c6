#include "trainer/hf/config_read.h"

#include <math.h>
#include <string.h>

/* Names of transformers/activations.py, ACT2FN. gelu_new, gelu_fast and gelu_pytorch_tanh are one formula written
 * three ways. */
static const struct {
    const char *name;
    vl_activation act;
} activations[] = {
    {"silu", VL_ACT_SILU},
    {"swish", VL_ACT_SILU},
    {"gelu", VL_ACT_GELU},
    {"gelu_python", VL_ACT_GELU},
    {"gelu_new", VL_ACT_GELU_TANH},
    {"gelu_fast", VL_ACT_GELU_TANH},
    {"gelu_pytorch_tanh", VL_ACT_GELU_TANH},
    {"quick_gelu", VL_ACT_QUICK_GELU},
    {"relu", VL_ACT_RELU},
};

bool vl_hf_key_has(const vl_hf_reader *in, const char *key)
{
    const json_t *value = json_object_get(in->object, key);
    return value && !json_is_null(value);
}

vl_status vl_hf_key_int(int *out, const vl_hf_reader *in, const char *key, int min, int max)
{
    int64_t value = *out;
    VL_TRY(vl_json_int(&value, in->object, key, min, max, in->where, in->err));
    *out = (int)value;
    return VL_OK;
}

vl_status vl_hf_key_size(int *out, const vl_hf_reader *in, const char *key)
{
    return vl_hf_key_int(out, in, key, 1, VL_HF_MAX_SIZE);
}

vl_status vl_hf_key_double(double *out, const vl_hf_reader *in, const char *key, double min, double max)
{
    double value = *out;
    VL_TRY(vl_json_double(&value, in->object, key, in->where, in->err));
    if (!isfinite(value) || value < min || value > max)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"%s\" is %g, expected %g to %g", in->where, key, value, min, max);
    *out = value;
    return VL_OK;
}

vl_status vl_hf_key_bool(bool *out, const vl_hf_reader *in, const char *key)
{
    return vl_json_bool(out, in->object, key, in->where, in->err);
}

vl_status vl_hf_key_string(const char **out, const vl_hf_reader *in, const char *key)
{
    return vl_json_string(out, in->object, key, in->where, in->err);
}

vl_status vl_hf_key_activation(vl_activation *out, const vl_hf_reader *in, const char *key)
{
    const char *name = NULL;
    VL_TRY(vl_hf_key_string(&name, in, key));
    if (!name)
        return VL_OK;
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (strcmp(activations[i].name, name) == 0) {
            *out = activations[i].act;
            return VL_OK;
        }
    return vl_fail(
        in->err, VL_EUNSUPPORTED,
        "%s: \"%s\" is \"%s\"; supported: silu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, relu",
        in->where, key, name);
}

vl_status vl_hf_key_ints(int *out, int *count, int room, const vl_hf_reader *in, const char *key, vl_hf_range range)
{
    const json_t *list = json_object_get(in->object, key);
    if (!list || json_is_null(list))
        return VL_OK;
    if (!json_is_array(list))
        return vl_fail(in->err, VL_EFORMAT, "%s: \"%s\" is no list", in->where, key);
    if (json_array_size(list) > (size_t)room)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"%s\" has %zu elements, at most %d are supported", in->where,
                       key, json_array_size(list), room);
    *count = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value))
            return vl_fail(in->err, VL_EFORMAT, "%s: \"%s\" holds something that is no integer", in->where, key);
        json_int_t number = json_integer_value(value);
        if (number < range.min || number > range.max)
            return vl_fail(in->err, VL_EFORMAT, "%s: \"%s\" holds %lld, expected %d to %d", in->where, key,
                           (long long)number, range.min, range.max);
        out[(*count)++] = (int)number;
    }
    return VL_OK;
}
