/* The arithmetic of a product: fp32, in chunks of the inner dimension, so that no column is one long sum. */
#include "kernels/cuda_on_cpu/blas.h"
#include "kernels/cuda_on_cpu/half.h"
#include "kernels/cuda_on_cpu/race.h"

namespace vl_sim
{
enum { CHUNK = 128, GARBAGE = 0xff };

static float load(const char *at, cudaDataType type)
{
    float value;
    unsigned short bits;
    if (type == CUDA_R_32F) {
        memcpy(&value, at, sizeof value);
        return value;
    }
    memcpy(&bits, at, sizeof bits);
    return type == CUDA_R_16BF ? __bfloat162float({bits}) : __half2float({bits});
}

static void store(char *at, cudaDataType type, float value)
{
    if (type == CUDA_R_32F) {
        memcpy(at, &value, sizeof value);
        return;
    }
    unsigned short bits = type == CUDA_R_16BF ? __float2bfloat16_rn(value).bits : __float2half_rn(value).bits;
    memcpy(at, &bits, sizeof bits);
}

/* op(m), densely, columns one after the other. */
static std::vector<float> dense(const matrix &m, bool transpose)
{
    size_t element = element_size(m.type);
    std::vector<float> out((size_t)(m.rows * m.columns));
    for (int64_t j = 0; j < m.columns; j++) {
        race_read(m.at + (size_t)(j * m.ld) * element, (size_t)m.rows * element, "a product");
        for (int64_t i = 0; i < m.rows; i++)
            out[(size_t)(transpose ? i * m.columns + j : j * m.rows + i)] =
                load(m.at + (size_t)(j * m.ld + i) * element, m.type);
    }
    return out;
}

/* out[m] += a [m, k] b[k] */
__attribute__((target_clones("avx512f", "avx2", "default"))) static void
add_column(float *out, const float *a, const float *b, int64_t m, int64_t k)
{
    for (int64_t l = 0; l < k; l++)
        for (int64_t i = 0; i < m; i++)
            out[i] += a[l * m + i] * b[l];
}

static void store_column(const product &p, int64_t j, const float *sum)
{
    size_t element = element_size(p.d.type);
    char *to = p.d.at + (size_t)(j * p.d.ld) * element;
    const char *from = p.c.at + (size_t)(j * p.c.ld) * element;
    if (p.beta != 0)
        race_read(from, (size_t)p.c.rows * element, "a product");
    for (int64_t i = 0; i < p.d.rows; i++) {
        float value = p.alpha * sum[i];
        if (p.beta != 0) /* otherwise C is not read: it may hold NaN */
            value += p.beta * load(from + (size_t)i * element, p.c.type);
        if (p.bias)
            value += load(p.bias + (size_t)i * element_size(p.bias_type), p.bias_type);
        store(to + (size_t)i * element, p.d.type, value);
    }
    race_written(to, (size_t)p.d.rows * element);
}

void multiply(const product &p)
{
    int64_t m = p.d.rows, n = p.d.columns, k = p.transpose_a ? p.a.rows : p.a.columns;
    std::vector<float> a = dense(p.a, p.transpose_a), b = dense(p.b, p.transpose_b);
    std::vector<float> sum((size_t)m), part((size_t)m);
    if (p.bias)
        race_read(p.bias, (size_t)m * element_size(p.bias_type), "a product");
    memset(p.workspace, GARBAGE, p.workspace_bytes);
    for (int64_t j = 0; j < n; j++) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t l = 0; l < k; l += CHUNK) {
            std::fill(part.begin(), part.end(), 0.0f);
            add_column(part.data(), &a[(size_t)(l * m)], &b[(size_t)(j * k + l)], m, std::min<int64_t>(CHUNK, k - l));
            for (int64_t i = 0; i < m; i++)
                sum[(size_t)i] += part[(size_t)i];
        }
        store_column(p, j, sum.data());
    }
}
} // namespace vl_sim
