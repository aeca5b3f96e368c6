/* cuBLASLt's descriptors, and the checks of a product. Where NVIDIA's documentation leaves a choice, the strict one:
 * an algorithm fits the problem that it was chosen for and no other, at the alignments that were promised. */
#include "kernels/cuda_on_cpu/blas.h"
#include "kernels/cuda_on_cpu/race.h"
#include "kernels/cuda_on_cpu/trace.h"

namespace vl_sim
{
enum { WORKSPACE_WANTED = 64 << 10, WORKSPACE_ALIGNMENT = 16, LARGEST_ALIGNMENT = 256 };

/* What the opaque structs hold. */
struct layout {
    uint64_t type, rows, columns;
    int64_t ld;
};
struct operation {
    int32_t transpose_a, transpose_b, epilogue, bias_type; /* bias_type -1: that of D */
    const void *bias;
};
struct preference {
    uint64_t workspace;
    uint32_t alignment[4]; /* of A, B, C, D */
};
struct algorithm {
    uint64_t problem, workspace; /* 0 is no algorithm */
    uint32_t alignment[4];
};
static_assert(sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "layout");
static_assert(sizeof(operation) <= sizeof(cublasLtMatmulDescOpaque_t), "operation");
static_assert(sizeof(preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "preference");
static_assert(sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t), "algorithm");

template <class T, class Opaque> static T content(const Opaque *opaque)
{
    T value;
    memcpy(&value, opaque->data, sizeof value);
    return value;
}

template <class Opaque, class T> static void set_content(Opaque *opaque, const T &value)
{
    memcpy(opaque->data, &value, sizeof value);
}

template <class Opaque, class T> static cublasStatus_t create(Opaque **out, const T &value)
{
    *out = new Opaque();
    set_content(*out, value);
    return CUBLAS_STATUS_SUCCESS;
}

template <class Opaque> static cublasStatus_t destroy(Opaque *opaque)
{
    delete opaque;
    return CUBLAS_STATUS_SUCCESS;
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    return (hash ^ value) * 0x100000001b3u;
}

static uint64_t mix_layout(uint64_t hash, const layout &l)
{
    return mix(mix(mix(mix(hash, l.type), l.rows), l.columns), (uint64_t)l.ld);
}

/* The product as described, without its addresses. */
struct description {
    operation op;
    layout a, b, c, d;
};

static uint64_t hash_of(const description &p)
{
    uint64_t hash = mix(mix(mix(0xcbf29ce484222325u, (uint64_t)p.op.transpose_a), (uint64_t)p.op.transpose_b),
                        (uint64_t)p.op.epilogue);
    return mix_layout(mix_layout(mix_layout(mix_layout(hash, p.a), p.b), p.c), p.d) | 1;
}

static bool types_supported(const description &p)
{
    bool half = p.a.type == CUDA_R_16BF || p.a.type == CUDA_R_16F;
    if (p.a.type != p.b.type || p.c.type != p.d.type || (!half && p.a.type != CUDA_R_32F))
        return false;
    if (p.a.type == CUDA_R_16BF && setting().capability < 80)
        return false;
    if (p.op.epilogue == CUBLASLT_EPILOGUE_BIAS && p.op.bias_type >= 0 && (uint64_t)p.op.bias_type != p.d.type)
        return false;
    return p.d.type == CUDA_R_32F || p.d.type == p.a.type;
}

static cublasStatus_t check_description(const description &p)
{
    uint64_t m = p.op.transpose_a ? p.a.columns : p.a.rows, k = p.op.transpose_a ? p.a.rows : p.a.columns;
    uint64_t n = p.op.transpose_b ? p.b.rows : p.b.columns;
    if (k != (p.op.transpose_b ? p.b.columns : p.b.rows) || m != p.d.rows || n != p.d.columns || m != p.c.rows ||
        n != p.c.columns)
        return CUBLAS_STATUS_INVALID_VALUE;
    return types_supported(p) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

static matrix matrix_of(const layout &l, const void *at)
{
    return {(char *)const_cast<void *>(at), (cudaDataType)l.type, (int64_t)l.rows, (int64_t)l.columns, l.ld};
}

static bool lies_on_device(const matrix &m)
{
    return (uintptr_t)m.at % element_size(m.type) == 0 && on_device(m.at, span(m));
}

/* D may be C itself; it overlaps nothing else. */
static bool overlaps(const matrix &x, const matrix &y)
{
    return x.at < y.at + span(y) && y.at < x.at + span(x);
}

static bool spans_good(const product &p)
{
    bool in_place = p.c.at == p.d.at && p.c.ld == p.d.ld;
    if (!lies_on_device(p.a) || !lies_on_device(p.b) || !lies_on_device(p.d) || overlaps(p.d, p.a) ||
        overlaps(p.d, p.b))
        return false;
    if (p.beta != 0 && (!lies_on_device(p.c) || (!in_place && overlaps(p.c, p.d))))
        return false;
    if (p.bias && !on_device(p.bias, (size_t)p.d.rows * element_size(p.bias_type)))
        return false;
    return p.workspace_bytes == 0 ||
           ((uintptr_t)p.workspace % WORKSPACE_ALIGNMENT == 0 && on_device(p.workspace, p.workspace_bytes));
}

static bool algorithm_fits(const algorithm &chosen, const description &d, const product &p)
{
    const matrix *const matrices[4] = {&p.a, &p.b, &p.c, &p.d};
    if (chosen.problem != hash_of(d) || p.workspace_bytes < chosen.workspace)
        return false;
    for (int i = 0; i < 4; i++) {
        bool used = i != 2 || p.beta != 0;
        if (used && (uintptr_t)matrices[i]->at % chosen.alignment[i] != 0)
            return false;
    }
    return true;
}

static void say_product(traced_call *trace, const product &p)
{
    std::string flags = p.transpose_a ? "t" : "";
    flags += p.transpose_b ? "T" : "";
    flags += p.bias ? "b" : "";
    flags += p.beta != 0 ? "r" : "";
    trace->say("product %lld %lld %lld %d %d %s", (long long)p.d.rows, (long long)p.d.columns,
               (long long)(p.transpose_a ? p.a.rows : p.a.columns), (int)p.a.type, (int)p.d.type,
               flags.empty() ? "-" : flags.c_str());
}

static float scalar(const void *at)
{
    float value;
    memcpy(&value, at, sizeof value);
    return value;
}
} // namespace vl_sim

using namespace vl_sim;

cublasStatus_t cublasLtCreate(cublasLtHandle_t *lightHandle)
{
    static char handle; /* it holds nothing */
    *lightHandle = (cublasLtHandle_t)&handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t lightHandle)
{
    return lightHandle ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

size_t cublasLtGetVersion(void)
{
    return 0;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "unknown status";
    }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *matmulDesc, cublasComputeType_t computeType,
                                        cudaDataType_t scaleType)
{
    if (computeType != CUBLAS_COMPUTE_32F || scaleType != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return create(matmulDesc, operation{CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, -1, NULL});
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t matmulDesc)
{
    return destroy(matmulDesc);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t matmulDesc, cublasLtMatmulDescAttributes_t attr,
                                              const void *buf, size_t sizeInBytes)
{
    operation op = content<operation>(matmulDesc);
    int32_t value = 0;
    if (sizeInBytes != (attr == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? sizeof op.bias : sizeof value))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (attr == CUBLASLT_MATMUL_DESC_BIAS_POINTER)
        memcpy(&op.bias, buf, sizeof op.bias);
    else
        memcpy(&value, buf, sizeof value);
    switch (attr) {
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: break;
    case CUBLASLT_MATMUL_DESC_TRANSA: op.transpose_a = value; break;
    case CUBLASLT_MATMUL_DESC_TRANSB: op.transpose_b = value; break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE: op.epilogue = value; break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: op.bias_type = value; break;
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (op.transpose_a > CUBLAS_OP_T || op.transpose_b > CUBLAS_OP_T ||
        (op.epilogue != CUBLASLT_EPILOGUE_DEFAULT && op.epilogue != CUBLASLT_EPILOGUE_BIAS))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    set_content(matmulDesc, op);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *matLayout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld)
{
    if (rows == 0 || cols == 0 || ld < (int64_t)rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    return create(matLayout, layout{(uint64_t)type, rows, cols, ld});
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t matLayout)
{
    return destroy(matLayout);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *pref)
{
    return create(pref, preference{0, {LARGEST_ALIGNMENT, LARGEST_ALIGNMENT, LARGEST_ALIGNMENT, LARGEST_ALIGNMENT}});
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t pref)
{
    return destroy(pref);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t pref,
                                                    cublasLtMatmulPreferenceAttributes_t attr, const void *buf,
                                                    size_t sizeInBytes)
{
    preference p = content<preference>(pref);
    bool workspace = attr == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    if (sizeInBytes != (workspace ? sizeof p.workspace : sizeof *p.alignment))
        return CUBLAS_STATUS_INVALID_VALUE;
    switch (attr) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: memcpy(&p.workspace, buf, sizeof p.workspace); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        memcpy(&p.alignment[attr - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], buf, sizeof *p.alignment);
        break;
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    for (uint32_t alignment : p.alignment)
        if (alignment == 0 || (alignment & (alignment - 1)) != 0)
            return CUBLAS_STATUS_INVALID_VALUE;
    set_content(pref, p);
    return CUBLAS_STATUS_SUCCESS;
}

static description describe(cublasLtMatmulDesc_t op, const cublasLtMatrixLayout_t (&layouts)[4])
{
    return {content<operation>(op), content<layout>(layouts[0]), content<layout>(layouts[1]),
            content<layout>(layouts[2]), content<layout>(layouts[3])};
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t operationDesc,
                                              cublasLtMatrixLayout_t Adesc, cublasLtMatrixLayout_t Bdesc,
                                              cublasLtMatrixLayout_t Cdesc, cublasLtMatrixLayout_t Ddesc,
                                              cublasLtMatmulPreference_t preference, int requestedAlgoCount,
                                              cublasLtMatmulHeuristicResult_t heuristicResultsArray[],
                                              int *returnAlgoCount)
{
    guard held(lock());
    traced_call trace;
    trace.say("choose");
    *returnAlgoCount = 0;
    if (!lightHandle || requestedAlgoCount < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    description d = describe(operationDesc, {Adesc, Bdesc, Cdesc, Ddesc});
    cublasStatus_t status = check_description(d);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    vl_sim::preference wanted = content<vl_sim::preference>(preference);
    algorithm chosen = {hash_of(d), std::min<uint64_t>(wanted.workspace, WORKSPACE_WANTED), {}};
    memcpy(chosen.alignment, wanted.alignment, sizeof chosen.alignment);
    cublasLtMatmulHeuristicResult_t &found = heuristicResultsArray[0];
    memset(&found, 0, sizeof found);
    set_content(&found.algo, chosen);
    found.workspaceSize = (size_t)chosen.workspace;
    *returnAlgoCount = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t computeDesc, const void *alpha,
                              const void *A, cublasLtMatrixLayout_t Adesc, const void *B, cublasLtMatrixLayout_t Bdesc,
                              const void *beta, const void *C, cublasLtMatrixLayout_t Cdesc, void *D,
                              cublasLtMatrixLayout_t Ddesc, const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspaceSizeInBytes, cudaStream_t stream)
{
    guard held(lock());
    traced_call trace(stream);
    if (!lightHandle)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    description d = describe(computeDesc, {Adesc, Bdesc, Cdesc, Ddesc});
    cublasStatus_t status = check_description(d);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    bool biased = d.op.epilogue == CUBLASLT_EPILOGUE_BIAS;
    if (biased && !d.op.bias)
        return CUBLAS_STATUS_INVALID_VALUE;
    product p = {matrix_of(d.a, A),      matrix_of(d.b, B),     matrix_of(d.c, C),
                 matrix_of(d.d, D),      d.op.transpose_a != 0, d.op.transpose_b != 0,
                 scalar(alpha),          scalar(beta),          biased ? (const char *)d.op.bias : NULL,
                 (cudaDataType)d.d.type, (char *)workspace,     workspaceSizeInBytes};
    if (!spans_good(p) || (algo && !algorithm_fits(content<algorithm>(algo), d, p)))
        return CUBLAS_STATUS_INVALID_VALUE;
    p.workspace_bytes = std::min<size_t>(workspaceSizeInBytes, WORKSPACE_WANTED);
    say_product(&trace, p);
    if (setting().dry)
        return CUBLAS_STATUS_SUCCESS;
    return queue(stream, [p] { multiply(p); }) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
