/* The CUDA backend: its context, its memory and its table. */
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/context.h"

#ifdef VL_CUDA_ON_CPU
#define BACKEND_NAME "cuda_on_cpu"
#else
#define BACKEND_NAME "cuda"
#endif

vl_status vl_cuda_check(cudaError_t code, const char *what, vl_error *err)
{
    if (code == cudaSuccess)
        return VL_OK;
    return vl_fail(err, code == cudaErrorMemoryAllocation ? VL_ENOMEM : VL_EDEVICE, "%s: %s", what,
                   cudaGetErrorString(code));
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

/* Bytes that may still be taken. */
static size_t available(const vl_cuda *cuda)
{
    size_t now = 0, total = 0;
    if (cudaMemGetInfo(&now, &total) != cudaSuccess || !cuda->limit)
        return now;
    size_t used = cuda->free_at_open > now ? cuda->free_at_open - now : 0;
    size_t left = cuda->limit > used ? cuda->limit - used : 0;
    return left < now ? left : now;
}

bool vl_cuda_has_room(vl_cuda *cuda, size_t bytes)
{
    size_t whole = cuda->limit ? cuda->limit : cuda->free_at_open;
    return bytes + whole / 8 <= available(cuda);
}

vl_status vl_cuda_alloc(void *context, void **out, size_t bytes, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    cudaError_t code =
        cuda->limit && bytes > available(cuda) ? cudaErrorMemoryAllocation : cudaMalloc(out, bytes ? bytes : 1);
    if (code == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* the failed call is dealt with here: the next launch must not find it */
        return vl_fail(err, VL_ENOMEM, "out of memory: %zu bytes on the CUDA device, which has %zu left of %zu", bytes,
                       available(cuda), cuda->limit ? cuda->limit : cuda->free_at_open);
    }
    return vl_cuda_check(code, "cudaMalloc", err);
}

void vl_cuda_free(void *context, void *memory)
{
    (void)context;
    cudaFree(memory);
}

vl_status vl_cuda_area_get(vl_cuda *cuda, vl_cuda_area area, size_t bytes, void **out, vl_error *err)
{
    if (bytes > cuda->areas[area].bytes) {
        vl_cuda_free(cuda, cuda->areas[area].memory);
        cuda->areas[area].memory = NULL;
        cuda->areas[area].bytes = 0;
        VL_TRY(vl_cuda_alloc(cuda, &cuda->areas[area].memory, bytes, err));
        cuda->areas[area].bytes = bytes;
    }
    *out = cuda->areas[area].memory;
    return VL_OK;
}

vl_status vl_cuda_scratch(vl_cuda *cuda, size_t bytes, void **out, vl_error *err)
{
    return vl_cuda_area_get(cuda, VL_CUDA_AREA_OP, bytes, out, err);
}

static vl_status cuda_sync(void *context, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    return vl_cuda_check(cudaStreamSynchronize(cuda->stream), "the CUDA device", err);
}

static vl_status cuda_zero(void *context, vl_tensor out, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    size_t element = vl_dtype_size(out.dtype), width = (size_t)out.shape[out.ndim - 1] * element;
    size_t rows = out.ndim == 2 ? (size_t)out.shape[0] : 1;
    if (rows == 0 || width == 0)
        return VL_OK;
    return vl_cuda_check(cudaMemset2DAsync(out.data, (size_t)out.row_stride * element, 0, width, rows, cuda->stream),
                         "zero", err);
}

/* ---- the context ------------------------------------------------------------------------------------------- */

static void cuda_close(void *context)
{
    vl_cuda *cuda = (vl_cuda *)context;
    if (cuda->stream)
        cudaStreamSynchronize(cuda->stream);
    vl_cuda_stages_close(cuda);
    for (int i = 0; i < VL_CUDA_AREA_COUNT; i++)
        vl_cuda_free(cuda, cuda->areas[i].memory);
    vl_cuda_plans_free(cuda->plans);
    if (cuda->blas)
        cublasLtDestroy(cuda->blas);
    if (cuda->down)
        cudaStreamDestroy(cuda->down);
    if (cuda->copy)
        cudaStreamDestroy(cuda->copy);
    if (cuda->stream)
        cudaStreamDestroy(cuda->stream);
    vl_free(cuda);
}

static int cuda_count(void)
{
    int count = 0; /* left unwritten by a call that fails */
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

static vl_status find_device(int index, vl_error *err)
{
    int count = 0; /* left unwritten by a call that fails */
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess)
        return vl_fail(err, VL_EDEVICE, "no CUDA device answers: %s", cudaGetErrorString(code));
    if (index >= count)
        return vl_fail(err, VL_EDEVICE, "there is no CUDA device %d (there are %d, counted from 0)", index, count);
    return vl_cuda_check(cudaSetDevice(index), "cudaSetDevice", err);
}

static vl_status learn_properties(vl_cuda *cuda, vl_error *err)
{
    int major = 0, minor = 0;
    VL_TRY(vl_cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, cuda->index),
                         "compute capability", err));
    VL_TRY(vl_cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, cuda->index),
                         "compute capability", err));
    VL_TRY(vl_cuda_check(cudaDeviceGetAttribute(&cuda->multiprocessors, cudaDevAttrMultiProcessorCount, cuda->index),
                         "multiprocessors", err));
    VL_TRY(
        vl_cuda_check(cudaDeviceGetAttribute(&cuda->shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, cuda->index),
                      "shared memory", err));
    cuda->capability = 10 * major + minor;
    cuda->has_bf16 = major >= 8;
    size_t total;
    VL_TRY(vl_cuda_check(cudaMemGetInfo(&cuda->free_at_open, &total), "memory", err));
    if (cuda->capability < 75)
        return vl_fail(err, VL_EDEVICE, "CUDA device %d has compute capability %d.%d, at least 7.5 is needed",
                       cuda->index, major, minor);
    return VL_OK;
}

static vl_status open_parts(vl_cuda *cuda, vl_error *err)
{
    VL_TRY(find_device(cuda->index, err));
    VL_TRY(learn_properties(cuda, err));
    VL_TRY(vl_cuda_check(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), "stream", err));
    VL_TRY(vl_cuda_check(cudaStreamCreateWithFlags(&cuda->copy, cudaStreamNonBlocking), "stream", err));
    VL_TRY(vl_cuda_check(cudaStreamCreateWithFlags(&cuda->down, cudaStreamNonBlocking), "stream", err));
    if (cublasLtCreate(&cuda->blas) != CUBLAS_STATUS_SUCCESS)
        return vl_fail(err, VL_EDEVICE, "cuBLASLt cannot start on CUDA device %d", cuda->index);
    return vl_cuda_stages_open(cuda, err);
}

static vl_status cuda_open(void **context, int index, int threads, vl_error *err)
{
    (void)threads; /* of the processor: nothing here computes on it */
    vl_cuda *cuda = (vl_cuda *)vl_calloc(1, sizeof *cuda);
    if (!cuda)
        return vl_fail_nomem(err, "CUDA device");
    cuda->index = index;
    vl_status status = open_parts(cuda, err);
    if (status == VL_OK)
        *context = cuda;
    else
        cuda_close(cuda);
    return status;
}

static void cuda_describe(void *context, char *text, size_t size, int *threads)
{
    const vl_cuda *cuda = (const vl_cuda *)context;
    cudaDeviceProp properties;
    size_t available = 0, total = 0;
    memset(&properties, 0, sizeof properties);
    cudaGetDeviceProperties(&properties, cuda->index);
    cudaMemGetInfo(&available, &total);
    snprintf(text, size, "%s, compute capability %d.%d, %.1f of %.1f GiB free, CUDA %d.%d, cuBLASLt %zu",
             properties.name, cuda->capability / 10, cuda->capability % 10, (double)available / (1 << 30),
             (double)total / (1 << 30), CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, cublasLtGetVersion());
    *threads = 1;
}

static void cuda_memory(void *context, vl_device_memory *out)
{
    const vl_cuda *cuda = (const vl_cuda *)context;
    out->total = cuda->limit ? cuda->limit : cuda->free_at_open;
    out->available = available(cuda);
    out->weights = cuda->weights;
    out->streamed = cuda->streamed;
    size_t converted = cuda->areas[VL_CUDA_AREA_RIGHT].bytes, workspace = cuda->areas[VL_CUDA_AREA_BLAS].bytes;
    out->work = vl_cuda_workspace_bytes(cuda) - workspace;
    out->work += cuda->conversion > converted ? cuda->conversion - converted : 0;
}

static void cuda_limit(void *context, size_t bytes)
{
    ((vl_cuda *)context)->limit = bytes;
}

static vl_backend make_table(void)
{
    vl_backend table;
    memset(&table, 0, sizeof table);
    table.name = BACKEND_NAME;
    table.count = cuda_count;
    table.open = cuda_open;
    table.close = cuda_close;
    table.describe = cuda_describe;
    table.alloc = vl_cuda_alloc;
    table.free = vl_cuda_free;
    table.read = vl_cuda_read;
    table.read_begin = vl_cuda_read_begin;
    table.read_end = vl_cuda_read_end;
    table.write = vl_cuda_write;
    table.sync = cuda_sync;
    table.memory = cuda_memory;
    table.limit = cuda_limit;
    table.zero = cuda_zero;
    table.matrix_new = vl_cuda_matrix_new;
    table.matrix_free = vl_cuda_matrix_free;
    table.matrix_is_narrow = vl_cuda_matrix_is_narrow;
    table.gemm_dtype = vl_cuda_gemm_dtype;
    table.linear = vl_cuda_linear;
    table.gemm = vl_cuda_gemm;
    table.embed = vl_cuda_embed;
    table.rope = vl_cuda_rope;
    table.attention = vl_cuda_attention;
    table.activation = vl_cuda_activation;
    table.add = vl_cuda_add;
    table.patchify = vl_cuda_patchify;
    table.mix_rows = vl_cuda_mix_rows;
    table.cast = vl_cuda_cast;
    table.norm = vl_cuda_norm;
    table.norm_backward = vl_cuda_norm_backward;
    table.logsumexp = vl_cuda_logsumexp;
    table.topk = vl_cuda_topk;
    table.metrics = vl_cuda_metrics;
    table.unembed_loss = vl_cuda_unembed_loss;
    table.column_sum = vl_cuda_column_sum;
    table.sum_squares = vl_cuda_sum_squares;
    table.take_rows = vl_cuda_take_rows;
    table.pack_rows = vl_cuda_pack_rows;
    table.normalise = vl_cuda_normalise;
    table.loss_total = vl_cuda_loss_total;
    table.step_scale = vl_cuda_step_scale;
    table.sgd = vl_cuda_sgd;
    table.adam = vl_cuda_adam;
    table.peak_new = vl_cuda_peak_new;
    table.peak_run = vl_cuda_peak_run;
    table.peak_free = vl_cuda_peak_free;
    return table;
}

/* The one symbol of the plug-in. NULL where the caller was built from another version of the table. */
extern "C" __attribute__((visibility("default"))) const vl_backend *vl_cuda_backend(const char *version, size_t size)
{
    static const vl_backend table = make_table();
    return size == sizeof table && !strcmp(version, VLENS_VERSION) ? &table : NULL;
}
