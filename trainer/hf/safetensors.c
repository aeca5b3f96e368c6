#include "trainer/hf/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the format is little-endian and its data are used in place"
#endif

enum {
    PREFIX_BYTES = 8,             /* the header's length */
    MAX_HEADER_BYTES = 100000000, /* MAX_HEADER_SIZE of the reference library */
    MAX_JSON_DEPTH = 127          /* serde_json refuses a nesting of 128 */
};

typedef struct dtype_row {
    const char *name;
    uint8_t bits;
    uint8_t alignment;
    bool raw;
    vl_dtype dtype;
} dtype_row;

/* All names that the reference library knows (tensor.rs, enum Dtype, version 0.8). */
static const dtype_row dtype_rows[] = {
    {"F32", 32, 4, false, VL_F32},      {"BF16", 16, 2, false, VL_BF16}, {"F16", 16, 2, false, VL_F16},
    {"F64", 64, 8, false, VL_F64},      {"I64", 64, 8, false, VL_I64},   {"I32", 32, 4, false, VL_I32},
    {"U8", 8, 1, false, VL_U8},         {"BOOL", 8, 1, true, VL_U8},     {"I8", 8, 1, true, VL_U8},
    {"I16", 16, 2, true, VL_U8},        {"U16", 16, 2, true, VL_U8},     {"U32", 32, 4, true, VL_U8},
    {"U64", 64, 8, true, VL_U8},        {"C64", 64, 4, true, VL_U8},     {"F8_E5M2", 8, 1, true, VL_U8},
    {"F8_E4M3", 8, 1, true, VL_U8},     {"F8_E8M0", 8, 1, true, VL_U8},  {"F8_E5M2FNUZ", 8, 1, true, VL_U8},
    {"F8_E4M3FNUZ", 8, 1, true, VL_U8}, {"F6_E2M3", 6, 1, true, VL_U8},  {"F6_E3M2", 6, 1, true, VL_U8},
    {"F4", 4, 1, true, VL_U8},
};

typedef struct entry {
    vl_weight_view view;
    size_t begin, end; /* offsets from the start of the data */
} entry;

struct vl_safetensors {
    char *path;
    vl_map map;
    json_t *header; /* owns every name and metadata text */
    entry *entries; /* ascending by name once open */
    size_t n_entries;
};

const char *vl_shape_text(char *text, size_t size, int ndim, const int64_t *shape)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < ndim && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
    return text;
}

static const dtype_row *find_dtype(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof dtype_rows / sizeof *dtype_rows; i++)
        if (strlen(dtype_rows[i].name) == length && memcmp(dtype_rows[i].name, name, length) == 0)
            return &dtype_rows[i];
    return NULL;
}

/* A member of a tensor's object that must be an array. */
static vl_status array_member(json_t **out, json_t *object, const char *key, const char *where, vl_error *err)
{
    *out = json_object_get(object, key);
    if (!json_is_array(*out))
        return vl_fail(err, VL_EFORMAT, "%s: \"%s\" is %s", where, key, *out ? "no array" : "missing");
    return VL_OK;
}

static vl_status natural(int64_t *out, const json_t *value, const char *key, const char *where, vl_error *err)
{
    if (!json_is_integer(value))
        return vl_fail(err, VL_EFORMAT, "%s: \"%s\" holds something that is no integer", where, key);
    *out = json_integer_value(value);
    if (*out < 0)
        return vl_fail(err, VL_EFORMAT, "%s: \"%s\" holds %lld, expected no negative number", where, key,
                       (long long)*out);
    return VL_OK;
}

static vl_status read_dtype(const dtype_row **out, json_t *object, const char *where, vl_error *err)
{
    const json_t *value = json_object_get(object, "dtype");
    if (!json_is_string(value))
        return vl_fail(err, VL_EFORMAT, "%s: \"dtype\" is %s", where, value ? "no string" : "missing");
    *out = find_dtype(json_string_value(value), json_string_length(value));
    if (!*out)
        return vl_fail(err, VL_EFORMAT, "%s: unknown dtype \"%s\"", where, json_string_value(value));
    return VL_OK;
}

/* The product of the shape; sizes are in elements. */
static vl_status read_shape(vl_weight_view *view, size_t *count, json_t *object, const char *where, vl_error *err)
{
    json_t *shape;
    VL_TRY(array_member(&shape, object, "shape", where, err));
    size_t n = json_array_size(shape);
    if (n > VL_WEIGHT_MAX_DIMS)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: %zu dimensions, at most %d are supported", where, n,
                       VL_WEIGHT_MAX_DIMS);
    view->ndim = (int)n;
    *count = 1;
    for (size_t i = 0; i < n; i++) {
        VL_TRY(natural(&view->shape[i], json_array_get(shape, i), "shape", where, err));
        if (!vl_mul_size(count, *count, (size_t)view->shape[i]))
            return vl_fail(err, VL_EFORMAT, "%s: the product of the shape overflows", where);
    }
    return VL_OK;
}

static vl_status read_entry(entry *out, const char *name, json_t *object, const char *where, vl_error *err)
{
    const dtype_row *dtype;
    json_t *offsets;
    int64_t begin = 0, end = 0;
    size_t count, bits;
    if (!json_is_object(object))
        return vl_fail(err, VL_EFORMAT, "%s: no object", where);
    VL_TRY(read_dtype(&dtype, object, where, err));
    VL_TRY(read_shape(&out->view, &count, object, where, err));
    VL_TRY(array_member(&offsets, object, "data_offsets", where, err));
    if (json_array_size(offsets) != 2)
        return vl_fail(err, VL_EFORMAT, "%s: \"data_offsets\" has %zu elements, expected 2", where,
                       json_array_size(offsets));
    VL_TRY(natural(&begin, json_array_get(offsets, 0), "data_offsets", where, err));
    VL_TRY(natural(&end, json_array_get(offsets, 1), "data_offsets", where, err));
    if (end < begin)
        return vl_fail(err, VL_EFORMAT, "%s: \"data_offsets\" is [%lld, %lld], the end lies before the start", where,
                       (long long)begin, (long long)end);
    if (!vl_mul_size(&bits, count, dtype->bits))
        return vl_fail(err, VL_EFORMAT, "%s: the size in bytes overflows", where);
    if (bits % 8 != 0 || bits / 8 != (uint64_t)(end - begin))
        return vl_fail(err, VL_EFORMAT, "%s: \"data_offsets\" spans %lld bytes, shape and dtype need %zu%s", where,
                       (long long)(end - begin), bits / 8, bits % 8 ? " and a part of one" : "");
    out->view.name = name;
    out->view.dtype_name = dtype->name;
    out->view.dtype = dtype->dtype;
    out->view.raw = dtype->raw;
    out->view.bytes = bits / 8;
    out->view.aligned = dtype->alignment == 1; /* the others when the address is known */
    out->begin = (size_t)begin;
    out->end = (size_t)end;
    return VL_OK;
}

static vl_status read_metadata(const json_t *map, const char *path, vl_error *err)
{
    const char *key;
    json_t *value;
    if (!map || json_is_null(map))
        return VL_OK;
    if (!json_is_object(map))
        return vl_fail(err, VL_EFORMAT, "%s: \"__metadata__\" is no object", path);
    json_object_foreach((json_t *)(uintptr_t)map, key, value) if (!json_is_string(value)) return vl_fail(
        err, VL_EFORMAT, "%s: \"__metadata__\": \"%s\" is no string", path, key);
    return VL_OK;
}

static vl_status read_entries(vl_safetensors *file, vl_error *err)
{
    const char *name;
    json_t *object;
    char where[VL_ERROR_MESSAGE_SIZE];
    file->entries = vl_calloc(json_object_size(file->header), sizeof *file->entries);
    if (!file->entries)
        return vl_fail_nomem(err, file->path);
    json_object_foreach(file->header, name, object)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        snprintf(where, sizeof where, "%s: tensor \"%s\"", file->path, name);
        VL_TRY(read_entry(&file->entries[file->n_entries], name, object, where, err));
        file->n_entries++;
    }
    return VL_OK;
}

static int by_offset(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->view.name, ((const entry *)b)->view.name);
}

/* The tensors must tile the data without hole or overlap, and end where the file ends. */
static vl_status place_entries(vl_safetensors *file, size_t data_start, vl_error *err)
{
    size_t at = 0, available = file->map.size - data_start;
    qsort(file->entries, file->n_entries, sizeof *file->entries, by_offset);
    for (size_t i = 0; i < file->n_entries; i++) {
        entry *e = &file->entries[i];
        if (e->begin != at)
            return vl_fail(err, VL_EFORMAT, "%s: tensor \"%s\" starts at byte %zu of the data, expected %zu (%s)",
                           file->path, e->view.name, e->begin, at, e->begin > at ? "a hole" : "an overlap");
        at = e->end;
    }
    if (at != available)
        return vl_fail(err, VL_EFORMAT, "%s: the header describes %zu bytes of data, the file holds %zu%s", file->path,
                       at, available, at > available ? " (truncated?)" : "");
    for (size_t i = 0; i < file->n_entries; i++) {
        entry *e = &file->entries[i];
        const dtype_row *dtype = find_dtype(e->view.dtype_name, strlen(e->view.dtype_name));
        e->view.data = file->map.data + data_start + e->begin;
        e->view.aligned = (uintptr_t)e->view.data % dtype->alignment == 0;
    }
    qsort(file->entries, file->n_entries, sizeof *file->entries, by_name);
    return VL_OK;
}

/* Two things that jansson allows and the reference library's parser does not, looked for before parsing: a nesting of
 * more than 127 (jansson: 2048), and -0, which is no natural number there. NULL where the text has neither. */
static const char *find_excess(const char *text, size_t size)
{
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            if (++depth > MAX_JSON_DEPTH)
                return "is nested deeper than 127";
        } else if (c == ']' || c == '}') {
            depth--;
        } else if (c == '-' && i + 2 < size && text[i + 1] == '0' && !strchr(".eE", text[i + 2])) {
            return "holds the number -0";
        }
    }
    return NULL;
}

/* Judges the header's length and text; *data_start is where it ends. */
static vl_status read_header(vl_safetensors *file, size_t *data_start, vl_error *err)
{
    uint64_t length = 0;
    if (file->map.size < PREFIX_BYTES)
        return vl_fail(err, VL_EFORMAT, "%s: %zu bytes, a safetensors file starts with 8 bytes of header length",
                       file->path, file->map.size);
    if (vl_is_lfs_pointer(file->map.data, file->map.size))
        return vl_fail_lfs(err, file->path);
    memcpy(&length, file->map.data, PREFIX_BYTES);
    if (length > MAX_HEADER_BYTES)
        return vl_fail(err, VL_EFORMAT, "%s: a header of %llu bytes, at most %d are allowed", file->path,
                       (unsigned long long)length, MAX_HEADER_BYTES);
    if (length > file->map.size - PREFIX_BYTES)
        return vl_fail(err, VL_EFORMAT, "%s: a header of %llu bytes, the file holds %zu (truncated?)", file->path,
                       (unsigned long long)length, file->map.size - PREFIX_BYTES);
    const char *text = (const char *)file->map.data + PREFIX_BYTES;
    *data_start = PREFIX_BYTES + (size_t)length;
    const char *excess = find_excess(text, (size_t)length);
    if (excess)
        return vl_fail(err, VL_EFORMAT, "%s: the header %s", file->path, excess);
    VL_TRY(vl_json_parse(&file->header, text, (size_t)length, file->path, err));
    if (!json_is_object(file->header))
        return vl_fail(err, VL_EFORMAT, "%s: the header is no JSON object", file->path);
    return read_metadata(json_object_get(file->header, "__metadata__"), file->path, err);
}

vl_status vl_safetensors_open(vl_safetensors **out, const char *path, vl_error *err)
{
    vl_status status = VL_OK;
    size_t data_start = 0;
    *out = NULL;
    vl_safetensors *file = vl_calloc(1, sizeof *file);
    if (!file)
        return vl_fail_nomem(err, path);
    file->path = vl_strdup(path);
    if (!file->path) {
        status = vl_fail_nomem(err, path);
        goto done;
    }
    VL_GOTO(vl_map_open(&file->map, path, err));
    VL_GOTO(read_header(file, &data_start, err));
    VL_GOTO(read_entries(file, err));
    VL_GOTO(place_entries(file, data_start, err));
    *out = file;
    return VL_OK;
done:
    vl_safetensors_close(file);
    return status;
}

void vl_safetensors_close(vl_safetensors *file)
{
    if (!file)
        return;
    json_decref(file->header);
    vl_map_close(&file->map);
    vl_free(file->entries);
    vl_free(file->path);
    vl_free(file);
}

const char *vl_safetensors_path(const vl_safetensors *file)
{
    return file->path;
}

size_t vl_safetensors_count(const vl_safetensors *file)
{
    return file->n_entries;
}

const vl_weight_view *vl_safetensors_at(const vl_safetensors *file, size_t i)
{
    return &file->entries[i].view;
}

const vl_weight_view *vl_safetensors_find(const vl_safetensors *file, const char *name)
{
    size_t low = 0, high = file->n_entries;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, file->entries[middle].view.name);
        if (order == 0)
            return &file->entries[middle].view;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *vl_safetensors_metadata(const vl_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

size_t vl_safetensors_metadata_count(const vl_safetensors *file)
{
    return json_object_size(json_object_get(file->header, "__metadata__"));
}

void vl_safetensors_metadata_at(const vl_safetensors *file, size_t i, const char **key, const char **value)
{
    json_t *map = json_object_get(file->header, "__metadata__");
    void *at = json_object_iter(map);
    while (at && i-- > 0)
        at = json_object_iter_next(map, at);
    *key = at ? json_object_iter_key(at) : NULL;
    *value = at ? json_string_value(json_object_iter_value(at)) : NULL;
}
