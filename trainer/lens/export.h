/* export/export.h - the tables of formats that a lens can be written in and read from: one file each. */
#ifndef VL_EXPORT_EXPORT_H
#define VL_EXPORT_EXPORT_H

#include <vlens/export.h>

#include "trainer/lens/lens.h"
#include "trainer/model/head.h"

/* ---- writing ----------------------------------------------------------------------------------------------- */

typedef struct vl_export_job {
    const vl_lens *lens;
    const char *path;
    vl_dtype dtype;
    const vl_head_source *head; /* of the model that the lens belongs to; NULL where it was not given */
} vl_export_job;

typedef struct vl_export_format {
    const char *name;
    /* Writes every file whole or not at all. */
    vl_status (*write)(const vl_export_job *job, vl_error *err);
} vl_export_format;

/* <path> or <path>/lens.safetensors, in f32, bf16 or f16: opens as a lens again. */
vl_status vl_export_safetensors(const vl_export_job *job, vl_error *err);
/* numpy.load(path)["adapter.0.weight"]: float32. */
vl_status vl_export_npz(const vl_export_job *job, vl_error *err);
/* The folder of the Python package tuned-lens: config.json and params.pt, in f32, bf16 or f16. */
vl_status vl_export_tuned_lens(const vl_export_job *job, vl_error *err);
/* One HDF5 file, in f32, bf16 or f16. */
vl_status vl_export_hdf5(const vl_export_job *job, vl_error *err);
/* The artifact of the package jlens: matrices alone, of states 1 to L - 1. */
vl_status vl_export_jlens(const vl_export_job *job, vl_error *err);

/* The elements of an adapter's tensor in `dtype`: `values` itself for f32, otherwise a copy that is to be freed by
 * vl_free(*copy). A finite value that the type cannot hold is VL_EUNSUPPORTED and names `name`. */
vl_status vl_export_narrow(const void **out, void **copy, const float *values, size_t n, vl_dtype dtype,
                           const char *name, vl_error *err);

/* ---- reading ----------------------------------------------------------------------------------------------- */

/* A lens that another program wrote, on its way into our format. */
typedef struct vl_imported {
    int64_t d_model, n_layers; /* of the head: what is read must fit */
    float **weight;            /* [n_layers] of [D, D] or NULL; owned */
    float **bias;              /* [n_layers] of [D] or NULL; owned */
    vl_dtype dtype;            /* as stored; f32 where tensors differ */
    bool any;                  /* a tensor was taken: dtype is set */
    char *fingerprint;         /* that the file claims, or NULL */
    char *unembed_hash;        /* likewise */
    char *model_id;            /* likewise */
    int64_t tokens_seen;
    double *heldout_kl; /* [n_layers] or NULL */
} vl_imported;

/* Copies one tensor in, widened: [D, D] for a weight, [D] for a bias. `where` stands in the messages. */
typedef struct vl_imported_tensor {
    const char *where;
    int64_t layer;
    bool matrix;
    vl_dtype dtype;
    int ndim;
    const int64_t *shape;
    const uint8_t *data; /* any alignment */
    size_t bytes;
} vl_imported_tensor;
vl_status vl_imported_put(vl_imported *lens, const vl_imported_tensor *tensor, vl_error *err);
/* "3.weight" -> 3, true. False for anything else. `size` bytes, no NUL needed. */
bool vl_imported_name(int64_t *layer, bool *matrix, const char *name, size_t size);

/* [n] NaNs, for vl_imported.heldout_kl. NULL when out of memory. */
double *vl_imported_unknown(int64_t n);

/* A folder with config.json and params.pt. */
vl_status vl_import_tuned_lens(vl_imported *lens, const char *path, vl_error *err);
/* An archive that vl_export_npz wrote, or numpy.savez of the same names. */
vl_status vl_import_npz(vl_imported *lens, const char *path, vl_error *err);
/* A file that vl_export_hdf5 wrote, or h5py in the same layout. */
vl_status vl_import_hdf5(vl_imported *lens, const char *path, vl_error *err);

#endif
