#include "trainer/model/weights.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/model/family.h"

enum { MAX_NAME = 320 };

/* ---- finding ----------------------------------------------------------------------------------------------- */

vl_scope vl_scope_make(vl_loader *loader, vl_part part, const char *format, ...)
{
    vl_scope scope = {loader, part, {0}};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(scope.prefix, sizeof scope.prefix, format, arguments);
    va_end(arguments);
    return scope;
}

vl_scope vl_scope_layer(vl_loader *loader, vl_part part, const char *pattern, int layer)
{
    const char *hole = strstr(pattern, "%d");
    if (!hole)
        return vl_scope_make(loader, part, "%s", pattern);
    return vl_scope_make(loader, part, "%.*s%d%s", (int)(hole - pattern), pattern, layer, hole + 2);
}

static vl_status check(const vl_weight_view *view, const vl_loader *loader, vl_shape shape, vl_error *err)
{
    char expected[96], found[192];
    bool same = view->ndim == shape.ndim;
    for (int i = 0; same && i < view->ndim; i++)
        same = view->shape[i] == shape.size[i];
    /* the type first: packed weights have another shape, too, and the type says why */
    if (view->raw || (view->dtype != VL_F32 && view->dtype != VL_F16 && view->dtype != VL_BF16))
        return vl_fail(err, VL_ESHAPE,
                       "%s: tensor %s holds %s, expected F32, F16 or BF16; quantised weights are not read: in Python, "
                       "load the model with transformers, model.dequantize(), model.save_pretrained(DIR)",
                       loader->directory->path, view->name, view->dtype_name);
    if (!same)
        return vl_fail(err, VL_ESHAPE, "%s: tensor %s is %s, config.json asks for %s", loader->directory->path,
                       view->name, vl_shape_text(found, sizeof found, view->ndim, view->shape),
                       vl_shape_text(expected, sizeof expected, shape.ndim, shape.size));
    return VL_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const vl_hf_tensor *)a)->name, ((const vl_hf_tensor *)b)->name);
}

/* The first reading counts the tensor among the model's parameters. */
static void note_read(vl_loader *loader, const vl_weight_view *view)
{
    const vl_hf_directory *dir = loader->directory;
    const vl_hf_tensor key = {view->name, view, false};
    const vl_hf_tensor *at = bsearch(&key, dir->tensors, dir->n_tensors, sizeof key, by_name);
    int64_t n = 1;
    for (int i = 0; i < view->ndim; i++)
        n *= view->shape[i];
    if (at && !at->read)
        loader->elements[view->dtype] += n;
    vl_hf_mark_read(dir, view->name);
}

vl_status vl_find_weight_optional(const vl_weight_view **out, const vl_scope *scope, const char *name, vl_shape shape,
                                  vl_error *err)
{
    vl_loader *loader = scope->loader;
    const char *const *prefix = loader->spec->family->prefixes[scope->part];
    const vl_weight_view *found = NULL;
    char full[MAX_NAME];
    *out = NULL;
    for (; *prefix; prefix++) {
        snprintf(full, sizeof full, "%s%s%s", *prefix, scope->prefix, name);
        const vl_weight_view *view = vl_hf_find(loader->directory, full);
        if (view && found)
            return vl_fail(err, VL_EFORMAT, "%s: both %s and %s are there, which of them counts is not known",
                           loader->directory->path, found->name, view->name);
        if (view)
            found = view;
    }
    if (!found)
        return VL_OK;
    VL_TRY(check(found, loader, shape, err));
    note_read(loader, found);
    *out = found;
    return VL_OK;
}

vl_status vl_find_weight(const vl_weight_view **out, const vl_scope *scope, const char *name, vl_shape shape,
                         vl_error *err)
{
    const vl_loader *loader = scope->loader;
    VL_TRY(vl_find_weight_optional(out, scope, name, shape, err));
    if (*out)
        return VL_OK;
    const char *const *prefix = loader->spec->family->prefixes[scope->part];
    char expected[96], names[MAX_NAME * VL_MAX_LAYOUTS];
    size_t used = 0;
    names[0] = 0;
    for (const char *const *p = prefix; *p && used < sizeof names; p++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s%s%s", p == prefix ? "" : " or ", *p,
                                 scope->prefix, name);
    return vl_fail(err, VL_EFORMAT, "%s: no tensor %s (%s is expected of a %s model)", loader->directory->path, names,
                   vl_shape_text(expected, sizeof expected, shape.ndim, shape.size), loader->spec->model_type);
}

/* ---- vectors and tables ------------------------------------------------------------------------------------ */

/* Stored numbers plus `shift`, widened, into a tensor of *out's shape. */
static vl_status upload(vl_tensor *out, vl_device *device, const void *data, vl_dtype dtype, float shift, vl_error *err)
{
    int64_t n = out->shape[0] * (out->ndim == 2 ? out->shape[1] : 1);
    vl_status status = VL_OK;
    float *wide = vl_alloc((size_t)n, sizeof *wide);
    if (!wide)
        return vl_fail_nomem(err, "weights");
    vl_widen(wide, data, dtype, (size_t)n);
    for (int64_t i = 0; shift != 0 && i < n; i++)
        wide[i] += shift;
    VL_GOTO(vl_device_alloc(device, &out->data, (size_t)n * sizeof *wide, err));
    VL_GOTO(vl_device_write(device, out, wide, err));
done:
    if (status != VL_OK) {
        vl_device_free(device, out->data);
        out->data = NULL;
    }
    vl_free(wide);
    return status;
}

vl_status vl_vector_from_host(vl_tensor *out, vl_device *device, const void *data, vl_dtype dtype, int64_t n,
                              vl_error *err)
{
    *out = vl_tensor_1d(NULL, VL_F32, n);
    return upload(out, device, data, dtype, 0, err);
}

vl_status vl_load_vector(vl_tensor *out, const vl_scope *scope, const char *name, int64_t n, vl_error *err)
{
    const vl_weight_view *view;
    VL_TRY(vl_find_weight(&view, scope, name, vl_shape1(n), err));
    return vl_vector_from_host(out, scope->loader->device, view->data, view->dtype, n, err);
}

vl_status vl_load_table(vl_tensor *out, const vl_scope *scope, const char *name, vl_shape shape, vl_error *err)
{
    const vl_weight_view *view;
    VL_TRY(vl_find_weight(&view, scope, name, shape, err));
    *out = vl_tensor_2d(NULL, VL_F32, shape.size[shape.ndim - 2], shape.size[shape.ndim - 1]);
    return upload(out, scope->loader->device, view->data, view->dtype, 0, err);
}

vl_status vl_load_gate(float *out, const vl_scope *scope, const char *name, vl_error *err)
{
    const vl_weight_view *view;
    float stored = 0;
    VL_TRY(vl_find_weight(&view, scope, name, vl_shape1(1), err));
    vl_widen(&stored, view->data, view->dtype, 1);
    *out = tanhf(stored);
    return VL_OK;
}

/* ---- norms ------------------------------------------------------------------------------------------------- */

vl_status vl_load_norm(vl_norm *out, const vl_scope *scope, const char *name, int64_t n, vl_norm_form form, double eps,
                       vl_error *err)
{
    char full[64];
    const vl_weight_view *view;
    bool layer = form == VL_FORM_LAYER || form == VL_FORM_LAYER_NO_BIAS;
    *out = (vl_norm){.kind = layer ? VL_NORM_LAYER : VL_NORM_RMS, .eps = eps};
    if (form == VL_FORM_NONE)
        return VL_OK;
    snprintf(full, sizeof full, "%s.weight", name);
    VL_TRY(vl_find_weight(&view, scope, full, vl_shape1(n), err));
    out->weight = vl_tensor_1d(NULL, VL_F32, n);
    float shift = form == VL_FORM_RMS_ONE_PLUS ? 1 : 0; /* in float32, as the reference adds it */
    VL_TRY(upload(&out->weight, scope->loader->device, view->data, view->dtype, shift, err));
    if (form != VL_FORM_LAYER)
        return VL_OK;
    snprintf(full, sizeof full, "%s.bias", name);
    return vl_load_vector(&out->bias, scope, full, n, err);
}

void vl_norm_free(vl_device *device, vl_norm *norm)
{
    vl_device_free(device, norm->weight.data);
    vl_device_free(device, norm->bias.data);
    *norm = (vl_norm){0};
}

vl_status vl_norm_apply(vl_device *device, const vl_norm *norm, vl_tensor out, vl_tensor x, vl_error *err)
{
    vl_norm_args args = {
        .out = out, .x = x, .weight = norm->weight, .bias = norm->bias, .kind = norm->kind, .eps = norm->eps};
    return vl_op_norm(device, &args, err);
}

/* ---- matrices ---------------------------------------------------------------------------------------------- */

static vl_status make_matrix(vl_matrix **out, const vl_scope *scope, const void *data, vl_dtype dtype, vl_shape shape,
                             vl_error *err)
{
    vl_matrix_args args = {data, dtype, shape.size[0], 1, scope->loader->precision, false};
    for (int i = 1; i < shape.ndim; i++)
        args.n_in *= shape.size[i];
    return vl_matrix_new(out, scope->loader->device, &args, err);
}

vl_status vl_load_matrix(vl_matrix **out, const vl_scope *scope, const char *name, vl_shape shape, vl_error *err)
{
    const vl_weight_view *view;
    VL_TRY(vl_find_weight(&view, scope, name, shape, err));
    return make_matrix(out, scope, view->data, view->dtype, shape, err);
}

vl_status vl_load_linear(vl_linear *out, const vl_scope *scope, const char *name, vl_shape shape, bool bias,
                         vl_error *err)
{
    char full[64];
    const vl_weight_view *view;
    snprintf(full, sizeof full, "%s.weight", name);
    VL_TRY(vl_find_weight(&view, scope, full, shape, err));
    out->file = view->data;
    out->file_bytes = view->bytes;
    VL_TRY(make_matrix(&out->weight, scope, view->data, view->dtype, shape, err));
    if (!bias)
        return VL_OK;
    snprintf(full, sizeof full, "%s.bias", name);
    return vl_load_vector(&out->bias, scope, full, shape.size[0], err);
}

static int64_t stored_row(const vl_picked_rows *picked, int64_t r)
{
    return picked->first + r / picked->run * picked->stride + r % picked->run;
}

/* The rows one by one, turned round where they are stored as columns. */
static void copy_rows(char *out, const char *stored, vl_shape shape, const vl_picked_rows *picked, size_t size)
{
    int64_t n_out = shape.size[0], n_in = shape.size[1];
    for (int64_t r = 0; r < n_out; r++) {
        int64_t row = stored_row(picked, r);
        char *to = out + (size_t)(r * n_in) * size;
        if (!picked->transposed)
            memcpy(to, stored + (size_t)(row * n_in) * size, (size_t)n_in * size);
        for (int64_t c = 0; picked->transposed && c < n_in; c++)
            memcpy(to + (size_t)c * size, stored + (size_t)(c * picked->total + row) * size, size);
    }
}

static vl_status load_picked_bias(vl_linear *out, const vl_scope *scope, const char *name, int64_t n,
                                  const vl_picked_rows *picked, vl_error *err)
{
    char full[64];
    const vl_weight_view *view;
    snprintf(full, sizeof full, "%s.bias", name);
    VL_TRY(vl_find_weight(&view, scope, full, vl_shape1(picked->total), err));
    size_t size = vl_dtype_size(view->dtype);
    char *values = vl_alloc((size_t)n, size);
    if (!values)
        return vl_fail_nomem(err, "weights");
    for (int64_t r = 0; r < n; r++)
        memcpy(values + (size_t)r * size, (const char *)view->data + (size_t)stored_row(picked, r) * size, size);
    vl_status status = vl_vector_from_host(&out->bias, scope->loader->device, values, view->dtype, n, err);
    vl_free(values);
    return status;
}

vl_status vl_load_picked(vl_linear *out, const vl_scope *scope, const char *name, vl_shape shape, bool bias,
                         const vl_picked_rows *picked, vl_error *err)
{
    char full[64];
    const vl_weight_view *view;
    int64_t n_out = shape.size[0], n_in = shape.size[1];
    snprintf(full, sizeof full, picked->bare ? "%s" : "%s.weight", name);
    VL_TRY(vl_find_weight(&view, scope, full,
                          picked->transposed ? vl_shape2(n_in, picked->total) : vl_shape2(picked->total, n_in), err));
    size_t size = vl_dtype_size(view->dtype);
    const char *data = (const char *)view->data + (size_t)(picked->first * n_in) * size;
    if (picked->transposed || picked->run < n_out) {
        out->owned = vl_alloc((size_t)n_out * (size_t)n_in, size);
        if (!out->owned)
            return vl_fail_nomem(err, "weights");
        copy_rows(out->owned, (const char *)view->data, shape, picked, size);
        data = out->owned;
    } else {
        out->file = data;
        out->file_bytes = (size_t)n_out * (size_t)n_in * size;
    }
    VL_TRY(make_matrix(&out->weight, scope, data, view->dtype, shape, err));
    return bias ? load_picked_bias(out, scope, name, n_out, picked, err) : VL_OK;
}

void vl_linear_free(vl_device *device, vl_linear *linear)
{
    vl_matrix_free(device, linear->weight);
    vl_device_free(device, linear->bias.data);
    vl_free(linear->owned);
    *linear = (vl_linear){0};
}

void vl_linear_prefetch(const vl_linear *linear)
{
    if (linear->file)
        vl_map_expect(linear->file, linear->file_bytes);
}

vl_status vl_linear_apply(vl_device *device, const vl_linear *linear, vl_tensor out, vl_tensor x, vl_error *err)
{
    return vl_op_linear(device, &(vl_linear_args){.out = out, .x = x, .weight = linear->weight, .bias = linear->bias},
                        err);
}
