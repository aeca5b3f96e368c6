/* Between host and device.
 *
 * Data from the host is first put into pinned memory and travels on a stream of its own into a device buffer; the
 * compute stream waits for it there. So the host goes on at once, and the copy runs beside what was queued before.
 * Two such pairs alternate: one is filled while the other is read. */
#include <string.h>

#include "kernels/cuda/context.h"

enum { SMALLEST_STAGE = 16 << 10, LARGEST_WRITE = 64 << 20, ARRIVED_BYTES = 8 << 20 };

vl_status vl_cuda_stages_open(vl_cuda *cuda, vl_error *err)
{
    for (int i = 0; i < VL_CUDA_STAGES; i++) {
        vl_cuda_stage *stage = &cuda->stages[i];
        VL_TRY(vl_cuda_check(cudaEventCreateWithFlags(&stage->uploaded, cudaEventDisableTiming), "event", err));
        VL_TRY(vl_cuda_check(cudaEventCreateWithFlags(&stage->consumed, cudaEventDisableTiming), "event", err));
    }
    return VL_OK;
}

/* Pinned memory for at least `bytes`. */
static vl_status prepare_arrival(vl_cuda *cuda, size_t bytes, vl_error *err)
{
    vl_cuda_arrival *a = &cuda->arrival;
    if (!a->ready)
        VL_TRY(vl_cuda_check(cudaEventCreateWithFlags(&a->ready, cudaEventDisableTiming), "event", err));
    if (!a->done)
        VL_TRY(vl_cuda_check(cudaEventCreateWithFlags(&a->done, cudaEventDisableTiming), "event", err));
    if (bytes <= a->bytes)
        return VL_OK;
    if (a->host)
        cudaFreeHost(a->host);
    a->host = NULL, a->bytes = 0;
    VL_TRY(vl_cuda_check(cudaMallocHost(&a->host, bytes), "pinned memory", err));
    a->bytes = bytes;
    return VL_OK;
}

static void free_buffers(vl_cuda_stage *stage)
{
    if (stage->host)
        cudaFreeHost(stage->host);
    if (stage->device)
        cudaFree(stage->device);
    stage->host = stage->device = NULL;
    stage->bytes = 0;
}

void vl_cuda_stages_close(vl_cuda *cuda)
{
    vl_cuda_arrival *arrival = &cuda->arrival;
    if (arrival->host)
        cudaFreeHost(arrival->host);
    if (arrival->ready)
        cudaEventDestroy(arrival->ready);
    if (arrival->done)
        cudaEventDestroy(arrival->done);
    if (cuda->arrived)
        cudaFreeHost(cuda->arrived);
    for (int i = 0; i < VL_CUDA_STAGES; i++) {
        vl_cuda_stage *stage = &cuda->stages[i];
        free_buffers(stage);
        if (stage->uploaded)
            cudaEventDestroy(stage->uploaded);
        if (stage->consumed)
            cudaEventDestroy(stage->consumed);
    }
}

vl_status vl_cuda_stage_get(vl_cuda *cuda, size_t bytes, vl_cuda_stage **out, vl_error *err)
{
    vl_cuda_stage *stage = &cuda->stages[cuda->next_stage];
    cuda->next_stage = (cuda->next_stage + 1) % VL_CUDA_STAGES;
    VL_TRY(vl_cuda_check(cudaEventSynchronize(stage->uploaded), "a copy to the CUDA device", err));
    if (bytes > stage->bytes) {
        size_t size = bytes < SMALLEST_STAGE ? (size_t)SMALLEST_STAGE : bytes;
        VL_TRY(vl_cuda_check(cudaStreamSynchronize(cuda->stream), "the CUDA device", err));
        free_buffers(stage);
        VL_TRY(vl_cuda_check(cudaMallocHost(&stage->host, size), "pinned memory", err));
        VL_TRY(vl_cuda_check(cudaMalloc(&stage->device, size), "a buffer for copies to the CUDA device", err));
        stage->bytes = size;
    }
    *out = stage;
    return VL_OK;
}

vl_status vl_cuda_stage_upload(vl_cuda *cuda, vl_cuda_stage *stage, size_t bytes, vl_error *err)
{
    VL_TRY(vl_cuda_check(cudaStreamWaitEvent(cuda->copy, stage->consumed, 0), "a copy to the CUDA device", err));
    VL_TRY(vl_cuda_check(cudaMemcpyAsync(stage->device, stage->host, bytes, cudaMemcpyHostToDevice, cuda->copy),
                         "a copy to the CUDA device", err));
    VL_TRY(vl_cuda_check(cudaEventRecord(stage->uploaded, cuda->copy), "a copy to the CUDA device", err));
    return vl_cuda_check(cudaStreamWaitEvent(cuda->stream, stage->uploaded, 0), "a copy to the CUDA device", err);
}

vl_status vl_cuda_stage_release(vl_cuda *cuda, vl_cuda_stage *stage, vl_error *err)
{
    return vl_cuda_check(cudaEventRecord(stage->consumed, cuda->stream), "a copy to the CUDA device", err);
}

typedef struct extent {
    size_t rows, width, stride; /* bytes */
} extent;

static extent extent_of(const vl_tensor *t)
{
    size_t element = vl_dtype_size(t->dtype), width = (size_t)t->shape[t->ndim - 1] * element;
    extent e = {t->ndim == 2 ? (size_t)t->shape[0] : 1, width, t->ndim == 2 ? (size_t)t->row_stride * element : width};
    return e;
}

/* By way of pinned memory: a copy into the caller's would be the driver's, at a fifth of the speed. */
vl_status vl_cuda_read(void *context, void *host, const vl_tensor *tensor, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    extent e = extent_of(tensor);
    if (e.rows == 0 || e.width == 0)
        return VL_OK;
    if (!cuda->arrived)
        VL_TRY(vl_cuda_check(cudaMallocHost(&cuda->arrived, ARRIVED_BYTES), "pinned memory", err));
    size_t width = e.width < ARRIVED_BYTES ? e.width : (size_t)ARRIVED_BYTES, most = ARRIVED_BYTES / width;
    for (size_t row = 0, column = 0; row < e.rows;) { /* some rows, or a part of a wide one */
        size_t n = width < e.width ? 1 : e.rows - row < most ? e.rows - row : most;
        size_t bytes = e.width - column < width ? e.width - column : width;
        const char *from = (const char *)tensor->data + row * e.stride + column;
        VL_TRY(vl_cuda_check(
            cudaMemcpy2DAsync(cuda->arrived, bytes, from, e.stride, bytes, n, cudaMemcpyDeviceToHost, cuda->stream),
            "a copy from the CUDA device", err));
        VL_TRY(vl_cuda_check(cudaStreamSynchronize(cuda->stream), "the CUDA device", err));
        memcpy((char *)host + row * e.width + column, cuda->arrived, n * bytes);
        column += bytes;
        row += column == e.width ? n : 0;
        column = column == e.width ? 0 : column;
    }
    return VL_OK;
}

vl_status vl_cuda_read_begin(void *context, const vl_tensor *tensor, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    extent e = extent_of(tensor);
    vl_cuda_arrival *a = &cuda->arrival;
    if (e.rows == 0 || e.width == 0)
        return VL_OK;
    VL_TRY(prepare_arrival(cuda, e.rows * e.width, err));
    VL_TRY(vl_cuda_check(cudaEventRecord(a->ready, cuda->stream), "a copy from the CUDA device", err));
    VL_TRY(vl_cuda_check(cudaStreamWaitEvent(cuda->down, a->ready, 0), "a copy from the CUDA device", err));
    VL_TRY(vl_cuda_check(cudaMemcpy2DAsync(a->host, e.width, tensor->data, e.stride, e.width, e.rows,
                                           cudaMemcpyDeviceToHost, cuda->down),
                         "a copy from the CUDA device", err));
    return vl_cuda_check(cudaEventRecord(a->done, cuda->down), "a copy from the CUDA device", err);
}

vl_status vl_cuda_read_end(void *context, void *host, const vl_tensor *tensor, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    extent e = extent_of(tensor);
    if (e.rows == 0 || e.width == 0)
        return VL_OK;
    VL_TRY(vl_cuda_check(cudaEventSynchronize(cuda->arrival.done), "a copy from the CUDA device", err));
    memcpy(host, cuda->arrival.host, e.rows * e.width);
    return VL_OK;
}

/* Returns when `host` has been read, which is what its owner waits for: the tensor has its values in call order. */
vl_status vl_cuda_write(void *context, const vl_tensor *tensor, const void *host, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    extent e = extent_of(tensor);
    if (e.rows == 0 || e.width == 0)
        return VL_OK;
    size_t step = LARGEST_WRITE / e.width > 0 ? LARGEST_WRITE / e.width : 1;
    for (size_t first = 0; first < e.rows; first += step) {
        size_t rows = e.rows - first < step ? e.rows - first : step;
        vl_cuda_stage *stage;
        VL_TRY(vl_cuda_stage_get(cuda, rows * e.width, &stage, err));
        memcpy(stage->host, (const char *)host + first * e.width, rows * e.width);
        VL_TRY(vl_cuda_stage_upload(cuda, stage, rows * e.width, err));
        VL_TRY(vl_cuda_check(cudaMemcpy2DAsync((char *)tensor->data + first * e.stride, e.stride, stage->device,
                                               e.width, e.width, rows, cudaMemcpyDeviceToDevice, cuda->stream),
                             "a copy to the CUDA device", err));
        VL_TRY(vl_cuda_stage_release(cuda, stage, err));
    }
    return VL_OK;
}
