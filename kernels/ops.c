/* The checks that every op makes once, whatever backend runs it.
 *
 * Shapes come from model code, not from files, so a failure here is a bug in the caller; it is still a status and not
 * an assert, because a library must not take its host program down. */
#include "kernels/ops.h"

#include <math.h>

#include "kernels/backend.h"
#include "trainer/base/status.h"

/* One violated condition, named as it stands in the source. */
#define REQUIRE(op, condition)                                                                                         \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            return vl_fail(err, VL_EINTERNAL, "op %s: violated contract: %s", op, #condition);                         \
    } while (0)
#define DISPATCH(op, ...)                                                                                              \
    (device->backend->op ? device->backend->op(device->context, __VA_ARGS__)                                           \
                         : vl_fail(err, VL_EUNSUPPORTED, "the %s device has no op %s", device->name, #op))

static bool is_matrix_of(vl_tensor t, vl_dtype dtype, int64_t rows, int64_t columns)
{
    return t.data && t.dtype == dtype && t.ndim == 2 && t.shape[0] == rows && t.shape[1] == columns &&
           t.row_stride >= columns;
}

static bool is_matrix(vl_tensor t, int64_t rows, int64_t columns)
{
    return is_matrix_of(t, VL_F32, rows, columns);
}

/* A vector, or a matrix of one row. */
static bool is_vector_of(vl_tensor t, vl_dtype dtype, int64_t n)
{
    if (!t.data || t.dtype != dtype)
        return false;
    return (t.ndim == 1 && t.shape[0] == n) ||
           (t.ndim == 2 && t.shape[0] * t.shape[1] == n && t.row_stride == t.shape[1]);
}

static bool is_vector(vl_tensor t, int64_t n)
{
    return is_vector_of(t, VL_F32, n);
}

/* Slices of different columns of one buffer interleave in memory without sharing an element. */
static bool interleaved(vl_tensor a, vl_tensor b, int64_t width_a, int64_t width_b)
{
    int64_t stride = a.row_stride, size = (int64_t)vl_dtype_size(a.dtype);
    if (a.ndim != 2 || b.ndim != 2 || a.dtype != b.dtype || b.row_stride != stride || stride <= 0)
        return false;
    int64_t bytes = (int64_t)((intptr_t)b.data - (intptr_t)a.data), shift = bytes / size % stride;
    shift = shift < 0 ? shift + stride : shift;
    return bytes % size == 0 && shift >= width_a && shift + width_b <= stride;
}

static bool overlap(vl_tensor a, vl_tensor b)
{
    if (!a.data || !b.data)
        return false;
    int64_t rows_a = a.ndim == 2 ? a.shape[0] : 1, rows_b = b.ndim == 2 ? b.shape[0] : 1;
    int64_t width_a = a.shape[a.ndim - 1], width_b = b.shape[b.ndim - 1];
    if (rows_a == 0 || rows_b == 0 || interleaved(a, b, width_a, width_b))
        return false;
    uintptr_t begin_a = (uintptr_t)a.data, begin_b = (uintptr_t)b.data;
    uintptr_t end_a = begin_a + (uintptr_t)((rows_a - 1) * a.row_stride + width_a) * vl_dtype_size(a.dtype);
    uintptr_t end_b = begin_b + (uintptr_t)((rows_b - 1) * b.row_stride + width_b) * vl_dtype_size(b.dtype);
    return begin_a < end_b && begin_b < end_a;
}

/* For an op that reads each element of `in` before it writes the same element of `out`. */
static bool same_or_apart(vl_tensor out, vl_tensor in)
{
    return out.data == in.data ? out.row_stride == in.row_stride : !overlap(out, in);
}

vl_status vl_op_zero(vl_device *device, vl_tensor out, vl_error *err)
{
    REQUIRE("zero", out.data && (out.ndim == 1 || out.ndim == 2));
    return DISPATCH(zero, out, err);
}

vl_status vl_op_linear(vl_device *device, const vl_linear_args *a, vl_error *err)
{
    REQUIRE("linear", a->weight);
    int64_t m = a->x.shape[0];
    int64_t from = a->transpose ? a->weight->n_out : a->weight->n_in;
    int64_t to = a->transpose ? a->weight->n_in : a->weight->n_out;
    REQUIRE("linear", is_matrix(a->x, m, from));
    REQUIRE("linear", is_matrix(a->out, m, to));
    REQUIRE("linear", !a->bias.data || (!a->transpose && is_vector(a->bias, to)));
    REQUIRE("linear", !overlap(a->x, a->out));
    return m == 0 ? VL_OK : DISPATCH(linear, a, err);
}

vl_status vl_op_gemm(vl_device *device, const vl_gemm_args *a, vl_error *err)
{
    int64_t m = a->out.shape[0], n = a->out.shape[1], k = a->a.shape[a->transpose_a ? 0 : 1];
    vl_dtype dtype = a->a.dtype;
    REQUIRE("gemm", dtype == VL_F32 || dtype == vl_device_gemm_dtype(device, true));
    REQUIRE("gemm", is_matrix_of(a->out, dtype, m, n) && (!a->c.data || is_matrix_of(a->c, dtype, m, n)));
    REQUIRE("gemm", a->transpose_a ? is_matrix_of(a->a, dtype, k, m) : is_matrix_of(a->a, dtype, m, k));
    REQUIRE("gemm", a->transpose_b ? is_matrix_of(a->b, dtype, n, k) : is_matrix_of(a->b, dtype, k, n));
    REQUIRE("gemm", k > 0);
    REQUIRE("gemm", !overlap(a->out, a->a) && !overlap(a->out, a->b) && !overlap(a->out, a->c));
    return m == 0 || n == 0 ? VL_OK : DISPATCH(gemm, a, err);
}

vl_status vl_op_embed(vl_device *device, const vl_embed_args *a, vl_error *err)
{
    REQUIRE("embed", a->table);
    REQUIRE("embed", is_matrix(a->out, a->out.shape[0], a->table->n_in));
    REQUIRE("embed", is_vector_of(a->ids, VL_I32, a->out.shape[0]));
    return a->out.shape[0] == 0 ? VL_OK : DISPATCH(embed, a, err);
}

vl_status vl_op_norm(vl_device *device, const vl_norm_args *a, vl_error *err)
{
    int64_t m = a->x.shape[0], n = a->x.shape[1], width = a->weight.shape[a->weight.ndim - 1];
    REQUIRE("norm", is_matrix(a->x, m, n) && is_matrix(a->out, m, n));
    REQUIRE("norm", width > 0 && n % width == 0 && is_vector(a->weight, width));
    REQUIRE("norm", !a->bias.data || is_vector(a->bias, width));
    REQUIRE("norm", same_or_apart(a->out, a->x));
    return m == 0 ? VL_OK : DISPATCH(norm, a, err);
}

vl_status vl_op_norm_backward(vl_device *device, const vl_norm_backward_args *a, vl_error *err)
{
    int64_t m = a->x.shape[0], n = a->x.shape[1];
    REQUIRE("norm_backward", is_matrix(a->x, m, n) && is_matrix(a->dx, m, n) && is_matrix(a->dy, m, n));
    REQUIRE("norm_backward", is_vector(a->weight, n));
    REQUIRE("norm_backward", !overlap(a->dx, a->x) && same_or_apart(a->dx, a->dy));
    return m == 0 ? VL_OK : DISPATCH(norm_backward, a, err);
}

vl_status vl_op_rope(vl_device *device, const vl_rope_args *a, vl_error *err)
{
    int64_t t = a->x.shape[0], n = a->x.shape[1];
    REQUIRE("rope", a->n_heads > 0 && n % a->n_heads == 0 && n / a->n_heads % 2 == 0);
    REQUIRE("rope", is_matrix(a->x, t, n));
    int64_t pairs = a->cos.shape[1];
    REQUIRE("rope", pairs > 0 && pairs <= n / a->n_heads / 2);
    REQUIRE("rope", is_matrix(a->cos, t, pairs) && is_matrix(a->sin, t, pairs));
    return t == 0 ? VL_OK : DISPATCH(rope, a, err);
}

vl_status vl_op_attention(vl_device *device, const vl_attention_args *a, vl_error *err)
{
    REQUIRE("attention", a->n_heads > 0 && a->n_kv_heads > 0 && a->n_heads % a->n_kv_heads == 0);
    int64_t tq = a->q.shape[0], tk = a->k.shape[0], width = a->q.shape[1] / a->n_heads;
    REQUIRE("attention", a->q.shape[1] == width * a->n_heads);
    REQUIRE("attention", is_matrix(a->q, tq, width * a->n_heads) && is_matrix(a->out, tq, width * a->n_heads));
    REQUIRE("attention", is_matrix(a->k, tk, width * a->n_kv_heads) && is_matrix(a->v, tk, width * a->n_kv_heads));
    REQUIRE("attention", tk > 0 || tq == 0);
    REQUIRE("attention", !a->causal || (a->causal_offset >= 0 && tk >= tq + a->causal_offset));
    REQUIRE("attention", a->window >= 0 && (a->window == 0 || a->causal) && a->softcap >= 0);
    REQUIRE("attention", !a->ends.data || (a->causal && is_vector_of(a->ends, VL_I32, tq)));
    REQUIRE("attention", !a->q_mask.data == !a->k_mask.data);
    REQUIRE("attention",
            !a->q_mask.data || (is_vector_of(a->q_mask, VL_I64, tq) && is_vector_of(a->k_mask, VL_I64, tk)));
    REQUIRE("attention", !a->probabilities.data || is_matrix(a->probabilities, tq, a->n_heads * tk));
    REQUIRE("attention", !overlap(a->out, a->probabilities));
    REQUIRE("attention", !overlap(a->out, a->q) && !overlap(a->out, a->k) && !overlap(a->out, a->v));
    return tq == 0 ? VL_OK : DISPATCH(attention, a, err);
}

vl_status vl_op_activation(vl_device *device, const vl_activation_args *a, vl_error *err)
{
    int64_t m = a->x.shape[0], n = a->x.shape[1];
    REQUIRE("activation", is_matrix(a->x, m, n) && is_matrix(a->out, m, n));
    REQUIRE("activation", a->kind != VL_ACT_CAP || a->cap > 0);
    REQUIRE("activation", !a->up.data || is_matrix(a->up, m, n));
    REQUIRE("activation", same_or_apart(a->out, a->x) && same_or_apart(a->out, a->up));
    return m == 0 ? VL_OK : DISPATCH(activation, a, err);
}

vl_status vl_op_add(vl_device *device, const vl_add_args *a, vl_error *err)
{
    int64_t m = a->x.shape[0], n = a->x.shape[1];
    REQUIRE("add", is_matrix(a->x, m, n) && is_matrix(a->out, m, n));
    REQUIRE("add", is_matrix(a->y, m, n) || is_matrix(a->y, 1, n));
    REQUIRE("add", !a->row_scale.data || is_vector(a->row_scale, m));
    REQUIRE("add", !a->column_scale.data || is_vector(a->column_scale, n));
    REQUIRE("add", same_or_apart(a->out, a->x));
    REQUIRE("add", a->y.shape[0] == m ? same_or_apart(a->out, a->y) : !overlap(a->out, a->y));
    return m == 0 ? VL_OK : DISPATCH(add, a, err);
}

vl_status vl_op_patchify(vl_device *device, const vl_patchify_args *a, vl_error *err)
{
    REQUIRE("patchify", a->channels > 0 && a->patch > 0 && a->height >= a->patch && a->width >= a->patch);
    REQUIRE("patchify", is_matrix(a->pixels, (int64_t)a->channels * a->height, a->width));
    REQUIRE("patchify", is_matrix(a->out, (int64_t)(a->height / a->patch) * (a->width / a->patch),
                                  (int64_t)a->channels * a->patch * a->patch));
    REQUIRE("patchify", !overlap(a->out, a->pixels));
    return DISPATCH(patchify, a, err);
}

vl_status vl_op_mix_rows(vl_device *device, const vl_mix_rows_args *a, vl_error *err)
{
    int64_t rows = a->out.shape[0], n = a->out.shape[1], taps = a->rows.shape[1];
    REQUIRE("mix_rows", is_matrix(a->out, rows, n) && is_matrix(a->x, a->x.shape[0], n) && taps > 0);
    REQUIRE("mix_rows", a->rows.data && a->rows.dtype == VL_I32 && a->rows.ndim == 2 && a->rows.shape[0] == rows);
    REQUIRE("mix_rows", !a->weights.data || is_matrix(a->weights, rows, taps));
    REQUIRE("mix_rows", !overlap(a->out, a->x));
    return rows == 0 ? VL_OK : DISPATCH(mix_rows, a, err);
}

static bool is_float_type(vl_dtype dtype)
{
    return dtype == VL_F32 || dtype == VL_F16 || dtype == VL_BF16;
}

vl_status vl_op_cast(vl_device *device, const vl_cast_args *a, vl_error *err)
{
    REQUIRE("cast", a->x.ndim == 2 && a->out.ndim == 2 && a->x.data && a->out.data);
    REQUIRE("cast", a->x.shape[0] == a->out.shape[0] && a->x.shape[1] == a->out.shape[1]);
    REQUIRE("cast", is_float_type(a->x.dtype) && is_float_type(a->out.dtype));
    REQUIRE("cast", !overlap(a->x, a->out));
    return a->x.shape[0] == 0 ? VL_OK : DISPATCH(cast, a, err);
}

/* Runs of rows of a table of `rows`, `m` rows in all. */
static bool are_runs(const vl_row_run *runs, int64_t n, int64_t rows, int64_t m)
{
    for (int64_t i = 0; i < n; m -= runs[i++].n)
        if (runs[i].first < 0 || runs[i].n < 0 || runs[i].n > rows - runs[i].first)
            return false;
    return m == 0;
}

static bool is_float(vl_dtype dtype)
{
    return dtype == VL_F32 || dtype == VL_F16 || dtype == VL_BF16;
}

vl_status vl_op_take_rows(vl_device *device, const vl_take_rows_args *a, vl_error *err)
{
    vl_tensor table = a->table;
    int64_t m = a->out.shape[0];
    REQUIRE("take_rows", table.ndim == 2 && is_matrix_of(table, table.dtype, table.shape[0], table.shape[1]));
    REQUIRE("take_rows", is_float(table.dtype) || table.dtype == VL_I32);
    REQUIRE("take_rows", (is_float(table.dtype) && is_matrix(a->out, m, table.shape[1])) ||
                             is_matrix_of(a->out, table.dtype, m, table.shape[1]));
    REQUIRE("take_rows", are_runs(a->runs, a->n_runs, table.shape[0], m));
    REQUIRE("take_rows", !overlap(a->out, table));
    return m == 0 || table.shape[1] == 0 ? VL_OK : DISPATCH(take_rows, a, err);
}

vl_status vl_op_pack_rows(vl_device *device, const vl_pack_rows_args *a, vl_error *err)
{
    int64_t m = a->out.shape[0], n = a->x.shape[1];
    REQUIRE("pack_rows", is_matrix(a->x, a->x.shape[0], n));
    REQUIRE("pack_rows", is_float(a->out.dtype) && is_matrix_of(a->out, a->out.dtype, m, n));
    REQUIRE("pack_rows", are_runs(a->runs, a->n_runs, a->x.shape[0], m));
    REQUIRE("pack_rows", is_vector_of(a->counts, VL_I32, 2) && !overlap(a->out, a->x));
    return m == 0 || n == 0 ? VL_OK : DISPATCH(pack_rows, a, err);
}

vl_status vl_op_logsumexp(vl_device *device, const vl_logsumexp_args *a, vl_error *err)
{
    int64_t m = a->logits.shape[0];
    REQUIRE("logsumexp", is_matrix(a->logits, m, a->logits.shape[1]) && is_vector(a->lse, m));
    return m == 0 ? VL_OK : DISPATCH(logsumexp, a, err);
}

vl_status vl_op_topk(vl_device *device, const vl_topk_args *a, vl_error *err)
{
    int64_t m = a->logits.shape[0], k = a->values.shape[1];
    REQUIRE("topk", is_matrix(a->logits, m, a->logits.shape[1]) && is_matrix(a->values, m, k));
    REQUIRE("topk", k > 0 && k <= a->logits.shape[1]);
    REQUIRE("topk", a->ids.data && a->ids.dtype == VL_I32 && a->ids.ndim == 2 && a->ids.shape[0] == m &&
                        a->ids.shape[1] == k && a->ids.row_stride >= k);
    return m == 0 ? VL_OK : DISPATCH(topk, a, err);
}

vl_status vl_op_metrics(vl_device *device, const vl_metrics_args *a, vl_error *err)
{
    int64_t m = a->logits.shape[0], v = a->logits.shape[1];
    REQUIRE("metrics", is_matrix(a->logits, m, v) && is_vector(a->lse, m));
    REQUIRE("metrics", is_matrix(a->teacher_logits, m, v) && is_vector(a->teacher_lse, m));
    REQUIRE("metrics", is_matrix(a->out, m, VL_METRIC_COUNT));
    REQUIRE("metrics", !a->targets.data || is_vector_of(a->targets, VL_I32, m));
    return m == 0 ? VL_OK : DISPATCH(metrics, a, err);
}

vl_status vl_op_unembed_loss(vl_device *device, const vl_unembed_loss_args *a, vl_error *err)
{
    REQUIRE("unembed_loss", a->head);
    int64_t m = a->x.shape[0], d = a->head->n_in, v = a->head->n_out;
    REQUIRE("unembed_loss", is_matrix(a->x, m, d) && is_vector(a->loss, m));
    REQUIRE("unembed_loss", !a->dx.data || is_matrix(a->dx, m, d));
    REQUIRE("unembed_loss", !overlap(a->dx, a->x));
    REQUIRE("unembed_loss", !a->head_bias.data || is_vector(a->head_bias, v));
    if (a->kind == VL_LOSS_CE)
        REQUIRE("unembed_loss", is_vector_of(a->targets, VL_I32, m));
    else
        REQUIRE("unembed_loss", is_matrix(a->teacher_logits, m, v) && is_vector(a->teacher_lse, m));
    REQUIRE("unembed_loss", !a->row_weight.data || is_vector(a->row_weight, m));
    return m == 0 ? VL_OK : DISPATCH(unembed_loss, a, err);
}

vl_status vl_op_column_sum(vl_device *device, const vl_column_sum_args *a, vl_error *err)
{
    int64_t n = a->x.shape[1];
    REQUIRE("column_sum", is_matrix(a->x, a->x.shape[0], n) && is_vector(a->out, n));
    return DISPATCH(column_sum, a, err);
}

vl_status vl_op_sum_squares(vl_device *device, double *out, vl_tensor x, vl_error *err)
{
    REQUIRE("sum_squares", x.data && x.dtype == VL_F32 && (x.ndim == 1 || x.ndim == 2));
    return DISPATCH(sum_squares, out, x, err);
}

static int64_t dense_size(vl_tensor t)
{
    if (!t.data || t.dtype != VL_F32 || (t.ndim == 2 && t.row_stride != t.shape[1]))
        return -1;
    return t.ndim == 1 ? t.shape[0] : t.shape[0] * t.shape[1];
}

vl_status vl_op_normalise(vl_device *device, const vl_normalise_args *a, vl_error *err)
{
    int64_t m = a->x.shape[0], n = a->x.shape[1];
    REQUIRE("normalise", is_matrix(a->x, m, n));
    REQUIRE("normalise", is_matrix(a->out, m, n) || is_matrix_of(a->out, vl_device_gemm_dtype(device, true), m, n));
    REQUIRE("normalise", !overlap(a->out, a->x));
    return m == 0 || n == 0 ? VL_OK : DISPATCH(normalise, a, err);
}

vl_status vl_op_loss_total(vl_device *device, const vl_loss_total_args *a, vl_error *err)
{
    int64_t m = a->loss.shape[a->loss.ndim - 1];
    REQUIRE("loss_total", is_vector(a->loss, m) && (!a->weight.data || is_vector(a->weight, m)));
    REQUIRE("loss_total", is_vector_of(a->total, VL_F64, 2));
    return DISPATCH(loss_total, a, err);
}

static bool is_scale(vl_tensor t)
{
    return !t.data || is_vector(t, 1);
}

vl_status vl_op_step_scale(vl_device *device, const vl_step_scale_args *a, vl_error *err)
{
    REQUIRE("step_scale", dense_size(a->gradient) >= 0 && (!a->another.data || dense_size(a->another) >= 0));
    REQUIRE("step_scale", is_vector(a->scale, 2) && is_vector_of(a->norm, VL_F64, 1));
    REQUIRE("step_scale", is_vector_of(a->loss, VL_F64, 1) && a->clip >= 0);
    return DISPATCH(step_scale, a, err);
}

vl_status vl_op_sgd(vl_device *device, const vl_sgd_args *a, vl_error *err)
{
    int64_t n = dense_size(a->parameter);
    REQUIRE("sgd", n >= 0 && dense_size(a->gradient) == n && is_scale(a->scale));
    REQUIRE("sgd", a->momentum.data ? dense_size(a->momentum) == n : !(a->momentum_factor > 0));
    return DISPATCH(sgd, a, err);
}

vl_status vl_op_adam(vl_device *device, const vl_adam_args *a, vl_error *err)
{
    int64_t n = dense_size(a->parameter);
    REQUIRE("adam", n >= 0 && dense_size(a->gradient) == n && dense_size(a->mean) == n && dense_size(a->square) == n);
    REQUIRE("adam", a->step >= 1 && is_scale(a->scale));
    return DISPATCH(adam, a, err);
}
