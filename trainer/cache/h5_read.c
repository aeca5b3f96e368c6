#include "trainer/cache/h5.h"

#include <hdf5.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"

enum { BLOCK = 4096, TEXT_BLOCK = 256 };

static int64_t count_elements(vl_h5_shape shape)
{
    int64_t n = 1;
    for (int i = 0; i < shape.ndim; i++)
        n *= shape.size[i];
    return n;
}

/* ---- opening ----------------------------------------------------------------------------------------------- */

/* Every part of the path must be a hard link: soft links may lead through external ones to other files. */
static bool only_hard_links(vl_h5 file, const char *name)
{
    char part[128];
    size_t length = strlen(name);
    for (size_t i = 1; i <= length && length < sizeof part; i++) {
        H5L_info_t info;
        if (name[i] != '/' && name[i] != 0)
            continue;
        memcpy(part, name, i);
        part[i] = 0;
        if (H5Lget_info(file, part, &info, H5P_DEFAULT) < 0 || info.type != H5L_TYPE_HARD)
            return false;
    }
    return length < sizeof part;
}

/* The dtype whose bits the stored type has, in either byte order. */
static vl_dtype float_type(hid_t type)
{
    static const struct {
        vl_dtype dtype;
        size_t size, exponent, mantissa;
    } known[] = {{VL_F32, 4, 8, 23}, {VL_F16, 2, 5, 10}, {VL_BF16, 2, 8, 7}};
    size_t sign, exponent, exponent_size, mantissa, mantissa_size;
    H5T_order_t order = H5Tget_order(type);
    if (H5Tget_fields(type, &sign, &exponent, &exponent_size, &mantissa, &mantissa_size) < 0 ||
        (order != H5T_ORDER_LE && order != H5T_ORDER_BE))
        return VL_F64;
    for (int i = 0; i < 3; i++)
        if (H5Tget_size(type) == known[i].size && exponent_size == known[i].exponent &&
            mantissa_size == known[i].mantissa && sign == 8 * known[i].size - 1 && exponent == mantissa_size &&
            mantissa == 0 && H5Tget_norm(type) == H5T_NORM_IMPLIED &&
            H5Tget_ebias(type) == ((size_t)1 << (exponent_size - 1)) - 1)
            return known[i].dtype;
    return VL_F64;
}

/* A header may claim any size. Bytes that no filter could have packed into what is stored are refused before they
 * are allocated; small arrays may consist of fill values. */
static bool plausible_size(hid_t dataset, size_t element, vl_h5_shape shape)
{
    size_t bytes = element;
    for (int i = 0; i < shape.ndim; i++)
        if (!vl_mul_size(&bytes, bytes, (size_t)shape.size[i]) || bytes > (size_t)INT64_MAX)
            return false;
    return bytes <= (size_t)256 << 20 || bytes / 1100 <= H5Dget_storage_size(dataset);
}

static vl_status describe(vl_h5_dataset *out, vl_h5 file, const char *name, bool allow_virtual, vl_error *err)
{
    hid_t type = H5Dget_type(out->id), space = H5Dget_space(out->id), plist = H5Dget_create_plist(out->id);
    vl_status status = VL_OK;
    hsize_t size[VL_H5_MAX_DIMS];
    H5T_class_t class = H5Tget_class(type);
    int ndim = H5Sget_simple_extent_ndims(space);
    out->is_virtual = H5Pget_layout(plist) == H5D_VIRTUAL;
    out->is_float = class == H5T_FLOAT;
    out->is_integer = class == H5T_INTEGER || class == H5T_ENUM;
    out->is_text = class == H5T_STRING;
    out->dtype = out->is_float ? float_type(type) : VL_F64;
    if (ndim < 1 || ndim > VL_H5_MAX_DIMS)
        status = vl_h5_refuse(err, VL_EFORMAT, file, "%s has %d dimensions", name, ndim);
    else if (H5Pget_external_count(plist) > 0)
        status = vl_h5_refuse(err, VL_EFORMAT, file, "%s is stored outside of the file", name);
    else if (out->is_virtual && !allow_virtual)
        status = vl_h5_refuse(err, VL_EFORMAT, file, "%s is a virtual dataset, expected stored values", name);
    if (status == VL_OK) {
        H5Sget_simple_extent_dims(space, size, NULL);
        out->shape.ndim = ndim;
        for (int i = 0; i < ndim; i++)
            out->shape.size[i] = size[i] > INT64_MAX ? INT64_MAX : (int64_t)size[i];
        if (!out->is_virtual && !plausible_size(out->id, H5Tget_size(type), out->shape))
            status = vl_h5_refuse(err, VL_EFORMAT, file, "%s claims far more values than the file holds", name);
    }
    H5Tclose(type);
    H5Sclose(space);
    H5Pclose(plist);
    return status;
}

vl_status vl_h5_dataset_open(vl_h5_dataset *out, vl_h5 file, const char *name, bool allow_virtual, vl_error *err)
{
    vl_h5_quiet();
    *out = (vl_h5_dataset){.id = -1, .name = name};
    if (!vl_h5_has(file, name))
        return vl_h5_refuse(err, VL_EFORMAT, file, "dataset %s is missing", name);
    if (!only_hard_links(file, name))
        return vl_h5_refuse(err, VL_EFORMAT, file,
                            "%s is reached through a link; only datasets of the file itself "
                            "are read",
                            name);
    out->id = H5Dopen2(file, name, H5P_DEFAULT);
    if (out->id < 0)
        return vl_h5_fail(err, file, "cannot open dataset %s", name);
    vl_status status = describe(out, file, name, allow_virtual, err);
    if (status != VL_OK)
        vl_h5_dataset_close(out);
    return status;
}

void vl_h5_dataset_close(vl_h5_dataset *dataset)
{
    vl_h5_close(&dataset->id);
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

static vl_status check_shape(vl_h5 file, const vl_h5_column *column, vl_h5_shape found, vl_error *err)
{
    char expected[96] = "", have[96] = "";
    bool same = found.ndim == column->shape.ndim;
    for (int i = 0; i < column->shape.ndim; i++) {
        size_t used = strlen(expected);
        snprintf(expected + used, sizeof expected - used, "%s%lld", i ? ", " : "", (long long)column->shape.size[i]);
    }
    for (int i = 0; i < found.ndim; i++) {
        size_t used = strlen(have);
        snprintf(have + used, sizeof have - used, "%s%lld", i ? ", " : "", (long long)found.size[i]);
        same = same && found.size[i] == column->shape.size[i];
    }
    if (same)
        return VL_OK;
    return vl_h5_refuse(err, VL_EFORMAT, file, "%s has shape [%s], expected [%s]", column->name, have, expected);
}

static void store(void *out, vl_h5_type type, int64_t at, int64_t value)
{
    switch (vl_h5_type_size(type)) {
    case 1: ((uint8_t *)out)[at] = (uint8_t)value; break;
    case 2: ((int16_t *)out)[at] = (int16_t)value; break;
    case 4: ((int32_t *)out)[at] = (int32_t)value; break;
    default: ((int64_t *)out)[at] = value; break;
    }
}

/* Selects rows [first, first + n) of the leading dimension and everything below. */
static hid_t select_rows(hid_t dataset, vl_h5_shape shape, int64_t first, int64_t n)
{
    hsize_t start[VL_H5_MAX_DIMS] = {0}, count[VL_H5_MAX_DIMS];
    for (int i = 0; i < shape.ndim; i++)
        count[i] = (hsize_t)(i ? shape.size[i] : n);
    start[0] = (hsize_t)first;
    hid_t space = H5Dget_space(dataset);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    return space;
}

static vl_status read_range(void *out, const vl_h5_dataset *dataset, hid_t type, int64_t first, int64_t n,
                            vl_error *err)
{
    hsize_t total = (hsize_t)n;
    vl_status status = VL_OK;
    for (int i = 1; i < dataset->shape.ndim; i++)
        total *= (hsize_t)dataset->shape.size[i];
    hid_t space = select_rows(dataset->id, dataset->shape, first, n);
    hid_t memory = H5Screate_simple(1, &total, NULL);
    if (H5Dread(dataset->id, type, memory, space, H5P_DEFAULT, out) < 0)
        status = vl_h5_fail(err, dataset->id, "cannot read %s, entries %lld to %lld", dataset->name, (long long)first,
                            (long long)(first + n));
    H5Sclose(memory);
    H5Sclose(space);
    return status;
}

/* Integers of any width pass through int64, so that a value that does not fit is seen and not cut. */
static vl_status read_integers(void *out, vl_h5 file, const vl_h5_dataset *dataset, const vl_h5_column *column,
                               vl_error *err)
{
    int64_t row = 1, buffer[BLOCK];
    for (int i = 1; i < dataset->shape.ndim; i++)
        row *= dataset->shape.size[i];
    if (column->type == VL_H5_U64) {
        if (H5Dread(dataset->id, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0)
            return vl_h5_fail(err, file, "cannot read %s", column->name);
        return VL_OK;
    }
    int64_t step = row > 0 && row <= BLOCK ? BLOCK / row : 1;
    if (row > BLOCK)
        return vl_h5_refuse(err, VL_EFORMAT, file, "%s has rows of %lld values", column->name, (long long)row);
    for (int64_t first = 0; first < dataset->shape.size[0]; first += step) {
        int64_t n = dataset->shape.size[0] - first < step ? dataset->shape.size[0] - first : step;
        VL_TRY(read_range(buffer, dataset, H5T_NATIVE_INT64, first, n, err));
        for (int64_t i = 0; i < n * row; i++) {
            if (buffer[i] < column->min || buffer[i] > column->max)
                return vl_h5_refuse(err, VL_EFORMAT, file, "%s[%lld] is %lld, expected %lld to %lld", column->name,
                                    (long long)(first + i / row), (long long)buffer[i], (long long)column->min,
                                    (long long)column->max);
            store(out, column->type, first * row + i, buffer[i]);
        }
    }
    return VL_OK;
}

static bool is_utf8(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    while (*c) {
        int more = *c < 0x80                 ? 0
                   : *c >= 0xc2 && *c < 0xe0 ? 1
                   : (*c & 0xf0) == 0xe0     ? 2
                   : *c >= 0xf0 && *c < 0xf5 ? 3
                                             : -1;
        if (more < 0)
            return false;
        if ((*c == 0xe0 && c[1] < 0xa0) || (*c == 0xed && c[1] > 0x9f) || (*c == 0xf0 && c[1] < 0x90) ||
            (*c == 0xf4 && c[1] > 0x8f))
            return false;
        for (c++; more > 0; more--, c++)
            if ((*c & 0xc0) != 0x80)
                return false;
    }
    return true;
}

typedef struct text_reader {
    const vl_h5_dataset *dataset;
    hid_t type;
    size_t budget; /* bytes of text that may still be read */
} text_reader;

static vl_status copy_text(char **out, text_reader *reader, const char *text, size_t length, vl_error *err)
{
    const vl_h5_dataset *dataset = reader->dataset;
    if (length > reader->budget)
        return vl_h5_refuse(err, VL_EFORMAT, dataset->id, "%s holds more text than its file can", dataset->name);
    reader->budget -= length;
    *out = vl_strndup(text ? text : "", length);
    if (!*out)
        return vl_fail_nomem(err, dataset->name);
    if (!is_utf8(*out))
        return vl_h5_refuse(err, VL_EFORMAT, dataset->id, "%s holds text that is no UTF-8", dataset->name);
    return VL_OK;
}

/* One block of texts, as pointers (variable length) or side by side (fixed). Copies are made before HDF5's own
 * memory is given back; many references to one heap object must not multiply without bound. */
static vl_status read_text_block(char **out, text_reader *reader, int64_t first, int64_t n, vl_error *err)
{
    bool variable = H5Tis_variable_str(reader->type) > 0;
    size_t width = H5Tget_size(reader->type);
    char *block = vl_calloc((size_t)n, width);
    if (!block)
        return vl_fail_nomem(err, reader->dataset->name);
    vl_status status = read_range(block, reader->dataset, reader->type, first, n, err);
    bool filled = status == VL_OK;
    for (int64_t i = 0; i < n && status == VL_OK; i++) {
        const char *text = variable ? ((char **)(void *)block)[i] : block + (size_t)i * width;
        size_t length = !text ? 0 : variable ? strlen(text) : strnlen(text, width);
        status = copy_text(&out[i], reader, text, length, err);
    }
    if (variable && filled) {
        hsize_t total = (hsize_t)n;
        hid_t memory = H5Screate_simple(1, &total, NULL);
        H5Dvlen_reclaim(reader->type, memory, H5P_DEFAULT, block);
        H5Sclose(memory);
    }
    vl_free(block);
    return status;
}

static vl_status read_texts(char **out, vl_h5 file, const vl_h5_dataset *dataset, vl_error *err)
{
    hsize_t file_size = 0;
    H5Fget_filesize(file, &file_size);
    int64_t n = dataset->shape.size[0];
    text_reader reader = {dataset, H5Dget_type(dataset->id), (size_t)(64 << 20) + 8 * (size_t)file_size};
    vl_status status = VL_OK;
    memset(out, 0, (size_t)n * sizeof *out);
    if (!H5Tis_variable_str(reader.type) && H5Tget_size(reader.type) > (1 << 20))
        status = vl_h5_refuse(err, VL_EFORMAT, file, "%s has texts of %zu bytes each", dataset->name,
                              H5Tget_size(reader.type));
    for (int64_t first = 0; first < n && status == VL_OK; first += TEXT_BLOCK)
        status = read_text_block(out + first, &reader, first, n - first < TEXT_BLOCK ? n - first : TEXT_BLOCK, err);
    H5Tclose(reader.type);
    for (int64_t i = 0; status != VL_OK && i < n; i++) {
        vl_free(out[i]);
        out[i] = NULL;
    }
    return status;
}

vl_status vl_h5_read(void *out, vl_h5 file, const vl_h5_column *column, vl_error *err)
{
    vl_h5_dataset dataset;
    VL_TRY(vl_h5_dataset_open(&dataset, file, column->name, false, err));
    vl_status status = check_shape(file, column, dataset.shape, err);
    bool text = column->type == VL_H5_TEXT;
    if (status == VL_OK && !(text ? dataset.is_text : dataset.is_integer))
        status = vl_h5_refuse(err, VL_EFORMAT, file, "%s does not hold %s", column->name, text ? "texts" : "integers");
    if (status == VL_OK && count_elements(dataset.shape) > 0)
        status = text ? read_texts(out, file, &dataset, err) : read_integers(out, file, &dataset, column, err);
    vl_h5_dataset_close(&dataset);
    return status;
}

vl_status vl_h5_read_rows(void *out, const vl_h5_dataset *dataset, int64_t first, int64_t n, vl_error *err)
{
    vl_h5_quiet();
    vl_h5 type = vl_h5_make_type(vl_h5_type_of(dataset->dtype));
    vl_status status = n > 0 ? read_range(out, dataset, type, first, n, err) : VL_OK;
    vl_h5_close(&type);
    return status;
}
