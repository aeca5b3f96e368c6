/* base/json.h - reading JSON files with one-line errors, over jansson. */
#ifndef VL_BASE_JSON_H
#define VL_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "trainer/base/status.h"

/* Parses a file (at most `limit` bytes, duplicate keys refused); the caller json_decrefs *out.
 * Errors name the file, line and column. */
vl_status vl_json_read(json_t **out, const char *path, size_t limit, vl_error *err);
/* The same for text in memory; `name` stands in the messages. */
vl_status vl_json_parse(json_t **out, const char *text, size_t size, const char *name, vl_error *err);

/* Typed members. A missing key or a null leaves *out as it is (preset the default); a wrong type or a value
 * out of range is VL_EFORMAT that names `where` and the key. */
vl_status vl_json_int(int64_t *out, const json_t *object, const char *key, int64_t min, int64_t max, const char *where,
                      vl_error *err);
vl_status vl_json_double(double *out, const json_t *object, const char *key, const char *where, vl_error *err);
vl_status vl_json_bool(bool *out, const json_t *object, const char *key, const char *where, vl_error *err);
/* Borrowed from the object. */
vl_status vl_json_string(const char **out, const json_t *object, const char *key, const char *where, vl_error *err);

/* Writes a value atomically (2 spaces of indent, keys in insertion order, a final newline). */
vl_status vl_json_write(const char *path, const json_t *value, vl_error *err);

#endif
