/* Opening devices, their memory, and the matrices that live on them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "trainer/base/mem.h"

vl_status vl_device_open(vl_device **out, const char *name, int n_threads, vl_error *err)
{
    *out = NULL;
    const vl_backend *backend = NULL;
    int index = 0;
    if (!strcmp(name, "auto") || !strcmp(name, "cpu"))
        backend = &vl_backend_cpu;
    else if (!strcmp(name, "cuda") || !strncmp(name, "cuda:", 5))
        return vl_fail(err, VL_EDEVICE, "device %s: this build has no CUDA backend (it has: cpu)", name);
    else
        return vl_fail(err, VL_EINVAL, "device \"%s\" is not known, expected auto, cpu, cuda or cuda:N", name);
    vl_device *device = vl_calloc(1, sizeof *device);
    if (!device)
        return vl_fail_nomem(err, "device");
    device->backend = backend;
    vl_status status = backend->open(&device->context, index, n_threads, err);
    if (status != VL_OK) {
        vl_free(device);
        return status;
    }
    snprintf(device->name, sizeof device->name, "%s", backend->name);
    backend->describe(device->context, device->description, sizeof device->description, &device->threads);
    *out = device;
    return VL_OK;
}

void vl_device_close(vl_device *device)
{
    if (!device)
        return;
    device->backend->close(device->context);
    vl_free(device);
}

const char *vl_device_name(const vl_device *device)
{
    return device->name;
}

const char *vl_device_description(const vl_device *device)
{
    return device->description;
}

int vl_device_threads(const vl_device *device)
{
    return device->threads;
}

vl_status vl_device_alloc(vl_device *device, void **out, size_t bytes, vl_error *err)
{
    *out = NULL;
    return device->backend->alloc(device->context, out, bytes, err);
}

void vl_device_free(vl_device *device, void *memory)
{
    if (memory)
        device->backend->free(device->context, memory);
}

vl_status vl_tensor_new(vl_tensor *out, vl_device *device, vl_dtype dtype, int64_t rows, int64_t columns,
                        vl_error *err)
{
    size_t bytes;
    *out = vl_tensor_2d(NULL, dtype, rows, columns);
    if (rows < 0 || columns < 0 || !vl_mul_size(&bytes, (size_t)rows, (size_t)columns) ||
        !vl_mul_size(&bytes, bytes, vl_dtype_size(dtype)))
        return vl_fail(err, VL_ENOMEM, "a tensor of %lld x %lld does not fit in memory", (long long)rows,
                       (long long)columns);
    return vl_device_alloc(device, &out->data, bytes, err);
}

vl_status vl_device_read(vl_device *device, void *host, const vl_tensor *tensor, vl_error *err)
{
    return device->backend->read(device->context, host, tensor, err);
}

vl_status vl_device_write(vl_device *device, const vl_tensor *tensor, const void *host, vl_error *err)
{
    return device->backend->write(device->context, tensor, host, err);
}

vl_status vl_device_sync(vl_device *device, vl_error *err)
{
    return device->backend->sync(device->context, err);
}

vl_status vl_matrix_new(vl_matrix **out, vl_device *device, const vl_matrix_args *args, vl_error *err)
{
    *out = NULL;
    if (args->dtype != VL_F32 && args->dtype != VL_F16 && args->dtype != VL_BF16)
        return vl_fail(err, VL_EUNSUPPORTED, "a weight matrix of %s, expected float32, float16 or bfloat16",
                       vl_dtype_name(args->dtype));
    vl_matrix *matrix = vl_calloc(1, sizeof *matrix);
    if (!matrix)
        return vl_fail_nomem(err, "weight matrix");
    *matrix = (vl_matrix){NULL, args->dtype, args->n_out, args->n_in, args->resident};
    vl_status status = device->backend->matrix_new(device->context, &matrix->data, args, err);
    if (status != VL_OK) {
        vl_free(matrix);
        return status;
    }
    *out = matrix;
    return VL_OK;
}

void vl_matrix_free(vl_device *device, vl_matrix *matrix)
{
    if (!matrix)
        return;
    device->backend->matrix_free(device->context, matrix->data);
    vl_free(matrix);
}

int64_t vl_matrix_rows(const vl_matrix *matrix)
{
    return matrix->n_out;
}

int64_t vl_matrix_columns(const vl_matrix *matrix)
{
    return matrix->n_in;
}
