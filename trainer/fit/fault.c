/* fault.c - layers whose loss or gradient is no finite number, or that diverge: what the reason is, and what becomes
 * of the layer. The other layers go on. */
#include <math.h>
#include <stdio.h>

#include "trainer/base/mem.h"
#include "trainer/fit/session.h"

enum { MOST_ROLLBACKS = 5, CAUSE_SIZE = 160 };

/* Twice the best loss, and so much more in nats that it is no noise on a loss near 0. */
static const double RISE = 2.0, RISE_NATS = 0.01;

void vl_fit_note_unsound(vl_fit_session *s, vl_fit_layer *layer, const vl_readout_cell *cell)
{
    const vl_cache_tokens *tokens = vl_cache_get_tokens(s->cache);
    for (int64_t r = 0; r < cell->rows && cell->n_unsound > 0; r++) {
        int64_t row = cell->sound[r] ? -1 : vl_loader_cache_row(&s->readout.loader, r);
        bool teacher = row >= 0 && s->readout.loader.sound[r];
        bool *said = teacher ? &s->said_teacher_unsound : &layer->said_unsound;
        if (row < 0 || *said)
            continue;
        *said = true;
        if (teacher)
            vl_log_say(
                &s->log, 1,
                "sample %lld, position %lld: the teacher's state in the cache is no finite number; such rows are "
                "left out",
                (long long)tokens->sample[row], (long long)tokens->position[row]);
        else
            vl_log_say(&s->log, 1,
                       "layer %lld: sample %lld, position %lld: its state in the cache is no finite number; such rows "
                       "are left out",
                       (long long)layer->index, (long long)tokens->sample[row], (long long)tokens->position[row]);
    }
}

void vl_fit_note_bad_row(const vl_fit_session *s, vl_fit_layer *layer, const vl_readout_cell *cell)
{
    if (layer->bad_row >= 0)
        return;
    for (int64_t r = 0; r < cell->rows; r++)
        if (cell->sound[r] && !isfinite(s->objective.host_loss[r])) {
            layer->bad_row = vl_loader_cache_row(&s->readout.loader, r);
            return;
        }
}

static vl_status state_is_finite(bool *out, vl_fit_session *s, int64_t state, int64_t row, vl_error *err)
{
    float *values = vl_alloc((size_t)s->d_model, sizeof *values);
    if (!values)
        return vl_fail_nomem(err, "a row of states");
    vl_status status = vl_loader_fetch(values, &s->readout.loader, state, &row, 1, err);
    *out = true;
    for (int64_t i = 0; status == VL_OK && i < s->d_model; i++)
        *out = *out && isfinite(values[i]);
    vl_free(values);
    return status;
}

/* Says which row it was. *data: the cache is at fault, not the descent. */
static vl_status find_cause(char cause[CAUSE_SIZE], bool *data, vl_fit_session *s, const vl_fit_layer *layer,
                            vl_error *err)
{
    bool state = true, teacher = true;
    *data = false;
    snprintf(cause, CAUSE_SIZE, layer->step_rows ? "no row by itself" : "no row of the step holds finite numbers");
    if (layer->bad_row < 0)
        return VL_OK;
    VL_TRY(state_is_finite(&state, s, layer->index, layer->bad_row, err));
    VL_TRY(state_is_finite(&teacher, s, s->n_layers, layer->bad_row, err));
    *data = !state || !teacher;
    const vl_cache_tokens *tokens = vl_cache_get_tokens(s->cache);
    snprintf(cause, CAUSE_SIZE, "sample %lld, position %lld%s", (long long)tokens->sample[layer->bad_row],
             (long long)tokens->position[layer->bad_row],
             !state     ? ": its state in the cache is no finite number"
             : !teacher ? ": the teacher's state in the cache is no finite number"
                        : "");
    return VL_OK;
}

/* Back to the best parameters, with a quarter of the rate. */
static vl_status go_back(vl_fit_session *s, vl_fit_layer *layer, const char *why, vl_error *err)
{
    vl_fit_progress *n = &layer->progress;
    VL_TRY(vl_fit_roll_back(s, layer, err));
    n->weight_rate *= 0.25;
    n->bias_rate *= 0.25;
    n->rollbacks++;
    n->restart_step = s->step;
    vl_log_say(&s->log, 1,
               "layer %lld: %s at step %lld; it goes on from step %lld (loss %.4f) with a quarter of the rate",
               (long long)layer->index, why, (long long)s->step, (long long)n->best_step, n->best_loss);
    return VL_OK;
}

static bool can_go_back(const vl_fit_layer *layer)
{
    return layer->best.bias.data && isfinite(layer->progress.best_loss) && layer->progress.rollbacks < MOST_ROLLBACKS;
}

static void stop(vl_fit_session *s, vl_fit_layer *layer, const char *why, const char *cause)
{
    layer->progress.stopped_step = s->step;
    layer->progress.phase = VL_FIT_STOPPED;
    vl_log_say(&s->log, 1,
               "layer %lld: %s at step %lld (%s); it stops at its last good parameters, the other layers go on",
               (long long)layer->index, why, (long long)s->step, cause);
}

vl_status vl_fit_handle_bad_step(vl_fit_session *s, vl_fit_layer *layer, double norm, vl_error *err)
{
    char cause[CAUSE_SIZE], why[100];
    bool data;
    VL_TRY(find_cause(cause, &data, s, layer, err));
    snprintf(why, sizeof why, "loss %g and gradient norm %g", layer->step_loss, norm);
    if (!data && can_go_back(layer))
        return go_back(s, layer, why, err);
    stop(s, layer, why, cause);
    return VL_OK;
}

vl_status vl_fit_handle_score(bool *usable, vl_fit_session *s, vl_fit_layer *layer, double loss, vl_error *err)
{
    vl_fit_progress *n = &layer->progress;
    char cause[CAUSE_SIZE], why[100];
    bool data = false, has_best = isfinite(n->best_loss);
    *usable = isfinite(loss);
    if (!isfinite(loss))
        VL_TRY(find_cause(cause, &data, s, layer, err));
    if (!isfinite(loss) && (data || !has_best)) {
        if (s->step == 0)
            vl_log_say(&s->log, 1, "layer %lld: validation loss %g (%s): nothing can be chosen by it",
                       (long long)layer->index, loss, cause);
        return VL_OK;
    }
    bool diverged = has_best && !(loss <= n->start_loss) && !(loss <= RISE * n->best_loss + RISE_NATS);
    if (!diverged || s->step == s->plan.steps)
        return VL_OK;
    *usable = false;
    snprintf(why, sizeof why, "validation loss %.4f", loss);
    if (can_go_back(layer))
        return go_back(s, layer, why, err);
    snprintf(cause, sizeof cause, "it diverged %d times", MOST_ROLLBACKS + 1);
    stop(s, layer, why, cause);
    return VL_OK;
}
