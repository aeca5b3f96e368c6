/* hf/safetensors_write.h - writes one .safetensors file whole or not at all. */
#ifndef VL_HF_SAFETENSORS_WRITE_H
#define VL_HF_SAFETENSORS_WRITE_H

#include "trainer/hf/safetensors.h"

typedef struct vl_safetensors_entry {
    const char *name;
    vl_dtype dtype;
    int ndim;
    int64_t shape[VL_WEIGHT_MAX_DIMS];
    const void *data; /* dense, row-major; may be NULL where the tensor has no elements */
} vl_safetensors_entry;

typedef struct vl_safetensors_pair {
    const char *key, *value; /* UTF-8 */
} vl_safetensors_pair;

/* Tensors are laid out widest element type first, then by name, so that each one is aligned in the map; metadata by
 * key. The same entries in any order give the same bytes. Streams from the caller's memory: no second copy.
 * Errors: VL_EINVAL (a duplicate or reserved name, a negative size, text that is no UTF-8), VL_EIO, VL_ENOMEM. */
vl_status vl_safetensors_write(const char *path, const vl_safetensors_entry *entries, size_t n,
                               const vl_safetensors_pair *metadata, size_t n_metadata, vl_error *err);

#endif
