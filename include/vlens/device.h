/* vlens/device.h - where arithmetic runs.
 *
 * A device is one compute backend: "cpu", or "cuda" loaded at run time. Work is queued in call order;
 * vl_device_read and vl_device_sync wait for it. A device may be used by one thread at a time.
 *
 * Signals: while a call runs, no signal handler may run on the calling thread's stack, nor on those of the OpenMP
 * threads: oneDNN's generated code keeps data below the stack pointer. Block signals there and wait for them in another
 * thread (as trainer/cli/progress.c does), or handle them on an alternate stack (sigaltstack, SA_ONSTACK). */
#ifndef VLENS_DEVICE_H
#define VLENS_DEVICE_H

#include <stdbool.h>

#include <vlens/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_device vl_device;

/* How GEMMs with 16-bit weights compute (docs/reference/numerics.md). Accumulation is always fp32. */
typedef enum vl_precision {
    VL_PRECISION_AUTO = 0, /* bf16 GEMMs for BF16 weights, on a GPU fp16 for F16, fp32 for others */
    VL_PRECISION_EXACT,    /* fp32 GEMMs, weights widened exactly */
    VL_PRECISION_FAST      /* bf16 GEMMs, weights of any type rounded to bf16 */
} vl_precision;

/* Opens "auto", "cpu", "cuda" or "cuda:N". "auto" is "cuda" where a driver and a device answer, "cpu" otherwise (and
 * vl_device_note says why). "auto@R" and "cuda@R" take GPU R modulo their number, R being the rank of this process
 * among those of its machine. `n_threads` = 0 takes every core that the process may use. The caller closes *out after
 * everything that was made on it. Errors: VL_EDEVICE, VL_ENOMEM. */
VL_API vl_status vl_device_open(vl_device **out, const char *name, int n_threads, vl_error *err);
VL_API void vl_device_close(vl_device *device);

/* "cpu" or "cuda:0". Borrowed. */
VL_API const char *vl_device_name(const vl_device *device);
/* One line for people: processor, instruction set in use, threads, libraries. Borrowed. */
VL_API const char *vl_device_description(const vl_device *device);
/* Why "auto" gave the processor and not a GPU, in one line for people; "" otherwise. Borrowed. */
VL_API const char *vl_device_note(const vl_device *device);
VL_API int vl_device_threads(const vl_device *device);

/* Device memory, 64-byte aligned, uninitialised. The caller frees; freeing NULL is allowed. */
VL_API vl_status vl_device_alloc(vl_device *device, void **out, size_t bytes, vl_error *err);
VL_API void vl_device_free(vl_device *device, void *memory);

/* Memory of a device that has its own. Weights that do not fit stay in their file and travel on every use. */
typedef struct vl_device_memory {
    size_t total;     /* bytes that may be used: the limit, or what was free when the device was opened */
    size_t available; /* of these, bytes that nobody has taken yet */
    size_t weights;   /* bytes of matrices that lie on the device */
    size_t streamed;  /* bytes of matrices that do not */
    size_t work;      /* bytes that the device will still take for itself */
} vl_device_memory;

/* false: the device computes in the memory of the system, and *out is zeroed. */
VL_API bool vl_device_get_memory(const vl_device *device, vl_device_memory *out);
/* At most this many bytes, from now on; 0: all that is free. No effect on a device without memory of its own. */
VL_API void vl_device_limit_memory(vl_device *device, size_t bytes);

/* Copies a dense or row-strided device tensor to dense host memory (same dtype), and back. Both wait. */
VL_API vl_status vl_device_read(vl_device *device, void *host, const vl_tensor *tensor, vl_error *err);
VL_API vl_status vl_device_write(vl_device *device, const vl_tensor *tensor, const void *host, vl_error *err);
VL_API vl_status vl_device_sync(vl_device *device, vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
