#include "trainer/hf/config.h"

#include <math.h>

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

vl_status vl_hf_key_floats(float *out, int *count, int room, const vl_hf_reader *in, const char *key)
{
    const json_t *list = json_object_get(in->object, key);
    if (!list || json_is_null(list))
        return VL_OK;
    if (!json_is_array(list) || json_array_size(list) > (size_t)room)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"%s\" is no list of at most %d numbers", in->where, key, room);
    *count = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        float number = json_is_number(value) ? (float)json_number_value(value) : NAN;
        if (!isfinite(number))
            return vl_fail(in->err, VL_EFORMAT, "%s: \"%s\" holds something that is no finite number", in->where, key);
        out[(*count)++] = number;
    }
    return VL_OK;
}

vl_status vl_hf_key_only_bool(const vl_hf_reader *in, const char *key, bool only)
{
    bool value = only;
    VL_TRY(vl_hf_key_bool(&value, in, key));
    if (value != only)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"%s\" is %s; supported: %s", in->where, key,
                       value ? "true" : "false", only ? "true" : "false");
    return VL_OK;
}

vl_status vl_hf_key_only_double(const vl_hf_reader *in, const char *key, double only)
{
    double value = only;
    VL_TRY(vl_hf_key_double(&value, in, key, -1e30, 1e30));
    if (value != only)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"%s\" is %g; supported: %g", in->where, key, value, only);
    return VL_OK;
}

vl_status vl_hf_key_channels(double out[3], const vl_hf_reader *in, const char *key)
{
    const json_t *value = json_object_get(in->object, key);
    if (!value || json_is_null(value))
        return VL_OK;
    const bool list = json_is_array(value);
    for (size_t c = 0; c < 3; c++) {
        const json_t *number = list ? json_array_get(value, c) : value;
        if (!json_is_number(number) || (list && json_array_size(value) != 3))
            return vl_fail(in->err, VL_EFORMAT, "%s: \"%s\" is not a list of 3 numbers", in->where, key);
        out[c] = json_number_value(number);
    }
    return VL_OK;
}
