/* npz.c - a ZIP archive of .npy arrays, stored and not packed: what numpy.load reads.
 *
 * ZIP by PKWARE's APPNOTE 6.3.10 with ZIP64 offsets throughout (an archive may pass 4 GiB); .npy by NumPy's format
 * version 1.0 (numpy/lib/format.py). */
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/str.h"
#include "trainer/export/export.h"

enum { NPY_ALIGNMENT = 64, NPY_MAGIC_BYTES = 10, ZIP_DATE_1980 = 0x21, ZIP_VERSION = 45 };

typedef struct archive {
    FILE *stream;
    uint64_t offset;
    vl_str directory; /* the central directory, written last */
    uint64_t n_entries;
    uint32_t crc_table[256];
} archive;

static void make_crc_table(uint32_t table[256])
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
}

static uint32_t crc_update(const archive *a, uint32_t crc, const void *data, size_t n)
{
    const uint8_t *p = data;
    crc = ~crc;
    for (size_t i = 0; i < n; i++)
        crc = a->crc_table[(crc ^ p[i]) & 0xff] ^ (crc >> 8);
    return ~crc;
}

/* Little-endian fields of `bytes` bytes. */
static void put(vl_str *s, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        vl_str_putc(s, (char)(value >> (8 * i) & 0xff));
}

static void emit(archive *a, const void *data, size_t n)
{
    fwrite(data, 1, n, a->stream); /* errors show at commit */
    a->offset += n;
}

/* The fields that the local header and the central directory share. */
static void put_common(vl_str *s, uint32_t crc, uint32_t size, const char *name, int extra)
{
    put(s, ZIP_VERSION, 2);
    put(s, 0, 2); /* flags */
    put(s, 0, 2); /* stored */
    put(s, 0, 2); /* time */
    put(s, ZIP_DATE_1980, 2);
    put(s, crc, 4);
    put(s, size, 4);
    put(s, size, 4);
    put(s, strlen(name), 2);
    put(s, (uint64_t)extra, 2);
}

/* "\x93NUMPY" 1 0, length, dictionary padded with spaces to a multiple of 64, newline. */
static void npy_header(vl_str *s, int ndim, int64_t d)
{
    char shape[64], dict[160];
    if (ndim == 2)
        snprintf(shape, sizeof shape, "(%lld, %lld)", (long long)d, (long long)d);
    else
        snprintf(shape, sizeof shape, "(%lld,)", (long long)d);
    int n = snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }", shape);
    int total = NPY_MAGIC_BYTES + n + 1;
    int padding = (NPY_ALIGNMENT - total % NPY_ALIGNMENT) % NPY_ALIGNMENT;
    vl_str_append(s, "\x93NUMPY\x01\x00", 8);
    put(s, (uint64_t)(n + padding + 1), 2);
    vl_str_append(s, dict, (size_t)n);
    for (int i = 0; i < padding; i++)
        vl_str_putc(s, ' ');
    vl_str_putc(s, '\n');
}

static vl_status add_array(archive *a, const char *name, int ndim, int64_t d, const float *values, vl_error *err)
{
    vl_str npy = VL_STR_INIT, local = VL_STR_INIT;
    size_t bytes = (size_t)d * (ndim == 2 ? (size_t)d : 1) * sizeof(float);
    uint64_t start = a->offset;
    npy_header(&npy, ndim, d);
    if (npy.failed || bytes + npy.size >= UINT32_MAX) {
        vl_status status =
            npy.failed ? vl_fail_nomem(err, name) : vl_fail(err, VL_EUNSUPPORTED, "npz: %s is larger than 4 GiB", name);
        vl_str_clear(&npy);
        return status;
    }
    uint32_t crc = crc_update(a, crc_update(a, 0, npy.data, npy.size), values, bytes);
    put(&local, 0x04034b50u, 4);
    put_common(&local, crc, (uint32_t)(bytes + npy.size), name, 0);
    vl_str_puts(&local, name);
    bool failed = local.failed;
    if (!failed) {
        emit(a, local.data, local.size);
        emit(a, npy.data, npy.size);
        emit(a, values, bytes);
    }
    put(&a->directory, 0x02014b50u, 4);
    put(&a->directory, ZIP_VERSION, 2);
    put_common(&a->directory, crc, (uint32_t)(bytes + npy.size), name, 12);
    put(&a->directory, 0, 2); /* comment */
    put(&a->directory, 0, 2); /* disk */
    put(&a->directory, 0, 2); /* attributes */
    put(&a->directory, 0, 4);
    put(&a->directory, UINT32_MAX, 4); /* offset: in the extra field */
    vl_str_puts(&a->directory, name);
    put(&a->directory, 1, 2); /* ZIP64 */
    put(&a->directory, 8, 2);
    put(&a->directory, start, 8);
    a->n_entries++;
    vl_str_clear(&npy);
    vl_str_clear(&local);
    return failed ? vl_fail_nomem(err, name) : VL_OK;
}

static vl_status finish(archive *a, vl_error *err)
{
    vl_str end = VL_STR_INIT;
    uint64_t start = a->offset, size = a->directory.size;
    put(&end, 0x06064b50u, 4); /* ZIP64 end of central directory */
    put(&end, 44, 8);
    put(&end, ZIP_VERSION, 2);
    put(&end, ZIP_VERSION, 2);
    put(&end, 0, 4);
    put(&end, 0, 4);
    put(&end, a->n_entries, 8);
    put(&end, a->n_entries, 8);
    put(&end, size, 8);
    put(&end, start, 8);
    put(&end, 0x07064b50u, 4); /* its locator */
    put(&end, 0, 4);
    put(&end, start + size, 8);
    put(&end, 1, 4);
    put(&end, 0x06054b50u, 4); /* end of central directory: see ZIP64 */
    put(&end, 0, 2);
    put(&end, 0, 2);
    put(&end, UINT16_MAX, 2);
    put(&end, UINT16_MAX, 2);
    put(&end, UINT32_MAX, 4);
    put(&end, UINT32_MAX, 4);
    put(&end, 0, 2);
    bool failed = end.failed || a->directory.failed;
    if (!failed) {
        emit(a, a->directory.data, a->directory.size);
        emit(a, end.data, end.size);
    }
    vl_str_clear(&end);
    return failed ? vl_fail_nomem(err, "npz") : VL_OK;
}

static vl_status add_layers(archive *a, const vl_lens *lens, vl_error *err)
{
    const vl_lens_info *info = vl_lens_get_info(lens);
    char name[64];
    for (int64_t i = 0; i < info->n_layers; i++) {
        const float *weight = vl_lens_weight(lens, i), *bias = vl_lens_bias(lens, i);
        snprintf(name, sizeof name, "adapter.%lld.weight.npy", (long long)i);
        if (weight)
            VL_TRY(add_array(a, name, 2, info->d_model, weight, err));
        snprintf(name, sizeof name, "adapter.%lld.bias.npy", (long long)i);
        if (bias)
            VL_TRY(add_array(a, name, 1, info->d_model, bias, err));
    }
    return VL_OK;
}

vl_status vl_export_npz(const vl_lens *lens, const char *path, vl_dtype dtype, vl_error *err)
{
    vl_atomic_file file;
    vl_status status = VL_OK;
    if (dtype != VL_F32)
        return vl_fail(err, VL_EUNSUPPORTED, "npz: element type %s, expected float32", vl_dtype_name(dtype));
    VL_TRY(vl_atomic_begin(&file, path, err));
    archive a = {.stream = file.stream, .directory = VL_STR_INIT};
    make_crc_table(a.crc_table);
    VL_GOTO(add_layers(&a, lens, err));
    VL_GOTO(finish(&a, err));
done:
    vl_str_clear(&a.directory);
    if (status == VL_OK)
        return vl_atomic_commit(&file, err);
    vl_atomic_drop(&file);
    return status;
}
