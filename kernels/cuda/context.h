/* kernels/cuda/context.h - the context of a CUDA device, and what its files share.
 *
 * Work is queued on one stream in call order. Data from the host goes through a second stream (transfer.cu), so that it
 * travels while earlier work computes. */
#ifndef VL_KERNELS_CUDA_CONTEXT_H
#define VL_KERNELS_CUDA_CONTEXT_H

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/device.cuh"

extern "C" {
#include "kernels/backend.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
}

/* Areas of device memory that grow and are kept between calls. */
typedef enum vl_cuda_area {
    VL_CUDA_AREA_OP = 0, /* vl_cuda_scratch: whatever one op needs */
    VL_CUDA_AREA_LEFT,   /* 16-bit copy of the left operand of a product */
    VL_CUDA_AREA_RIGHT,  /* 16-bit copy of the right one, or widened weights */
    VL_CUDA_AREA_GROWTH, /* what the rows of an fp16 operand were divided by */
    VL_CUDA_AREA_BLAS,   /* cuBLASLt's workspace */
    VL_CUDA_AREA_COUNT
} vl_cuda_area;

enum { VL_CUDA_STAGES = 2 };

/* Pinned host memory and device memory of the same size: data is on its way through one while the other is in use. */
typedef struct vl_cuda_stage {
    void *host, *device;
    size_t bytes;
    cudaEvent_t uploaded; /* the host side may be written again */
    cudaEvent_t consumed; /* the device side may be written again */
} vl_cuda_stage;

/* A read that was begun. */
typedef struct vl_cuda_arrival {
    void *host; /* pinned */
    size_t bytes;
    cudaEvent_t ready, done; /* the tensor is computed; it has come */
} vl_cuda_arrival;

typedef struct vl_cuda_matrix vl_cuda_matrix;
typedef struct vl_cuda_plans vl_cuda_plans; /* gemm.cu: algorithms chosen by cuBLASLt */

typedef struct vl_cuda {
    int index;
    int capability; /* 10 * major + minor */
    int multiprocessors;
    int shared_limit;         /* bytes of shared memory that a block may ask for (opt-in) */
    size_t free_at_open;      /* bytes that nobody used then */
    size_t limit;             /* bytes that may be used; 0: all */
    size_t weights, streamed; /* bytes of matrices on the device, and of those that are not */
    size_t conversion;        /* bytes that the largest conversion of weights needs */
    bool has_bf16;            /* multiplies bf16 (compute capability 8.0) */
    cudaStream_t stream;      /* all work of the device, in call order */
    cudaStream_t copy;        /* from the host */
    cublasLtHandle_t blas;
    vl_cuda_plans *plans;
    vl_cuda_stage stages[VL_CUDA_STAGES];
    int next_stage;
    void *arrived; /* pinned: what is read comes here first */
    vl_cuda_arrival arrival;
    cudaStream_t down; /* to the host, beside what is computed */
    struct {
        void *memory;
        size_t bytes;
    } areas[VL_CUDA_AREA_COUNT];
} vl_cuda;

/* VL_OK, or VL_EDEVICE ("what: CUDA's text"); VL_ENOMEM for a lack of memory. Right after a launch:
 * return vl_cuda_check(cudaGetLastError(), "norm", err). */
vl_status vl_cuda_check(cudaError_t code, const char *what, vl_error *err);

/* Device memory; at most cuda->limit bytes of it in all, where that is set. Freeing waits for the device, so that
 * queued work never loses its memory. */
vl_status vl_cuda_alloc(void *context, void **out, size_t bytes, vl_error *err);
void vl_cuda_free(void *context, void *memory);
/* Bytes of weights that vl_cuda_linear converts at a time: the part of VL_CUDA_AREA_RIGHT that a matrix asks for. */
size_t vl_cuda_conversion_bytes(const vl_cuda_matrix *matrix);
/* Whether weights of this size may stay on the device: a part of it is kept for what they multiply. */
bool vl_cuda_has_room(vl_cuda *cuda, size_t bytes);

/* At least `bytes` of device memory, 256-byte aligned, valid until the next call (of the same op or another); freed
 * at close. An op calls it once and divides what it gets. vl_cuda_multiply does not touch it. */
vl_status vl_cuda_scratch(vl_cuda *cuda, size_t bytes, void **out, vl_error *err);
vl_status vl_cuda_area_get(vl_cuda *cuda, vl_cuda_area area, size_t bytes, void **out, vl_error *err);

/* ---- transfer.cu ------------------------------------------------------------------------------------------- */

vl_status vl_cuda_stages_open(vl_cuda *cuda, vl_error *err);
void vl_cuda_stages_close(vl_cuda *cuda);
/* A stage of at least `bytes` whose host side may be written now. Then upload (the compute stream waits for the data),
 * queue what reads stage->device on cuda->stream, and release. */
vl_status vl_cuda_stage_get(vl_cuda *cuda, size_t bytes, vl_cuda_stage **out, vl_error *err);
vl_status vl_cuda_stage_upload(vl_cuda *cuda, vl_cuda_stage *stage, size_t bytes, vl_error *err);
vl_status vl_cuda_stage_release(vl_cuda *cuda, vl_cuda_stage *stage, vl_error *err);
vl_status vl_cuda_read(void *context, void *host, const vl_tensor *tensor, vl_error *err);
vl_status vl_cuda_read_begin(void *context, const vl_tensor *tensor, vl_error *err);
vl_status vl_cuda_read_end(void *context, void *host, const vl_tensor *tensor, vl_error *err);
vl_status vl_cuda_write(void *context, const vl_tensor *tensor, const void *host, vl_error *err);

/* ---- gemm.cu ----------------------------------------------------------------------------------------------- */

/* out = alpha * (op(a) op(b)) + beta * c + bias, row-major, fp32 accumulation (never TF32). */
typedef struct vl_cuda_product {
    int64_t m, n, k;
    const void *a;                 /* [m, k], or [k, m] when transpose_a */
    const void *b;                 /* [k, n], or [n, k] when transpose_b */
    int64_t a_row, b_row, out_row; /* elements from row to row */
    bool transpose_a, transpose_b;
    vl_dtype type;     /* of a and b: f32, f16 or bf16 */
    vl_dtype out_type; /* of out and c: f32, or that of a and b */
    void *out;         /* [m, n] */
    const void *c;     /* [m, n]; NULL: out itself */
    int64_t c_row;
    const float *bias; /* [n] or NULL; only with an f32 out */
    float alpha, beta; /* beta == 0 does not read c */
} vl_cuda_product;
vl_status vl_cuda_multiply(vl_cuda *cuda, const vl_cuda_product *product, vl_error *err);
size_t vl_cuda_workspace_bytes(const vl_cuda *cuda);
void vl_cuda_plans_free(vl_cuda_plans *plans);

/* ---- linear.cu --------------------------------------------------------------------------------------------- */

struct vl_cuda_matrix {
    const void *host;           /* [n_out, n_in] as given: borrowed, any alignment */
    void *device;               /* [n_out, n_in], or NULL: streamed through the stages on every use */
    vl_dtype host_dtype, dtype; /* of `host` and of `device` */
    int64_t n_out, n_in;
    vl_dtype product; /* what it is multiplied in */
    size_t bytes;
};

/* out [rows, columns] = in, converted to nearest even: any pair of f32, f16 and bf16. (cast.cu) */
vl_status vl_cuda_convert(vl_cuda *cuda, vl_tensor out, vl_tensor in, vl_error *err);
/* x [M, N] in 16 bit, densely, in VL_CUDA_AREA_LEFT or _RIGHT; x itself where it has that type. */
vl_status vl_cuda_narrow(vl_cuda *cuda, vl_cuda_area area, vl_dtype dtype, vl_tensor x, vl_tensor *out, vl_error *err);
/* The same to fp16, whose range is small: a row with an entry above 2^15 is divided by a power of two first, which is
 * left in *growth [M] (1 for the others), in VL_CUDA_AREA_GROWTH. */
vl_status vl_cuda_narrow_rows(vl_cuda *cuda, vl_tensor x, vl_tensor *out, float **growth, vl_error *err);
/* out = growth[m] * (out - bias) + bias: the way back, of a product with that operand. bias [N] or NULL. */
vl_status vl_cuda_grow_rows(vl_cuda *cuda, vl_tensor out, const float *growth, const float *bias, vl_error *err);
/* out[m] *= scale * weight[m] (weight NULL: 1). */
vl_status vl_cuda_scale_rows(vl_cuda *cuda, vl_tensor out, const float *weight, float scale, vl_error *err);

/* out = alpha * x W (transposed), with args->x in the type that the matrix multiplies in (its rows may be strided). */
vl_status vl_cuda_linear_narrow(vl_cuda *cuda, const vl_linear_args *args, float alpha, vl_error *err);

/* ---- reduce.cu --------------------------------------------------------------------------------------------- */

enum { VL_CUDA_SQUARE_BLOCKS = 1024, VL_CUDA_SQUARES = VL_CUDA_SQUARE_BLOCKS + 1 };
/* partial[VL_CUDA_SQUARE_BLOCKS] = sum of squares over the tensor; what is before is the op's. */
vl_status vl_cuda_add_squares(vl_cuda *cuda, double *partial, vl_tensor x, vl_error *err);

/* ---- rows.cu ----------------------------------------------------------------------------------------------- */

/* Runs of rows, as they travel with a launch. */
enum { VL_CUDA_RUNS = 64 };
typedef struct vl_cuda_runs {
    int64_t rows;                /* of the result */
    int64_t first[VL_CUDA_RUNS]; /* row of the table minus row of the result, of each run */
    int32_t end[VL_CUDA_RUNS];   /* row of the result behind it */
} vl_cuda_runs;

/* ---- the ops ----------------------------------------------------------------------------------------------- */

vl_status vl_cuda_matrix_new(void *context, void **data, const vl_matrix_args *args, vl_error *err);
void vl_cuda_matrix_free(void *context, void *data);
bool vl_cuda_matrix_is_narrow(const void *data);
vl_dtype vl_cuda_gemm_dtype(void *context);
vl_status vl_cuda_linear(void *context, const vl_linear_args *args, vl_error *err);
vl_status vl_cuda_gemm(void *context, const vl_gemm_args *args, vl_error *err);
vl_status vl_cuda_embed(void *context, const vl_embed_args *args, vl_error *err);
vl_status vl_cuda_norm(void *context, const vl_norm_args *args, vl_error *err);
vl_status vl_cuda_norm_backward(void *context, const vl_norm_backward_args *args, vl_error *err);
vl_status vl_cuda_rope(void *context, const vl_rope_args *args, vl_error *err);
vl_status vl_cuda_attention(void *context, const vl_attention_args *args, vl_error *err);
vl_status vl_cuda_activation(void *context, const vl_activation_args *args, vl_error *err);
vl_status vl_cuda_add(void *context, const vl_add_args *args, vl_error *err);
vl_status vl_cuda_patchify(void *context, const vl_patchify_args *args, vl_error *err);
vl_status vl_cuda_mix_rows(void *context, const vl_mix_rows_args *args, vl_error *err);
vl_status vl_cuda_cast(void *context, const vl_cast_args *args, vl_error *err);
vl_status vl_cuda_logsumexp(void *context, const vl_logsumexp_args *args, vl_error *err);
vl_status vl_cuda_topk(void *context, const vl_topk_args *args, vl_error *err);
vl_status vl_cuda_metrics(void *context, const vl_metrics_args *args, vl_error *err);
vl_status vl_cuda_unembed_loss(void *context, const vl_unembed_loss_args *args, vl_error *err);
vl_status vl_cuda_column_sum(void *context, const vl_column_sum_args *args, vl_error *err);
vl_status vl_cuda_sum_squares(void *context, double *out, vl_tensor x, vl_error *err);
vl_status vl_cuda_pack_rows(void *context, const vl_pack_rows_args *args, vl_error *err);
vl_status vl_cuda_take_rows(void *context, const vl_take_rows_args *args, vl_error *err);
vl_status vl_cuda_normalise(void *context, const vl_normalise_args *args, vl_error *err);
vl_status vl_cuda_loss_total(void *context, const vl_loss_total_args *args, vl_error *err);
vl_status vl_cuda_step_scale(void *context, const vl_step_scale_args *args, vl_error *err);
vl_status vl_cuda_sgd(void *context, const vl_sgd_args *args, vl_error *err);
vl_status vl_cuda_adam(void *context, const vl_adam_args *args, vl_error *err);
vl_status vl_cuda_peak_new(void *context, void **data, const vl_peak_args *args, vl_error *err);
vl_status vl_cuda_peak_run(void *data, vl_error *err);
void vl_cuda_peak_free(void *data);

static inline float *vl_cuda_row(vl_tensor t, int64_t row)
{
    return (float *)t.data + row * t.row_stride;
}

/* The launch of a kernel that walks rows by blockIdx.y and groups of four columns by blockIdx.x. */
typedef struct vl_cuda_grid {
    dim3 grid, block;
} vl_cuda_grid;

static inline vl_cuda_grid vl_cuda_grid_of(int64_t rows, int64_t columns)
{
    int64_t groups = (columns + 3) / 4, threads = groups < 256 ? (groups + 31) / 32 * 32 : 256;
    int64_t across = (groups + threads - 1) / threads;
    vl_cuda_grid g;
    g.grid = dim3((unsigned)(across < 1024 ? across : 1024), (unsigned)(rows < 65535 ? rows : 65535), 1);
    g.block = dim3((unsigned)threads, 1, 1);
    return g;
}

/* Blocks of a one-dimensional grid over n items; kernels stride over what is left. */
static inline unsigned vl_cuda_blocks(int64_t items, int64_t per_block)
{
    int64_t blocks = (items + per_block - 1) / per_block;
    return (unsigned)(blocks < 65535 ? blocks : 65535);
}

#endif
