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
#include "trainer/fit/lens.h"
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

static vl_eval_result *evaluate(fixture *f)
{
    vl_eval_result *result = NULL;
    vl_error err = VL_ERROR_INIT;
    if (vl_eval_run(&result, f->config, f->cache, f->lens, f->device, NULL, NULL, &err) != VL_OK)
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

static void the_last_state_is_the_model_itself(void **state)
{
    vl_eval_result *result = evaluate(*state);
    vl_eval_cell cell = vl_eval_get_cell(result, find_group(result, "all"), L, VL_EVAL_LOGIT);
    assert_true(fabs(cell.kl.mean) < 1e-6);
    assert_true(cell.metric[VL_EVAL_TOP1] == 1.0);
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
    assert_int_equal(vl_eval_run(&result, f->config, f->cache, lens, f->device, NULL, NULL, &err), VL_EMISMATCH);
    assert_null(result);
    assert_non_null(strstr(err.message, vl_cache_get_info(f->cache)->fingerprint));
    vl_eval_options allow = {.allow_other_model = true};
    assert_int_equal(vl_eval_run(&result, f->config, f->cache, lens, f->device, &allow, NULL, &err), VL_OK);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means_equal_a_plain_computation),
        cmocka_unit_test(training_rows_are_evaluated_on_demand),
        cmocka_unit_test(the_last_state_is_the_model_itself),
        cmocka_unit_test(another_models_lens_is_refused),
        cmocka_unit_test(every_number_of_the_table_is_in_the_json),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
