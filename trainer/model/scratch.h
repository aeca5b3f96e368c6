/* model/scratch.h - the buffers of one pass over the model: one block of device memory, cut into arrays. */
#ifndef VL_MODEL_SCRATCH_H
#define VL_MODEL_SCRATCH_H

#include "kernels/ops.h"

/* An array [rows, columns] of four-byte elements; its address is put into *out. */
typedef struct vl_scratch_request {
    void **out;
    int64_t rows, columns;
} vl_scratch_request;

/* Allocates once for all n requests; the caller frees *memory with vl_device_free. Errors: VL_ENOMEM. */
vl_status vl_scratch_alloc(void **memory, vl_device *device, const vl_scratch_request *requests, int n, vl_error *err);

#endif
