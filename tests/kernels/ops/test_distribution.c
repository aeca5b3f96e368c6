/* Rows of logits: log-sum-exp, the largest entries, and the metrics of a lens against its teacher. */
#include "tests/kernels/ops/ops_test.h"

static const int64_t shapes[][2] = {{1, 1}, {3, 5}, {7, 17}, {6, 64}, {14, 1023}, {5, 1025}, {3, 4099}, {2, 32003}};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static double log_sum_exp(const double *x, int64_t n)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        max = fmax(max, x[i]);
    for (int64_t i = 0; i < n; i++)
        sum += exp(x[i] - max);
    return max + log(sum);
}

/* ---- log-sum-exp ---- */

static void logsumexp_rows(void **state)
{
    static const double scales[] = {0.01, 5, 300, 1e6};
    for (int i = 0; i < N_SHAPES; i++)
        for (int bits = 0; bits < 8; bits++) {
            int64_t m = shapes[i][0], n = shapes[i][1];
            double *x = test_random(m * n, scales[bits % 4]), *want = test_memory((size_t)m, 8), worst = 0;
            for (int64_t k = 0; k < m; k++)
                want[k] = log_sum_exp(x + k * n, n);
            test_tensor *in = test_tensor_of(VL_F32, x, m, n, bits / 4 ? STRIDED : DENSE);
            test_tensor *out = test_empty_vector(VL_F32, m);
            OK(vl_op_logsumexp(device, &(vl_logsumexp_args){out->t, in->t}, &error));
            test_unchanged(in);
            double *got = test_values(out);
            for (int64_t k = 0; k < m; k++)
                worst = fmax(worst, test_absolute_error(got + k, want + k, 1) / (1 + fabs(want[k])));
            test_within("logsumexp", "", worst);
            test_teardown(state);
        }
}

/* A vocabulary may hold entries of probability 0. */
static void logsumexp_ignores_minus_infinity(void **state)
{
    (void)state;
    double x[37];
    for (int i = 0; i < 37; i++)
        x[i] = i == 20 ? 3.5 : -INFINITY;
    test_tensor *in = test_tensor_of(VL_F32, x, 1, 37, DENSE), *out = test_empty_vector(VL_F32, 1);
    OK(vl_op_logsumexp(device, &(vl_logsumexp_args){out->t, in->t}, &error));
    assert_true(test_values(out)[0] == 3.5);
}

/* Longer than the pieces that a row is walked in: a first piece of nothing, and a NaN beside nothing. */
static void logsumexp_in_pieces(void **state)
{
    (void)state;
    enum { N = 3000 };
    double *x = test_memory((size_t)3 * N, 8);
    for (int i = 0; i < 3 * N; i++)
        x[i] = -INFINITY;
    x[2100] = 3.5;
    x[N + 10] = NAN;
    test_tensor *in = test_tensor_of(VL_F32, x, 3, N, DENSE), *out = test_empty_vector(VL_F32, 3);
    OK(vl_op_logsumexp(device, &(vl_logsumexp_args){out->t, in->t}, &error));
    const double *got = test_values(out);
    assert_true(got[0] == 3.5 && isnan(got[1]) && !(got[2] > -INFINITY));
}

static void logsumexp_refuses(void **state)
{
    (void)state;
    double values[12] = {0};
    test_tensor *x = test_tensor_of(VL_F32, values, 3, 4, DENSE), *out = test_vector_of(VL_F32, values, 3);
    vl_logsumexp_args good = {out->t, x->t}, bad;
    OK(vl_op_logsumexp(device, &good, &error));
    bad = good, bad.lse.shape[0] = 2;
    REFUSED(vl_op_logsumexp(device, &bad, &error));
    bad = good, bad.logits.dtype = VL_F16;
    REFUSED(vl_op_logsumexp(device, &bad, &error));
}

/* ---- the largest entries ---- */

static void check_topk(int64_t m, int64_t n, int64_t k, int levels, test_layout layout)
{
    double *x = test_memory((size_t)(m * n), 8);
    for (int64_t i = 0; i < m * n; i++) /* few levels: many ties */
        x[i] = (double)test_random_below(levels) - levels / 2.0;
    x[test_random_below(m * n)] = -INFINITY;
    test_tensor *in = test_tensor_of(VL_F32, x, m, n, layout);
    test_tensor *values = test_empty(VL_F32, m, k, layout), *ids = test_empty(VL_I32, m, k, layout);
    OK(vl_op_topk(device, &(vl_topk_args){values->t, ids->t, in->t}, &error));
    test_unchanged(in);
    double *value = test_values(values), *id = test_values(ids);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < k; j++) {
            int64_t at = (int64_t)id[i * k + j], before = 0;
            assert_in_range(at, 0, n - 1);
            assert_true(value[i * k + j] == x[i * n + at]);
            for (int64_t other = 0; other < n; other++)
                before += x[i * n + other] > x[i * n + at] || (x[i * n + other] == x[i * n + at] && other < at);
            assert_int_equal(before, j);
        }
}

static void topk_rows(void **state)
{
    static const int64_t ks[] = {1, 2, 5, 17};
    for (int i = 0; i < N_SHAPES; i++)
        for (int bits = 0; bits < 24; bits++) {
            int64_t n = shapes[i][1], k = ks[bits % 4] < n ? ks[bits % 4] : n;
            static const int levels[] = {1, 7, 1 << 24};
            check_topk(shapes[i][0], n, k, levels[bits / 4 % 3], bits / 12 ? STRIDED : DENSE);
            test_teardown(state);
        }
}

static void topk_refuses(void **state)
{
    (void)state;
    double values[12] = {0};
    test_tensor *x = test_tensor_of(VL_F32, values, 3, 4, DENSE);
    test_tensor *best = test_empty(VL_F32, 3, 2, DENSE), *ids = test_empty(VL_I32, 3, 2, DENSE);
    vl_topk_args good = {best->t, ids->t, x->t}, bad;
    OK(vl_op_topk(device, &good, &error));
    bad = good, bad.values = test_empty(VL_F32, 3, 5, DENSE)->t, bad.ids = test_empty(VL_I32, 3, 5, DENSE)->t;
    REFUSED(vl_op_topk(device, &bad, &error));
    bad = good, bad.ids.dtype = VL_I64;
    REFUSED(vl_op_topk(device, &bad, &error));
    bad = good, bad.ids = vl_tensor_rows(ids->t, 0, 2);
    REFUSED(vl_op_topk(device, &bad, &error));
}

/* ---- metrics ---- */

static const char *const metric_names[VL_METRIC_COUNT] = {"kl", "ce", "entropy", "top1", "top5", "rank", "js", "tv"};

static int64_t argmax(const double *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

static void reference_metrics(double *out, const double *z, const double *t, int64_t n, int64_t target)
{
    double z_lse = log_sum_exp(z, n), t_lse = log_sum_exp(t, n), sums[VL_METRIC_COUNT] = {0};
    for (int64_t i = 0; i < n; i++) {
        double log_q = z[i] - z_lse, log_p = t[i] - t_lse, q = exp(log_q), p = exp(log_p);
        double log_m = fmax(log_p, log_q) + log1p(exp(-fabs(log_p - log_q))) - 0.69314718055994531;
        sums[VL_METRIC_KL] += p > 0 ? p * (log_p - log_q) : 0;
        sums[VL_METRIC_ENTROPY] -= q > 0 ? q * log_q : 0;
        sums[VL_METRIC_TV] += fabs(p - q) / 2;
        sums[VL_METRIC_JS] += (p > 0 ? p * (log_p - log_m) : 0) / 2 + (q > 0 ? q * (log_q - log_m) : 0) / 2;
    }
    int64_t best = argmax(t, n), rank = 0;
    for (int64_t i = 0; i < n; i++)
        rank += z[i] > z[best] || (z[i] == z[best] && i < best);
    memcpy(out, sums, sizeof sums);
    out[VL_METRIC_CE] = target >= 0 && target < n ? z_lse - z[target] : NAN;
    out[VL_METRIC_TOP1] = rank == 0;
    out[VL_METRIC_TOP5] = rank < 5;
    out[VL_METRIC_RANK] = (double)rank;
}

/* Runs the op; got and want are [m, VL_METRIC_COUNT]. */
static double *run_metrics(double **want, const double *z, const double *t, int64_t m, int64_t n, bool with_targets,
                           test_layout layout)
{
    double *z_lse = test_memory((size_t)m, 8), *t_lse = test_memory((size_t)m, 8), *targets = test_memory((size_t)m, 8);
    *want = test_memory((size_t)(m * VL_METRIC_COUNT), 8);
    for (int64_t i = 0; i < m; i++) {
        z_lse[i] = log_sum_exp(z + i * n, n);
        t_lse[i] = log_sum_exp(t + i * n, n);
        targets[i] = i % 6 == 2 ? -1 : i % 6 == 5 ? (double)n : (double)test_random_below(n);
        reference_metrics(*want + i * VL_METRIC_COUNT, z + i * n, t + i * n, n,
                          with_targets ? (int64_t)targets[i] : -1);
    }
    test_tensor *a = test_tensor_of(VL_F32, z, m, n, layout), *b = test_tensor_of(VL_F32, t, m, n, layout);
    test_tensor *out = test_empty(VL_F32, m, VL_METRIC_COUNT, layout);
    vl_metrics_args args = {.out = out->t,
                            .logits = a->t,
                            .lse = test_vector_of(VL_F32, z_lse, m)->t,
                            .teacher_logits = b->t,
                            .teacher_lse = test_vector_of(VL_F32, t_lse, m)->t};
    if (with_targets)
        args.targets = test_vector_of(VL_I32, targets, m)->t;
    OK(vl_op_metrics(device, &args, &error));
    test_unchanged(a);
    test_unchanged(b);
    return test_values(out);
}

static void check_metrics(const double *got, const double *want, int64_t m, const char *prefix)
{
    for (int64_t i = 0; i < m * VL_METRIC_COUNT; i++) {
        int metric = (int)(i % VL_METRIC_COUNT);
        if (metric == VL_METRIC_TOP1 || metric == VL_METRIC_TOP5 || metric == VL_METRIC_RANK)
            assert_true(got[i] == want[i]);
        else
            test_within(prefix, metric_names[metric],
                        test_absolute_error(got + i, want + i, 1) / (1 + (isfinite(want[i]) ? fabs(want[i]) : 0)));
    }
}

static void metrics_rows(void **state)
{
    static const double scales[] = {0.1, 4, 20};
    for (int i = 0; i < N_SHAPES; i++)
        for (int bits = 0; bits < 12; bits++) {
            int64_t m = shapes[i][0], n = shapes[i][1];
            double *z = test_random(m * n, scales[bits % 3]), *t = test_random(m * n, scales[bits % 3]), *want;
            for (int64_t j = 0; j < m * n && bits % 2; j++) /* a lens that is near its teacher */
                t[j] = (double)(float)(z[j] + 0.05 * t[j]);
            double *got = run_metrics(&want, z, t, m, n, bits & 4, bits < 6 ? STRIDED : DENSE);
            check_metrics(got, want, m, "metrics");
            test_teardown(state);
        }
}

/* Logits hundreds apart: certain on one entry each, the same or not. */
static void metrics_of_extremes(void **state)
{
    (void)state;
    enum { M = 6, N = 1100 };
    double *z = test_random(M * N, 100), *t = test_random(M * N, 100), *want;
    z[7] = 900, t[7] = 900;
    z[N + 3] = 800, t[N + 1030] = 800;
    double *got = run_metrics(&want, z, t, M, N, true, DENSE);
    check_metrics(got, want, M, "metrics extreme");
}

/* Compared with itself, its two log-sum-exps off by some ulps as two ways of summing leave them: KL and JS feel that
 * only in the second order, and are never materially below 0. */
static void metrics_of_the_teacher_itself(void **state)
{
    (void)state;
    enum { M = 20, N = 4999 };
    double *z = test_random(M * N, 5), z_lse[M], t_lse[M];
    for (int i = 0; i < M; i++) {
        t_lse[i] = (double)(float)log_sum_exp(z + i * N, N);
        z_lse[i] = t_lse[i] * (1 + (i % 5 - 2) * 0x1p-22);
    }
    test_tensor *in = test_tensor_of(VL_F32, z, M, N, DENSE), *out = test_empty(VL_F32, M, VL_METRIC_COUNT, DENSE);
    vl_metrics_args args = {.out = out->t,
                            .logits = in->t,
                            .lse = test_vector_of(VL_F32, z_lse, M)->t,
                            .teacher_logits = in->t,
                            .teacher_lse = test_vector_of(VL_F32, t_lse, M)->t};
    OK(vl_op_metrics(device, &args, &error));
    double *got = test_values(out);
    for (int i = 0; i < M; i++) {
        const double *row = got + i * VL_METRIC_COUNT;
        test_within("metrics", "at equality", fmax(fabs(row[VL_METRIC_KL]), fabs(row[VL_METRIC_JS])));
        assert_true(row[VL_METRIC_TOP1] == 1 && row[VL_METRIC_RANK] == 0);
    }
}

/* Few levels: the first of the largest is the teacher's choice, and equal entries rank by their id. */
static void metrics_with_ties(void **state)
{
    (void)state;
    enum { M = 50, N = 40 };
    double z[M * N], t[M * N], *want;
    for (int i = 0; i < M * N; i++) {
        z[i] = (double)test_random_below(4);
        t[i] = (double)test_random_below(4);
    }
    double *got = run_metrics(&want, z, t, M, N, true, DENSE);
    check_metrics(got, want, M, "metrics");
}

/* Entries of probability 0 in both: 0 log 0 is 0. */
static void metrics_with_impossible_entries(void **state)
{
    (void)state;
    enum { N = 50 };
    double *z = test_random(N, 3), *t = test_random(N, 3), *want;
    for (int i = 40; i < N; i++)
        z[i] = t[i] = -INFINITY;
    t[39] = -INFINITY;
    double *got = run_metrics(&want, z, t, 1, N, true, DENSE);
    check_metrics(got, want, 1, "metrics");
}

static void metrics_refuse(void **state)
{
    (void)state;
    double values[24] = {0};
    test_tensor *x = test_tensor_of(VL_F32, values, 2, 4, DENSE), *lse = test_vector_of(VL_F32, values, 2);
    test_tensor *out = test_empty(VL_F32, 2, VL_METRIC_COUNT, DENSE);
    vl_metrics_args good = {.out = out->t,
                            .logits = x->t,
                            .lse = lse->t,
                            .teacher_logits = x->t,
                            .teacher_lse = lse->t},
                    bad;
    OK(vl_op_metrics(device, &good, &error));
    bad = good, bad.teacher_logits = vl_tensor_columns(x->t, 0, 3);
    REFUSED(vl_op_metrics(device, &bad, &error));
    bad = good, bad.out = vl_tensor_columns(out->t, 0, VL_METRIC_COUNT - 1);
    REFUSED(vl_op_metrics(device, &bad, &error));
    bad = good, bad.targets = lse->t;
    REFUSED(vl_op_metrics(device, &bad, &error));
}

static const struct CMUnitTest tests[] = {
    OPS_TEST(logsumexp_rows),
    OPS_TEST(logsumexp_ignores_minus_infinity),
    OPS_TEST(logsumexp_in_pieces),
    OPS_TEST(logsumexp_refuses),
    OPS_TEST(topk_rows),
    OPS_TEST(topk_refuses),
    OPS_TEST(metrics_rows),
    OPS_TEST(metrics_of_extremes),
    OPS_TEST(metrics_of_the_teacher_itself),
    OPS_TEST(metrics_with_ties),
    OPS_TEST(metrics_with_impossible_entries),
    OPS_TEST(metrics_refuse),
};
OPS_TEST_MAIN(tests)
