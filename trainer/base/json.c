#include "trainer/base/json.h"

#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"

vl_status vl_json_parse(json_t **out, const char *text, size_t size, const char *name, vl_error *err)
{
    json_error_t where;
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    if (!*out)
        return vl_fail(err, VL_EFORMAT, "%s: line %d, column %d: %s", name, where.line, where.column, where.text);
    return VL_OK;
}

vl_status vl_json_read(json_t **out, const char *path, size_t limit, vl_error *err)
{
    char *text;
    size_t size;
    *out = NULL;
    VL_TRY(vl_file_read(&text, &size, path, limit, err));
    vl_status status =
        vl_is_lfs_pointer(text, size) ? vl_fail_lfs(err, path) : vl_json_parse(out, text, size, path, err);
    vl_free(text);
    return status;
}

/* The member, or NULL where it is missing or null. */
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

vl_status vl_json_int(int64_t *out, const json_t *object, const char *key, int64_t min, int64_t max, const char *where,
                      vl_error *err)
{
    const json_t *value = member(object, key);
    if (!value)
        return VL_OK;
    if (!json_is_integer(value))
        return vl_fail(err, VL_EFORMAT, "%s: \"%s\" is no integer", where, key);
    int64_t number = json_integer_value(value);
    if (number < min || number > max)
        return vl_fail(err, VL_EFORMAT, "%s: \"%s\" is %lld, expected %lld to %lld", where, key, (long long)number,
                       (long long)min, (long long)max);
    *out = number;
    return VL_OK;
}

vl_status vl_json_double(double *out, const json_t *object, const char *key, const char *where, vl_error *err)
{
    const json_t *value = member(object, key);
    if (!value)
        return VL_OK;
    if (!json_is_number(value))
        return vl_fail(err, VL_EFORMAT, "%s: \"%s\" is no number", where, key);
    *out = json_number_value(value);
    return VL_OK;
}

vl_status vl_json_bool(bool *out, const json_t *object, const char *key, const char *where, vl_error *err)
{
    const json_t *value = member(object, key);
    if (!value)
        return VL_OK;
    if (!json_is_boolean(value))
        return vl_fail(err, VL_EFORMAT, "%s: \"%s\" is neither true nor false", where, key);
    *out = json_is_true(value);
    return VL_OK;
}

vl_status vl_json_string(const char **out, const json_t *object, const char *key, const char *where, vl_error *err)
{
    const json_t *value = member(object, key);
    if (!value)
        return VL_OK;
    if (!json_is_string(value))
        return vl_fail(err, VL_EFORMAT, "%s: \"%s\" is no string", where, key);
    *out = json_string_value(value);
    return VL_OK;
}

vl_status vl_json_write(const char *path, const json_t *value, vl_error *err)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(9) | JSON_ENCODE_ANY);
    if (!text)
        return vl_fail_nomem(err, path);
    size_t n = strlen(text);
    text[n] = '\n'; /* in place of the NUL: the write below counts bytes */
    vl_status status = vl_atomic_write(path, text, n + 1, err);
    vl_free(text);
    return status;
}
