/* validate.c - the objective on the rows that are set aside, to choose by. The held-out split is never looked at. */
#include <math.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/fit/session.h"

/* Ten times a run, or as often as it costs a tenth of a short run: a row that is looked at costs half of one that is
 * trained on, which also has its way back. */
static int64_t validate_every(const vl_fit_session *s)
{
    const vl_plan *p = &s->plan;
    int64_t often = p->steps / 10, cheap = 10 * p->validation.n_rows / (2 * p->tokens_per_step);
    int64_t every = often > cheap ? often : cheap < p->steps ? cheap : p->steps;
    if (s->config->fit.validate_every > 0)
        every = s->config->fit.validate_every;
    return every > 0 ? every : 1;
}

bool vl_fit_validation_is_due(const vl_fit_session *s)
{
    int64_t every = validate_every(s);
    return s->plan.validation.n_rows > 0 && (s->step == s->plan.steps || s->step % every == 0);
}

typedef struct scoring {
    vl_fit_session *session;
    vl_fit_layer *const *layers;    /* [n] */
    vl_fit_score *out;              /* [n] sums of losses by class, on the way */
    double (*rows)[VL_CLASS_COUNT]; /* [n] rows that count */
} scoring;

static vl_status choose_adapter(vl_adapter *out, void *user, const vl_readout_cell *cell, vl_error *err)
{
    (void)err;
    *out = ((scoring *)user)->layers[cell->index]->adapter;
    return VL_OK;
}

static vl_status on_cell(void *user, const vl_readout_cell *cell, vl_error *err)
{
    scoring *work = user;
    vl_fit_session *s = work->session;
    vl_objective_tile tile = {.h = cell->h, .targets = vl_loader_targets(&s->readout.loader)};
    VL_TRY(vl_objective_layer(&s->objective, &tile, &cell->adapter, NULL, err));
    for (int64_t r = 0; r < cell->rows; r++)
        if (cell->sound[r]) {
            work->out[cell->index].by_class[s->readout.loader.token_class[r]] += (double)s->objective.host_loss[r];
            work->rows[cell->index][s->readout.loader.token_class[r]]++;
        }
    vl_fit_note_unsound(s, work->layers[cell->index], cell);
    vl_fit_note_bad_row(s, work->layers[cell->index], cell);
    return VL_OK;
}

/* Means by class, and of the classes with their weights, over the rows that were looked at. */
static void finish(vl_fit_score *score, const double *rows, const double *weights)
{
    double sum = 0, total = 0;
    for (int c = 0; c < VL_CLASS_COUNT; c++) {
        score->by_class[c] = rows[c] > 0 ? score->by_class[c] / rows[c] : (double)NAN;
        if (!(rows[c] > 0))
            continue;
        sum += weights[c] * score->by_class[c];
        total += weights[c];
    }
    score->loss = total > 0 ? sum / total : (double)NAN;
}

vl_status vl_fit_score_layers(vl_fit_score *out, vl_fit_session *s, vl_fit_layer *const *layers, int64_t n,
                              const vl_rows *rows, vl_error *err)
{
    vl_sampler sampler = vl_sampler_in_order(rows);
    scoring work = {.session = s, .layers = layers, .out = out};
    int64_t *states = vl_alloc((size_t)n + 1, sizeof *states);
    work.rows = vl_calloc((size_t)n + 1, sizeof *work.rows);
    if (!states || !work.rows) {
        vl_free(states);
        vl_free(work.rows);
        return vl_fail_nomem(err, "validation");
    }
    memset(out, 0, (size_t)n * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        layers[i]->bad_row = -1;
        states[i] = layers[i]->index;
    }
    vl_walk walk = {.sampler = &sampler,
                    .n_rows = rows->n_rows,
                    .scale = 1.0,
                    .states = states,
                    .n_states = n,
                    .teacher = vl_objective_needs_teacher(&s->objective) ? &s->objective.teacher : NULL,
                    .teacher_state = s->n_layers,
                    .adapter = choose_adapter,
                    .cell = on_cell,
                    .user = &work};
    vl_status status = vl_readout_walk(&s->readout, &walk, err);
    for (int64_t i = 0; i < n; i++)
        finish(&out[i], work.rows[i], s->config->lens.class_weights);
    vl_free(states);
    vl_free(work.rows);
    return status;
}

static vl_status note(vl_fit_session *s, vl_fit_layer *layer, const vl_fit_score *score, vl_error *err)
{
    vl_fit_progress *progress = &layer->progress;
    progress->last_loss = score->loss;
    if (s->step == 0)
        progress->start_loss = score->loss;
    bool usable;
    VL_TRY(vl_fit_handle_score(&usable, s, layer, score->loss, err));
    if (!layer->best.bias.data) {
        memcpy(progress->class_loss, score->by_class, sizeof progress->class_loss);
        return VL_OK;
    }
    if (!usable || progress->best_loss <= score->loss)
        return VL_OK;
    progress->best_loss = score->loss;
    progress->best_step = s->step;
    memcpy(progress->class_loss, score->by_class, sizeof progress->class_loss);
    return vl_fit_keep_best(s, layer, err);
}

/* Scores layers [n] and notes what came out. */
static vl_status validate(vl_fit_session *s, vl_fit_layer *const *layers, int64_t n, vl_error *err)
{
    vl_status status = VL_OK;
    vl_fit_score *scores = vl_alloc((size_t)n, sizeof *scores);
    if (!scores)
        return vl_fail_nomem(err, "validation");
    double began = vl_clock();
    VL_GOTO(vl_fit_score_layers(scores, s, layers, n, &s->plan.validation, err));
    for (int64_t i = 0; i < n; i++) {
        layers[i]->progress.seconds += (vl_clock() - began) / (double)n;
        VL_GOTO(note(s, layers[i], &scores[i], err));
        layers[i]->progress.validated = s->step;
    }
done:
    vl_free(scores);
    return status;
}

vl_status vl_fit_validate(vl_fit_session *s, vl_error *err)
{
    int64_t n, due = 0;
    vl_fit_layer *layers = vl_fit_in_flight(s, &n), **chosen = vl_alloc((size_t)n + 1, sizeof *chosen);
    if (!chosen)
        return vl_fail_nomem(err, "validation");
    for (int64_t i = 0; i < n; i++)
        if (vl_fit_is_due(s, &layers[i]) && layers[i].progress.validated != s->step)
            chosen[due++] = &layers[i];
    vl_status status = due > 0 ? validate(s, chosen, due, err) : VL_OK;
    vl_free(chosen);
    return status;
}
