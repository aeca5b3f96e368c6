/* model/buffers.h - the buffers of one pass over the model: one block of device memory, cut into arrays. */
#ifndef VL_MODEL_BUFFERS_H
#define VL_MODEL_BUFFERS_H

#include "kernels/ops.h"

/* An array [rows, columns] of four-byte elements; its address is put into *out. */
typedef struct vl_buffer_request {
    void **out;
    int64_t rows, columns;
} vl_buffer_request;

/* Allocates once for all n requests; the caller frees *memory with vl_device_free. Errors: VL_ENOMEM. */
vl_status vl_buffers_alloc(void **memory, vl_device *device, const vl_buffer_request *requests, int n, vl_error *err);

#endif
