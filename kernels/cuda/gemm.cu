/* Matrix products, by cuBLASLt.
 *
 * cuBLASLt is column-major: a row-major [rows, columns] is its [columns, rows]. So out = a b is computed as
 * out^T = b^T a^T, with b as its first operand, and a bias [n] runs along the rows of its result, as it wants it.
 * Its choice of an algorithm is asked for once per shape and kept. */
#include <string.h>

#include "kernels/cuda/context.h"

enum { MAX_PLANS = 1024, SLOTS = 2 * MAX_PLANS };

/* What the choice depends on. Compared as bytes: made by make_key, which clears it. */
typedef struct plan_key {
    int64_t m, n, k, a_row, b_row, c_row, out_row;
    int32_t a_align, b_align, c_align, out_align, bias_align;
    int32_t transpose_a, transpose_b, type, out_type, has_bias, reads_c;
    int32_t used; /* of an entry of the table */
} plan_key;

typedef struct plan {
    plan_key key;
    cublasLtMatmulAlgo_t algorithm;
} plan;

/* A hash table; the next free slot is the next one. Sequences of every length come by: a full table is emptied. */
struct vl_cuda_plans {
    int n;
    plan slots[SLOTS];
};

/* 32 MiB, as NVIDIA advises for Hopper; less where little memory may be used. Fixed by the first product. */
size_t vl_cuda_workspace_bytes(const vl_cuda *cuda)
{
    const size_t most = (size_t)32 << 20, share = (cuda->limit ? cuda->limit : cuda->free_at_open) / 64;
    if (cuda->areas[VL_CUDA_AREA_BLAS].bytes > 0)
        return cuda->areas[VL_CUDA_AREA_BLAS].bytes;
    return share < most ? share / 256 * 256 + 256 : most;
}

void vl_cuda_plans_free(vl_cuda_plans *plans)
{
    vl_free(plans);
}

/* The largest power of two up to 256 that divides the address: cuBLASLt assumes 256 where it is told nothing. */
static int32_t alignment_of(const void *at)
{
    uintptr_t low = (uintptr_t)at & -(uintptr_t)at;
    return low == 0 || low > 256 ? 256 : (int32_t)low;
}

static plan_key make_key(const vl_cuda_product *p)
{
    plan_key key;
    memset(&key, 0, sizeof key);
    key.m = p->m, key.n = p->n, key.k = p->k;
    key.a_row = p->a_row, key.b_row = p->b_row, key.c_row = p->c_row, key.out_row = p->out_row;
    key.a_align = alignment_of(p->a), key.b_align = alignment_of(p->b), key.c_align = alignment_of(p->c);
    key.out_align = alignment_of(p->out), key.bias_align = alignment_of(p->bias);
    key.transpose_a = p->transpose_a, key.transpose_b = p->transpose_b, key.type = p->type, key.out_type = p->out_type;
    key.has_bias = p->bias != NULL, key.reads_c = p->beta != 0, key.used = 1;
    return key;
}

typedef struct description {
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t first, second, third, out;
    cublasLtMatmulPreference_t preference;
} description;

static void description_clear(description *d)
{
    if (d->preference)
        cublasLtMatmulPreferenceDestroy(d->preference);
    if (d->out)
        cublasLtMatrixLayoutDestroy(d->out);
    if (d->third)
        cublasLtMatrixLayoutDestroy(d->third);
    if (d->second)
        cublasLtMatrixLayoutDestroy(d->second);
    if (d->first)
        cublasLtMatrixLayoutDestroy(d->first);
    if (d->operation)
        cublasLtMatmulDescDestroy(d->operation);
}

#define BLAS_TRY(call)                                                                                                 \
    do {                                                                                                               \
        cublasStatus_t blas_status = (call);                                                                           \
        if (blas_status != CUBLAS_STATUS_SUCCESS)                                                                      \
            return blas_status;                                                                                        \
    } while (0)

#define SET(attribute, value)    cublasLtMatmulDescSetAttribute(d->operation, attribute, &(value), sizeof(value))
#define PREFER(attribute, value) cublasLtMatmulPreferenceSetAttribute(d->preference, attribute, &(value), sizeof(value))

/* A row-major matrix of `rows` rows as cuBLASLt's. */
static cublasStatus_t describe_matrix(cublasLtMatrixLayout_t *out, vl_dtype dtype, int64_t rows, int64_t columns,
                                      int64_t row)
{
    cudaDataType_t type = dtype == VL_BF16 ? CUDA_R_16BF : dtype == VL_F16 ? CUDA_R_16F : CUDA_R_32F;
    return cublasLtMatrixLayoutCreate(out, type, (uint64_t)columns, (uint64_t)rows, row);
}

static cublasStatus_t describe(description *d, const vl_cuda_product *p)
{
    cublasOperation_t first = p->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t second = p->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    /* COMPUTE_32F never rounds fp32 operands to TF32 */
    BLAS_TRY(cublasLtMatmulDescCreate(&d->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    BLAS_TRY(SET(CUBLASLT_MATMUL_DESC_TRANSA, first));
    BLAS_TRY(SET(CUBLASLT_MATMUL_DESC_TRANSB, second));
    if (p->bias) {
        cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        cudaDataType_t type = CUDA_R_32F;
        BLAS_TRY(SET(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue));
        BLAS_TRY(SET(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type));
        BLAS_TRY(SET(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p->bias));
    }
    BLAS_TRY(describe_matrix(&d->first, p->type, p->transpose_b ? p->n : p->k, p->transpose_b ? p->k : p->n, p->b_row));
    BLAS_TRY(
        describe_matrix(&d->second, p->type, p->transpose_a ? p->k : p->m, p->transpose_a ? p->m : p->k, p->a_row));
    BLAS_TRY(describe_matrix(&d->third, p->out_type, p->m, p->n, p->c_row));
    return describe_matrix(&d->out, p->out_type, p->m, p->n, p->out_row);
}

static cublasStatus_t choose(cublasLtMatmulAlgo_t *out, description *d, const plan_key *key, vl_cuda *cuda)
{
    cublasLtMatmulHeuristicResult_t result;
    size_t workspace = cuda->areas[VL_CUDA_AREA_BLAS].bytes;
    uint32_t first = (uint32_t)key->b_align, second = (uint32_t)key->a_align, third = (uint32_t)key->c_align;
    uint32_t out_align = (uint32_t)key->out_align;
    int found = 0;
    BLAS_TRY(cublasLtMatmulPreferenceCreate(&d->preference));
    BLAS_TRY(PREFER(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace));
    BLAS_TRY(PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, first));
    BLAS_TRY(PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, second));
    BLAS_TRY(PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, third));
    BLAS_TRY(PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out_align));
    BLAS_TRY(cublasLtMatmulAlgoGetHeuristic(cuda->blas, d->operation, d->first, d->second, d->third, d->out,
                                            d->preference, 1, &result, &found));
    if (found == 0)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *out = result.algo;
    return result.state;
}

/* Where the key is, or would be: at most half of the slots are used. */
static plan *find_slot(vl_cuda_plans *plans, const plan_key *key)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *key; i++)
        hash = (hash ^ ((const unsigned char *)key)[i]) * 0x100000001b3u;
    plan *slot = &plans->slots[hash % SLOTS];
    while (slot->key.used && memcmp(&slot->key, key, sizeof *key) != 0)
        slot = slot + 1 < plans->slots + SLOTS ? slot + 1 : plans->slots;
    return slot;
}

static cublasStatus_t find_plan(cublasLtMatmulAlgo_t *out, description *d, const vl_cuda_product *p, vl_cuda *cuda)
{
    vl_cuda_plans *plans = cuda->plans;
    plan_key key = make_key(p);
    plan *slot = find_slot(plans, &key);
    if (slot->key.used) {
        *out = slot->algorithm;
        return CUBLAS_STATUS_SUCCESS;
    }
    BLAS_TRY(choose(out, d, &key, cuda));
    if (plans->n == MAX_PLANS) {
        memset(plans, 0, sizeof *plans);
        slot = find_slot(plans, &key);
    }
    slot->key = key;
    slot->algorithm = *out;
    plans->n++;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t run(description *d, const vl_cuda_product *p, vl_cuda *cuda, void *workspace)
{
    cublasLtMatmulAlgo_t algorithm;
    BLAS_TRY(describe(d, p));
    BLAS_TRY(find_plan(&algorithm, d, p, cuda));
    return cublasLtMatmul(cuda->blas, d->operation, &p->alpha, p->b, d->first, p->a, d->second, &p->beta, p->c,
                          d->third, p->out, d->out, &algorithm, workspace, cuda->areas[VL_CUDA_AREA_BLAS].bytes,
                          cuda->stream);
}

vl_status vl_cuda_multiply(vl_cuda *cuda, const vl_cuda_product *given, vl_error *err)
{
    vl_cuda_product own = *given;
    const vl_cuda_product *p = &own;
    description d;
    if (!own.c)
        own.c = own.out, own.c_row = own.out_row;
    void *workspace;
    memset(&d, 0, sizeof d);
    VL_TRY(vl_cuda_area_get(cuda, VL_CUDA_AREA_BLAS, vl_cuda_workspace_bytes(cuda), &workspace, err));
    if (!cuda->plans && !(cuda->plans = (vl_cuda_plans *)vl_calloc(1, sizeof *cuda->plans)))
        return vl_fail_nomem(err, "plans of matrix products");
    cublasStatus_t status = run(&d, p, cuda, workspace);
    description_clear(&d);
    if (status == CUBLAS_STATUS_SUCCESS)
        return VL_OK;
    return vl_fail(err, VL_EDEVICE, "cuBLASLt: %s (a product of %lld x %lld x %lld)", cublasLtGetStatusString(status),
                   (long long)p->m, (long long)p->n, (long long)p->k);
}
