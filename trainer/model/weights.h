/* model/weights.h - from the tensors of a checkpoint to what the ops take.
 *
 * Large matrices borrow the mapped file; small vectors and tables are widened to f32 on the device. Every tensor is
 * checked for its exact shape when the model is opened, so that a wrong file fails there and by name. */
#ifndef VL_MODEL_WEIGHTS_H
#define VL_MODEL_WEIGHTS_H

#include "kernels/ops.h"
#include "trainer/hf/names.h"

/* What loading needs, and the sums that the model's info shows. */
typedef struct vl_loader {
    vl_device *device;
    vl_hf_source source;
    vl_precision precision;
    int64_t elements[VL_BF16 + 1]; /* loaded so far, by vl_dtype: f32, f16, bf16 */
} vl_loader;

/* Where the names of a group of tensors start: "layers.3." of the text part. */
typedef struct vl_scope {
    vl_loader *loader;
    vl_hf_part part;
    char prefix[96];
} vl_scope;

vl_scope vl_scope_make(vl_loader *loader, vl_hf_part part, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* y = x W^T + b. */
typedef struct vl_linear {
    vl_matrix *weight; /* [n_out, n_in] */
    vl_tensor bias;    /* [n_out] f32; data NULL where there is none */
    const void *file;  /* the weight in its mapped file */
    size_t file_bytes;
} vl_linear;

/* <prefix><name>.weight and, with `bias`, <prefix><name>.bias. A convolution [n_out, C, p, p] is read as a matrix
 * [n_out, C * p * p]: give its shape of four. */
vl_status vl_load_linear(vl_linear *out, const vl_scope *scope, const char *name, vl_hf_shape shape, bool bias,
                         vl_error *err);
void vl_linear_free(vl_device *device, vl_linear *linear);
/* Asks for the weight to be read from its file, as it is needed next. */
void vl_linear_expect(const vl_linear *linear);
/* out [M, n_out] = x [M, n_in] W^T + b. */
vl_status vl_linear_apply(vl_device *device, const vl_linear *linear, vl_tensor out, vl_tensor x, vl_error *err);

/* <prefix><name> as a matrix that borrows the file. */
vl_status vl_load_matrix(vl_matrix **out, const vl_scope *scope, const char *name, vl_hf_shape shape, vl_error *err);
/* <prefix><name> widened: [n], or [rows, columns]. Freed with vl_device_free(device, out->data). */
vl_status vl_load_vector(vl_tensor *out, const vl_scope *scope, const char *name, int64_t n, vl_error *err);
vl_status vl_load_table(vl_tensor *out, const vl_scope *scope, const char *name, vl_hf_shape shape, vl_error *err);

/* Weight and bias of a layer norm. */
typedef struct vl_layer_norm {
    vl_tensor weight, bias; /* [D] */
} vl_layer_norm;

/* <prefix><name>.weight and .bias, both [n]. */
vl_status vl_load_layer_norm(vl_layer_norm *out, const vl_scope *scope, const char *name, int64_t n, vl_error *err);
void vl_layer_norm_free(vl_device *device, vl_layer_norm *norm);

/* n stored numbers of any alignment as an f32 vector on the device. */
vl_status vl_vector_from_host(vl_tensor *out, vl_device *device, const void *data, vl_dtype dtype, int64_t n,
                              vl_error *err);

#endif
