/* cache/h5.h - what vlens needs of HDF5, with one-line errors. Only h5*.c include hdf5.h.
 *
 * Files come from strangers: a dataset is opened only through hard links of the same file and only when its bytes
 * lie in that file (no external links, no external storage, no virtual dataset except where asked for). */
#ifndef VL_CACHE_H5_H
#define VL_CACHE_H5_H

#include <stdbool.h>

#include <vlens/tensor.h>

#include "trainer/base/status.h"

/* An HDF5 identifier; negative: none. */
typedef int64_t vl_h5;

/* Element types as they are stored, little-endian. */
typedef enum vl_h5_type {
    VL_H5_F32 = 0,
    VL_H5_F16,
    VL_H5_BF16,
    VL_H5_I16,
    VL_H5_I32,
    VL_H5_I64,
    VL_H5_U8,
    VL_H5_U64,
    VL_H5_CLASS, /* enum of uint8 {text=0, image=1, last=2, generated=3} */
    VL_H5_SPLIT, /* enum of uint8 {train=0, heldout=1} */
    VL_H5_TEXT   /* char *, variable length, UTF-8 */
} vl_h5_type;

vl_h5_type vl_h5_type_of(vl_dtype dtype); /* of the three float types */
size_t vl_h5_type_size(vl_h5_type type);  /* in memory */

/* ---- files ------------------------------------------------------------------------------------------------- */

/* Turns off HDF5's own printing for the calling thread. Called by every function here that can fail. */
void vl_h5_quiet(void);
/* A failure of HDF5: the text, then the first message of its error stack, which every call of HDF5 clears: it is asked
 * for before anything is closed. `object` is a file or something in it. */
vl_status vl_h5_fail(vl_error *err, vl_h5 object, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* As vl_fail, with the name of the file in front. */
vl_status vl_h5_refuse(vl_error *err, vl_status status, vl_h5 object, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A new file in the place of an old one. Equal contents give equal bytes: no times are stored. */
vl_status vl_h5_create(vl_h5 *out, const char *path, vl_error *err);
/* Read-only. Errors: VL_EIO (missing), VL_EBUSY (locked), VL_EFORMAT (no HDF5 file, truncated). Where a file system has
 * no locks, files are opened and made without. */
vl_status vl_h5_open(vl_h5 *out, const char *path, vl_error *err);
/* Flushes and closes a file that was written; *file becomes none. */
vl_status vl_h5_finish(vl_h5 *file, vl_error *err);
/* Closes any identifier and makes it none. None is allowed. */
void vl_h5_close(vl_h5 *id);
vl_status vl_h5_make_group(vl_h5 file, const char *name, vl_error *err);
/* Whether every part of a path exists. */
bool vl_h5_has(vl_h5 file, const char *path);

/* ---- attributes -------------------------------------------------------------------------------------------- */

vl_status vl_h5_put_int(vl_h5 file, const char *object, const char *name, int64_t value, vl_error *err);
vl_status vl_h5_put_double(vl_h5 file, const char *object, const char *name, double value, vl_error *err);
vl_status vl_h5_put_text(vl_h5 file, const char *object, const char *name, const char *value, vl_error *err);
bool vl_h5_has_attribute(vl_h5 file, const char *object, const char *name);
/* Missing or of another type: VL_EFORMAT that names the file and the attribute. */
vl_status vl_h5_get_int(int64_t *out, vl_h5 file, const char *object, const char *name, vl_error *err);
vl_status vl_h5_get_double(double *out, vl_h5 file, const char *object, const char *name, vl_error *err);
/* Freed with vl_free. Fixed and variable length are read. */
vl_status vl_h5_get_text(char **out, vl_h5 file, const char *object, const char *name, vl_error *err);

/* ---- datasets ---------------------------------------------------------------------------------------------- */

enum { VL_H5_MAX_DIMS = 4 };

typedef struct vl_h5_shape {
    int ndim;
    int64_t size[VL_H5_MAX_DIMS];
} vl_h5_shape;

/* Writes a whole dataset (numbers in chunks with a checksum). A NULL text is stored as "". */
vl_status vl_h5_write(vl_h5 file, const char *name, vl_h5_type type, vl_h5_shape shape, const void *data,
                      vl_error *err);

typedef struct vl_h5_dataset {
    vl_h5 id;
    const char *name; /* as it was opened: borrowed, a literal */
    vl_h5_shape shape;
    bool is_virtual;
    bool is_float, is_integer, is_text;
    vl_dtype dtype; /* of a float dataset: VL_F32, VL_F16, VL_BF16; VL_F64 for all others */
} vl_h5_dataset;

/* Opens a dataset of one file; see the head of this file. Errors name the file and the dataset. */
vl_status vl_h5_dataset_open(vl_h5_dataset *out, vl_h5 file, const char *name, bool allow_virtual, vl_error *err);
void vl_h5_dataset_close(vl_h5_dataset *dataset);

typedef struct vl_h5_column {
    const char *name;
    vl_h5_type type;   /* of the result in memory; integers and texts */
    vl_h5_shape shape; /* expected */
    int64_t min, max;  /* allowed values; not for VL_H5_U64 and texts */
} vl_h5_column;

/* Reads a whole integer dataset into out (dense, of column->type) and checks every value, or a text dataset into
 * out: char *[n], each to be freed with vl_free (all or none). Any stored width and byte order is taken. */
vl_status vl_h5_read(void *out, vl_h5 file, const vl_h5_column *column, vl_error *err);
/* Rows [first, first + n) of a 1- or 2-dimensional float dataset, in its own dtype, little-endian. */
vl_status vl_h5_read_rows(void *out, const vl_h5_dataset *dataset, int64_t first, int64_t n, vl_error *err);

/* ---- states ------------------------------------------------------------------------------------------------ */

typedef struct vl_h5_states {
    int64_t n_states, d_model;
    vl_dtype dtype;
    int64_t chunk_rows;
} vl_h5_states;

/* Creates /states [n_states, 0, d_model], growing in its second dimension, chunks (1, chunk_rows, d_model). */
vl_status vl_h5_states_create(vl_h5_dataset *out, vl_h5 file, const vl_h5_states *states, vl_error *err);
/* Rows [first, first + n) of one state; the dataset grows to hold them. */
vl_status vl_h5_states_write(vl_h5_dataset *dataset, int64_t state, int64_t first, int64_t n, const void *data,
                             vl_error *err);
/* Opens /states of a cache file for reading and checks its type; chunks of one row range stay in memory, so that
 * reading the states of the same rows one after the other reads each chunk once. */
vl_status vl_h5_states_open(vl_h5_dataset *out, vl_h5 file, bool allow_virtual, vl_error *err);
vl_status vl_h5_states_read(void *out, const vl_h5_dataset *dataset, int64_t state, int64_t first, int64_t n,
                            vl_error *err);

typedef struct vl_h5_part {
    const char *file; /* relative to the folder of the virtual dataset's file */
    int64_t n;        /* rows, */
    int64_t first;    /* from this one on, */
    int64_t total;    /* of so many */
} vl_h5_part;
/* Creates a virtual /states that presents the parts one after the other. */
vl_status vl_h5_states_virtual(vl_h5 file, const vl_h5_states *states, const vl_h5_part *parts, int64_t n_parts,
                               vl_error *err);

/* For h5*.c: a new type identifier, in memory and on disk the same; none on failure. */
vl_h5 vl_h5_make_type(vl_h5_type type);

#endif
