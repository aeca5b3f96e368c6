#include "trainer/hf/safetensors_write.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"

enum { MAX_HEADER_BYTES = 100000000, HEADER_ALIGNMENT = 8 };

typedef struct item {
    const vl_safetensors_entry *entry;
    size_t bytes;
} item;

static const char *format_dtype(vl_dtype dtype)
{
    switch (dtype) {
    case VL_F32: return "F32";
    case VL_F16: return "F16";
    case VL_BF16: return "BF16";
    case VL_I32: return "I32";
    case VL_U8: return "U8";
    case VL_F64: return "F64";
    case VL_I64: return "I64";
    }
    return NULL;
}

static vl_status measure(item *out, const vl_safetensors_entry *entry, const char *path, vl_error *err)
{
    *out = (item){entry, 0};
    if (!entry->name || strcmp(entry->name, "__metadata__") == 0 || !format_dtype(entry->dtype) || entry->ndim < 0 ||
        entry->ndim > VL_WEIGHT_MAX_DIMS)
        return vl_fail(err, VL_EINVAL, "%s: tensor \"%s\": a bad name, element type or number of dimensions (%d)", path,
                       entry->name ? entry->name : "(none)", entry->ndim);
    size_t bytes = vl_dtype_size(entry->dtype);
    for (int i = 0; i < entry->ndim; i++)
        if (entry->shape[i] < 0 || !vl_mul_size(&bytes, bytes, (size_t)entry->shape[i]) || bytes > INT64_MAX / 2)
            return vl_fail(err, VL_EINVAL, "%s: tensor \"%s\": size %lld of dimension %d is out of range", path,
                           entry->name, (long long)entry->shape[i], i);
    if (bytes > 0 && !entry->data)
        return vl_fail(err, VL_EINVAL, "%s: tensor \"%s\": no data", path, entry->name);
    out->bytes = bytes;
    return VL_OK;
}

/* Widest first keeps every tensor aligned; this is the order of the reference library's serializer too. */
static int by_width_then_name(const void *a, const void *b)
{
    const vl_safetensors_entry *x = ((const item *)a)->entry, *y = ((const item *)b)->entry;
    size_t m = vl_dtype_size(x->dtype), n = vl_dtype_size(y->dtype);
    if (m != n)
        return m > n ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const vl_safetensors_pair *)a)->key, ((const vl_safetensors_pair *)b)->key);
}

static vl_status add_metadata(json_t *header, const vl_safetensors_pair *pairs, size_t n, const char *path,
                              vl_error *err)
{
    if (n == 0)
        return VL_OK;
    vl_status status = VL_OK;
    json_t *map = json_object();
    vl_safetensors_pair *sorted = vl_alloc(n, sizeof *sorted);
    if (!map || !sorted) {
        status = vl_fail_nomem(err, path);
        goto done;
    }
    memcpy(sorted, pairs, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_key);
    for (size_t i = 0; i < n && status == VL_OK; i++) {
        if (json_object_get(map, sorted[i].key))
            status = vl_fail(err, VL_EINVAL, "%s: metadata \"%s\" is given twice", path, sorted[i].key);
        else if (json_object_set_new(map, sorted[i].key, json_string(sorted[i].value)) != 0)
            status = vl_fail(err, VL_EINVAL, "%s: metadata \"%s\" is no UTF-8 text", path, sorted[i].key);
    }
    if (status == VL_OK && json_object_set(header, "__metadata__", map) != 0)
        status = vl_fail_nomem(err, path);
done:
    vl_free(sorted);
    json_decref(map);
    return status;
}

static vl_status add_tensor(json_t *header, const item *it, size_t at, const char *path, vl_error *err)
{
    const vl_safetensors_entry *entry = it->entry;
    if (json_object_get(header, entry->name))
        return vl_fail(err, VL_EINVAL, "%s: tensor \"%s\" is given twice", path, entry->name);
    json_t *shape = json_array();
    for (int i = 0; i < entry->ndim; i++)
        if (json_array_append_new(shape, json_integer(entry->shape[i])) != 0) {
            json_decref(shape);
            return vl_fail_nomem(err, path);
        }
    json_t *object = json_pack("{s:s, s:o, s:[I, I]}", "dtype", format_dtype(entry->dtype), "shape", shape,
                               "data_offsets", (json_int_t)at, (json_int_t)(at + it->bytes));
    if (!object)
        return vl_fail_nomem(err, path);
    if (json_object_set_new(header, entry->name, object) != 0)
        return vl_fail(err, VL_EINVAL, "%s: the tensor name \"%s\" is no UTF-8 text", path, entry->name);
    return VL_OK;
}

/* The header's text with its length in front and spaces behind, so that the data start at a multiple of 8. */
static vl_status write_header(FILE *stream, const json_t *header, const char *path, vl_error *err)
{
    char *text = json_dumps(header, JSON_COMPACT);
    if (!text)
        return vl_fail_nomem(err, path);
    size_t length = strlen(text);
    uint64_t padded = (length + HEADER_ALIGNMENT - 1) / HEADER_ALIGNMENT * HEADER_ALIGNMENT;
    vl_status status = VL_OK;
    if (padded > MAX_HEADER_BYTES)
        status = vl_fail(err, VL_EINVAL, "%s: a header of %llu bytes, at most %d are allowed", path,
                         (unsigned long long)padded, MAX_HEADER_BYTES);
    else if (fwrite(&padded, sizeof padded, 1, stream) != 1 || fwrite(text, 1, length, stream) != length ||
             fprintf(stream, "%*s", (int)(padded - length), "") < 0)
        status = vl_fail_errno(err, VL_EIO, "%s: write failed", path);
    vl_free(text); /* jansson's allocator */
    return status;
}

static vl_status write_all(const char *path, const json_t *header, const item *items, size_t n, vl_error *err)
{
    vl_atomic_file file;
    VL_TRY(vl_atomic_begin(&file, path, err));
    vl_status status = write_header(file.stream, header, path, err);
    for (size_t i = 0; i < n && status == VL_OK; i++)
        if (items[i].bytes > 0 && fwrite(items[i].entry->data, 1, items[i].bytes, file.stream) != items[i].bytes)
            status = vl_fail_errno(err, VL_EIO, "%s: write failed", path);
    if (status != VL_OK) {
        vl_atomic_drop(&file);
        return status;
    }
    return vl_atomic_commit(&file, err);
}

vl_status vl_safetensors_write(const char *path, const vl_safetensors_entry *entries, size_t n,
                               const vl_safetensors_pair *metadata, size_t n_metadata, vl_error *err)
{
    vl_status status = VL_OK;
    size_t at = 0;
    json_t *header = json_object();
    item *items = vl_alloc(n, sizeof *items);
    if (!header || !items) {
        status = vl_fail_nomem(err, path);
        goto done;
    }
    for (size_t i = 0; i < n; i++)
        VL_GOTO(measure(&items[i], &entries[i], path, err));
    if (n > 0)
        qsort(items, n, sizeof *items, by_width_then_name);
    VL_GOTO(add_metadata(header, metadata, n_metadata, path, err));
    for (size_t i = 0; i < n; i++) {
        VL_GOTO(add_tensor(header, &items[i], at, path, err));
        at += items[i].bytes; /* each is at most INT64_MAX / 2 and lies in memory: the sum cannot overflow */
    }
    VL_GOTO(write_all(path, header, items, n, err));
done:
    json_decref(header);
    vl_free(items);
    return status;
}
