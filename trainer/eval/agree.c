/* agree.c - logits of a lens computed twice: on the device as everywhere, and from the numbers of its file in float64
 * by the plainest loops; and, where there is another lens, with that one. */
#include <math.h>
#include <string.h>

#include <vlens/agree.h>

#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/readout/readout.h"

enum { MOST_ROWS = 8 };

typedef struct comparison {
    const vl_agree_args *args;
    vl_agreement *out;
    vl_device_lens *lens, *other; /* other may be NULL */
    vl_readout readout;
    vl_rows chosen;
    int64_t rows, n_layers, d, v;
    float *states;         /* [n_layers + 1, rows, D] of a model; NULL with a cache */
    const float **memory;  /* [n_layers + 1] into states */
    int64_t *layers;       /* [n_layers] 0, 1, ... */
    float *h;              /* [MOST_ROWS, D] of the state under way */
    double *normed;        /* [MOST_ROWS, D] what the unembedding reads, float64 */
    double *expected;      /* [MOST_ROWS, V] */
    float *found, *second; /* [MOST_ROWS, V] of the lens and of the other */
    vl_distribution q;
    vl_tensor u;
} comparison;

/* ---- rows -------------------------------------------------------------------------------------------------- */

/* Rows spread evenly over the cache. */
static vl_status rows_of_cache(comparison *c, vl_cache *cache, vl_error *err)
{
    int64_t rows[MOST_ROWS], n = vl_cache_get_info(cache)->n_tokens;
    c->rows = n < MOST_ROWS ? n : MOST_ROWS;
    for (int64_t r = 0; r < c->rows; r++)
        rows[r] = (2 * r + 1) * n / (2 * c->rows);
    return vl_rows_of_list(&c->chosen, rows, c->rows, err);
}

static int on_tap(void *user, const vl_tap *tap)
{
    comparison *c = user;
    vl_tensor last = vl_tensor_rows(tap->x, tap->x.shape[0] - c->rows, c->rows);
    return vl_device_read(c->args->device, c->states + tap->state * c->rows * c->d, &last, NULL) != VL_OK;
}

/* The last rows of one sentence. */
static vl_status rows_of_model(comparison *c, vl_model *model, vl_error *err)
{
    vl_sequence *sequence;
    vl_prompt prompt = {.text = "A lens reads what a layer knows before the model says it.", .raw = true};
    VL_TRY(vl_model_encode(&sequence, model, &prompt, err));
    c->rows = sequence->n_tokens < MOST_ROWS ? sequence->n_tokens : MOST_ROWS;
    const vl_sequence *const all[] = {sequence};
    size_t row = (size_t)c->d * sizeof *c->states;
    vl_status status = VL_OK;
    c->states = vl_alloc((size_t)(c->n_layers + 1) * (size_t)c->rows, row);
    c->memory = vl_alloc((size_t)c->n_layers + 1, sizeof *c->memory);
    if (!c->states || !c->memory)
        VL_GOTO(vl_fail_nomem(err, "rows"));
    for (int64_t i = 0; i <= c->n_layers; i++)
        c->memory[i] = c->states + i * c->rows * c->d;
    VL_GOTO(vl_rows_of_memory(&c->chosen, c->rows, err));
    VL_GOTO(vl_model_forward(model, &(vl_forward){.sequences = all, .n_sequences = 1, .tap = on_tap, .user = c}, err));
done:
    vl_sequence_free(sequence);
    return status;
}

/* ---- logits ------------------------------------------------------------------------------------------------ */

/* y = h + A h + b, then the norm, of row r. */
static void adapt_and_norm(const comparison *c, const vl_head_source *head, int64_t layer, int64_t r)
{
    const float *h = c->h + r * c->d;
    const float *weight = vl_lens_weight(c->args->lens, layer), *bias = vl_lens_bias(c->args->lens, layer);
    double *y = c->normed + r * c->d, mean = 0, squares = 0;
    for (int64_t i = 0; i < c->d; i++) {
        y[i] = (double)h[i] + (bias ? (double)bias[i] : 0);
        for (int64_t j = 0; weight && j < c->d; j++)
            y[i] += (double)weight[i * c->d + j] * (double)h[j];
        mean += y[i] / (double)c->d;
    }
    mean = head->norm == VL_NORM_LAYER ? mean : 0;
    for (int64_t i = 0; i < c->d; i++)
        squares += (y[i] - mean) * (y[i] - mean);
    double scale = head->norm == VL_NORM_NONE ? 1 : 1 / sqrt(squares / (double)c->d + head->eps);
    for (int64_t i = 0; i < c->d; i++)
        y[i] = (y[i] - mean) * scale * (double)vl_widen_at(head->norm_weight, head->norm_dtype, (size_t)i) +
               (head->norm_bias ? (double)vl_widen_at(head->norm_bias, head->norm_dtype, (size_t)i) : 0);
}

static void expect_logits(const comparison *c, int64_t layer)
{
    const vl_head_source *head = vl_head_get_source(c->args->head);
    for (int64_t r = 0; r < c->rows; r++)
        adapt_and_norm(c, head, layer, r);
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < c->v; k++)
        for (int64_t r = 0; r < c->rows; r++) {
            double sum = head->bias ? (double)vl_widen_at(head->bias, head->weight_dtype, (size_t)k) : 0;
            for (int64_t j = 0; j < c->d; j++)
                sum += c->normed[r * c->d + j] *
                       (double)vl_widen_at(head->weight, head->weight_dtype, (size_t)(k * c->d + j));
            c->expected[r * c->v + k] = head->softcap > 0 ? head->softcap * tanh(sum / head->softcap) : sum;
        }
}

/* KL(p || q) in nats of one row of logits; p from float64 or from float32. */
static double divergence(const double *p64, const float *p32, const float *q, int64_t v)
{
    double top_p = -INFINITY, top_q = -INFINITY, sum_p = 0, sum_q = 0, kl = 0;
    for (int64_t k = 0; k < v; k++) {
        top_p = fmax(top_p, p64 ? p64[k] : (double)p32[k]);
        top_q = fmax(top_q, (double)q[k]);
    }
    for (int64_t k = 0; k < v; k++) {
        sum_p += exp((p64 ? p64[k] : (double)p32[k]) - top_p);
        sum_q += exp((double)q[k] - top_q);
    }
    for (int64_t k = 0; k < v; k++) {
        double log_p = (p64 ? p64[k] : (double)p32[k]) - top_p - log(sum_p);
        kl += exp(log_p) * (log_p - ((double)q[k] - top_q - log(sum_q)));
    }
    return kl;
}

/* Keeps the largest; a NaN stays. */
static void note(double *worst, int64_t *where, double kl, int64_t layer)
{
    if (kl <= *worst || isnan(*worst))
        return;
    *worst = kl;
    *where = layer;
}

static void compare_layer(comparison *c, int64_t layer, bool with_other)
{
    vl_agreement *out = c->out;
    expect_logits(c, layer);
    for (int64_t r = 0; r < c->rows; r++) {
        const float *found = c->found + r * c->v;
        note(&out->worst, &out->worst_layer, divergence(c->expected + r * c->v, NULL, found, c->v), layer);
        if (!with_other)
            continue;
        double kl = divergence(NULL, c->second + r * c->v, found, c->v);
        note(&out->other_worst, &out->other_layer, kl, layer);
        out->other_mean += kl / (double)(c->rows * c->n_layers);
    }
}

static vl_status choose_adapter(vl_adapter *out, void *user, const vl_readout_cell *cell, vl_error *err)
{
    comparison *c = user;
    return vl_device_lens_adapter(out, cell->which == 0 ? c->lens : c->other, cell->state, err);
}

/* All rows are one tile. */
static vl_status on_cell(void *user, const vl_readout_cell *cell, vl_error *err)
{
    comparison *c = user;
    vl_device *device = c->args->device;
    vl_tensor logits = vl_distribution_rows(&c->q, cell->rows).logits;
    VL_TRY(vl_readout_distribution(&c->q, &c->readout, cell, c->u, false, err));
    VL_TRY(vl_device_read(device, cell->which == 0 ? c->found : c->second, &logits, err));
    if (cell->which == 0)
        VL_TRY(vl_device_read(device, c->h, &cell->h, err));
    if (cell->which == (c->other != NULL))
        compare_layer(c, cell->state, c->other != NULL);
    return VL_OK;
}

static vl_status allocate(comparison *c, vl_error *err)
{
    const vl_agree_args *args = c->args;
    size_t d = (size_t)c->d, v = (size_t)c->v;
    c->layers = vl_alloc((size_t)c->n_layers, sizeof *c->layers);
    c->h = vl_alloc(MOST_ROWS * d, sizeof *c->h);
    c->normed = vl_alloc(MOST_ROWS * d, sizeof *c->normed);
    c->expected = vl_alloc(MOST_ROWS * v, sizeof *c->expected);
    c->found = vl_alloc(MOST_ROWS * v, sizeof *c->found);
    c->second = vl_alloc(MOST_ROWS * v, sizeof *c->second);
    if (!c->layers || !c->h || !c->normed || !c->expected || !c->found || !c->second)
        return vl_fail_nomem(err, "logits");
    for (int64_t i = 0; i < c->n_layers; i++)
        c->layers[i] = i;
    VL_TRY(args->cache ? rows_of_cache(c, args->cache, err) : rows_of_model(c, args->model, err));
    vl_loader_source source = {args->cache, c->memory, c->d, c->rows, true};
    VL_TRY(vl_readout_new(&c->readout, args->head, args->device, &source, err));
    VL_TRY(vl_device_lens_new(&c->lens, args->lens, args->device, err));
    if (args->other)
        VL_TRY(vl_device_lens_new(&c->other, args->other, args->device, err));
    VL_TRY(vl_distribution_new(&c->q, args->head, c->rows, err));
    return vl_tensor_new(&c->u, args->device, VL_F32, c->rows, c->d, err);
}

static void comparison_clear(comparison *c)
{
    vl_distribution_clear(&c->q, c->args->device);
    vl_device_free(c->args->device, c->u.data);
    vl_device_lens_free(c->lens);
    vl_device_lens_free(c->other);
    vl_readout_clear(&c->readout);
    vl_rows_clear(&c->chosen);
    vl_free(c->states);
    vl_free(c->memory);
    vl_free(c->layers);
    vl_free(c->h);
    vl_free(c->normed);
    vl_free(c->expected);
    vl_free(c->found);
    vl_free(c->second);
}

vl_status vl_lens_agree(vl_agreement *out, const vl_agree_args *args, vl_error *err)
{
    vl_status status = VL_OK;
    const vl_head_info *head = vl_head_get_info(args->head);
    comparison c = {.args = args, .out = out, .n_layers = head->n_layers, .d = head->d_model, .v = head->vocab_size};
    memset(out, 0, sizeof *out);
    VL_GOTO(allocate(&c, err));
    vl_sampler sampler = vl_sampler_in_order(&c.chosen);
    vl_walk walk = {.sampler = &sampler,
                    .n_rows = c.rows,
                    .scale = 1,
                    .states = c.layers,
                    .n_states = c.n_layers,
                    .n_adapters = c.other ? 2 : 1,
                    .adapter = choose_adapter,
                    .cell = on_cell,
                    .user = &c};
    VL_GOTO(vl_readout_walk(&c.readout, &walk, err));
    out->rows = c.rows;
done:
    comparison_clear(&c);
    return status;
}
