#include "trainer/model/buffers.h"

#include "trainer/base/mem.h"

enum { ALIGNMENT = 64, ELEMENT = 4 };

/* Bytes of one request, rounded up so that the next array is aligned too. */
static bool request_bytes(size_t *out, const vl_buffer_request *request)
{
    if (request->rows < 0 || request->columns < 0)
        return false;
    size_t n;
    if (!vl_mul_size(&n, (size_t)request->rows, (size_t)request->columns) || !vl_mul_size(&n, n, ELEMENT) ||
        !vl_add_size(&n, n, ALIGNMENT - 1))
        return false;
    *out = n / ALIGNMENT * ALIGNMENT;
    return true;
}

vl_status vl_buffers_alloc(void **memory, vl_device *device, const vl_buffer_request *requests, int n, vl_error *err)
{
    size_t total = ALIGNMENT, bytes;
    for (int i = 0; i < n; i++)
        if (!request_bytes(&bytes, &requests[i]) || !vl_add_size(&total, total, bytes))
            return vl_fail_nomem(err, "activations");
    VL_TRY(vl_device_alloc(device, memory, total, err));
    char *next = *memory;
    for (int i = 0; i < n; i++) {
        request_bytes(&bytes, &requests[i]);
        *requests[i].out = next;
        next += bytes;
    }
    return VL_OK;
}
