/* npz_read.c - an archive of .npy arrays adapter.{i}.weight and adapter.{i}.bias, as npz.c or numpy.savez writes it. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/lens/export.h"
#include "trainer/lens/zip.h"
#include "trainer/base/load.h"

enum { MAX_HEADER = 4096, PREFIX_BYTES = 8 };

/* The text of one key of the header's dictionary, behind its colon; NULL where it is missing. */
static const char *value_of(const char *header, const char *key)
{
    const char *found = strstr(header, key);
    if (!found)
        return NULL;
    found += strlen(key);
    return found + strspn(found, " ");
}

/* "(5, 5)" or "(5,)"; at most 4 numbers. */
static bool read_shape(int64_t shape[4], int *ndim, const char *text)
{
    if (*text++ != '(')
        return false;
    for (*ndim = 0; *ndim < 4; text += strspn(text, ", ")) {
        if (*text == ')')
            return true;
        char *end;
        if (!isdigit((unsigned char)*text))
            return false;
        long long n = strtoll(text, &end, 10);
        if (end - text > 12)
            return false;
        shape[(*ndim)++] = n;
        text = end;
    }
    return *text == ')';
}

/* NumPy's format versions 1 and 2: magic, version, length of the header, header, data. */
static vl_status read_header(vl_imported_tensor *t, int64_t shape[4], const vl_zip_entry *entry, vl_error *err)
{
    char header[MAX_HEADER + 1];
    const uint8_t *p = entry->data;
    size_t wide = entry->size > PREFIX_BYTES + 4 && p[6] == 2 ? 4 : 2, start = PREFIX_BYTES + wide;
    if (entry->size < start || memcmp(p, "\x93NUMPY", 6) != 0 || (p[6] != 1 && p[6] != 2))
        return vl_fail(err, VL_EFORMAT, "%s: %.60s is no .npy array of version 1 or 2", t->where, entry->name);
    size_t n = wide == 2 ? vl_load_le16(p + PREFIX_BYTES) : vl_load_le32(p + PREFIX_BYTES);
    if (n > MAX_HEADER || n > entry->size - start)
        return vl_fail(err, VL_EFORMAT, "%s: the header of %.60s is cut off or too long", t->where, entry->name);
    memcpy(header, p + start, n);
    header[n] = 0;
    const char *type = value_of(header, "'descr':"), *order = value_of(header, "'fortran_order':");
    const char *size = value_of(header, "'shape':");
    if (!type || !order || !size || strncmp(order, "False", 5) != 0 ||
        (strncmp(type, "'<f4'", 5) != 0 && strncmp(type, "'<f2'", 5) != 0) || !read_shape(shape, &t->ndim, size))
        return vl_fail(err, VL_EFORMAT, "%s: %.60s is no row-major array of little-endian float32 or float16", t->where,
                       entry->name);
    t->dtype = type[3] == '4' ? VL_F32 : VL_F16;
    t->data = p + start + n;
    t->bytes = entry->size - start - n;
    return VL_OK;
}

static vl_status put_array(vl_imported *lens, const vl_zip *zip, const vl_zip_entry *entry, vl_error *err)
{
    static const char prefix[] = "adapter.", suffix[] = ".npy";
    const size_t before = sizeof prefix - 1, after = sizeof suffix - 1;
    vl_imported_tensor t = {.where = zip->path};
    int64_t shape[4] = {0};
    size_t n = strlen(entry->name);
    if (n < before + after || memcmp(entry->name, prefix, before) != 0 ||
        strcmp(entry->name + n - after, suffix) != 0 ||
        !vl_imported_name(&t.layer, &t.matrix, entry->name + before, n - before - after))
        return vl_fail(err, VL_EFORMAT, "%s: an array is called otherwise than adapter.0.weight or adapter.0.bias",
                       zip->path);
    VL_TRY(vl_zip_check(zip, entry, err));
    VL_TRY(read_header(&t, shape, entry, err));
    t.shape = shape;
    return vl_imported_put(lens, &t, err);
}

vl_status vl_import_npz(vl_imported *lens, const char *path, vl_error *err)
{
    vl_zip zip;
    vl_status status = VL_OK;
    VL_TRY(vl_zip_open(&zip, path, err));
    for (size_t i = 0; i < zip.n; i++)
        VL_GOTO(put_array(lens, &zip, &zip.entries[i], err));
done:
    vl_zip_close(&zip);
    return status;
}
