/* export/torch_write.h - files that torch.load reads (also with weights_only): a ZIP archive of a pickle of protocol 2
 * and one member per storage. The pickle is put together from the pieces below. */
#ifndef VL_EXPORT_TORCH_WRITE_H
#define VL_EXPORT_TORCH_WRITE_H

#include <vlens/tensor.h>

#include "trainer/lens/zip.h"

/* Instructions that leave one value: a text, an integer from 0, the tensor [D, D] or [D] in storage k. */
void vl_torch_put_text(vl_str *pickle, const char *text);
void vl_torch_put_int(vl_str *pickle, int64_t value);
void vl_torch_put_tensor(vl_str *pickle, int64_t k, int64_t d, bool matrix, vl_dtype dtype);

typedef struct vl_torch_writer {
    vl_atomic_file file;
    vl_zip_writer zip;
    vl_dtype dtype; /* VL_F32, VL_F16 or VL_BF16 */
    int64_t n_storages;
    bool open;
} vl_torch_writer;

/* `pickle` without its first and last instruction. vl_torch_end is called in any case. */
vl_status vl_torch_begin(vl_torch_writer *out, const char *path, const vl_str *pickle, vl_dtype dtype, vl_error *err);
/* The next storage. `name` stands in the messages. */
vl_status vl_torch_add(vl_torch_writer *file, const float *values, size_t n, const char *name, vl_error *err);
/* Commits where `status` is VL_OK, otherwise drops the file and returns `status`. */
vl_status vl_torch_end(vl_torch_writer *file, vl_status status, vl_error *err);

#endif
