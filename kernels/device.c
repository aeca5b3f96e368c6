/* Opening devices, their memory, and the matrices that live on them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/plugin.h"
#include "trainer/base/mem.h"

#define CUDA_PLUGIN             "libvlens_cuda.so"
#define CUDA_ON_CPU_PLUGIN      "libvlens_cuda_on_cpu.so"
#define CUDA_ON_CPU_RACE_PLUGIN "libvlens_cuda_on_cpu_race.so"

/* "cuda" or "cuda:N" */
static bool cuda_index(int *index, const char *name)
{
    char *end;
    *index = 0;
    if (strncmp(name, "cuda", 4) != 0)
        return false;
    if (!name[4])
        return true;
    if (name[4] != ':' || name[5] < '0' || name[5] > '9')
        return false;
    long n = strtol(name + 5, &end, 10);
    *index = (int)n;
    return !*end && n < 1024;
}

/* What was asked for: a device, or the one that falls to this process among those of its machine. */
typedef struct request {
    char name[32];
    int rank; /* of the process, or -1 */
} request;

/* "cuda@3": the name, and the rank behind it. */
static request parse(const char *text)
{
    request r = {.rank = -1};
    const char *at = strrchr(text, '@');
    char *end = NULL;
    long rank = at && at[1] >= '0' && at[1] <= '9' ? strtol(at + 1, &end, 10) : -1;
    bool has_rank = end && !*end && rank >= 0 && rank < 1 << 20;
    snprintf(r.name, sizeof r.name, "%.*s", has_rank ? (int)(at - text) : (int)strlen(text), text);
    r.rank = has_rank ? (int)rank : -1;
    return r;
}

static vl_status open_backend(vl_device *device, const vl_backend *backend, int index, int n_threads, vl_error *err)
{
    VL_TRY(backend->open(&device->context, index, n_threads, err));
    device->backend = backend;
    snprintf(device->name, sizeof device->name, "%s", backend->name);
    if (index > 0)
        snprintf(device->name, sizeof device->name, "%s:%d", backend->name, index);
    backend->describe(device->context, device->description, sizeof device->description, &device->threads);
    return VL_OK;
}

/* Processes of one machine take its devices in turn. */
static vl_status open_plugin(vl_device *device, const char *file, int index, int n_threads, vl_error *err)
{
    const vl_backend *backend;
    VL_TRY(vl_plugin_load(&backend, file, err));
    int count = backend->count ? backend->count() : 1;
    if (device->rank >= 0 && count > 0)
        index = device->rank % count;
    return open_backend(device, backend, index, n_threads, err);
}

/* A GPU where one answers; otherwise the processor, with the reason kept. */
static vl_status open_best(vl_device *device, int n_threads, vl_error *err)
{
    vl_error reason = VL_ERROR_INIT;
    vl_status status;
    if (vl_plugin_driver_present())
        status = open_plugin(device, CUDA_PLUGIN, 0, n_threads, &reason);
    else
        status = vl_fail(&reason, VL_EDEVICE, "no NVIDIA driver is installed (libcuda.so.1)");
    if (status == VL_OK)
        return VL_OK;
    snprintf(device->note, sizeof device->note, "no GPU is used: %s", reason.message);
    return open_backend(device, &vl_backend_cpu, 0, n_threads, err);
}

static vl_status open_named(vl_device *device, const char *text, int n_threads, vl_error *err)
{
    request asked = parse(text);
    const char *name = asked.name;
    int index = 0;
    vl_status status;
    device->rank = asked.rank;
    if (!strcmp(name, "auto"))
        return open_best(device, n_threads, err);
    if (!strcmp(name, "cpu"))
        return open_backend(device, &vl_backend_cpu, 0, n_threads, err);
    if (!strcmp(name, "cuda_on_cpu")) /* CUDA's sources on the processor, for tests */
        status = open_plugin(device, CUDA_ON_CPU_PLUGIN, 0, n_threads, err);
    else if (!strcmp(name, "cuda_on_cpu:race")) /* the same with a race detector */
        status = open_plugin(device, CUDA_ON_CPU_RACE_PLUGIN, 0, n_threads, err);
    else if (cuda_index(&index, name))
        status = open_plugin(device, CUDA_PLUGIN, index, n_threads, err);
    else
        return vl_fail(err, VL_EINVAL, "device \"%s\" is not known, expected auto, cpu, cuda or cuda:N", name);
    return status == VL_OK ? VL_OK : vl_error_prefix(err, status, "device %s: ", name);
}

vl_status vl_device_open(vl_device **out, const char *name, int n_threads, vl_error *err)
{
    *out = NULL;
    vl_device *device = vl_calloc(1, sizeof *device);
    if (!device)
        return vl_fail_nomem(err, "device");
    vl_status status = open_named(device, name, n_threads, err);
    if (status == VL_OK)
        *out = device;
    else
        vl_free(device);
    return status;
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

const char *vl_device_note(const vl_device *device)
{
    return device->note;
}

int vl_device_threads(const vl_device *device)
{
    return device->threads;
}

bool vl_device_get_memory(const vl_device *device, vl_device_memory *out)
{
    *out = (vl_device_memory){.total = 0};
    if (device->backend->memory)
        device->backend->memory(device->context, out);
    return device->backend->memory != NULL;
}

void vl_device_limit_memory(vl_device *device, size_t bytes)
{
    if (device->backend->limit)
        device->backend->limit(device->context, bytes);
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

vl_status vl_tensor_new(vl_tensor *out, vl_device *device, vl_dtype dtype, int64_t rows, int64_t columns, vl_error *err)
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

vl_status vl_device_read_begin(vl_device *device, vl_tensor tensor, vl_error *err)
{
    device->reading = tensor;
    return device->backend->read_begin ? device->backend->read_begin(device->context, &tensor, err) : VL_OK;
}

vl_status vl_device_read_end(vl_device *device, void *host, vl_error *err)
{
    vl_tensor tensor = device->reading;
    device->reading.data = NULL;
    return device->backend->read_end ? device->backend->read_end(device->context, host, &tensor, err)
                                     : device->backend->read(device->context, host, &tensor, err);
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

bool vl_matrix_is_narrow(const vl_device *device, const vl_matrix *matrix)
{
    return device->backend->matrix_is_narrow(matrix->data);
}

vl_dtype vl_device_gemm_dtype(vl_device *device, bool fast)
{
    return fast && device->backend->gemm_dtype ? device->backend->gemm_dtype(device->context) : VL_F32;
}

int64_t vl_matrix_rows(const vl_matrix *matrix)
{
    return matrix->n_out;
}

int64_t vl_matrix_columns(const vl_matrix *matrix)
{
    return matrix->n_in;
}
