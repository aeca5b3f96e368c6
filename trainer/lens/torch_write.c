/* torch_write.c - torch/serialization.py and caffe2/serialize/inline_container.cc, from the other side. */
#include "trainer/lens/torch_write.h"

#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/lens/export.h"

/* PyTorch aligns storages so that they can be mapped. */
enum { STORAGE_ALIGNMENT = 64, NAME_SIZE = 48 };

void vl_torch_put_text(vl_str *s, const char *text)
{
    size_t n = strlen(text);
    vl_str_putc(s, 'X'); /* BINUNICODE */
    for (int i = 0; i < 4; i++)
        vl_str_putc(s, (char)(n >> (8 * i) & 0xff));
    vl_str_append(s, text, n);
}

/* The shortest of BININT1, BININT2, BININT and LONG1. */
void vl_torch_put_int(vl_str *s, int64_t value)
{
    int bytes = value < 256 ? 1 : value < 65536 ? 2 : value <= INT32_MAX ? 4 : 8;
    vl_str_putc(s, bytes == 1 ? 'K' : bytes == 2 ? 'M' : bytes == 4 ? 'J' : '\x8a');
    if (bytes == 8)
        vl_str_putc(s, 8);
    for (int i = 0; i < bytes; i++)
        vl_str_putc(s, (char)(value >> (8 * i) & 0xff));
}

/* A tuple of one or two numbers (TUPLE1, TUPLE2). */
static void put_sizes(vl_str *s, bool two, int64_t a, int64_t b)
{
    vl_torch_put_int(s, a);
    if (two)
        vl_torch_put_int(s, b);
    vl_str_putc(s, two ? '\x86' : '\x85');
}

/* _rebuild_tensor_v2(storage k, 0, sizes, strides, False, OrderedDict()) */
void vl_torch_put_tensor(vl_str *s, int64_t k, int64_t d, bool matrix, vl_dtype dtype)
{
    char key[24];
    snprintf(key, sizeof key, "%lld", (long long)k);
    vl_str_puts(s, "ctorch._utils\n_rebuild_tensor_v2\n((");
    vl_torch_put_text(s, "storage");
    vl_str_printf(s, "ctorch\n%sStorage\n", dtype == VL_F32 ? "Float" : dtype == VL_F16 ? "Half" : "BFloat16");
    vl_torch_put_text(s, key);
    vl_torch_put_text(s, "cpu");
    vl_torch_put_int(s, matrix ? d * d : d);
    vl_str_puts(s, "tQ"); /* TUPLE, BINPERSID */
    vl_torch_put_int(s, 0);
    put_sizes(s, matrix, d, d);
    put_sizes(s, matrix, matrix ? d : 1, 1);
    vl_str_puts(s, "\x89"); /* NEWFALSE */
    vl_str_puts(s, "ccollections\nOrderedDict\n)RtR");
}

static vl_status add_small(vl_zip_writer *zip, const char *name, const char *text, vl_error *err)
{
    return vl_zip_add(zip, name, &(vl_zip_piece){text, strlen(text)}, 1, err);
}

vl_status vl_torch_begin(vl_torch_writer *out, const char *path, const vl_str *pickle, vl_dtype dtype, vl_error *err)
{
    *out = (vl_torch_writer){.dtype = dtype};
    if (dtype != VL_F32 && dtype != VL_BF16 && dtype != VL_F16)
        return vl_fail(err, VL_EINVAL, "%s: element type %s, expected float32, bfloat16 or float16", path,
                       vl_dtype_name(dtype));
    if (pickle->failed)
        return vl_fail_nomem(err, path);
    VL_TRY(vl_atomic_begin(&out->file, path, err));
    vl_zip_begin(&out->zip, out->file.stream);
    out->open = true;
    out->zip.alignment = STORAGE_ALIGNMENT;
    const vl_zip_piece pieces[] = {{"\x80\x02", 2}, {pickle->data, pickle->size}, {".", 1}}; /* PROTO 2 ... STOP */
    VL_TRY(vl_zip_add(&out->zip, "archive/data.pkl", pieces, 3, err));
    return add_small(&out->zip, "archive/byteorder", "little", err);
}

vl_status vl_torch_add(vl_torch_writer *file, const float *values, size_t n, const char *name, vl_error *err)
{
    char member[NAME_SIZE];
    void *copy;
    vl_zip_piece piece = {NULL, n * vl_dtype_size(file->dtype)};
    snprintf(member, sizeof member, "archive/data/%lld", (long long)file->n_storages++);
    VL_TRY(vl_export_narrow(&piece.data, &copy, values, n, file->dtype, name, err));
    vl_status status = vl_zip_add(&file->zip, member, &piece, 1, err);
    vl_free(copy);
    return status;
}

vl_status vl_torch_end(vl_torch_writer *file, vl_status status, vl_error *err)
{
    if (!file->open)
        return status;
    if (status == VL_OK)
        status = add_small(&file->zip, "archive/version", "3\n", err);
    if (status == VL_OK)
        status = vl_zip_finish(&file->zip, err);
    vl_zip_drop(&file->zip);
    file->open = false;
    if (status == VL_OK)
        return vl_atomic_commit(&file->file, err);
    vl_atomic_drop(&file->file);
    return status;
}
