/* export/export.h - the table of formats that a lens can be written in: one file each. */
#ifndef VL_EXPORT_EXPORT_H
#define VL_EXPORT_EXPORT_H

#include "trainer/fit/lens.h"

typedef struct vl_export_format {
    const char *name;
    /* Writes `path` whole or not at all. */
    vl_status (*write)(const vl_lens *lens, const char *path, vl_dtype dtype, vl_error *err);
} vl_export_format;

/* <path> or <path>/lens.safetensors, in f32, bf16 or f16: opens as a lens again. */
vl_status vl_export_safetensors(const vl_lens *lens, const char *path, vl_dtype dtype, vl_error *err);
/* numpy.load(path)["adapter.0.weight"]: float32. */
vl_status vl_export_npz(const vl_lens *lens, const char *path, vl_dtype dtype, vl_error *err);

#endif
