/* hf/safetensors.h - a memory-mapped reader of one .safetensors file.
 *
 * A file is accepted or refused as the reference library does it (huggingface/safetensors,
 * safetensors/src/tensor.rs, SafeTensors::read_metadata and Metadata::validate). Stricter in four points that a
 * C program needs or the format's text demands: duplicate names, names that contain NUL, sizes above INT64_MAX and
 * more than VL_WEIGHT_MAX_DIMS dimensions are refused too. */
#ifndef VL_HF_SAFETENSORS_H
#define VL_HF_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vlens/tensor.h>

enum { VL_WEIGHT_MAX_DIMS = 8 };

/* One stored tensor. Borrowed from the file that it was found in, valid until that is closed. */
typedef struct vl_weight_view {
    const char *name;
    const char *dtype_name; /* as the file spells it: "BF16" */
    vl_dtype dtype;         /* meaningless (VL_U8) when `raw` */
    bool raw;     /* an element type that the format knows and vlens does not compute with (I8, BOOL, F8 ...) */
    bool aligned; /* `data` may be dereferenced as an array of its element type; otherwise memcpy each */
    int ndim;     /* 0 is a scalar */
    int64_t shape[VL_WEIGHT_MAX_DIMS];
    const uint8_t *data; /* little-endian, row-major, read-only; may be NULL when bytes == 0 */
    size_t bytes;
} vl_weight_view;

typedef struct vl_safetensors vl_safetensors;

/* Reads the header only; the data are paged in when touched. Errors: VL_EIO, VL_EFORMAT, VL_EUNSUPPORTED (too many
 * dimensions), VL_ENOMEM; the message starts with the path. */
vl_status vl_safetensors_open(vl_safetensors **out, const char *path, vl_error *err);
void vl_safetensors_close(vl_safetensors *file);

const char *vl_safetensors_path(const vl_safetensors *file);
/* Tensors in ascending order of their names (bytewise), 0 <= i < count. */
size_t vl_safetensors_count(const vl_safetensors *file);
const vl_weight_view *vl_safetensors_at(const vl_safetensors *file, size_t i);
/* NULL where there is none of that name. */
const vl_weight_view *vl_safetensors_find(const vl_safetensors *file, const char *name);

/* The `__metadata__` map: a value or NULL; and all pairs, in the order of the file. */
const char *vl_safetensors_metadata(const vl_safetensors *file, const char *key);
size_t vl_safetensors_metadata_count(const vl_safetensors *file);
void vl_safetensors_metadata_at(const vl_safetensors *file, size_t i, const char **key, const char **value);

/* "[2, 3]" into `text` (for messages), cut to fit; returns `text`. */
const char *vl_shape_text(char *text, size_t size, int ndim, const int64_t *shape);

#endif
