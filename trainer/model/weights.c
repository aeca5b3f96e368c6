#include "trainer/model/weights.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/half.h"
#include "trainer/base/mem.h"

vl_scope vl_scope_make(vl_loader *loader, vl_hf_part part, const char *format, ...)
{
    vl_scope scope = {loader, part, {0}};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(scope.prefix, sizeof scope.prefix, format, arguments);
    va_end(arguments);
    return scope;
}

static vl_status find(const vl_weight_view **out, const vl_scope *scope, const char *name, vl_hf_shape shape,
                      vl_error *err)
{
    vl_loader *loader = scope->loader;
    VL_TRY(vl_hf_weight(out, &loader->source, scope->part, shape, err, "%s%s", scope->prefix, name));
    int64_t n = 1;
    for (int i = 0; i < shape.ndim; i++)
        n *= shape.size[i];
    if ((*out)->dtype <= VL_BF16)
        loader->elements[(*out)->dtype] += n;
    return VL_OK;
}

static vl_status make_matrix(vl_matrix **out, const vl_scope *scope, const vl_weight_view *view, vl_hf_shape shape,
                             vl_error *err)
{
    vl_matrix_args args = {view->data, view->dtype, shape.size[0], 1, scope->loader->precision, false};
    for (int i = 1; i < shape.ndim; i++)
        args.n_in *= shape.size[i];
    return vl_matrix_new(out, scope->loader->device, &args, err);
}

vl_status vl_load_matrix(vl_matrix **out, const vl_scope *scope, const char *name, vl_hf_shape shape, vl_error *err)
{
    const vl_weight_view *view;
    VL_TRY(find(&view, scope, name, shape, err));
    return make_matrix(out, scope, view, shape, err);
}

static vl_status upload(vl_tensor *out, vl_device *device, const void *data, vl_dtype dtype, vl_error *err)
{
    int64_t n = out->shape[0] * (out->ndim == 2 ? out->shape[1] : 1);
    vl_status status = VL_OK;
    float *wide = vl_alloc((size_t)n, sizeof *wide);
    if (!wide)
        return vl_fail_nomem(err, "weights");
    vl_widen(wide, data, dtype, (size_t)n);
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
    return upload(out, device, data, dtype, err);
}

vl_status vl_load_vector(vl_tensor *out, const vl_scope *scope, const char *name, int64_t n, vl_error *err)
{
    const vl_weight_view *view;
    VL_TRY(find(&view, scope, name, vl_hf_shape1(n), err));
    return vl_vector_from_host(out, scope->loader->device, view->data, view->dtype, n, err);
}

vl_status vl_load_table(vl_tensor *out, const vl_scope *scope, const char *name, vl_hf_shape shape, vl_error *err)
{
    const vl_weight_view *view;
    VL_TRY(find(&view, scope, name, shape, err));
    *out = vl_tensor_2d(NULL, VL_F32, shape.size[0], shape.size[1]);
    return upload(out, scope->loader->device, view->data, view->dtype, err);
}

vl_status vl_load_linear(vl_linear *out, const vl_scope *scope, const char *name, vl_hf_shape shape, bool bias,
                         vl_error *err)
{
    char full[64];
    const vl_weight_view *view;
    snprintf(full, sizeof full, "%s.weight", name);
    VL_TRY(find(&view, scope, full, shape, err));
    out->file = view->data;
    out->file_bytes = view->bytes;
    VL_TRY(make_matrix(&out->weight, scope, view, shape, err));
    if (!bias)
        return VL_OK;
    snprintf(full, sizeof full, "%s.bias", name);
    return vl_load_vector(&out->bias, scope, full, shape.size[0], err);
}

void vl_linear_free(vl_device *device, vl_linear *linear)
{
    vl_matrix_free(device, linear->weight);
    vl_device_free(device, linear->bias.data);
    *linear = (vl_linear){0};
}

void vl_linear_expect(const vl_linear *linear)
{
    vl_map_expect(linear->file, linear->file_bytes);
}

vl_status vl_linear_apply(vl_device *device, const vl_linear *linear, vl_tensor out, vl_tensor x, vl_error *err)
{
    return vl_op_linear(device, &(vl_linear_args){.out = out, .x = x, .weight = linear->weight, .bias = linear->bias},
                        err);
}

vl_status vl_load_layer_norm(vl_layer_norm *out, const vl_scope *scope, const char *name, int64_t n, vl_error *err)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    VL_TRY(vl_load_vector(&out->weight, scope, full, n, err));
    snprintf(full, sizeof full, "%s.bias", name);
    return vl_load_vector(&out->bias, scope, full, n, err);
}

void vl_layer_norm_free(vl_device *device, vl_layer_norm *norm)
{
    vl_device_free(device, norm->weight.data);
    vl_device_free(device, norm->bias.data);
    *norm = (vl_layer_norm){0};
}
