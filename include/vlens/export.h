/* vlens/export.h - lenses of other programs: writing theirs, reading theirs. */
#ifndef VLENS_EXPORT_H
#define VLENS_EXPORT_H

#include <vlens/lens.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_export_options {
    const char *format; /* one of vl_export_formats() */
    const char *path;
    vl_dtype dtype;
    const vl_head *head; /* of the model that the lens belongs to, or NULL: checked, and hashed for "tuned-lens" */
} vl_export_options;

/* Writes a lens as "safetensors" (a file, or a folder with lens.safetensors), "npz" (one array per tensor, float32
 * only), "tuned-lens" (a folder with config.json and params.pt, for the Python package of that name; unembed_hash is
 * null without a head), "hdf5" (one file) or "jlens" (the artifact of that package: without biases, and without the
 * adapter of state 0). Every file appears whole or not at all. The formats that exist: vl_export_formats(), separated
 * by ", ". Errors: VL_EUNSUPPORTED where a value does not fit `dtype`. */
VL_API vl_status vl_lens_export(const vl_lens *lens, const vl_export_options *options, vl_error *err);
VL_API const char *vl_export_formats(void);

typedef struct vl_import_options {
    const char *path;     /* a folder of tuned-lens; a .npz, .h5 or .hdf5; a lens.safetensors or its folder */
    const char *out;      /* the folder of the new lens */
    const vl_head *head;  /* of the model that it belongs to: gives shapes and fingerprint */
    const char *model_id; /* where the file names none; may be NULL */
    bool allow_other_model;
} vl_import_options;

/* Reads a lens that another program wrote and writes it as one of ours, in the element type that was stored. What a
 * file says about its model (fingerprint or unembed_hash) must fit the head: VL_EMISMATCH, or *warned with
 * allow_other_model. params.pt is read as data: a pickle that needs more than tensors is refused, and nothing in it is
 * ever run. `warned` may be NULL. */
VL_API vl_status vl_lens_import(const vl_import_options *options, bool *warned, vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
