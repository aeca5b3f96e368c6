/* validate.c - the objective on the rows that are set aside, to choose by. The held-out split is never looked at. */
#include <math.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/fit/session.h"

/* Adds the tile's losses of one layer to sums [VL_CLASS_COUNT]. */
static vl_status score_tile(double *sums, vl_fit_session *s, vl_fit_layer *layer, int64_t next, vl_error *err)
{
    vl_objective_tile tile = {.targets = vl_feeder_targets(&s->feeder)};
    VL_TRY(vl_feeder_load(&tile.h, &s->feeder, layer->index, next, err));
    VL_TRY(vl_objective_layer(&s->objective, &tile, &layer->adapter, NULL, err));
    for (int64_t r = 0; r < s->feeder.rows; r++)
        sums[s->feeder.token_class[r]] += (double)s->objective.host_loss[r];
    vl_fit_note_bad_row(s, layer);
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

vl_status vl_fit_load_teacher(vl_fit_session *s, const vl_part *whole, int64_t next, vl_error *err)
{
    vl_tensor teacher;
    if (!vl_objective_needs_teacher(&s->objective) || (whole && s->teacher_of == whole))
        return VL_OK;
    s->teacher_of = NULL;
    VL_TRY(vl_feeder_load(&teacher, &s->feeder, s->n_layers, next, err));
    VL_TRY(vl_objective_teacher(&s->objective, teacher, err));
    s->teacher_of = whole;
    return VL_OK;
}

vl_status vl_fit_score_layers(vl_fit_score *out, vl_fit_session *s, vl_fit_layer *const *layers, int64_t n,
                              const vl_part *part, vl_error *err)
{
    vl_sampler sampler = vl_sampler_in_order(part);
    double rows[VL_CLASS_COUNT] = {0};
    memset(out, 0, (size_t)n * sizeof *out);
    for (int64_t i = 0; i < n; i++)
        layers[i]->bad_row = -1;
    for (int64_t done = 0; done < part->n_rows && n > 0; done += s->feeder.rows) {
        VL_TRY(vl_feeder_next(&s->feeder, &sampler, part->n_rows, 1.0, err));
        VL_TRY(vl_fit_load_teacher(s, s->feeder.rows == part->n_rows ? part : NULL, layers[0]->index, err));
        for (int64_t r = 0; r < s->feeder.rows; r++)
            rows[s->feeder.token_class[r]]++;
        for (int64_t i = 0; i < n; i++)
            VL_TRY(
                score_tile(out[i].by_class, s, layers[i], i + 1 < n ? layers[i + 1]->index : VL_FEEDER_NEXT_TILE, err));
    }
    for (int64_t i = 0; i < n; i++)
        finish(&out[i], rows, s->config->lens.class_weights);
    return VL_OK;
}

static vl_status note(vl_fit_session *s, vl_fit_layer *layer, const vl_fit_score *score, vl_error *err)
{
    vl_fit_numbers *numbers = &layer->numbers;
    numbers->last_loss = score->loss;
    if (s->step == 0)
        numbers->start_loss = score->loss;
    bool usable;
    VL_TRY(vl_fit_handle_score(&usable, s, layer, score->loss, err));
    if (!layer->best.bias.data) {
        memcpy(numbers->class_loss, score->by_class, sizeof numbers->class_loss);
        return VL_OK;
    }
    if (!usable || numbers->best_loss <= score->loss)
        return VL_OK;
    numbers->best_loss = score->loss;
    numbers->best_step = (double)s->step;
    memcpy(numbers->class_loss, score->by_class, sizeof numbers->class_loss);
    return vl_fit_remember_best(s, layer, err);
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
        layers[i]->numbers.seconds += (vl_clock() - began) / (double)n;
        VL_GOTO(note(s, layers[i], &scores[i], err));
        layers[i]->numbers.validated = (double)s->step;
    }
done:
    vl_free(scores);
    return status;
}

vl_status vl_fit_validate(vl_fit_session *s, vl_error *err)
{
    int64_t n, due = 0;
    vl_fit_layer *layers = vl_fit_group(s, &n), **chosen = vl_alloc((size_t)n + 1, sizeof *chosen);
    if (!chosen)
        return vl_fail_nomem(err, "validation");
    for (int64_t i = 0; i < n; i++)
        if (vl_fit_is_due(s, &layers[i]) && (int64_t)layers[i].numbers.validated != s->step)
            chosen[due++] = &layers[i];
    vl_status status = due > 0 ? validate(s, chosen, due, err) : VL_OK;
    vl_free(chosen);
    return status;
}
