/* The whole evaluation of a small cache against a plain float64 computation of the same means. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <vlens/eval.h>

#include "tests/support/synthetic_cache.h"
#include "trainer/base/file.h"
#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/base/rng.h"
#include "tests/fit/cache_fault.h"
#include "trainer/eval/depth.h"
#include "trainer/lens/lens.h"
#include "trainer/model/head.h"

enum { L = 3, SAMPLES = 24, ROWS = 9, D = 20, V = 53 };

typedef struct fixture {
    char folder[64];
    vl_device *device;
    vl_cache *cache;
    vl_lens *lens;
    vl_config *config;
} fixture;

static void write_random_lens(const char *folder, const char *fingerprint)
{
    float *weight[L], *bias[L];
    vl_rng rng;
    vl_rng_seed(&rng, 5);
    for (int i = 0; i < L; i++) {
        weight[i] = vl_alloc(D * D, sizeof(float));
        bias[i] = vl_alloc(D, sizeof(float));
        for (int j = 0; j < D * D; j++)
            weight[i][j] = (float)(0.1 * vl_rng_normal(&rng));
        for (int j = 0; j < D; j++)
            bias[i][j] = (float)(0.1 * vl_rng_normal(&rng));
    }
    vl_lens_content content = {.d_model = D,
                               .n_layers = L,
                               .weight = (const float *const *)weight,
                               .bias = (const float *const *)bias,
                               .dtype = VL_F32,
                               .fingerprint = fingerprint,
                               .model_id = "test"};
    char path[128];
    vl_error err = VL_ERROR_INIT;
    snprintf(path, sizeof path, "%s/lens.safetensors", folder);
    if (vl_lens_write(path, &content, &err) != VL_OK)
        fail_msg("%s", err.message);
    for (int i = 0; i < L; i++) {
        vl_free(weight[i]);
        vl_free(bias[i]);
    }
}

static int setup(void **state)
{
    static fixture f;
    vl_error err = VL_ERROR_INIT;
    snprintf(f.folder, sizeof f.folder, "test-eval-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    char cache[96];
    snprintf(cache, sizeof cache, "%s/cache", f.folder);
    if (synthetic_cache_write(cache, L, SAMPLES, ROWS, D, V, VL_F32, 11, &err) != VL_OK ||
        vl_device_open(&f.device, "cpu", 0, &err) != VL_OK || vl_cache_open(&f.cache, cache, &err) != VL_OK)
        fail_msg("%s", err.message);
    write_random_lens(f.folder, vl_cache_get_info(f.cache)->fingerprint);
    if (vl_lens_open(&f.lens, f.folder, &err) != VL_OK || vl_config_new(&f.config, &err) != VL_OK ||
        vl_config_set(f.config, "eval.bootstrap=200", &err) != VL_OK ||
        vl_config_set(f.config, "precision=exact", &err) != VL_OK)
        fail_msg("%s", err.message);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    char command[128];
    vl_config_free(f->config);
    vl_lens_close(f->lens);
    vl_cache_close(f->cache);
    vl_device_close(f->device);
    snprintf(command, sizeof command, "rm -rf '%s'", f->folder);
    return system(command);
}

/* log softmax(head(norm(x))) in float64; rms norm. */
static void log_distribution(double *out, const double *x, const vl_head_source *head)
{
    const float *norm = head->norm_weight, *weight = head->weight;
    double square = 0, max = -INFINITY, sum = 0;
    for (int i = 0; i < D; i++)
        square += x[i] * x[i];
    double scale = 1 / sqrt(square / D + head->eps);
    for (int v = 0; v < V; v++) {
        out[v] = 0;
        for (int i = 0; i < D; i++)
            out[v] += x[i] * scale * (double)norm[i] * (double)weight[v * D + i];
        max = fmax(max, out[v]);
    }
    for (int v = 0; v < V; v++)
        sum += exp(out[v] - max);
    for (int v = 0; v < V; v++)
        out[v] -= max + log(sum);
}

static double kl(const double *log_p, const double *log_q)
{
    double sum = 0;
    for (int v = 0; v < V; v++)
        sum += exp(log_p[v]) * (log_p[v] - log_q[v]);
    return sum;
}

static void read_state(double *out, fixture *f, int64_t state, int64_t row)
{
    float stored[D];
    assert_int_equal(vl_cache_read(stored, f->cache, state, row, 1, NULL), VL_OK);
    for (int i = 0; i < D; i++)
        out[i] = (double)stored[i];
}

static void adapt(double *out, const fixture *f, int64_t layer, const double *h)
{
    const float *a = vl_lens_weight(f->lens, layer), *b = vl_lens_bias(f->lens, layer);
    for (int i = 0; i < D; i++) {
        out[i] = h[i] + (double)b[i];
        for (int j = 0; j < D; j++)
            out[i] += (double)a[i * D + j] * h[j];
    }
}

static int find_group(const vl_eval_result *result, const char *name)
{
    for (int g = 0; g < vl_eval_n_groups(result); g++)
        if (!strcmp(vl_eval_get_group(result, g).name, name))
            return g;
    fail_msg("no class %s in the result", name);
    return -1;
}

/* Means over the rows of eval.split and one class (VL_CLASS_COUNT: all), by brute force. */
static void check_class(fixture *f, const vl_eval_result *result, int token_class, const char *name)
{
    const vl_cache_tokens *tokens = vl_cache_get_tokens(f->cache);
    const vl_cache_samples *samples = vl_cache_get_samples(f->cache);
    vl_head *head;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_cache_head(&head, f->cache, f->device, VL_PRECISION_EXACT, &err), VL_OK);
    int group = find_group(result, name);
    for (int64_t layer = 0; layer < L; layer++) {
        double logit = 0, tuned = 0;
        int64_t n = 0;
        for (int64_t row = 0; row < vl_cache_get_info(f->cache)->n_tokens; row++) {
            if (samples->heldout[tokens->sample_row[row]] != (f->config->eval.split == VL_SPLIT_HELDOUT) ||
                (token_class != VL_CLASS_COUNT && tokens->token_class[row] != token_class))
                continue;
            double h[D], u[D], p[V], q[V];
            read_state(h, f, L, row);
            log_distribution(p, h, vl_head_get_source(head));
            read_state(h, f, layer, row);
            if (!isfinite(h[0]))
                continue;
            log_distribution(q, h, vl_head_get_source(head));
            logit += kl(p, q);
            adapt(u, f, layer, h);
            log_distribution(q, u, vl_head_get_source(head));
            tuned += kl(p, q);
            n++;
        }
        vl_eval_cell a = vl_eval_get_cell(result, group, layer, VL_EVAL_LOGIT);
        vl_eval_cell b = vl_eval_get_cell(result, group, layer, VL_EVAL_TUNED);
        vl_estimate gain = vl_eval_get_gain(result, group, layer, VL_EVAL_LOGIT);
        assert_int_equal(a.rows, n);
        assert_true(fabs(a.kl.mean - logit / (double)n) < 2e-5 * (1 + logit / (double)n));
        assert_true(fabs(b.kl.mean - tuned / (double)n) < 2e-5 * (1 + tuned / (double)n));
        assert_true(fabs(gain.mean - (logit - tuned) / (double)n) < 4e-5 * (1 + logit / (double)n));
        assert_true(a.kl.low <= a.kl.mean && a.kl.mean <= a.kl.high);
    }
    vl_head_close(head);
}

/* What one lens says at one state over the held-out rows of a class, in float64. */
typedef struct plain {
    double rank, js, tv, bias, ece;
    double depth; /* of the lens, over all states */
    int64_t rows;
} plain;

static int largest(const double *log_p)
{
    int best = 0;
    for (int v = 1; v < V; v++)
        best = log_p[v] > log_p[best] ? v : best;
    return best;
}

static double js(const double *log_p, const double *log_q)
{
    double sum = 0;
    for (int v = 0; v < V; v++) {
        double p = exp(log_p[v]), q = exp(log_q[v]), m = log((p + q) / 2);
        sum += p * (log_p[v] - m) / 2 + q * (log_q[v] - m) / 2;
    }
    return sum;
}

/* The distribution of a row at a state (tuned or not); at L both are the model's. */
static void distribution(double *out, fixture *f, const vl_head *head, int64_t state, int64_t row, bool tuned)
{
    double h[D], u[D];
    read_state(h, f, state, row);
    if (tuned && state < L)
        adapt(u, f, state, h);
    log_distribution(out, tuned && state < L ? u : h, vl_head_get_source(head));
}

static int64_t depth_of(fixture *f, const vl_head *head, int64_t row, bool tuned)
{
    double p[V], q[V];
    int64_t depth = L;
    distribution(p, f, head, L, row, false);
    for (; depth > 0; depth--) {
        distribution(q, f, head, depth - 1, row, tuned);
        if (largest(q) != largest(p))
            break;
    }
    return depth;
}

static plain compute(fixture *f, const vl_head *head, int token_class, int64_t state, bool tuned)
{
    const vl_cache_tokens *tokens = vl_cache_get_tokens(f->cache);
    double mean_p[V] = {0}, mean_q[V] = {0}, bin[15][2] = {{0}};
    plain out = {0};
    for (int64_t row = 0; row < vl_cache_get_info(f->cache)->n_tokens; row++) {
        double p[V], q[V];
        if (!vl_cache_get_samples(f->cache)->heldout[tokens->sample_row[row]] ||
            (token_class != VL_CLASS_COUNT && tokens->token_class[row] != token_class))
            continue;
        distribution(p, f, head, L, row, false);
        distribution(q, f, head, state, row, tuned);
        int best = largest(p), first = largest(q);
        for (int v = 0; v < V; v++) {
            out.rank += q[v] > q[best];
            out.tv += fabs(exp(p[v]) - exp(q[v])) / 2;
            mean_p[v] += exp(p[v]);
            mean_q[v] += exp(q[v]);
        }
        out.js += js(p, q);
        out.depth += (double)depth_of(f, head, row, tuned);
        bin[(int)(exp(q[first]) * 15)][0] += exp(q[first]);
        bin[(int)(exp(q[first]) * 15)][1] += exp(p[first]);
        out.rows++;
    }
    double n = (double)out.rows;
    for (int v = 0; v < V; v++)
        out.bias += mean_p[v] / n * log(mean_p[v] / mean_q[v]);
    for (int b = 0; b < 15; b++)
        out.ece += fabs(bin[b][0] - bin[b][1]) / n;
    return (plain){out.rank / n, out.js / n, out.tv / n, out.bias, out.ece, out.depth / n, out.rows};
}

static void near(double got, double expected, double bound)
{
    if (!(fabs(got - expected) <= bound))
        fail_msg("%.9g in the place of %.9g (difference %.2g)", got, expected, fabs(got - expected));
}

static vl_eval_result *evaluate(fixture *f)
{
    vl_eval_result *result = NULL;
    vl_error err = VL_ERROR_INIT;
    if (vl_eval_run(&result, &(vl_eval_inputs){f->config, f->cache, f->lens, f->device}, NULL, NULL, &err) != VL_OK)
        fail_msg("%s", err.message);
    return result;
}

static void means_equal_a_plain_computation(void **state)
{
    vl_eval_result *result = evaluate(*state);
    check_class(*state, result, VL_TEXT, "text");
    check_class(*state, result, VL_IMAGE, "image");
    check_class(*state, result, VL_LAST, "last");
    check_class(*state, result, VL_CLASS_COUNT, "all");
    vl_eval_free(result);
}

/* eval.split: train takes the other samples, and only those. */
static void training_rows_are_evaluated_on_demand(void **state)
{
    fixture *f = *state;
    f->config->eval.split = VL_SPLIT_TRAIN;
    vl_eval_result *result = evaluate(f);
    check_class(f, result, VL_IMAGE, "image");
    check_class(f, result, VL_CLASS_COUNT, "all");
    vl_eval_free(result);
    f->config->eval.split = VL_SPLIT_HELDOUT;
}

/* Ranks and depths are counts: exact. Measured of the others: 3.4e-8 at most. */
static void the_other_columns_equal_a_plain_computation(void **state)
{
    static const struct {
        int token_class;
        const char *name;
    } classes[] = {{VL_TEXT, "text"}, {VL_IMAGE, "image"}, {VL_CLASS_COUNT, "all"}};
    fixture *f = *state;
    vl_head *head;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_config_set(f->config, "eval.metrics=rank,js,tv,bias,ece", &err), VL_OK);
    assert_int_equal(vl_cache_head(&head, f->cache, f->device, VL_PRECISION_EXACT, &err), VL_OK);
    vl_eval_result *result = evaluate(f);
    for (size_t c = 0; c < sizeof classes / sizeof classes[0]; c++)
        for (int64_t s = 0; s <= L; s++)
            for (int tuned = 0; tuned < 2; tuned++) {
                vl_eval_lens lens = tuned ? VL_EVAL_TUNED : VL_EVAL_LOGIT;
                int group = find_group(result, classes[c].name);
                plain expected = compute(f, head, classes[c].token_class, s, tuned);
                vl_eval_cell cell = vl_eval_get_cell(result, group, s, lens);
                vl_estimate depth = vl_eval_get_depth(result, group, lens);
                assert_int_equal(cell.rows, expected.rows);
                near(cell.metric[VL_METRIC_RANK], expected.rank, 1e-12);
                near(cell.metric[VL_METRIC_JS], expected.js, 1.3e-7);
                near(cell.metric[VL_METRIC_TV], expected.tv, 1.3e-7);
                near(cell.metric[VL_METRIC_BIAS], expected.bias, 1.3e-7);
                near(cell.metric[VL_METRIC_ECE], expected.ece, 1.3e-7);
                near(depth.mean, expected.depth, 1e-12);
                assert_true(depth.low <= depth.mean && depth.mean <= depth.high);
            }
    vl_head_close(head);
    vl_eval_free(result);
    assert_int_equal(vl_config_set(f->config, "eval.metrics=kl,ce,entropy,top1,top5", &err), VL_OK);
}

static vl_status add_other(void *user, const vl_team_sum *args, vl_error *err)
{
    (void)err;
    for (int64_t i = 0; i < args->n; i++)
        ((int64_t *)args->data)[i] += ((const int64_t *)user)[i];
    return VL_OK;
}

/* States of every word and of both of its ends, shared out between two members. */
static void depths_of_two_members_are_those_of_one(void **state)
{
    enum { STATES = 130, N = STATES + 1 };
    (void)state;
    vl_depth one, other;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_depth_new(&one, N, STATES, &err), VL_OK);
    assert_int_equal(vl_depth_new(&other, N, STATES, &err), VL_OK);
    for (int64_t row = 0; row < N; row++) /* row i differs at the states before i, of its own lens alone */
        for (int64_t s = 0; s < row; s++)
            vl_depth_differs(s % 2 ? &other : &one, row, (vl_eval_lens)(row % 2), s);
    vl_team team = {.rank = 0, .size = 2, .user = other.differs, .sum = add_other};
    assert_int_equal(vl_depth_add_up(&one, &team, &err), VL_OK);
    for (int64_t row = 0; row < N; row++) {
        assert_int_equal(vl_depth_of(&one, row, (vl_eval_lens)(row % 2)), row);
        assert_int_equal(vl_depth_of(&one, row, (vl_eval_lens)((row + 1) % 2)), 0);
    }
    vl_depth_clear(&one);
    vl_depth_clear(&other);
}

static void the_last_state_is_the_model_itself(void **state)
{
    vl_eval_result *result = evaluate(*state);
    vl_eval_cell cell = vl_eval_get_cell(result, find_group(result, "all"), L, VL_EVAL_LOGIT);
    assert_true(fabs(cell.kl.mean) < 1e-6);
    assert_true(cell.metric[VL_METRIC_TOP1] == 1.0);
    vl_eval_free(result);
}

static void another_models_lens_is_refused(void **state)
{
    fixture *f = *state;
    char folder[96];
    vl_error err = VL_ERROR_INIT;
    vl_lens *lens;
    vl_eval_result *result;
    snprintf(folder, sizeof folder, "%s/other", f->folder);
    assert_int_equal(vl_make_directories(folder, &err), VL_OK);
    write_random_lens(folder, "0000000000000000000000000000000000000000000000000000000000000000");
    assert_int_equal(vl_lens_open(&lens, folder, &err), VL_OK);
    const vl_eval_inputs inputs = {f->config, f->cache, lens, f->device};
    assert_int_equal(vl_eval_run(&result, &inputs, NULL, NULL, &err), VL_EMISMATCH);
    assert_null(result);
    assert_non_null(strstr(err.message, vl_cache_get_info(f->cache)->fingerprint));
    vl_eval_options allow = {.allow_other_model = true};
    assert_int_equal(vl_eval_run(&result, &inputs, &allow, NULL, &err), VL_OK);
    char *text = NULL;
    assert_int_equal(vl_eval_json(&text, result, &err), VL_OK);
    assert_non_null(strstr(text, "\"other_model\": true"));
    vl_release(text);
    vl_eval_free(result);
    vl_lens_close(lens);
}

static void every_number_of_the_table_is_in_the_json(void **state)
{
    vl_eval_result *result = evaluate(*state);
    char *table, *json, number[32];
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_eval_table(&table, result, &err), VL_OK);
    assert_int_equal(vl_eval_json(&json, result, &err), VL_OK);
    for (int g = 0; g < vl_eval_n_groups(result); g++)
        for (int64_t s = 0; s <= L; s++) {
            snprintf(number, sizeof number, "%.4f", vl_eval_get_cell(result, g, s, VL_EVAL_LOGIT).kl.mean);
            assert_non_null(strstr(table, number));
        }
    assert_non_null(strstr(json, "\"class\": \"image\""));
    vl_release(table);
    vl_release(json);
    vl_eval_free(result);
}

/* A row that is no number, at one state: the state's means are those of the others, and it is said how many are. */
static void a_bad_row_is_left_out_and_said(void **state)
{
    fixture *f = *state;
    const vl_cache_tokens *tokens = vl_cache_get_tokens(f->cache);
    vl_error err = VL_ERROR_INIT;
    int64_t row = 0;
    char *text;
    while (!vl_cache_get_samples(f->cache)->heldout[tokens->sample_row[row]] || tokens->token_class[row] != VL_TEXT)
        row++;
    cache_fault(1, row, NAN);
    vl_eval_result *result = evaluate(f);
    check_class(f, result, VL_TEXT, "text");
    check_class(f, result, VL_CLASS_COUNT, "all");
    int group = find_group(result, "text");
    int64_t all = vl_eval_get_group(result, group).rows;
    assert_int_equal(vl_eval_get_cell(result, group, 1, VL_EVAL_TUNED).rows, all - 1);
    assert_int_equal(vl_eval_get_cell(result, group, 2, VL_EVAL_TUNED).rows, all);
    assert_int_equal(vl_eval_table(&text, result, &err), VL_OK);
    assert_non_null(strstr(text, "Left out at state 1, tuned: 1 rows whose numbers are not finite."));
    vl_release(text);
    assert_int_equal(vl_eval_json(&text, result, &err), VL_OK);
    assert_non_null(strstr(text, "\"left_out\": ["));
    vl_release(text);
    vl_eval_free(result);
    cache_fault(-1, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means_equal_a_plain_computation),
        cmocka_unit_test(training_rows_are_evaluated_on_demand),
        cmocka_unit_test(the_other_columns_equal_a_plain_computation),
        cmocka_unit_test(depths_of_two_members_are_those_of_one),
        cmocka_unit_test(a_bad_row_is_left_out_and_said),
        cmocka_unit_test(the_last_state_is_the_model_itself),
        cmocka_unit_test(another_models_lens_is_refused),
        cmocka_unit_test(every_number_of_the_table_is_in_the_json),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
