#include "trainer/lens/export.h"

#include <math.h>
#include <string.h>

#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"

static const vl_export_format formats[] = {
    {"safetensors", vl_export_safetensors},
    {"npz", vl_export_npz},
    {"tuned-lens", vl_export_tuned_lens},
    {"hdf5", vl_export_hdf5},
    {"jlens", vl_export_jlens},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

const char *vl_export_formats(void)
{
    return "safetensors, npz, tuned-lens, hdf5, jlens";
}

vl_status vl_lens_export(const vl_lens *lens, const vl_export_options *options, vl_error *err)
{
    const vl_head *head = options->head;
    if (head) {
        const vl_head_info *info = vl_head_get_info(head);
        VL_TRY(vl_lens_check(lens, info, false, NULL, err));
    }
    const vl_export_job job = {lens, options->path, options->dtype, head ? vl_head_get_source(head) : NULL};
    for (int i = 0; i < N_FORMATS; i++)
        if (strcmp(formats[i].name, options->format) == 0)
            return formats[i].write(&job, err);
    return vl_fail(err, VL_EINVAL, "export format '%.40s', expected one of %s", options->format, vl_export_formats());
}

vl_status vl_export_narrow(const void **out, void **copy, const float *values, size_t n, vl_dtype dtype,
                           const char *name, vl_error *err)
{
    *copy = NULL;
    *out = values;
    if (dtype == VL_F32)
        return VL_OK;
    uint16_t *bits = vl_alloc(n, sizeof *bits);
    if (!bits)
        return vl_fail_nomem(err, name);
    vl_narrow(bits, values, dtype, n);
    for (size_t i = 0; i < n; i++) {
        if (isfinite(values[i]) && !isfinite(vl_widen_at(bits, dtype, i))) {
            vl_free(bits);
            return vl_fail(err, VL_EUNSUPPORTED, "%s holds %g, which %s cannot hold: export float32 or bfloat16", name,
                           (double)values[i], vl_dtype_name(dtype));
        }
    }
    *out = *copy = bits;
    return VL_OK;
}
