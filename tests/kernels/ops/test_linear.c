/* Products: linear in every weight type, mode and variant, gemm in every transposition, and embedding rows. */
#include "tests/kernels/ops/ops_test.h"

typedef struct shape {
    int64_t m, n_in, n_out;
} shape;

typedef struct variant {
    test_matrix_args matrix;
    bool transpose, accumulate, bias, strided;
} variant;

static const char *mode_of(vl_dtype product)
{
    return product == VL_BF16 ? "bf16" : product == VL_F16 ? "fp16" : "fp32";
}

/* A matrix of the reference: element (i, j) at i * row + j * column. */
typedef struct operand {
    const double *data;
    int64_t row, column;
} operand;

/* What a product should be, and the sum of the magnitudes of its terms. */
typedef struct reference {
    double *want, *scale;
} reference;

/* alpha * a b + beta * before (NULL: 0). */
static reference multiply(operand a, operand b, shape s, double alpha, double beta, const double *before)
{
    int64_t m = s.m, k = s.n_in, n = s.n_out;
    reference r = {test_memory((size_t)(m * n), sizeof(double)), test_memory((size_t)(m * n), sizeof(double))};
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0, size = 0, first = before ? beta * before[i * n + j] : 0;
            for (int64_t p = 0; p < k; p++) {
                double term = a.data[i * a.row + p * a.column] * b.data[p * b.row + j * b.column];
                sum += term;
                size += fabs(term);
            }
            r.want[i * n + j] = alpha * sum + first;
            r.scale[i * n + j] = fabs(alpha) * size + fabs(first);
        }
    return r;
}

/* Runs one linear on fresh random data. */
static void check_linear(shape s, variant v)
{
    int64_t from = v.transpose ? s.n_out : s.n_in, to = v.transpose ? s.n_in : s.n_out;
    if (test_too_large(s.m * s.n_in * s.n_out))
        return;
    test_layout layout = v.strided ? STRIDED : DENSE;
    double *x = test_random_rows(s.m, from, 1), *before = test_random_rows(s.m, to, 1);
    double *w = test_rounded(test_random(s.n_out * s.n_in, 1 / sqrt((double)from)), s.n_out * s.n_in, v.matrix.dtype);
    double *bias = test_random(to, 1);
    test_tensor *in = test_tensor_of(VL_F32, x, s.m, from, layout);
    test_tensor *out =
        v.accumulate ? test_tensor_of(VL_F32, before, s.m, to, layout) : test_empty(VL_F32, s.m, to, layout);
    vl_linear_args args = {.out = out->t, .x = in->t, .transpose = v.transpose, .accumulate = v.accumulate};
    args.weight = test_matrix(w, s.n_out, s.n_in, v.matrix);
    if (v.bias)
        args.bias = test_vector_of(VL_F32, bias, to)->t;
    OK(vl_op_linear(device, &args, &error));
    test_unchanged(in);
    vl_dtype product = test_product_dtype(v.matrix);
    product = product == VL_F16 && v.accumulate ? VL_F32 : product; /* what is there already cannot be scaled */
    x = test_rounded_operand(x, s.m, from, product);
    w = test_rounded(w, s.n_out * s.n_in, product);
    for (int64_t i = 0; i < s.m * to; i++)
        before[i] = (v.accumulate ? before[i] : 0) + (v.bias ? bias[i % to] : 0);
    operand left = {x, from, 1}, right = {w, v.transpose ? s.n_in : 1, v.transpose ? 1 : s.n_in};
    reference r = multiply(left, right, (shape){s.m, from, to}, 1, 1, before);
    test_within("linear", mode_of(product), test_scaled_error(test_values(out), r.want, r.scale, s.m * to));
}

static const vl_dtype dtypes[] = {VL_F32, VL_F16, VL_BF16};
static const vl_precision precisions[] = {VL_PRECISION_AUTO, VL_PRECISION_EXACT, VL_PRECISION_FAST};

/* Every weight type, precision and variant on shapes that fit no block. */
static void linear_small_shapes(void **state)
{
    static const shape shapes[] = {{1, 1, 1}, {1, 7, 5}, {3, 13, 1}, {14, 32, 32}, {15, 33, 31}, {29, 97, 101}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int d = 0; d < 9; d++) {
            for (int bits = 0; bits < 64; bits++) {
                variant v = {{dtypes[d / 3], precisions[d % 3], bits & 1, bits >> 1 & 1},
                             bits >> 2 & 1,
                             bits >> 3 & 1,
                             bits >> 4 & 1,
                             bits >> 5 & 1};
                if (!(v.transpose && v.bias))
                    check_linear(shapes[i], v);
            }
            test_teardown(state);
        }
}

/* More outputs than one block of panels, more inputs than are packed at once. */
static void linear_model_shape(void **state)
{
    for (int d = 0; d < 9; d++)
        for (int bits = 0; bits < 8; bits++) {
            bool resident = bits & 1, transpose = bits >> 1 & 1, accumulate = bits >> 2;
            variant v = {
                {dtypes[d / 3], precisions[d % 3], resident, false}, transpose, accumulate, !transpose, !resident};
            check_linear((shape){65, 576, 1100}, v);
            test_teardown(state);
        }
}

/* More weights than are widened (4 Mi elements) or rounded (8 Mi) at a time. */
static void linear_in_blocks(void **state)
{
    for (int transpose = 0; transpose < 2; transpose++) {
        variant widened = {{VL_F16, VL_PRECISION_EXACT, false, false}, transpose, !transpose, !transpose, false};
        variant rounded = {{VL_F16, VL_PRECISION_FAST, false, false}, transpose, !transpose, !transpose, false};
        check_linear((shape){2, 1025, 4201}, widened);
        check_linear((shape){2, 2049, 4201}, rounded);
        test_teardown(state);
    }
}

/* Weights as in their file, more of both sizes than are packed at a time. */
static void linear_streamed(void **state)
{
    static const variant variants[] = {{.matrix = {VL_BF16, VL_PRECISION_AUTO, false, true}, .bias = true},
                                       {.matrix = {VL_BF16, VL_PRECISION_AUTO, false, false}, .accumulate = true},
                                       {.matrix = {VL_F16, VL_PRECISION_FAST, false, false}, .strided = true}};
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        check_linear((shape){131, 4131, 2085}, variants[i]);
        test_teardown(state);
    }
}

/* The panel path computes each row by itself: its bits do not depend on threads or on the rows beside it. */
static void resident_rows_repeat(void **state)
{
    (void)state;
    enum { M = 61, D = 95, V = 1100 };
    double *x = test_random(M * D, 1), *w = test_random(V * D, 0.1), *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        test_reopen(test_has_panels() ? threads : 2); /* another path promises the same threads alone */
        test_tensor *in = test_tensor_of(VL_F32, x, M, D, DENSE), *out = test_empty(VL_F32, M, V, DENSE);
        vl_matrix *head = test_matrix(w, V, D, (test_matrix_args){VL_BF16, VL_PRECISION_AUTO, true, false});
        OK(vl_op_linear(device, &(vl_linear_args){.out = out->t, .x = in->t, .weight = head}, &error));
        double *got = test_values(out);
        if (first)
            assert_memory_equal(got, first, M * V * sizeof *got);
        first = first ? first : got;
        test_tensor *row = test_empty(VL_F32, 1, V, DENSE);
        vl_linear_args one = {.out = row->t, .x = vl_tensor_rows(in->t, 17, 1), .weight = head};
        OK(vl_op_linear(device, &one, &error));
        if (test_has_panels())
            assert_memory_equal(test_values(row), first + 17 * V, V * sizeof *first);
    }
    test_reopen(2);
}

/* Activations beyond what fp16 holds: rows of one size each, from below its smallest number to near fp32's largest. */
static void linear_large_activations(void **state)
{
    (void)state;
    enum { M = 9, IN = 70, OUT = 33 };
    static const double sizes[M] = {1e-30, 1e-3, 1, 3e4, 7e4, 1e6, 1e20, 1e34, 0};
    double *x = test_random(M * IN, 1), *w = test_random(OUT * IN, 0.1), *bias = test_random(OUT, 1);
    for (int64_t i = 0; i < M * IN; i++)
        x[i] = (double)(float)(x[i] * sizes[i / IN]);
    for (int transpose = 0; transpose < 2; transpose++) {
        test_matrix_args matrix = {VL_F16, VL_PRECISION_AUTO, true, false};
        int64_t n_out = transpose ? IN : OUT, n_in = transpose ? OUT : IN;
        w = test_rounded(w, n_out * n_in, VL_F16);
        test_tensor *in = test_tensor_of(VL_F32, x, M, IN, STRIDED), *out = test_empty(VL_F32, M, OUT, STRIDED);
        vl_linear_args args = {.out = out->t, .x = in->t, .transpose = transpose};
        args.weight = test_matrix(w, n_out, n_in, matrix);
        if (!transpose)
            args.bias = test_vector_of(VL_F32, bias, OUT)->t;
        OK(vl_op_linear(device, &args, &error));
        double *rounded = test_rounded_operand(x, M, IN, test_product_dtype(matrix));
        double *before = test_memory(M * OUT, sizeof *before);
        for (int64_t i = 0; i < M * OUT && !transpose; i++)
            before[i] = bias[i % OUT];
        operand left = {rounded, IN, 1}, right = {w, transpose ? n_in : 1, transpose ? 1 : n_in};
        reference r = multiply(left, right, (shape){M, IN, OUT}, 1, 1, before);
        for (int64_t i = 0; i < M * OUT; i++) /* what fp16 does not see at all */
            r.scale[i] += 1e-9;
        test_within("linear", "large", test_scaled_error(test_values(out), r.want, r.scale, M * OUT));
    }
}

static void linear_refuses(void **state)
{
    (void)state;
    double *values = test_random(60, 1);
    test_tensor *x = test_tensor_of(VL_F32, values, 3, 4, DENSE), *out = test_empty(VL_F32, 3, 5, DENSE);
    vl_matrix *w = test_matrix(values, 5, 4, (test_matrix_args){.dtype = VL_F32});
    vl_linear_args good = {.out = out->t, .x = x->t, .weight = w}, bad = good;
    OK(vl_op_linear(device, &good, &error));
    bad.weight = NULL;
    REFUSED(vl_op_linear(device, &bad, &error));
    bad = good, bad.x = vl_tensor_columns(x->t, 0, 3);
    REFUSED(vl_op_linear(device, &bad, &error));
    bad = good, bad.out = vl_tensor_rows(out->t, 0, 2);
    REFUSED(vl_op_linear(device, &bad, &error));
    bad = good, bad.transpose = true;
    REFUSED(vl_op_linear(device, &bad, &error));
    bad = good, bad.bias = vl_tensor_1d(x->t.data, VL_F32, 4);
    REFUSED(vl_op_linear(device, &bad, &error));
    bad = good, bad.out = vl_tensor_2d(x->t.data, VL_F32, 3, 5);
    REFUSED(vl_op_linear(device, &bad, &error));
    bad = good, bad.x.dtype = VL_BF16;
    REFUSED(vl_op_linear(device, &bad, &error));
    bad = good, bad.x.data = NULL;
    REFUSED(vl_op_linear(device, &bad, &error));
}

/* ---- gemm ---- */

static void check_gemm(shape s, int bits)
{
    bool ta = bits & 1, tb = bits >> 1 & 1, fast = bits >> 2 & 1;
    test_layout layout = bits >> 3 & 1 ? STRIDED : DENSE;
    float alpha = bits >> 4 & 1 ? -0.75f : 1, beta = (float[]){0, 1, 0.5f, 0}[bits >> 5 & 3];
    int64_t m = s.m, k = s.n_in, n = s.n_out;
    if (test_too_large(m * k * n))
        return;
    double *a = test_random(m * k, 1), *b = test_random(k * n, 1), *before = test_random(m * n, 3);
    test_tensor *left = test_tensor_of(VL_F32, a, ta ? k : m, ta ? m : k, layout);
    test_tensor *right = test_tensor_of(VL_F32, b, tb ? n : k, tb ? k : n, layout);
    test_tensor *out = beta == 0 ? test_empty(VL_F32, m, n, layout) : test_tensor_of(VL_F32, before, m, n, layout);
    vl_gemm_args args = {out->t, left->t, right->t, ta, tb, alpha, beta, fast, {.data = NULL}};
    OK(vl_op_gemm(device, &args, &error));
    test_unchanged(left);
    test_unchanged(right);
    bool bf16 = fast && test_has_bf16();
    a = bf16 ? test_rounded(a, m * k, VL_BF16) : a;
    b = bf16 ? test_rounded(b, k * n, VL_BF16) : b;
    operand x = {a, ta ? 1 : k, ta ? m : 1}, y = {b, tb ? 1 : n, tb ? k : 1};
    reference r = multiply(x, y, s, (double)alpha, (double)beta, beta == 0 ? NULL : before);
    test_within("gemm", bf16 ? "bf16" : "fp32", test_scaled_error(test_values(out), r.want, r.scale, m * n));
}

static void gemm_all_variants(void **state)
{
    static const shape shapes[] = {{1, 1, 1}, {1, 17, 5}, {13, 1, 7}, {15, 33, 31}, {97, 64, 101}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int bits = 0; bits < 128; bits++) {
            check_gemm(shapes[i], bits);
            test_teardown(state);
        }
    for (int bits = 0; bits < 8; bits++)
        check_gemm((shape){576, 203, 577}, bits);
}

/* What beta multiplies lies elsewhere, and operands are kept as the device likes them best: Muon's products. */
static void gemm_with_c(void **state)
{
    enum { N = 65 };
    vl_dtype kept = vl_device_gemm_dtype(device, true);
    assert_true(kept == VL_F32 || kept == VL_BF16);
    assert_true(vl_device_gemm_dtype(device, false) == VL_F32);
    for (int bits = 0; bits < 8; bits++) {
        vl_dtype dtype = bits & 1 ? kept : VL_F32;
        test_layout layout = bits & 2 ? STRIDED : DENSE;
        double *a = test_rounded(test_random(N * N, 1), N * N, dtype), *b = bits & 4 ? a : test_random(N * N, 1);
        double *c = test_rounded(test_random(N * N, 3), N * N, dtype);
        b = test_rounded(b, N * N, dtype);
        test_tensor *left = test_tensor_of(dtype, a, N, N, layout), *third = test_tensor_of(dtype, c, N, N, layout);
        test_tensor *right = bits & 4 ? left : test_tensor_of(dtype, b, N, N, layout);
        test_tensor *out = test_empty(dtype, N, N, layout);
        vl_gemm_args args = {.out = out->t, .a = left->t, .b = right->t, .c = third->t, .transpose_b = true};
        args.alpha = 0.5f, args.beta = -1.5f;
        OK(vl_op_gemm(device, &args, &error));
        test_unchanged(left), test_unchanged(right), test_unchanged(third);
        reference r = multiply((operand){a, N, 1}, (operand){b, 1, N}, (shape){N, N, N}, 0.5, -1.5, c);
        test_within("gemm", dtype == VL_BF16 ? "bf16 throughout" : "fp32",
                    test_scaled_error(test_values(out), r.want, r.scale, N * N));
        test_teardown(state);
    }
}

static void gemm_refuses(void **state)
{
    (void)state;
    double *values = test_random(60, 1);
    test_tensor *a = test_tensor_of(VL_F32, values, 3, 4, DENSE), *b = test_tensor_of(VL_F32, values, 4, 5, DENSE);
    test_tensor *out = test_empty(VL_F32, 3, 5, DENSE);
    vl_gemm_args good = {.out = out->t, .a = a->t, .b = b->t, .alpha = 1}, bad = good;
    OK(vl_op_gemm(device, &good, &error));
    bad.transpose_a = true;
    REFUSED(vl_op_gemm(device, &bad, &error));
    bad = good, bad.transpose_b = true;
    REFUSED(vl_op_gemm(device, &bad, &error));
    bad = good, bad.out = vl_tensor_2d(b->t.data, VL_F32, 3, 5);
    REFUSED(vl_op_gemm(device, &bad, &error));
    bad = good, bad.b.dtype = VL_F16;
    REFUSED(vl_op_gemm(device, &bad, &error));
    bad = good, bad.c = b->t;
    REFUSED(vl_op_gemm(device, &bad, &error));
    bad = good, bad.c = vl_tensor_2d((float *)out->t.data + 1, VL_F32, 3, 5);
    REFUSED(vl_op_gemm(device, &bad, &error));
    bad = good, bad.a.shape[1] = bad.b.shape[0] = 0;
    REFUSED(vl_op_gemm(device, &bad, &error));
}

/* ---- embed ---- */

static void embed_rows(void **state)
{
    static const shape shapes[] = {{1, 1, 1}, {5, 17, 3}, {33, 95, 211}, {130, 576, 1009}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int bits = 0; bits < 3 * 2 * 2 * 2; bits++) {
            shape s = shapes[i];
            test_matrix_args matrix = {dtypes[bits % 3], VL_PRECISION_AUTO, bits / 3 & 1, bits / 6 & 1};
            double *w = test_rounded(test_random_rows(s.n_out, s.n_in, 1), s.n_out * s.n_in, matrix.dtype);
            double *ids = test_memory((size_t)s.m, sizeof *ids);
            double *want = test_memory((size_t)(s.m * s.n_in), sizeof *want);
            for (int64_t t = 0; t < s.m; t++) {
                ids[t] = (double)(t == 0 ? s.n_out - 1 : test_random_below(s.n_out));
                memcpy(want + t * s.n_in, w + (int64_t)ids[t] * s.n_in, (size_t)s.n_in * sizeof *w);
            }
            test_tensor *out = test_empty(VL_F32, s.m, s.n_in, bits / 12 ? STRIDED : DENSE);
            vl_embed_args args = {.out = out->t,
                                  .table = test_matrix(w, s.n_out, s.n_in, matrix),
                                  .ids = test_vector_of(VL_I32, ids, s.m)->t,
                                  .scale = i % 2 ? 8.5f : 0};
            for (int64_t j = 0; i % 2 && j < s.m * s.n_in; j++)
                want[j] = (double)(8.5f * (float)want[j]);
            OK(vl_op_embed(device, &args, &error));
            assert_memory_equal(test_values(out), want, (size_t)(s.m * s.n_in) * sizeof *want);
            test_teardown(state);
        }
}

static void embed_refuses(void **state)
{
    (void)state;
    double values[20] = {0};
    vl_matrix *w = test_matrix(values, 5, 4, (test_matrix_args){.dtype = VL_F32});
    test_tensor *out = test_empty(VL_F32, 3, 4, DENSE), *ids = test_vector_of(VL_I32, values, 3);
    vl_embed_args good = {.out = out->t, .table = w, .ids = ids->t}, bad = good;
    OK(vl_op_embed(device, &good, &error));
    bad.ids.dtype = VL_F32;
    REFUSED(vl_op_embed(device, &bad, &error));
    bad = good, bad.ids.shape[0] = 2;
    REFUSED(vl_op_embed(device, &bad, &error));
    bad = good, bad.out = vl_tensor_columns(out->t, 0, 3);
    REFUSED(vl_op_embed(device, &bad, &error));
    bad = good, bad.table = NULL;
    REFUSED(vl_op_embed(device, &bad, &error));
}

static const struct CMUnitTest tests[] = {
    OPS_TEST(linear_small_shapes), OPS_TEST(linear_model_shape),   OPS_TEST(linear_in_blocks),
    OPS_TEST(linear_streamed),     OPS_TEST(resident_rows_repeat), OPS_TEST(linear_large_activations),
    OPS_TEST(linear_refuses),      OPS_TEST(gemm_all_variants),    OPS_TEST(gemm_with_c),
    OPS_TEST(gemm_refuses),        OPS_TEST(embed_rows),           OPS_TEST(embed_refuses),
};
OPS_TEST_MAIN(tests)
