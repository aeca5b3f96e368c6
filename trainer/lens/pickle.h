/* export/pickle.h - the tensors that a PyTorch state dict names, out of its data.pkl, without running anything.
 *
 * A pickle is a program. This reader knows the opcodes of protocol 2 that torch.save emits for a flat mapping of
 * names to tensors (torch/serialization.py; Lib/pickletools.py for the opcodes) and the five globals that such a
 * mapping needs, as data; it refuses every other opcode and global by name. It calls nothing, imports nothing, and
 * needs memory in proportion to the file. */
#ifndef VL_EXPORT_PICKLE_H
#define VL_EXPORT_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vlens/tensor.h>

#include "trainer/base/status.h"

enum { VL_PICKLE_MAX_DIMS = 4, VL_PICKLE_MAX_BYTES = 1 << 24 };

/* Bytes inside the pickle; not ended by a NUL. */
typedef struct vl_pickle_text {
    const char *text;
    size_t size;
} vl_pickle_text;

typedef struct vl_pickle_tensor {
    vl_pickle_text name;
    vl_pickle_text storage; /* the member <archive>/data/<storage>; only digits */
    vl_dtype dtype;         /* VL_F32, VL_F16 or VL_BF16 */
    int64_t storage_elements;
    int64_t offset; /* of the first element; the tensor lies inside the storage */
    int ndim;       /* dense, row-major */
    int64_t shape[VL_PICKLE_MAX_DIMS];
} vl_pickle_tensor;

/* The tensors in the order of the file; freed by vl_free. `where` stands in the messages. */
vl_status vl_pickle_read(vl_pickle_tensor **out, size_t *n, const uint8_t *data, size_t size, const char *where,
                         vl_error *err);

#endif
