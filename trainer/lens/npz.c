/* npz.c - a ZIP archive of .npy arrays, stored and not packed: what numpy.load reads.
 *
 * .npy by NumPy's format version 1.0 (numpy/lib/format.py). */
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/lens/export.h"
#include "trainer/lens/zip.h"

enum { NPY_ALIGNMENT = 64, NPY_MAGIC_BYTES = 10 };

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
    int padding = (NPY_ALIGNMENT - total % NPY_ALIGNMENT) % NPY_ALIGNMENT, length = n + padding + 1;
    vl_str_append(s, "\x93NUMPY\x01\x00", 8);
    vl_str_putc(s, (char)(length & 0xff));
    vl_str_putc(s, (char)(length >> 8));
    vl_str_append(s, dict, (size_t)n);
    for (int i = 0; i < padding; i++)
        vl_str_putc(s, ' ');
    vl_str_putc(s, '\n');
}

static vl_status add_array(vl_zip_writer *zip, const char *name, int ndim, int64_t d, const float *values,
                           vl_error *err)
{
    vl_str header = VL_STR_INIT;
    npy_header(&header, ndim, d);
    const vl_zip_piece pieces[] = {{header.data, header.size},
                                   {values, (size_t)d * (ndim == 2 ? (size_t)d : 1) * sizeof(float)}};
    vl_status status = header.failed ? vl_fail_nomem(err, name) : vl_zip_add(zip, name, pieces, 2, err);
    vl_str_clear(&header);
    return status;
}

static vl_status add_layers(vl_zip_writer *zip, const vl_lens *lens, vl_error *err)
{
    const vl_lens_info *info = vl_lens_get_info(lens);
    char name[64];
    for (int64_t i = 0; i < info->n_layers; i++) {
        const float *weight = vl_lens_weight(lens, i), *bias = vl_lens_bias(lens, i);
        snprintf(name, sizeof name, "adapter.%lld.weight.npy", (long long)i);
        if (weight)
            VL_TRY(add_array(zip, name, 2, info->d_model, weight, err));
        snprintf(name, sizeof name, "adapter.%lld.bias.npy", (long long)i);
        if (bias)
            VL_TRY(add_array(zip, name, 1, info->d_model, bias, err));
    }
    return VL_OK;
}

vl_status vl_export_npz(const vl_export_job *job, vl_error *err)
{
    vl_atomic_file file;
    vl_zip_writer zip;
    vl_status status = VL_OK;
    if (job->dtype != VL_F32)
        return vl_fail(err, VL_EUNSUPPORTED, "npz: element type %s, expected float32", vl_dtype_name(job->dtype));
    VL_TRY(vl_atomic_begin(&file, job->path, err));
    vl_zip_begin(&zip, file.stream);
    VL_GOTO(add_layers(&zip, job->lens, err));
    VL_GOTO(vl_zip_finish(&zip, err));
done:
    vl_zip_drop(&zip);
    if (status == VL_OK)
        return vl_atomic_commit(&file, err);
    vl_atomic_drop(&file);
    return status;
}
