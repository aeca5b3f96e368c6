/* Causal basis extraction: energy against a float64 computation, gradient against finite differences of that, the basis
 * against random directions; rank correlation against published values; and the two ways to the same number
 * where a lens is the model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/tolerance.h"
#include "trainer/base/mem.h"
#include "trainer/fidelity/causal_basis.h"
#include "trainer/fidelity/fidelity_data.h"
#include "trainer/fidelity/rank.h"

enum { N = 40, D = 20, V = 70, DIRECTIONS = 6 };

static void ok(vl_status status, const vl_error *err)
{
    if (status != VL_OK)
        fail_msg("%s", err->message);
}

/* ---- a small problem --------------------------------------------------------------------------------------- */

typedef struct problem {
    vl_device *device;
    vl_head *head;
    float h[N * D], target[N * D], a[D * D], bias[D], norm[D], weight[V * D];
    vl_adapter adapter;
    vl_causal_block block;
} problem;

static void fill(float *x, int n, double scale, vl_rng *rng)
{
    for (int i = 0; i < n; i++)
        x[i] = (float)(scale * vl_rng_normal(rng));
}

static void open_problem(problem *p, bool adapted)
{
    vl_error err = VL_ERROR_INIT;
    vl_rng rng;
    vl_rng_seed(&rng, 11);
    memset(p, 0, sizeof *p);
    ok(vl_device_open(&p->device, "cpu", 2, &err), &err);
    fill(p->h, N * D, 1, &rng);
    fill(p->target, N * D, 1, &rng);
    fill(p->a, D * D, 0.1, &rng);
    fill(p->bias, D, 0.3, &rng);
    fill(p->norm, D, 0.2, &rng);
    fill(p->weight, V * D, 0.7, &rng);
    for (int j = 0; j < D; j++)
        p->norm[j] += 1;
    vl_head_source source = {.d_model = D,
                             .n_layers = 1,
                             .vocab_size = V,
                             .norm = VL_NORM_RMS,
                             .eps = 1e-5,
                             .weight_dtype = VL_F32,
                             .weight = p->weight,
                             .norm_dtype = VL_F32,
                             .norm_weight = p->norm};
    ok(vl_head_new(&p->head, p->device, &source, VL_PRECISION_EXACT, NULL, &err), &err);
    if (adapted) {
        ok(vl_tensor_new(&p->adapter.weight, p->device, VL_F32, D, D, &err), &err);
        ok(vl_device_write(p->device, &p->adapter.weight, p->a, &err), &err);
        ok(vl_tensor_new(&p->adapter.bias, p->device, VL_F32, 1, D, &err), &err);
        ok(vl_device_write(p->device, &p->adapter.bias, p->bias, &err), &err);
        p->adapter.bias = vl_tensor_1d(p->adapter.bias.data, VL_F32, D);
    } else {
        memset(p->a, 0, sizeof p->a);
        memset(p->bias, 0, sizeof p->bias);
    }
    ok(vl_causal_block_new(&p->block, p->head, p->h, p->target, N, &err), &err);
    ok(vl_causal_block_lens(&p->block, &p->adapter, &err), &err);
}

static void close_problem(problem *p)
{
    vl_causal_block_clear(&p->block);
    vl_device_free(p->device, p->adapter.weight.data);
    vl_device_free(p->device, p->adapter.bias.data);
    vl_head_close(p->head);
    vl_device_close(p->device);
}

/* log-softmax of the lens at one row. */
static void lens(double *log_q, const problem *p, const double *h)
{
    double u[D], square = 0, most = -INFINITY, sum = 0;
    for (int i = 0; i < D; i++) {
        u[i] = h[i] + (double)p->bias[i];
        for (int j = 0; j < D; j++)
            u[i] += (double)p->a[i * D + j] * h[j];
        square += u[i] * u[i];
    }
    double scale = 1 / sqrt(square / D + 1e-5);
    for (int w = 0; w < V; w++) {
        log_q[w] = 0;
        for (int j = 0; j < D; j++)
            log_q[w] += (double)p->weight[w * D + j] * u[j] * scale * (double)p->norm[j];
        most = fmax(most, log_q[w]);
    }
    for (int w = 0; w < V; w++)
        sum += exp(log_q[w] - most);
    for (int w = 0; w < V; w++)
        log_q[w] -= most + log(sum);
}

/* E KL(lens(h) || lens(h + v v^T (target - h))); v of any length, as the gradient takes it. */
static double energy(const problem *p, const double *v)
{
    double total = 0, before[V], after[V], h[D], changed[D];
    for (int r = 0; r < N; r++) {
        double share = 0;
        for (int j = 0; j < D; j++) {
            h[j] = (double)p->h[r * D + j];
            share += ((double)p->target[r * D + j] - h[j]) * v[j];
        }
        for (int j = 0; j < D; j++)
            changed[j] = h[j] + share * v[j];
        lens(before, p, h);
        lens(after, p, changed);
        for (int w = 0; w < V; w++)
            total += exp(before[w]) * (before[w] - after[w]) / N;
    }
    return total;
}

/* ---- tests ------------------------------------------------------------------------------------------------- */

static void check_energy(bool adapted)
{
    problem p;
    vl_error err = VL_ERROR_INIT;
    double v[DIRECTIONS * D], gradient[D], mean, worst = 0, worst_gradient = 0;
    vl_rng rng;
    vl_rng_seed(&rng, 5);
    open_problem(&p, adapted);
    vl_random_basis(v, DIRECTIONS, D, &rng);
    for (int k = 0; k < DIRECTIONS; k++) {
        double *u = v + k * D, largest = 0, off = 0;
        ok(vl_causal_block_energy(&mean, gradient, &p.block, u, &err), &err);
        worst = fmax(worst, fabs(mean / energy(&p, u) - 1));
        for (int j = 0; j < D; j++) {
            double at = u[j], step = 1e-5;
            u[j] = at + step;
            double high = energy(&p, u);
            u[j] = at - step;
            double slope = (high - energy(&p, u)) / (2 * step);
            u[j] = at;
            largest = fmax(largest, fabs(slope));
            off = fmax(off, fabs(slope - gradient[j]));
        }
        worst_gradient = fmax(worst_gradient, off / largest);
    }
    assert_true(tolerance_accepts("causal_energy", "exact", worst));
    assert_true(tolerance_accepts("causal_gradient", "exact", worst_gradient));
    close_problem(&p);
}

static void energy_is_that_of_float64(void **state)
{
    (void)state;
    check_energy(true);
    check_energy(false);
}

static void basis_is_orthonormal_and_strongest_first(void **state)
{
    (void)state;
    problem p;
    vl_error err = VL_ERROR_INIT;
    double basis[DIRECTIONS * D], v[D], first, last, mean;
    vl_rng rng;
    vl_rng_seed(&rng, 9);
    open_problem(&p, true);
    ok(vl_causal_block_basis(basis, DIRECTIONS, &p.block, &rng, &err), &err);
    for (int i = 0; i < DIRECTIONS; i++)
        for (int j = 0; j <= i; j++) {
            double product = 0;
            for (int k = 0; k < D; k++)
                product += basis[i * D + k] * basis[j * D + k];
            assert_true(fabs(product - (i == j)) < 1e-12);
        }
    ok(vl_causal_block_energy(&first, NULL, &p.block, basis, &err), &err);
    ok(vl_causal_block_energy(&last, NULL, &p.block, basis + (DIRECTIONS - 1) * D, &err), &err);
    assert_true(first > last);
    for (int i = 0; i < 500; i++) { /* the strongest of many random ones does not come near it */
        vl_random_basis(v, 1, D, &rng);
        ok(vl_causal_block_energy(&mean, NULL, &p.block, v, &err), &err);
        assert_true(mean < first);
    }
    close_problem(&p);
}

/* Values of numpy.corrcoef of the ranks; the first is also that of scipy.stats.spearmanr's documentation. */
static void ranks_are_those_of_numpy(void **state)
{
    (void)state;
    static const double a[] = {1, 2, 3, 4, 5}, b[] = {5, 6, 7, 8, 7}, c[] = {3, 1, 4, 1, 5, 9, 2, 6},
                        d[] = {2, 7, 1, 8, 2, 8, 1, 8}, same[] = {4, 4, 4, 4, 4};
    double scratch[16];
    assert_true(fabs(vl_spearman(a, b, 5, scratch) - 0.8207826816681233) < 1e-14);
    assert_true(fabs(vl_spearman(c, d, 8, scratch) - 0.19885368120992464) < 1e-14);
    assert_true(isnan(vl_spearman(a, same, 5, scratch)));
    assert_true(isnan(vl_spearman(a, b, 1, scratch)));
}

/* Values of numpy.corrcoef of the residuals that numpy.linalg.lstsq leaves of the ranks on those of z and a constant.
 */
static void partial_ranks_are_those_of_numpy(void **state)
{
    (void)state;
    static const double a[] = {1, 2, 3, 4, 5}, b[] = {5, 6, 7, 8, 7}, z[] = {2, 1, 4, 3, 5},
                        c[] = {3, 1, 4, 1, 5, 9, 2, 6}, d[] = {2, 7, 1, 8, 2, 8, 1, 8}, e[] = {1, 6, 1, 8, 0, 3, 3, 9};
    double scratch[16];
    assert_true(fabs(vl_partial_spearman(a, b, z, 5, scratch) - 0.7456437192014401) < 1e-14);
    assert_true(fabs(vl_partial_spearman(c, d, e, 8, scratch) - 0.4737567437310469) < 1e-14);
    assert_true(isnan(vl_partial_spearman(c, d, c, 8, scratch)));
    assert_true(isnan(vl_partial_spearman(c, d, (const double[8]){0}, 8, scratch)));
}

/* The length by which the block, on the device and in float32, has moved each row. */
static void displacement_is_the_way_to_what_was_read(const vl_fidelity_data *data, vl_causal_block *block,
                                                     const float *h, const float *target, const double *v)
{
    vl_error err = VL_ERROR_INIT;
    size_t n = (size_t)data->n_counted, d = (size_t)data->d;
    float *moved = vl_alloc(n, d * sizeof *moved);
    double *length = vl_alloc(n, sizeof *length), worst = 0, largest = 0;
    ok(vl_device_read(data->device, moved, &block->ablated, &err), &err);
    vl_fidelity_displacement(length, h, target, data, v);
    for (size_t i = 0; i < n; i++) {
        double square = 0;
        for (size_t j = 0; j < d; j++) {
            double way = (double)moved[i * d + j] - (double)h[i * d + j];
            square += way * way;
        }
        worst = fmax(worst, fabs(square - length[i]));
        largest = fmax(largest, length[i]);
    }
    assert_true(largest > 0);
    assert_true(tolerance_accepts("fidelity_displacement", "exact", worst / largest));
    vl_free(moved);
    vl_free(length);
}

/* At the last state the logit lens is the model: ablating there must change both by the same. The model's side runs
 * through vl_model_forward and the metrics op, the lens' side through the objective. */
static void at_the_last_state_lens_and_model_agree(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    vl_device *device;
    vl_config *config;
    vl_model *model;
    vl_cache *cache;
    char samples[512];
    ok(vl_device_open(&device, "cpu", 2, &err), &err);
    ok(vl_config_new(&config, &err), &err);
    snprintf(samples, sizeof samples, "data.samples=%s/data/demo/samples.jsonl", VLENS_SOURCE_DIR);
    ok(vl_config_set(config, samples, &err), &err);
    const char *const settings[] = {"data.max_samples=12", "data.heldout=0.5", "cache.dir=causal-cache",
                                    "fidelity.samples=4",  "precision=exact",  "cache.positions.image=4"};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        ok(vl_config_set(config, settings[i], &err), &err);
    vl_model_options options = {
        .path = VLENS_SOURCE_DIR "/data/demo/model", .device = device, .precision = VL_PRECISION_EXACT};
    ok(vl_model_open(&model, &options, &err), &err);
    ok(vl_cache_build(NULL, config, model, &(vl_cache_build_options){.fresh = true}, NULL, &err), &err);
    ok(vl_cache_open(&cache, "causal-cache", &err), &err);
    ok(vl_cache_split(cache, config, &err), &err);
    vl_fidelity_inputs inputs = {.config = config, .model = model, .cache = cache, .device = device};
    int64_t last = vl_model_get_info(model)->n_layers, states[] = {3, last};
    vl_fidelity_data data;
    ok(vl_fidelity_data_new(&data, &inputs, states, 2, &err), &err);
    size_t d = (size_t)data.d, n = (size_t)data.n_counted;
    double *v = vl_alloc(2 * d, sizeof *v), *kl = vl_alloc(n, sizeof *kl), mean, worst = 0;
    float *h = vl_alloc(n, d * sizeof *h), *target = vl_alloc(n, d * sizeof *target);
    vl_rng rng;
    vl_rng_seed(&rng, 2);
    vl_random_basis(v, 2, data.d, &rng);
    for (int resample = 0; resample < 2; resample++) {
        vl_causal_block block;
        vl_fidelity_target(&data, 1, resample, &rng);
        vl_fidelity_gather(h, &data, vl_fidelity_rows(&data, 1));
        vl_fidelity_gather(target, &data, data.target);
        ok(vl_causal_block_new(&block, data.head, h, target, data.n_counted, &err), &err);
        ok(vl_causal_block_lens(&block, &(vl_adapter){.bias = {.data = NULL}}, &err), &err);
        ok(vl_causal_block_energy(&mean, NULL, &block, v, &err), &err);
        ok(vl_fidelity_change(kl, &data, 1, v, 1, &err), &err);
        for (size_t i = 0; i < n; i++)
            worst = fmax(worst, fabs(kl[i] - (double)block.objective.host_loss[i]));
        displacement_is_the_way_to_what_was_read(&data, &block, h, target, v);
        vl_causal_block_clear(&block);
    }
    assert_true(tolerance_accepts("fidelity_last_state", "nats", worst));
    /* nothing is ablated where the target is the row itself: the forward from a state gives what it gave */
    memcpy(data.target, vl_fidelity_rows(&data, 0), (size_t)data.n_rows * d * sizeof(float));
    ok(vl_fidelity_change(kl, &data, 0, v, 2, &err), &err);
    for (size_t i = 0; i < n; i++)
        assert_true(fabs(kl[i]) < 1e-6);
    vl_fidelity_data_clear(&data);
    vl_free(v);
    vl_free(kl);
    vl_free(h);
    vl_free(target);
    vl_cache_close(cache);
    vl_model_close(model);
    vl_config_free(config);
    vl_device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(energy_is_that_of_float64),
        cmocka_unit_test(basis_is_orthonormal_and_strongest_first),
        cmocka_unit_test(ranks_are_those_of_numpy),
        cmocka_unit_test(partial_ranks_are_those_of_numpy),
        cmocka_unit_test(at_the_last_state_lens_and_model_agree),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + tolerance_report();
}
