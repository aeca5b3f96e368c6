/* Attention: grouped heads, causal with and without a prefix, windows, caps, bit masks, and the weights it can write.
 */
#include "tests/kernels/ops/ops_test.h"

typedef struct shape {
    int64_t tq, tk, width;
    int heads, kv_heads;
} shape;

typedef struct inputs {
    shape s;
    bool causal;
    int64_t offset, window;
    double scale, softcap;
    const double *q, *k, *v, *q_mask, *k_mask, *ends;
} inputs;

static bool sees(const inputs *in, int64_t i, int64_t j)
{
    bool mask = !in->q_mask || ((int64_t)in->q_mask[i] & (int64_t)in->k_mask[j]);
    bool near = !in->window || j > i + in->offset - in->window, before = j <= i + in->offset;
    return mask && near && (!in->causal || before || (in->ends && j < (int64_t)in->ends[i]));
}

/* Row i of head h: weights [Tk] and output [E]. */
static void reference_row(double *weights, double *out, const inputs *in, int64_t i, int h)
{
    shape s = in->s;
    int group = h / (s.heads / s.kv_heads);
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < s.tk; j++) {
        double dot = 0;
        for (int64_t e = 0; e < s.width; e++)
            dot +=
                in->q[i * s.heads * s.width + h * s.width + e] * in->k[j * s.kv_heads * s.width + group * s.width + e];
        double score = in->scale * dot;
        if (in->softcap > 0)
            score = in->softcap * tanh(score / in->softcap);
        weights[j] = sees(in, i, j) ? score : -INFINITY;
        max = fmax(max, weights[j]);
    }
    for (int64_t j = 0; j < s.tk; j++)
        sum += weights[j] = exp(weights[j] - max);
    for (int64_t j = 0; j < s.tk; j++)
        weights[j] /= sum;
    for (int64_t e = 0; e < s.width; e++) {
        out[e] = 0;
        for (int64_t j = 0; j < s.tk; j++)
            out[e] += weights[j] * in->v[j * s.kv_heads * s.width + group * s.width + e];
    }
}

enum { CAUSAL = 1, MASKED = 2, WEIGHTS = 4, STRIDES = 8, WINDOW = 16, CAPPED = 32, VARIANTS = 64, ENDS = 64 };

/* Runs of queries that see each other up to their end, as rows of pictures do. */
static double *random_ends(shape s, int64_t offset)
{
    double *ends = test_memory((size_t)s.tq, sizeof *ends);
    for (int64_t i = 0; i < s.tq;) {
        int64_t run = 1 + test_random_below(40), end = i + run < s.tq ? i + run : s.tq;
        bool joined = test_random_below(3) > 0;
        for (; i < end; i++)
            ends[i] =
                (double)(joined ? end + offset : test_random_below(i + offset + 1)); /* less than its own: nothing */
    }
    return ends;
}

static void check_attention(shape s, int bits, double size, const char *mode)
{
    int64_t nq = s.heads * s.width, nk = s.kv_heads * s.width;
    if (test_too_large(s.tq * s.tk * nq))
        return;
    test_layout layout = bits & STRIDES ? STRIDED : DENSE;
    inputs in = {.s = s, .causal = bits & CAUSAL, .scale = (double)(float)(1 / sqrt((double)s.width))};
    in.offset = in.causal ? s.tk - s.tq : 0;
    in.window = in.causal && bits & WINDOW ? 1 + s.tk / 3 : 0;
    in.softcap = bits & CAPPED ? 1.5 : 0;
    in.q = test_random(s.tq * nq, size), in.k = test_random(s.tk * nk, size), in.v = test_random(s.tk * nk, 1);
    test_tensor *q = test_tensor_of(VL_F32, in.q, s.tq, nq, layout),
                *k = test_tensor_of(VL_F32, in.k, s.tk, nk, layout);
    test_tensor *v = test_tensor_of(VL_F32, in.v, s.tk, nk, layout), *out = test_empty(VL_F32, s.tq, nq, layout);
    test_tensor *weights = bits & WEIGHTS ? test_empty(VL_F32, s.tq, s.heads * s.tk, layout) : NULL;
    vl_attention_args args = {.out = out->t,
                              .q = q->t,
                              .k = k->t,
                              .v = v->t,
                              .n_heads = s.heads,
                              .n_kv_heads = s.kv_heads,
                              .scale = (float)in.scale,
                              .causal = in.causal,
                              .causal_offset = in.offset,
                              .window = in.window,
                              .softcap = (float)in.softcap};
    if (bits & ENDS) {
        in.ends = random_ends(s, in.offset);
        args.ends = test_bare_vector_of(VL_I32, in.ends, s.tq)->t;
    }
    if (bits & MASKED) {
        double *a = test_memory((size_t)s.tq, 8), *b = test_memory((size_t)s.tk, 8);
        for (int64_t j = 0; j < s.tk; j++)
            b[j] =
                j == 0 || in.window ? 0x0fffffffffff : (double)(1ll << test_random_below(40)); /* everyone sees a key */
        for (int64_t i = 0; i < s.tq; i++)
            a[i] = (double)(test_random_below(1ll << 40) | 1);
        in.q_mask = a, in.k_mask = b;
        args.q_mask = test_bare_vector_of(VL_I64, a, s.tq)->t, args.k_mask = test_bare_vector_of(VL_I64, b, s.tk)->t;
    }
    if (weights)
        args.probabilities = weights->t;
    OK(vl_op_attention(device, &args, &error));
    test_unchanged(q), test_unchanged(k), test_unchanged(v);
    double *want = test_memory((size_t)(s.tq * nq), 8), *p = test_memory((size_t)(s.tq * s.heads * s.tk), 8);
    for (int64_t i = 0; i < s.tq; i++)
        for (int h = 0; h < s.heads; h++)
            reference_row(p + (i * s.heads + h) * s.tk, want + i * nq + h * s.width, &in, i, h);
    test_within("attention", mode, test_absolute_error(test_values(out), want, s.tq * nq));
    if (!weights)
        return;
    double *found = test_values(weights);
    for (int64_t i = 0; i < s.tq * s.heads; i++)
        for (int64_t j = 0; j < s.tk; j++)
            if (!sees(&in, i / s.heads, j)) /* what is hidden has no weight at all */
                assert_true(found[i * s.tk + j] == 0);
    test_within("attention", "probabilities", test_absolute_error(found, p, s.tq * s.heads * s.tk));
}

static void attention_all_variants(void **state)
{
    static const shape shapes[] = {{1, 1, 1, 1, 1},    {1, 5, 4, 2, 1},    {3, 3, 7, 3, 3},    {5, 11, 16, 6, 2},
                                   {17, 17, 33, 4, 4}, {1, 100, 64, 9, 3}, {97, 97, 32, 2, 1}, {193, 201, 24, 3, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int bits = 0; bits < VARIANTS; bits++) {
            check_attention(shapes[i], bits, 1, "unit scores");
            test_teardown(state);
        }
    check_attention((shape){301, 301, 128, 8, 2}, CAUSAL, 1, "unit scores");
    check_attention((shape){301, 333, 80, 4, 2}, CAUSAL | WINDOW | CAPPED, 1, "unit scores");
}

/* Rows of a picture that see each other, with and without a window. */
static void attention_beyond_the_diagonal(void **state)
{
    static const shape shapes[] = {{1, 1, 4, 1, 1}, {5, 11, 16, 6, 2}, {97, 97, 32, 2, 1}, {193, 201, 24, 3, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int bits = 0; bits < 8; bits++) {
            int all = CAUSAL | ENDS | (bits & 1 ? WEIGHTS : 0) | (bits & 2 ? STRIDES : 0) | (bits & 4 ? WINDOW : 0);
            check_attention(shapes[i], all, 1, "unit scores");
            test_teardown(state);
        }
}

/* Scores in the hundreds: a softmax that picks single keys, with no overflow. The scores themselves, sums in fp32,
 * carry an error of their size times 2^-24, which shows in the weights. */
static void attention_large_scores(void **state)
{
    (void)state;
    for (int bits = 0; bits < 4; bits++)
        check_attention((shape){67, 131, 64, 4, 2}, bits, 8, "scores of hundreds");
}

static void attention_refuses(void **state)
{
    (void)state;
    double values[64] = {0};
    test_tensor *q = test_tensor_of(VL_F32, values, 3, 8, DENSE), *k = test_tensor_of(VL_F32, values, 4, 4, DENSE);
    test_tensor *out = test_empty(VL_F32, 3, 8, DENSE), *mask = test_vector_of(VL_I64, values, 3);
    vl_attention_args good = {.out = out->t,
                              .q = q->t,
                              .k = k->t,
                              .v = k->t,
                              .n_heads = 2,
                              .n_kv_heads = 1,
                              .scale = 1,
                              .causal = true,
                              .causal_offset = 1},
                      bad;
    OK(vl_op_attention(device, &good, &error));
    bad = good, bad.n_kv_heads = 2;
    REFUSED(vl_op_attention(device, &bad, &error));
    bad = good, bad.n_heads = 3;
    REFUSED(vl_op_attention(device, &bad, &error));
    bad = good, bad.causal_offset = 2; /* a key that does not exist */
    REFUSED(vl_op_attention(device, &bad, &error));
    bad = good, bad.causal_offset = -1; /* a query without keys */
    REFUSED(vl_op_attention(device, &bad, &error));
    bad = good, bad.causal = false, bad.window = 2; /* a window looks back from a causal query */
    REFUSED(vl_op_attention(device, &bad, &error));
    bad = good, bad.softcap = -1;
    REFUSED(vl_op_attention(device, &bad, &error));
    bad = good, bad.q_mask = mask->t;
    REFUSED(vl_op_attention(device, &bad, &error));
    bad.k_mask = mask->t; /* 3 for 4 keys */
    REFUSED(vl_op_attention(device, &bad, &error));
    bad = good, bad.out = q->t;
    REFUSED(vl_op_attention(device, &bad, &error));
    bad = good, bad.probabilities = out->t;
    REFUSED(vl_op_attention(device, &bad, &error));
    bad = good, bad.v = vl_tensor_rows(k->t, 0, 3);
    REFUSED(vl_op_attention(device, &bad, &error));
    test_tensor *ends = test_vector_of(VL_I32, values, 3);
    bad = good, bad.ends = ends->t, bad.causal = false;
    REFUSED(vl_op_attention(device, &bad, &error));
    bad = good, bad.ends = test_vector_of(VL_I32, values, 4)->t;
    REFUSED(vl_op_attention(device, &bad, &error));
}

static void attention_repeats(void **state)
{
    (void)state;
    enum { T = 131, N = 256 };
    double *x = test_random(T * N, 1), *first = NULL;
    for (int threads = 1; threads <= 2; threads++) {
        test_reopen(threads);
        test_tensor *q = test_tensor_of(VL_F32, x, T, N, DENSE), *out = test_empty(VL_F32, T, N, DENSE);
        vl_attention_args args = {.out = out->t,
                                  .q = q->t,
                                  .k = q->t,
                                  .v = q->t,
                                  .n_heads = 4,
                                  .n_kv_heads = 4,
                                  .scale = 0.125f,
                                  .causal = true};
        for (int run = 0; run < 2; run++) {
            OK(vl_op_attention(device, &args, &error));
            double *got = test_values(out);
            if (first)
                assert_memory_equal(got, first, T * N * sizeof *got);
            first = got;
        }
    }
}

static const struct CMUnitTest tests[] = {OPS_TEST(attention_all_variants), OPS_TEST(attention_beyond_the_diagonal),
                                          OPS_TEST(attention_large_scores), OPS_TEST(attention_refuses),
                                          OPS_TEST(attention_repeats)};
OPS_TEST_MAIN(tests)
