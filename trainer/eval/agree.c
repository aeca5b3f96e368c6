/* agree.c - logits of a lens computed twice: on the device as everywhere, and from the numbers of its file in float64
 * by the plainest loops; and, where there is another lens, with that one. */
#include <math.h>
#include <string.h>

#include <vlens/lens.h>

#include "kernels/ops.h"
#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/model/head.h"

enum { MOST_ROWS = 8 };

typedef struct comparison {
    const vl_agree_args *args;
    vl_agreement *out;
    int64_t rows, n_states, d, v;
    float *states;          /* [L + 1, MOST_ROWS, D] */
    double *normed;         /* [MOST_ROWS, D] what the unembedding reads, float64 */
    double *expected;       /* [MOST_ROWS, V] */
    float *found, *other;   /* [MOST_ROWS, V] */
    vl_tensor h, u, logits; /* on the device */
} comparison;

static double number(const void *data, vl_dtype dtype, int64_t i)
{
    if (dtype == VL_F32)
        return (double)((const float *)data)[i];
    uint16_t bits;
    memcpy(&bits, (const char *)data + 2 * i, sizeof bits); /* a mapped file: any alignment */
    return (double)(dtype == VL_BF16 ? vl_bf16_to_f32(bits) : vl_f16_to_f32(bits));
}

/* ---- rows -------------------------------------------------------------------------------------------------- */

/* Rows spread evenly over the cache, of every state. */
static vl_status rows_of_cache(comparison *c, vl_cache *cache, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    c->rows = info->n_tokens < MOST_ROWS ? info->n_tokens : MOST_ROWS;
    void *stored = vl_alloc((size_t)c->d, vl_dtype_size(info->dtype));
    if (!stored)
        return vl_fail_nomem(err, "rows");
    vl_status status = VL_OK;
    for (int64_t state = 0; state < c->n_states; state++)
        for (int64_t r = 0; r < c->rows; r++) {
            VL_GOTO(vl_cache_read(stored, cache, state, (2 * r + 1) * info->n_tokens / (2 * c->rows), 1, err));
            float *to = c->states + (state * MOST_ROWS + r) * c->d;
            for (int64_t j = 0; j < c->d; j++)
                to[j] = (float)number(stored, info->dtype, j);
        }
done:
    vl_free(stored);
    return status;
}

static int on_tap(void *user, const vl_tap *tap)
{
    comparison *c = user;
    vl_tensor last = vl_tensor_rows(tap->x, tap->x.shape[0] - c->rows, c->rows);
    return vl_device_read(c->args->device, c->states + tap->state * MOST_ROWS * c->d, &last, NULL) != VL_OK;
}

/* The last rows of one sentence. */
static vl_status rows_of_model(comparison *c, vl_model *model, vl_error *err)
{
    vl_sequence *sequence;
    vl_prompt prompt = {.text = "A lens reads what a layer knows before the model says it.", .raw = true};
    VL_TRY(vl_model_encode(&sequence, model, &prompt, err));
    c->rows = sequence->n_tokens < MOST_ROWS ? sequence->n_tokens : MOST_ROWS;
    const vl_sequence *const all[] = {sequence};
    vl_status status =
        vl_model_forward(model, &(vl_forward){.sequences = all, .n_sequences = 1, .tap = on_tap, .user = c}, err);
    vl_sequence_free(sequence);
    return status;
}

/* ---- logits ------------------------------------------------------------------------------------------------ */

/* y = h + A h + b, then the norm, of row r. */
static void adapt_and_norm(const comparison *c, const vl_head_source *head, int64_t layer, int64_t r)
{
    const float *h = c->states + (layer * MOST_ROWS + r) * c->d;
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
    double scale = 1 / sqrt(squares / (double)c->d + head->eps);
    for (int64_t i = 0; i < c->d; i++)
        y[i] = (y[i] - mean) * scale * number(head->norm_weight, head->norm_dtype, i) +
               (head->norm_bias ? number(head->norm_bias, head->norm_dtype, i) : 0);
}

static void expect_logits(const comparison *c, int64_t layer)
{
    const vl_head_source *head = vl_head_get_source(c->args->head);
    for (int64_t r = 0; r < c->rows; r++)
        adapt_and_norm(c, head, layer, r);
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < c->v; k++)
        for (int64_t r = 0; r < c->rows; r++) {
            double sum = head->bias ? number(head->bias, head->weight_dtype, k) : 0;
            for (int64_t j = 0; j < c->d; j++)
                sum += c->normed[r * c->d + j] * number(head->weight, head->weight_dtype, k * c->d + j);
            c->expected[r * c->v + k] = sum;
        }
}

static vl_status device_logits(float *out, comparison *c, vl_lens *lens, int64_t layer, vl_error *err)
{
    vl_device *device = c->args->device;
    vl_tensor h = vl_tensor_rows(c->h, 0, c->rows), u = vl_tensor_rows(c->u, 0, c->rows);
    vl_tensor logits = vl_tensor_rows(c->logits, 0, c->rows);
    VL_TRY(vl_device_write(device, &h, c->states + layer * MOST_ROWS * c->d, err));
    VL_TRY(vl_lens_transform(lens, device, layer, u, h, err));
    VL_TRY(vl_head_logits(c->args->head, logits, u, err));
    return vl_device_read(device, out, &logits, err);
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

static vl_status compare_layer(comparison *c, int64_t layer, vl_error *err)
{
    vl_agreement *out = c->out;
    expect_logits(c, layer);
    VL_TRY(device_logits(c->found, c, c->args->lens, layer, err));
    if (c->args->other)
        VL_TRY(device_logits(c->other, c, c->args->other, layer, err));
    for (int64_t r = 0; r < c->rows; r++) {
        const float *found = c->found + r * c->v;
        note(&out->worst, &out->worst_layer, divergence(c->expected + r * c->v, NULL, found, c->v), layer);
        if (!c->args->other)
            continue;
        double kl = divergence(NULL, c->other + r * c->v, found, c->v);
        note(&out->other_worst, &out->other_layer, kl, layer);
        out->other_mean += kl / (double)(c->rows * (c->n_states - 1));
    }
    return VL_OK;
}

static vl_status allocate(comparison *c, vl_error *err)
{
    size_t d = (size_t)c->d, v = (size_t)c->v;
    vl_device *device = c->args->device;
    c->states = vl_calloc((size_t)c->n_states * MOST_ROWS * d, sizeof *c->states);
    c->normed = vl_alloc(MOST_ROWS * d, sizeof *c->normed);
    c->expected = vl_alloc(MOST_ROWS * v, sizeof *c->expected);
    c->found = vl_alloc(MOST_ROWS * v, sizeof *c->found);
    c->other = vl_alloc(MOST_ROWS * v, sizeof *c->other);
    if (!c->states || !c->normed || !c->expected || !c->found || !c->other)
        return vl_fail_nomem(err, "logits");
    VL_TRY(vl_tensor_new(&c->h, device, VL_F32, MOST_ROWS, c->d, err));
    VL_TRY(vl_tensor_new(&c->u, device, VL_F32, MOST_ROWS, c->d, err));
    return vl_tensor_new(&c->logits, device, VL_F32, MOST_ROWS, c->v, err);
}

vl_status vl_lens_agree(vl_agreement *out, const vl_agree_args *args, vl_error *err)
{
    vl_status status = VL_OK;
    const vl_head_info *head = vl_head_get_info(args->head);
    comparison c = {
        .args = args, .out = out, .n_states = head->n_layers + 1, .d = head->d_model, .v = head->vocab_size};
    memset(out, 0, sizeof *out);
    VL_GOTO(allocate(&c, err));
    VL_GOTO(args->cache ? rows_of_cache(&c, args->cache, err) : rows_of_model(&c, args->model, err));
    for (int64_t i = 0; i < head->n_layers; i++)
        VL_GOTO(compare_layer(&c, i, err));
    out->rows = c.rows;
done:
    vl_device_free(args->device, c.h.data);
    vl_device_free(args->device, c.u.data);
    vl_device_free(args->device, c.logits.data);
    vl_free(c.states);
    vl_free(c.normed);
    vl_free(c.expected);
    vl_free(c.found);
    vl_free(c.other);
    return status;
}
