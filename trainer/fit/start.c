/* start.c - where the descent starts: the closed form, the mean difference, or the logit lens. */
#include <math.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/fit/ridge.h"
#include "trainer/fit/session.h"

/* Lambda where nothing can be chosen, and where the search begins: losses are flat from 1e-5 to 1e-3 when there are
 * many more rows than columns, and the search goes up when there are not. */
static const double FIRST_LAMBDA = 1e-3, LEAST_LAMBDA = 1e-5, MOST_LAMBDA = 1e2;

/* A solution on the host. */
typedef struct candidate {
    float *weight, *bias;
    double lambda, loss;
} candidate;

typedef struct search {
    vl_fit_session *session;
    vl_fit_layer *layer;
    const vl_moments *moments;
    candidate best, next;
} search;

static vl_status candidate_new(candidate *c, int64_t d, bool matrix, vl_error *err)
{
    c->weight = matrix ? vl_alloc_aligned((size_t)d * (size_t)d, sizeof(float)) : NULL;
    c->bias = vl_alloc_aligned((size_t)d, sizeof(float));
    return (matrix && !c->weight) || !c->bias ? vl_fail_nomem(err, "closed-form start") : VL_OK;
}

static vl_status upload(vl_fit_session *s, vl_fit_layer *layer, const candidate *c, vl_error *err)
{
    if (layer->adapter.weight.data && c->weight)
        VL_TRY(vl_device_write(s->device, &layer->adapter.weight, c->weight, err));
    return vl_device_write(s->device, &layer->adapter.bias, c->bias, err);
}

/* s->next.loss: NaN without a validation part. */
static vl_status score_next(search *s, vl_error *err)
{
    vl_fit_score score;
    s->next.loss = NAN;
    if (s->session->plan.probe.n_rows == 0)
        return VL_OK;
    VL_TRY(upload(s->session, s->layer, &s->next, err));
    VL_TRY(vl_fit_score_layers(&score, s->session, &s->layer, 1, &s->session->plan.probe, err));
    s->next.loss = score.loss;
    return VL_OK;
}

/* Solves with `lambda` into s->next and scores it. */
static vl_status try_lambda(search *s, double lambda, vl_error *err)
{
    double used = lambda;
    VL_TRY(vl_moments_solve(s->next.weight, s->next.bias, s->moments, &used, err));
    if (used > lambda)
        vl_log_say(&s->session->log, 1, "layer %lld: second moments are singular at lambda %g, took %g",
                   (long long)s->layer->index, lambda, used);
    s->next.lambda = used;
    return score_next(s, err);
}

/* The logit lens: nothing says that least squares must beat it, and in late layers it may not. */
static vl_status try_nothing(search *s, vl_error *err)
{
    size_t d = (size_t)s->session->d_model;
    memset(s->next.weight, 0, d * d * sizeof(float));
    memset(s->next.bias, 0, d * sizeof(float));
    s->next.lambda = INFINITY;
    return score_next(s, err);
}

/* Takes the next candidate where it is better; false: the last step made things worse. */
static bool improve(search *s)
{
    if (!(s->next.loss < s->best.loss) && isfinite(s->best.loss))
        return false;
    candidate swap = s->best;
    s->best = s->next;
    s->next = swap;
    return true;
}

/* Lambda by the validation objective, in decades from the middle outwards: the loss has one minimum in lambda. */
static vl_status search_lambda(search *s, vl_error *err)
{
    double given = s->session->config->lens.ridge;
    s->best.loss = NAN;
    VL_TRY(try_lambda(s, given > 0 ? given : FIRST_LAMBDA, err));
    improve(s);
    if (given > 0 || !isfinite(s->best.loss))
        return VL_OK;
    bool smaller = false;
    double lambda = FIRST_LAMBDA / 10;
    while (lambda >= LEAST_LAMBDA * 0.99) {
        VL_TRY(try_lambda(s, lambda, err));
        if (s->next.lambda > lambda * 1.01 || !improve(s))
            break;
        smaller = true;
        lambda /= 10;
    }
    lambda = FIRST_LAMBDA * 10;
    while (!smaller && lambda <= MOST_LAMBDA * 1.01) {
        VL_TRY(try_lambda(s, lambda, err));
        if (!improve(s))
            break;
        lambda *= 10;
    }
    VL_TRY(try_nothing(s, err));
    improve(s);
    return VL_OK;
}

static void set_rates(const vl_fit_session *s, vl_fit_layer *layer, double spread, double unexplained)
{
    vl_optimizer_rates rates = vl_optimizer_rates_of(&s->optimizer.rule, spread, unexplained);
    layer->progress.weight_rate = rates.weight;
    layer->progress.bias_rate = rates.bias;
}

/* The start of one layer, and from the same sums its learning rates. */
static vl_status closed_form(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    bool matrix = s->config->lens.kind == VL_LENS_AFFINE && s->config->lens.init == VL_INIT_RIDGE;
    vl_status status = VL_OK;
    vl_moments moments = {.d = 0};
    search work = {.session = s, .layer = layer, .moments = &moments};
    VL_GOTO(candidate_new(&work.best, s->d_model, matrix, err));
    VL_GOTO(candidate_new(&work.next, s->d_model, matrix, err));
    vl_moments_args sums = {layer->index, s->n_layers, matrix};
    VL_GOTO(vl_moments_collect(&moments, &s->readout, &s->plan.train, &sums, err));
    if (!(moments.weight > 0) && moments.unsound > 0) {
        set_rates(s, layer, 1.0, 1.0); /* its first step will say that there is nothing to fit on */
        goto done;
    }
    if (matrix) {
        VL_GOTO(search_lambda(&work, err));
        layer->progress.ridge = work.best.lambda;
    } else {
        VL_GOTO(vl_moments_solve(NULL, work.best.bias, &moments, &work.best.lambda, err));
    }
    set_rates(s, layer, vl_moments_spread(&moments),
              vl_moments_unexplained(isfinite(work.best.lambda) ? work.best.weight : NULL, &moments, work.best.lambda));
    if (s->config->lens.init != VL_INIT_ZERO)
        VL_GOTO(upload(s, layer, &work.best, err));
done:
    vl_moments_clear(&moments);
    vl_free(work.best.weight);
    vl_free(work.best.bias);
    vl_free(work.next.weight);
    vl_free(work.next.bias);
    return status == VL_OK ? VL_OK : vl_error_prefix(err, status, "layer %lld: ", (long long)layer->index);
}

vl_status vl_fit_start(vl_fit_session *s, vl_error *err)
{
    int64_t n;
    vl_fit_layer *layers = vl_fit_in_flight(s, &n);
    vl_progress outer = s->log.progress;
    bool needed = s->config->lens.init != VL_INIT_ZERO || s->config->fit.optimizer != VL_OPTIMIZER_SGD;
    s->log.progress = (vl_progress){.stage = "ridge", .unit = "layers", .total = n, .kl = NAN};
    for (int64_t i = 0; i < n; i++, s->log.progress.done++) {
        double began = vl_clock();
        if (layers[i].progress.phase != VL_FIT_NEW)
            continue;
        if (needed && vl_fit_is_root(s))
            VL_TRY(closed_form(s, &layers[i], err));
        else
            set_rates(s, &layers[i], 1.0, 1.0);
        layers[i].progress.phase = VL_FIT_RUNNING;
        VL_TRY(vl_fit_follow(s, &layers[i], true, err));
        layers[i].progress.seconds += vl_clock() - began;
        VL_TRY(vl_fit_checkpoint_if_due(s, false, err));
    }
    vl_status status = needed ? vl_log_poll(&s->log, err) : VL_OK;
    s->log.progress = outer;
    return status;
}
