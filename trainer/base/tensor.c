#include <vlens/tensor.h>

size_t vl_dtype_size(vl_dtype dtype)
{
    switch (dtype) {
    case VL_F32: return 4;
    case VL_F16: return 2;
    case VL_BF16: return 2;
    case VL_I32: return 4;
    case VL_U8: return 1;
    case VL_F64: return 8;
    case VL_I64: return 8;
    }
    return 0;
}

const char *vl_dtype_name(vl_dtype dtype)
{
    switch (dtype) {
    case VL_F32: return "float32";
    case VL_F16: return "float16";
    case VL_BF16: return "bfloat16";
    case VL_I32: return "int32";
    case VL_U8: return "uint8";
    case VL_F64: return "float64";
    case VL_I64: return "int64";
    }
    return "unknown";
}
