/* safetensors.c - the lens as vlens itself stores it, in another element type if wanted. */
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/lens/export.h"

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

vl_status vl_export_safetensors(const vl_export_job *job, vl_error *err)
{
    const char *path = job->path;
    vl_dtype dtype = job->dtype;
    if (dtype != VL_F32 && dtype != VL_BF16 && dtype != VL_F16)
        return vl_fail(err, VL_EINVAL, "safetensors: element type %s, expected float32, bfloat16 or float16",
                       vl_dtype_name(dtype));
    bool folder = vl_path_is_directory(path) || !ends_with(path, ".safetensors");
    char *file = folder ? vl_path_join(path, "lens.safetensors") : vl_strdup(path);
    vl_status status = VL_OK;
    vl_lens_content content;
    if (!file)
        return vl_fail_nomem(err, path);
    if (folder)
        VL_GOTO(vl_make_directories(path, err));
    if (vl_path_exists(file) && !vl_lens_is_ours(file))
        VL_GOTO(vl_fail(err, VL_EMISMATCH, "%s: exists and is no lens of vlens: choose another name", file));
    vl_lens_describe(&content, job->lens);
    content.dtype = dtype;
    VL_GOTO(vl_lens_write(file, &content, err));
done:
    vl_free(file);
    return status;
}
