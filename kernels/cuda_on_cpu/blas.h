/* kernels/cuda_on_cpu/blas.h - a product as cuBLASLt's stand-in computes it. */
#ifndef VL_CUDA_ON_CPU_BLAS_H
#define VL_CUDA_ON_CPU_BLAS_H

#include "kernels/cuda_on_cpu/blas_api.h"
#include "kernels/cuda_on_cpu/sim.h"

namespace vl_sim
{
/* A column-major matrix: element (i, j) at i + j * ld. */
struct matrix {
    char *at;
    cudaDataType type;
    int64_t rows, columns, ld;
};

/* d [m, n] = alpha * op(a) [m, k] op(b) [k, n] + beta * c [m, n] + bias [m]. */
struct product {
    matrix a, b, c, d;
    bool transpose_a, transpose_b;
    float alpha, beta;
    const char *bias; /* or NULL */
    cudaDataType bias_type;
    char *workspace; /* overwritten, as the real one may */
    size_t workspace_bytes;
};
void multiply(const product &p);

inline size_t element_size(cudaDataType type)
{
    return type == CUDA_R_32F ? 4 : type == CUDA_R_64F ? 8 : 2;
}
/* Bytes from the first element to behind the last. */
inline size_t span(const matrix &m)
{
    return (size_t)((m.columns - 1) * m.ld + m.rows) * element_size(m.type);
}
} // namespace vl_sim

#endif
