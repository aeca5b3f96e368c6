/* kernels/ops.h - the contract of every operation that a device performs. The device seam.
 *
 * Each op takes a struct of tensor views. ops.c checks shapes, types and aliasing once; a backend is
 * arithmetic only. Work is asynchronous in call order on the device; vl_device_read and vl_device_sync wait.
 * An op or dtype that a backend lacks is VL_EUNSUPPORTED, never a hidden copy to the CPU.
 *
 * Letters: M rows (tokens), D model width, V vocabulary, H heads, K key/value heads, E width of a head,
 * T tokens of one sequence. Every tensor is f32 unless its comment says otherwise, and is a view whose last
 * dimension is contiguous (rows may be strided). "NULL" for a tensor means data == NULL.
 * Sums are accumulated in fp32; log-sum-exp, KL and norms are fp32 with fp64 where a whole row is summed. */
#ifndef VL_KERNELS_OPS_H
#define VL_KERNELS_OPS_H

#include <stdbool.h>

#include <vlens/device.h>
#include <vlens/metric.h>
#include <vlens/tensor.h>

/* ---- memory ------------------------------------------------------------------------------------------------ */

/* A dense tensor in memory of its own; freed with vl_device_free(device, out->data). */
vl_status vl_tensor_new(vl_tensor *out, vl_device *device, vl_dtype dtype, int64_t rows, int64_t columns,
                        vl_error *err);
vl_status vl_op_zero(vl_device *device, vl_tensor out, vl_error *err);

/* vl_device_read in two halves: what is queued before the first is waited for by the second, and what is queued between
 * them runs meanwhile, but must not write the tensor. One read at a time is under way; `host` is as vl_device_read has
 * it. */
vl_status vl_device_read_begin(vl_device *device, vl_tensor tensor, vl_error *err);
vl_status vl_device_read_end(vl_device *device, void *host, vl_error *err);

/* A frozen weight matrix [n_out, n_in] prepared for multiplication, in whatever form the device likes best. */
typedef struct vl_matrix vl_matrix;

typedef struct vl_matrix_args {
    const void *host; /* row-major [n_out, n_in]; any alignment; must outlive the matrix (it may be a file map) */
    vl_dtype dtype;   /* VL_F32, VL_F16 or VL_BF16 */
    int64_t n_out, n_in;
    vl_precision precision;
    /* Used many times in both directions (the unembedding): a packed copy is worth its memory. Without it the
     * device may only borrow `host` and pack transiently, so that a mapped file is never held twice. */
    bool resident;
} vl_matrix_args;

/* Errors: VL_ENOMEM, VL_EDEVICE. */
vl_status vl_matrix_new(vl_matrix **out, vl_device *device, const vl_matrix_args *args, vl_error *err);
void vl_matrix_free(vl_device *device, vl_matrix *matrix);
int64_t vl_matrix_rows(const vl_matrix *matrix);    /* n_out */
int64_t vl_matrix_columns(const vl_matrix *matrix); /* n_in */
/* Whether products with it are in 16 bit, so that nothing is lost where what comes from them is rounded likewise. */
bool vl_matrix_is_narrow(const vl_device *device, const vl_matrix *matrix);

/* ---- products ---------------------------------------------------------------------------------------------- */

/* out = x W^T + bias, or (transpose) out = x W. With `accumulate`, added to out. */
typedef struct vl_linear_args {
    vl_tensor out; /* [M, n_out], or [M, n_in] when transposed */
    vl_tensor x;   /* [M, n_in], or [M, n_out] when transposed; must not overlap out */
    const vl_matrix *weight;
    vl_tensor bias; /* [n_out] or NULL; not with transpose */
    bool transpose;
    bool accumulate;
} vl_linear_args;
vl_status vl_op_linear(vl_device *device, const vl_linear_args *args, vl_error *err);

/* out = alpha * op(a) op(b) + beta * c, fp32 arithmetic (fast: operands rounded to bf16 first). a, b, c and out may all
 * be bf16 where vl_device_gemm_dtype says so: sums are fp32, and out is rounded once. */
typedef struct vl_gemm_args {
    vl_tensor out; /* [m, n] */
    vl_tensor a;   /* [m, k], or [k, m] when transpose_a; k > 0 */
    vl_tensor b;   /* [k, n], or [n, k] when transpose_b */
    bool transpose_a, transpose_b;
    float alpha, beta; /* beta == 0 does not read c */
    bool fast;
    vl_tensor c; /* [m, n]; NULL: out itself; must not overlap it otherwise */
} vl_gemm_args;
/* The type in which operands of products, fast ones or others, are best kept between them. */
vl_dtype vl_device_gemm_dtype(vl_device *device, bool fast);
vl_status vl_op_gemm(vl_device *device, const vl_gemm_args *args, vl_error *err);

/* ---- the frozen forward ------------------------------------------------------------------------------------ */

/* out[t] = scale * row ids[t] of the table, widened. */
typedef struct vl_embed_args {
    vl_tensor out; /* [T, D] */
    const vl_matrix *table;
    vl_tensor ids; /* [T] i32, each in [0, rows): checked by the caller */
    float scale;   /* 0: 1 */
} vl_embed_args;
vl_status vl_op_embed(vl_device *device, const vl_embed_args *args, vl_error *err);

typedef enum vl_norm_kind { VL_NORM_RMS = 0, VL_NORM_LAYER, VL_NORM_NONE } vl_norm_kind;

/* RMS: x * rsqrt(mean(x^2) + eps) * weight.  Layer: (x - mean) * rsqrt(var + eps) * weight + bias.  None: x * weight.
 * Over groups of `weight.shape[0]` columns: a row of H*E columns with a weight of E is normed per head. */
typedef struct vl_norm_args {
    vl_tensor out;    /* [M, D]; may be x itself */
    vl_tensor x;      /* [M, D] */
    vl_tensor weight; /* [D] (or [E], dividing D) */
    vl_tensor bias;   /* [D] or NULL */
    vl_norm_kind kind;
    double eps;
} vl_norm_args;
vl_status vl_op_norm(vl_device *device, const vl_norm_args *args, vl_error *err);

/* dx = gradient of the norm at x, given dy. */
typedef struct vl_norm_backward_args {
    vl_tensor dx;     /* [M, D]; may be dy itself */
    vl_tensor dy;     /* [M, D] */
    vl_tensor x;      /* [M, D], the input of the forward */
    vl_tensor weight; /* [D] */
    vl_norm_kind kind;
    double eps;
} vl_norm_backward_args;
vl_status vl_op_norm_backward(vl_device *device, const vl_norm_backward_args *args, vl_error *err);

/* Rotary embedding in place, Hugging Face "half" layout: pairs (i, i + P) of the first 2 P columns of each head; the
 * others pass. */
typedef struct vl_rope_args {
    vl_tensor x;        /* [T, H*E], in place */
    vl_tensor cos, sin; /* [T, P], P <= E/2 */
    int n_heads;
} vl_rope_args;
vl_status vl_op_rope(vl_device *device, const vl_rope_args *args, vl_error *err);

/* out[i, h] = softmax_j(s[i, j]) v[j] with s = scale * q[i, h] . k[j, h / (H/K)], or (softcap c > 0) c tanh(s / c),
 * without ever holding [Tq, Tk] of all heads. Key j is seen by query i iff (not causal or j <= i + causal_offset) and
 * (no window or j > i + causal_offset - window) and (no masks or q_mask[i] & k_mask[j]). */
typedef struct vl_attention_args {
    vl_tensor out;  /* [Tq, H*E]; must not overlap q, k or v */
    vl_tensor q;    /* [Tq, H*E] */
    vl_tensor k, v; /* [Tk, K*E] */
    int n_heads, n_kv_heads;
    float scale;
    bool causal;
    int64_t causal_offset;    /* keys that precede query 0 (a KV cache); Tk >= Tq + causal_offset */
    vl_tensor ends;           /* [Tq] i32, each at most Tk, or NULL: causal query i also sees the keys below ends[i] */
    int64_t window;           /* keys that a causal query sees, its own included; 0: all before it */
    float softcap;            /* 0: none */
    vl_tensor q_mask, k_mask; /* [Tq], [Tk] i64 bit masks, or both NULL; each query must see a key */
    vl_tensor probabilities;  /* [Tq, H*Tk] or NULL: also write the attention weights (viewer) */
} vl_attention_args;
vl_status vl_op_attention(vl_device *device, const vl_attention_args *args, vl_error *err);

typedef enum vl_activation {
    VL_ACT_SILU = 0,
    VL_ACT_GELU,       /* exact, with erf */
    VL_ACT_GELU_TANH,  /* gelu_new, gelu_pytorch_tanh */
    VL_ACT_QUICK_GELU, /* x * sigmoid(1.702 x) */
    VL_ACT_RELU,
    VL_ACT_CAP /* cap * tanh(x / cap), a soft cap */
} vl_activation;

/* out = act(x), or act(x) * up where up is given. out may be x or up. */
typedef struct vl_activation_args {
    vl_tensor out, x; /* [M, N] */
    vl_tensor up;     /* [M, N] or NULL */
    vl_activation kind;
    float cap; /* of VL_ACT_CAP, above 0 */
} vl_activation_args;
vl_status vl_op_activation(vl_device *device, const vl_activation_args *args, vl_error *err);

/* out = x + scale * row_scale[m] * column_scale[n] * y (NULL: 1; y of one row is broadcast over all rows). out may be
 * x. */
typedef struct vl_add_args {
    vl_tensor out, x;    /* [M, N] */
    vl_tensor y;         /* [M, N] or [1, N] */
    vl_tensor row_scale; /* [M] or NULL */
    float scale;
    vl_tensor column_scale; /* [N] or NULL */
} vl_add_args;
vl_status vl_op_add(vl_device *device, const vl_add_args *args, vl_error *err);

/* Cuts a picture into patches in raster order: out[row*columns + column] = pixels (channel, y, x) of that patch.
 * A strided convolution with kernel == stride is this followed by a linear. */
typedef struct vl_patchify_args {
    vl_tensor out;    /* [P, C*patch*patch] */
    vl_tensor pixels; /* [C*height, width] */
    int channels, height, width, patch;
} vl_patchify_args;
vl_status vl_op_patchify(vl_device *device, const vl_patchify_args *args, vl_error *err);

/* out[i] = sum over k of weights[i, k] * x[rows[i, k]]: rows in another order (one tap), pooled, or interpolated. */
typedef struct vl_mix_rows_args {
    vl_tensor out;     /* [R, N]; must not overlap x */
    vl_tensor x;       /* [S, N] */
    vl_tensor rows;    /* [R, taps] i32, each in [0, S): checked by the caller */
    vl_tensor weights; /* [R, taps] f32, or NULL: all 1 */
} vl_mix_rows_args;
vl_status vl_op_mix_rows(vl_device *device, const vl_mix_rows_args *args, vl_error *err);

/* out = x converted (rounded to nearest even): any pair of f32, f16, bf16; strided rows allowed on both sides. */
typedef struct vl_cast_args {
    vl_tensor out, x; /* [M, N] */
} vl_cast_args;
vl_status vl_op_cast(vl_device *device, const vl_cast_args *args, vl_error *err);

/* Rows [first, first + n). */
typedef struct vl_row_run {
    int64_t first, n;
} vl_row_run;

/* out = runs of rows of the table, one after the other, widened where out is f32 and the table narrower. The runs are
 * read before the call returns, and travel with the launch: nothing is uploaded. */
typedef struct vl_take_rows_args {
    vl_tensor out;          /* [M, N]: f32, or as the table */
    vl_tensor table;        /* [R, N] f32, f16, bf16 or i32 */
    const vl_row_run *runs; /* [n_runs] on the host; their lengths add up to M */
    int64_t n_runs;
} vl_take_rows_args;
vl_status vl_op_take_rows(vl_device *device, const vl_take_rows_args *args, vl_error *err);

/* out = runs of rows of x, one after the other, rounded to the type of out. Counted on the way, and added up: elements
 * of x that are no finite number, and those that became infinite. */
typedef struct vl_pack_rows_args {
    vl_tensor out;          /* [M, N] f32, f16 or bf16 */
    vl_tensor x;            /* [R, N] */
    const vl_row_run *runs; /* as above */
    int64_t n_runs;
    vl_tensor counts; /* [2] i32 */
} vl_pack_rows_args;
vl_status vl_op_pack_rows(vl_device *device, const vl_pack_rows_args *args, vl_error *err);

/* ---- distributions ----------------------------------------------------------------------------------------- */

/* lse[m] = log sum_v exp(logits[m, v]). */
typedef struct vl_logsumexp_args {
    vl_tensor lse;    /* [M] */
    vl_tensor logits; /* [M, V] */
} vl_logsumexp_args;
vl_status vl_op_logsumexp(vl_device *device, const vl_logsumexp_args *args, vl_error *err);

/* The k largest logits of each row, falling; equal logits by rising id. */
typedef struct vl_topk_args {
    vl_tensor values; /* [M, k] logits */
    vl_tensor ids;    /* [M, k] i32 */
    vl_tensor logits; /* [M, V] */
} vl_topk_args;
vl_status vl_op_topk(vl_device *device, const vl_topk_args *args, vl_error *err);

/* Per row, how a lens' distribution q compares with the teacher's p: the columns of vl_metric (vlens/metric.h). */
typedef struct vl_metrics_args {
    vl_tensor out;                         /* [M, VL_METRIC_COUNT] */
    vl_tensor logits, lse;                 /* [M, V], [M]: q */
    vl_tensor teacher_logits, teacher_lse; /* [M, V], [M]: p; may be the same as q */
    vl_tensor targets;                     /* [M] i32 or NULL */
} vl_metrics_args;
vl_status vl_op_metrics(vl_device *device, const vl_metrics_args *args, vl_error *err);

/* The heart of the fit: logits = x W^T + bias, or (softcap c > 0) c tanh(that / c), loss per row against the teacher,
 * and its gradient with respect to x, in tiles of the vocabulary: [M, V] of the student never exists as a whole. With z
 * the student's logits, q = softmax(z):  d KL(p||q)/dz = q - p;  d CE/dz = q - onehot(target); d KL(q||p)/dz = q * (log
 * q - log p - KL(q||p));  d JS/dz = q/2 * (log(q/m) - KL(q||m)), m = (p+q)/2. */
typedef struct vl_unembed_loss_args {
    vl_tensor loss;                        /* [M], unweighted, nats */
    vl_tensor dx;                          /* [M, D]: row_weight[m] * d loss[m] / d x[m], or NULL for the loss alone */
    vl_tensor x;                           /* [M, D]: the normed student states */
    const vl_matrix *head;                 /* [V, D], resident */
    vl_tensor head_bias;                   /* [V] or NULL */
    vl_tensor teacher_logits, teacher_lse; /* [M, V], [M]; unused by CE */
    vl_tensor targets;                     /* [M] i32 < V, CE only; a row with target < 0 has loss 0 and gradient 0 */
    vl_tensor row_weight;                  /* [M] or NULL: 1 */
    vl_loss kind;
    float softcap; /* 0: none. The teacher's logits are behind it too */
} vl_unembed_loss_args;
vl_status vl_op_unembed_loss(vl_device *device, const vl_unembed_loss_args *args, vl_error *err);

/* ---- fitting ----------------------------------------------------------------------------------------------- */

/* out[n] = beta * out[n] + sum_m x[m, n] (the gradient of a bias). */
typedef struct vl_column_sum_args {
    vl_tensor out; /* [N] */
    vl_tensor x;   /* [M, N] */
    float beta;
} vl_column_sum_args;
vl_status vl_op_column_sum(vl_device *device, const vl_column_sum_args *args, vl_error *err);

/* *out = sum of squares over the whole tensor, fp64, fixed order: waits for the device. */
vl_status vl_op_sum_squares(vl_device *device, double *out, vl_tensor x, vl_error *err);

/* out = x / |x|, |x| the root of the sum of squares over the whole matrix; zeros stay zeros. */
typedef struct vl_normalise_args {
    vl_tensor out; /* [M, N] f32, or what vl_device_gemm_dtype says */
    vl_tensor x;   /* [M, N] */
} vl_normalise_args;
vl_status vl_op_normalise(vl_device *device, const vl_normalise_args *args, vl_error *err);

/* total[0] (+)= sum_m weight[m] * loss[m], in fp64 and a fixed order; total[1] = first_row + the first m whose loss is
 * no finite number, or what it was: -1 where there has been none. */
typedef struct vl_loss_total_args {
    vl_tensor total;        /* [2] f64 */
    vl_tensor loss, weight; /* [M]; weight NULL: 1 */
    int64_t first_row;
    bool fresh; /* total is overwritten */
} vl_loss_total_args;
vl_status vl_op_loss_total(vl_device *device, const vl_loss_total_args *args, vl_error *err);

/* What clipping multiplies a gradient by: scale[0] = min(1, clip / norm) with the norm over both tensors, and scale[1]
 * = 1; or NaN both where the norm or the loss is no finite number: then vl_op_sgd and vl_op_adam change nothing. Nobody
 * has to wait for it. */
typedef struct vl_step_scale_args {
    vl_tensor scale;             /* [2] */
    vl_tensor norm;              /* [1] f64 */
    vl_tensor gradient, another; /* any shape; another may be NULL */
    vl_tensor loss;              /* [1] f64 */
    double clip;                 /* 0: none */
} vl_step_scale_args;
vl_status vl_op_step_scale(vl_device *device, const vl_step_scale_args *args, vl_error *err);

/* One optimiser step on a tensor of any shape, all in place. `gradient_scale`, and *scale where it is given, multiply
 * the gradient first (clipping); a *scale of NaN: nothing changes. weight_decay is L2 for SGD (as torch.optim.SGD) and
 * decoupled for Adam (as AdamW). */
typedef struct vl_sgd_args {
    vl_tensor parameter, gradient;
    vl_tensor momentum; /* NULL: none is kept, and momentum_factor is 0 */
    float learning_rate, momentum_factor, weight_decay, gradient_scale;
    bool nesterov;
    bool first;      /* the momentum buffer starts as the first gradient */
    vl_tensor scale; /* [1] or NULL */
} vl_sgd_args;
vl_status vl_op_sgd(vl_device *device, const vl_sgd_args *args, vl_error *err);

typedef struct vl_adam_args {
    vl_tensor parameter, gradient, mean, square;
    float learning_rate, beta1, beta2, epsilon, weight_decay, gradient_scale;
    int64_t step;    /* from 1, for the bias correction */
    vl_tensor scale; /* [1] or NULL */
} vl_adam_args;
vl_status vl_op_adam(vl_device *device, const vl_adam_args *args, vl_error *err);

#endif
