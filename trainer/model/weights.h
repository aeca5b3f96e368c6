/* model/weights.h - from the tensors of a checkpoint to what the ops take.
 *
 * Large matrices borrow the mapped file; small vectors and tables are widened to f32 on the device. Every tensor is
 * checked for its exact shape when the model is opened, so that a wrong file fails there and by name. A tensor is found
 * under whichever of the family's layouts the file has; one that is there under two is refused. */
#ifndef VL_MODEL_WEIGHTS_H
#define VL_MODEL_WEIGHTS_H

#include "kernels/ops.h"
#include "trainer/hf/directory.h"
#include "trainer/model/spec.h"

/* What loading needs, and what it finds out. */
typedef struct vl_loader {
    vl_device *device;
    const vl_hf_directory *directory;
    const vl_model_spec *spec;
    vl_precision precision;
    int64_t elements[VL_BF16 + 1]; /* of the tensors that were read, by vl_dtype: f32, f16, bf16 */
} vl_loader;

typedef struct vl_shape {
    int ndim;
    int64_t size[VL_WEIGHT_MAX_DIMS];
} vl_shape;

static inline vl_shape vl_shape1(int64_t a)
{
    return (vl_shape){1, {a}};
}
static inline vl_shape vl_shape2(int64_t a, int64_t b)
{
    return (vl_shape){2, {a, b}};
}
static inline vl_shape vl_shape3(int64_t a, int64_t b, int64_t c)
{
    return (vl_shape){3, {a, b, c}};
}
static inline vl_shape vl_shape4(int64_t a, int64_t b, int64_t c, int64_t d)
{
    return (vl_shape){4, {a, b, c, d}};
}

/* Where the names of a group of tensors start: "layers.3." of the text part. */
typedef struct vl_scope {
    vl_loader *loader;
    vl_part part;
    char prefix[96];
} vl_scope;

vl_scope vl_scope_make(vl_loader *loader, vl_part part, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The scope of layer `layer`: `pattern` is a literal of the family with one %d, "layers.%d.". */
vl_scope vl_scope_layer(vl_loader *loader, vl_part part, const char *pattern, int layer);

/* Finds <prefix of the part><scope's prefix><name> under any layout, checks that it is F32, F16 or BF16 and has the
 * shape, and notes that it was read. Errors: VL_EFORMAT (missing, or there under two names), VL_ESHAPE (other shape or
 * dtype); the message names the tensor with what was expected and found. */
vl_status vl_find_weight(const vl_weight_view **out, const vl_scope *scope, const char *name, vl_shape shape,
                         vl_error *err);
/* The same, but *out = NULL and VL_OK where it is missing. */
vl_status vl_find_weight_optional(const vl_weight_view **out, const vl_scope *scope, const char *name, vl_shape shape,
                                  vl_error *err);

/* y = x W^T + b. */
typedef struct vl_linear {
    vl_matrix *weight; /* [n_out, n_in] */
    vl_tensor bias;    /* [n_out] f32; data NULL where there is none */
    const void *file;  /* the weight in its mapped file; NULL where it was copied */
    size_t file_bytes;
    void *owned; /* the copy */
} vl_linear;

/* <prefix><name>.weight and, with `bias`, <prefix><name>.bias. A convolution [n_out, C, p, p] is read as a matrix
 * [n_out, C * p * p]: give its shape of four. */
vl_status vl_load_linear(vl_linear *out, const vl_scope *scope, const char *name, vl_shape shape, bool bias,
                         vl_error *err);

/* A linear that is a part of a stored matrix of `total` rows, or stored the other way round. Row r of it is stored row
 * first + r / run * stride + r % run. Rows that lie together are borrowed from the file, others are copied. */
typedef struct vl_picked_rows {
    int64_t total, first, run, stride;
    bool transposed; /* stored as [n_in, total] */
    bool bare;       /* the tensor's name has no ".weight" behind it */
} vl_picked_rows;
vl_status vl_load_picked(vl_linear *out, const vl_scope *scope, const char *name, vl_shape shape, bool bias,
                         const vl_picked_rows *picked, vl_error *err);

void vl_linear_free(vl_device *device, vl_linear *linear);
/* Asks for the weight to be read from its file, as it is needed next. */
void vl_linear_prefetch(const vl_linear *linear);
/* out [M, n_out] = x [M, n_in] W^T + b. */
vl_status vl_linear_apply(vl_device *device, const vl_linear *linear, vl_tensor out, vl_tensor x, vl_error *err);

/* <prefix><name> as a matrix that borrows the file. */
vl_status vl_load_matrix(vl_matrix **out, const vl_scope *scope, const char *name, vl_shape shape, vl_error *err);
/* <prefix><name> widened: [n], or [rows, columns] (the last two of more dimensions, the others 1). Freed with
 * vl_device_free(device, out->data). */
vl_status vl_load_vector(vl_tensor *out, const vl_scope *scope, const char *name, int64_t n, vl_error *err);
vl_status vl_load_table(vl_tensor *out, const vl_scope *scope, const char *name, vl_shape shape, vl_error *err);
/* *out = tanh of the one number <prefix><name>. */
vl_status vl_load_gate(float *out, const vl_scope *scope, const char *name, vl_error *err);

/* A norm with its weights; `weight` has data NULL where there is no norm. */
typedef struct vl_norm {
    vl_tensor weight, bias; /* [n]; the bias may be NULL */
    vl_norm_kind kind;
    double eps;
} vl_norm;

/* <prefix><name>.weight and, of a form with bias, .bias, both [n]. VL_FORM_NONE loads nothing. */
vl_status vl_load_norm(vl_norm *out, const vl_scope *scope, const char *name, int64_t n, vl_norm_form form, double eps,
                       vl_error *err);
void vl_norm_free(vl_device *device, vl_norm *norm);
/* out = norm of x; out may be x. */
vl_status vl_norm_apply(vl_device *device, const vl_norm *norm, vl_tensor out, vl_tensor x, vl_error *err);

/* n stored numbers of any alignment as an f32 vector on the device. */
vl_status vl_vector_from_host(vl_tensor *out, vl_device *device, const void *data, vl_dtype dtype, int64_t n,
                              vl_error *err);

#endif
