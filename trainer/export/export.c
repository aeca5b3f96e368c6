#include "trainer/export/export.h"

#include <string.h>

#include "trainer/base/status.h"

static const vl_export_format formats[] = {
    {"safetensors", vl_export_safetensors},
    {"npz", vl_export_npz},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

const char *vl_export_formats(void)
{
    return "safetensors, npz";
}

vl_status vl_lens_export(const vl_lens *lens, const char *format, const char *path, vl_dtype dtype, vl_error *err)
{
    for (int i = 0; i < N_FORMATS; i++)
        if (strcmp(formats[i].name, format) == 0)
            return formats[i].write(lens, path, dtype, err);
    return vl_fail(err, VL_EINVAL, "export format '%.40s', expected one of %s", format, vl_export_formats());
}
