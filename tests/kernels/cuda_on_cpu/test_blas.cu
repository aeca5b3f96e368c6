/* The stand-in for cuBLASLt against sums in double, over transposes, types, leading dimensions, scalars and biases; and
 * that it refuses what the documentation of cublasLtMatmul forbids. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

enum { MOST = 1 << 20 };

struct problem {
    int m, n, k;
    int a_pad, b_pad, c_pad, d_pad; /* leading dimension less rows */
    bool transpose_a, transpose_b, bias, in_place;
    cudaDataType in, out;
    float alpha, beta;
};

static int failures, cases;
static double worst;
static cublasLtHandle_t handle;
static cudaStream_t stream;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            failures++;                                                                                                \
            printf("line %d: %s\n", __LINE__, #condition);                                                             \
        }                                                                                                              \
    } while (0)

static size_t size_of(cudaDataType type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

/* A host array of values and the device's copy, with garbage between the columns. */
struct array {
    int rows, columns, ld;
    cudaDataType type;
    double values[MOST / 64]; /* as rounded, [columns][rows] */
    char bytes[MOST / 8];
    char *device;
};

static double round_to(double value, cudaDataType type, char *bytes)
{
    float f = (float)value;
    if (type == CUDA_R_32F) {
        memcpy(bytes, &f, 4);
        return (double)f;
    }
    unsigned short bits =
        type == CUDA_R_16BF ? __bfloat16_as_ushort(__float2bfloat16_rn(f)) : __half_as_ushort(__float2half_rn(f));
    memcpy(bytes, &bits, 2);
    return (double)(type == CUDA_R_16BF ? __bfloat162float(__ushort_as_bfloat16(bits))
                                        : __half2float(__ushort_as_half(bits)));
}

static double value_at(const char *bytes, cudaDataType type)
{
    float f;
    unsigned short bits;
    memcpy(&f, bytes, 4);
    memcpy(&bits, bytes, 2);
    return (double)(type == CUDA_R_32F    ? f
                    : type == CUDA_R_16BF ? __bfloat162float(__ushort_as_bfloat16(bits))
                                          : __half2float(__ushort_as_half(bits)));
}

static size_t bytes_of(const array *a)
{
    return ((size_t)(a->columns - 1) * (size_t)a->ld + (size_t)a->rows) * size_of(a->type);
}

static void fill(array *a, int rows, int columns, int ld, cudaDataType type)
{
    static unsigned random = 1;
    a->rows = rows, a->columns = columns, a->ld = ld, a->type = type;
    memset(a->bytes, 0xff, sizeof a->bytes);
    for (int j = 0; j < columns; j++) {
        for (int i = 0; i < rows; i++) {
            random = random * 1664525u + 1013904223u;
            a->values[j * rows + i] =
                round_to((double)(random >> 8) / 8388608 - 1, type, a->bytes + (size_t)(j * ld + i) * size_of(type));
        }
    }
    cudaMalloc(&a->device, bytes_of(a));
    cudaMemcpyAsync(a->device, a->bytes, bytes_of(a), cudaMemcpyHostToDevice, stream);
}

static array a, b, c, d, bias;
static char got[MOST];

struct descriptors {
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c, d;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    char *workspace;
    int count;
};

static void set(descriptors *s, cublasLtMatmulDescAttributes_t name, int32_t value)
{
    CHECK(cublasLtMatmulDescSetAttribute(s->operation, name, &value, sizeof value) == CUBLAS_STATUS_SUCCESS);
}

static void set_up(descriptors *s, const problem &p)
{
    uint64_t workspace = 1 << 20;
    fill(&a, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, (p.transpose_a ? p.k : p.m) + p.a_pad, p.in);
    fill(&b, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, (p.transpose_b ? p.n : p.k) + p.b_pad, p.in);
    fill(&c, p.m, p.n, p.m + (p.in_place ? p.d_pad : p.c_pad), p.out);
    fill(&d, p.m, p.n, p.m + p.d_pad, p.out);
    fill(&bias, p.m, 1, p.m, p.out);
    cudaMalloc(&s->workspace, workspace);
    cublasLtMatmulDescCreate(&s->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    set(s, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(s, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (p.bias) {
        const void *at = bias.device;
        set(s, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
        cublasLtMatmulDescSetAttribute(s->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &at, sizeof at);
    }
    cublasLtMatrixLayoutCreate(&s->a, a.type, (uint64_t)a.rows, (uint64_t)a.columns, a.ld);
    cublasLtMatrixLayoutCreate(&s->b, b.type, (uint64_t)b.rows, (uint64_t)b.columns, b.ld);
    cublasLtMatrixLayoutCreate(&s->c, c.type, (uint64_t)c.rows, (uint64_t)c.columns, c.ld);
    cublasLtMatrixLayoutCreate(&s->d, d.type, (uint64_t)d.rows, (uint64_t)d.columns, d.ld);
    cublasLtMatmulPreferenceCreate(&s->preference);
    cublasLtMatmulPreferenceSetAttribute(s->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                         sizeof workspace);
}

static cublasStatus_t choose(descriptors *s)
{
    return cublasLtMatmulAlgoGetHeuristic(handle, s->operation, s->a, s->b, s->c, s->d, s->preference, 1, &s->found,
                                          &s->count);
}

static cublasStatus_t multiply(descriptors *s, const problem &p, const char *left, char *out, size_t workspace)
{
    const char *before = p.in_place ? out : c.device;
    return cublasLtMatmul(handle, s->operation, &p.alpha, left, s->a, b.device, s->b, &p.beta, before, s->c, out, s->d,
                          &s->found.algo, s->workspace, workspace, stream);
}

static void tear_down(descriptors *s)
{
    cublasLtMatmulPreferenceDestroy(s->preference);
    for (cublasLtMatrixLayout_t layout : {s->a, s->b, s->c, s->d})
        cublasLtMatrixLayoutDestroy(layout);
    cublasLtMatmulDescDestroy(s->operation);
    for (void *memory : {a.device, b.device, c.device, d.device, bias.device, s->workspace})
        cudaFree(memory);
}

static void compare(const problem &p)
{
    double unit = p.out == CUDA_R_32F ? 0x1p-24 : p.out == CUDA_R_16BF ? 0x1p-8 : 0x1p-11;
    const array &before = p.in_place ? d : c;
    for (int j = 0; j < p.n; j++) {
        for (int i = 0; i < p.m; i++) {
            double sum = 0, size = 0;
            for (int l = 0; l < p.k; l++) {
                double x = a.values[p.transpose_a ? i * a.rows + l : l * a.rows + i];
                double y = b.values[p.transpose_b ? l * b.rows + j : j * b.rows + l];
                sum += x * y;
                size += fabs(x * y);
            }
            sum = (double)p.alpha * sum + (p.beta != 0 ? (double)p.beta * before.values[j * p.m + i] : 0) +
                  (p.bias ? bias.values[i] : 0);
            size = fabs((double)p.alpha) * size + fabs((double)p.beta) + 1;
            double error = fabs(value_at(got + (size_t)(j * d.ld + i) * size_of(p.out), p.out) - sum);
            worst = fmax(worst, error / (size * 0x1p-24 + fabs(sum) * unit));
            if (!(error <= 8 * size * 0x1p-24 + 1.01 * fabs(sum) * unit)) {
                failures++;
                printf("%d x %d x %d: element (%d, %d) is off by %g\n", p.m, p.n, p.k, i, j, error);
                return;
            }
        }
    }
    /* what lies between the columns is as it was */
    for (int j = 0; j + 1 < p.n; j++)
        for (int i = p.m; i < d.ld; i++)
            CHECK(!memcmp(got + (size_t)(j * d.ld + i) * size_of(p.out), "\xff\xff", 2));
}

static void check_product(const problem &p)
{
    descriptors s = {};
    cases++;
    set_up(&s, p);
    if (p.beta == 0) /* then C is not read, whatever it holds */
        cudaMemsetAsync(p.in_place ? d.device : c.device, 0xff, p.in_place ? bytes_of(&d) : bytes_of(&c), stream);
    CHECK(choose(&s) == CUBLAS_STATUS_SUCCESS && s.count == 1);
    CHECK(multiply(&s, p, a.device, d.device, 1 << 20) == CUBLAS_STATUS_SUCCESS);
    cudaMemcpyAsync(got, d.device, bytes_of(&d), cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    compare(p);
    tear_down(&s);
}

static const cudaDataType pairs[5][2] = {{CUDA_R_32F, CUDA_R_32F},
                                         {CUDA_R_16BF, CUDA_R_32F},
                                         {CUDA_R_16BF, CUDA_R_16BF},
                                         {CUDA_R_16F, CUDA_R_32F},
                                         {CUDA_R_16F, CUDA_R_16F}};

static void every_product()
{
    static const int sizes[][3] = {{1, 1, 1}, {1, 7, 5}, {13, 1, 3}, {8, 16, 32}, {17, 9, 300}};
    for (const auto &size : sizes)
        for (const auto &types : pairs)
            for (int bits = 0; bits < 256; bits++) {
                problem p = {size[0],
                             size[1],
                             size[2],
                             bits & 1 ? 3 : 0,
                             bits & 2 ? 5 : 0,
                             bits & 4 ? 2 : 0,
                             bits & 8 ? 1 : 0,
                             (bits & 16) != 0,
                             (bits & 32) != 0,
                             (bits & 64) != 0,
                             (bits & 128) != 0,
                             types[0],
                             types[1],
                             1,
                             0};
                check_product(p);
                p.alpha = -0.75f, p.beta = bits & 1 ? 1.0f : 0.5f;
                check_product(p);
            }
}

static const problem plain = {8, 6, 4, 0, 0, 0, 0, false, false, false, false, CUDA_R_32F, CUDA_R_32F, 1, 0};

/* A description that must be refused by the heuristic. */
static void refuse_description(const problem &p, void (*spoil)(descriptors *), cublasStatus_t expected)
{
    descriptors s = {};
    set_up(&s, p);
    spoil(&s);
    CHECK(choose(&s) == expected && s.count == 0);
    tear_down(&s);
}

static void replace(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows, uint64_t columns)
{
    cublasLtMatrixLayoutDestroy(*layout);
    CHECK(cublasLtMatrixLayoutCreate(layout, type, rows, columns, (int64_t)rows) == CUBLAS_STATUS_SUCCESS);
}

static void descriptions_are_checked()
{
    cublasLtMatrixLayout_t layout;
    cublasLtMatmulDesc_t operation;
    int32_t value = 2;
    CHECK(cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, 5, 3, 4) == CUBLAS_STATUS_INVALID_VALUE);
    CHECK(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_64F) == CUBLAS_STATUS_NOT_SUPPORTED);
    refuse_description(
        plain, [](descriptors *s) { replace(&s->a, CUDA_R_32F, 8, 5); }, CUBLAS_STATUS_INVALID_VALUE);
    refuse_description(
        plain, [](descriptors *s) { replace(&s->b, CUDA_R_32F, 4, 7); }, CUBLAS_STATUS_INVALID_VALUE);
    refuse_description(
        plain, [](descriptors *s) { replace(&s->c, CUDA_R_32F, 9, 6); }, CUBLAS_STATUS_INVALID_VALUE);
    refuse_description(
        plain, [](descriptors *s) { replace(&s->d, CUDA_R_32F, 8, 5); }, CUBLAS_STATUS_INVALID_VALUE);
    refuse_description(
        plain, [](descriptors *s) { replace(&s->b, CUDA_R_16BF, 4, 6); }, CUBLAS_STATUS_NOT_SUPPORTED);
    refuse_description(
        plain, [](descriptors *s) { replace(&s->c, CUDA_R_16F, 8, 6); }, CUBLAS_STATUS_NOT_SUPPORTED);
    cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    CHECK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &value, 8) ==
          CUBLAS_STATUS_INVALID_VALUE);
    CHECK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &value, 4) ==
          CUBLAS_STATUS_NOT_SUPPORTED);
    value = 32; /* GELU */
    CHECK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &value, 4) ==
          CUBLAS_STATUS_NOT_SUPPORTED);
    cublasLtMatmulDescDestroy(operation);
}

static void calls_are_checked()
{
    descriptors s = {};
    problem p = plain, other = plain;
    set_up(&s, p);
    CHECK(choose(&s) == CUBLAS_STATUS_SUCCESS);
    CHECK(multiply(&s, p, a.device, d.device, 1 << 20) == CUBLAS_STATUS_SUCCESS);
    CHECK(multiply(&s, p, a.bytes, d.device, 1 << 20) == CUBLAS_STATUS_INVALID_VALUE);        /* on the host */
    CHECK(multiply(&s, p, a.device + 256, d.device, 1 << 20) == CUBLAS_STATUS_INVALID_VALUE); /* too short */
    CHECK(multiply(&s, p, a.device + 4, d.device, 1 << 20) == CUBLAS_STATUS_INVALID_VALUE);
    CHECK(multiply(&s, p, a.device, d.device, 16) == CUBLAS_STATUS_INVALID_VALUE);      /* less than it needs */
    CHECK(multiply(&s, p, a.device, d.device, 2 << 20) == CUBLAS_STATUS_INVALID_VALUE); /* more than there is */
    CHECK(multiply(&s, p, a.device, b.device, 1 << 20) == CUBLAS_STATUS_INVALID_VALUE); /* onto an operand */
    other.beta = 1, other.in_place = false;
    char *kept = c.device;
    c.device = a.bytes;
    CHECK(multiply(&s, p, a.device, d.device, 1 << 20) == CUBLAS_STATUS_SUCCESS); /* beta 0: C may be anything */
    CHECK(multiply(&s, other, a.device, d.device, 1 << 20) == CUBLAS_STATUS_INVALID_VALUE);
    c.device = kept;
    replace(&s.a, CUDA_R_32F, 4, 8); /* another problem than the algorithm's */
    int32_t transpose = CUBLAS_OP_T;
    cublasLtMatmulDescSetAttribute(s.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose);
    CHECK(multiply(&s, p, a.device, d.device, 1 << 20) == CUBLAS_STATUS_INVALID_VALUE);
    tear_down(&s);
}

/* Without another promise, addresses are multiples of 256. */
static void alignment_is_checked()
{
    descriptors s = {};
    problem p = plain;
    uint32_t four = 4, three = 3;
    p.a_pad = 4;
    set_up(&s, p);
    replace(&s.a, CUDA_R_32F, 8, 4); /* dense inside a larger allocation: room to move */
    CHECK(choose(&s) == CUBLAS_STATUS_SUCCESS);
    CHECK(multiply(&s, p, a.device, d.device, 1 << 20) == CUBLAS_STATUS_SUCCESS);
    CHECK(multiply(&s, p, a.device + 4, d.device, 1 << 20) == CUBLAS_STATUS_INVALID_VALUE);
    CHECK(cublasLtMatmulPreferenceSetAttribute(s.preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &three, 4) ==
          CUBLAS_STATUS_INVALID_VALUE);
    cublasLtMatmulPreferenceSetAttribute(s.preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &four, 4);
    CHECK(choose(&s) == CUBLAS_STATUS_SUCCESS);
    CHECK(multiply(&s, p, a.device + 4, d.device, 1 << 20) == CUBLAS_STATUS_SUCCESS);
    tear_down(&s);
}

int main()
{
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    CHECK(cublasLtCreate(&handle) == CUBLAS_STATUS_SUCCESS);
    every_product();
    descriptions_are_checked();
    calls_are_checked();
    alignment_is_checked();
    cudaStreamDestroy(stream);
    printf("%d products, worst error %.2f units, %d checks failed\n", cases, worst, failures);
    return failures != 0;
}
