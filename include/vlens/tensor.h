/* vlens/tensor.h - element types and the tensor view that all layers share.
 *
 * A vl_tensor is a view by value: it owns nothing. `data` is an address in the memory of the device
 * that the tensor lives on; on the CPU device that is ordinary memory. All arrays are row-major,
 * the last dimension is contiguous, and rows may be strided (row_stride >= shape[ndim-1]). */
#ifndef VLENS_TENSOR_H
#define VLENS_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include <vlens/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum vl_dtype { VL_F32 = 0, VL_F16, VL_BF16, VL_I32, VL_U8, VL_F64, VL_I64 } vl_dtype;

/* Bytes of one element. */
VL_API size_t vl_dtype_size(vl_dtype dtype);
/* "float32", "float16", "bfloat16", "int32", "uint8", "float64", "int64". */
VL_API const char *vl_dtype_name(vl_dtype dtype);

enum { VL_MAX_DIMS = 4 };

typedef struct vl_tensor {
    void *data;
    vl_dtype dtype;
    int ndim;
    int64_t shape[VL_MAX_DIMS];
    int64_t row_stride; /* elements from one row (index of the last but one dimension) to the next */
} vl_tensor;

/* Dense views. */
static inline vl_tensor vl_tensor_1d(void *data, vl_dtype dtype, int64_t n)
{
    vl_tensor t = {data, dtype, 1, {n, 0, 0, 0}, n};
    return t;
}
static inline vl_tensor vl_tensor_2d(void *data, vl_dtype dtype, int64_t rows, int64_t columns)
{
    vl_tensor t = {data, dtype, 2, {rows, columns, 0, 0}, columns};
    return t;
}
/* Rows [first, first + n) of a two-dimensional view. */
static inline vl_tensor vl_tensor_rows(vl_tensor t, int64_t first, int64_t n)
{
    t.data = (char *)t.data + (size_t)first * (size_t)t.row_stride * vl_dtype_size(t.dtype);
    t.shape[0] = n;
    return t;
}
/* Columns [first, first + n) of a two-dimensional view. */
static inline vl_tensor vl_tensor_columns(vl_tensor t, int64_t first, int64_t n)
{
    t.data = (char *)t.data + (size_t)first * vl_dtype_size(t.dtype);
    t.shape[1] = n;
    return t;
}

#ifdef __cplusplus
}
#endif
#endif
