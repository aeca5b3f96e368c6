/* step.c - one optimiser step of all layers in flight.
 *
 * The walk (readout/readout.h) has tiles outside and layers inside: the teacher's logits are the dearest thing that the
 * layers have in common, and are made once for all of them. Gradients of the tiles of a step add up.
 *
 * Nothing is read before the step is over: losses and norms, the clipping and whether a layer may move at all stay on
 * the device, so that its queue never runs dry. */
#include <math.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/fit/session.h"

typedef struct step {
    vl_fit_session *session;
    vl_fit_layer **layers; /* [n] those that take part */
    int64_t n;
    int64_t *states; /* [n] */
    bool at_once;    /* a step is one tile: each layer moves as soon as it has been seen */
} step;

static int64_t slot_of(const vl_fit_session *s, const vl_fit_layer *layer)
{
    int64_t n;
    return layer - vl_fit_in_flight(s, &n);
}

static vl_status update(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    int64_t slot = slot_of(s, layer);
    vl_step_scale_args scale = {.scale = vl_fit_watch_scales(s, slot),
                                .norm = vl_fit_watch_seen(s, slot, VL_WATCH_NORM, 1),
                                .gradient = layer->gradient.bias,
                                .another = layer->gradient.weight,
                                .loss = vl_fit_watch_seen(s, slot, VL_WATCH_LOSS, 1),
                                .clip = s->optimizer.rule.clip};
    VL_TRY(vl_op_step_scale(s->device, &scale, err));
    vl_optimizer_move move = {.step = s->step, .age = s->step - layer->progress.restart_step, .scale = scale.scale};
    if (layer->adapter.weight.data) {
        move.parameter = layer->adapter.weight;
        move.gradient = layer->gradient.weight;
        move.state = &layer->weight_state;
        move.rate = layer->progress.weight_rate;
        VL_TRY(vl_optimizer_step(&s->optimizer, &move, err));
    }
    move.parameter = layer->adapter.bias;
    move.gradient = layer->gradient.bias;
    move.state = &layer->bias_state;
    move.rate = layer->progress.bias_rate;
    return vl_optimizer_step(&s->optimizer, &move, err);
}

/* Where others share the layer: the sums of gradient and loss, by way of the host. */
static vl_status add_up(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    if (s->share.size == 1)
        return VL_OK;
    vl_tensor loss = vl_fit_watch_seen(s, slot_of(s, layer), VL_WATCH_LOSS, 1);
    VL_TRY(vl_device_read(s->device, &layer->step_loss, &loss, err));
    VL_TRY(vl_fit_add_gradients(s, layer, err));
    return vl_device_write(s->device, &loss, &layer->step_loss, err);
}

/* What ends a step of a layer: its gradient is whole, and it moves, unless its numbers forbid it. */
static vl_status finish_layer(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    double began = vl_clock();
    VL_TRY(add_up(s, layer, err));
    VL_TRY(update(s, layer, err));
    layer->progress.seconds += vl_clock() - began;
    return VL_OK;
}

/* What has come of it. */
static vl_status judge_layer(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    const double *seen = s->watch.host + slot_of(s, layer) * VL_WATCH_COLUMNS;
    layer->step_loss = seen[VL_WATCH_LOSS];
    if (layer->step_rows == 0 && s->share.size == 1)
        layer->step_loss = NAN; /* not a row of the step counts */
    if (isfinite(seen[VL_WATCH_NORM]) && isfinite(layer->step_loss)) {
        layer->history[s->step] = layer->step_loss;
        layer->progress.steps++;
    } else if (vl_fit_is_root(s)) {
        if (seen[VL_WATCH_BAD_ROW] >= 0)
            layer->bad_row = s->watch.rows[(int64_t)seen[VL_WATCH_BAD_ROW]];
        VL_TRY(vl_fit_handle_bad_step(s, layer, seen[VL_WATCH_NORM], err));
    }
    layer->progress.position = s->step + 1;
    return vl_fit_follow(s, layer, false, err);
}

/* The only time in a step that anybody waits for the device. */
static vl_status judge(const step *work, vl_error *err)
{
    vl_fit_session *s = work->session;
    double began = vl_clock();
    VL_TRY(vl_device_read(s->device, s->watch.host, &s->watch.seen, err));
    for (int64_t i = 0; i < work->n; i++)
        work->layers[i]->progress.seconds += (vl_clock() - began) / (double)work->n;
    for (int64_t i = 0; i < work->n; i++)
        VL_TRY(judge_layer(s, work->layers[i], err));
    return VL_OK;
}

/* Which rows these are, for the one that turns out to be bad. */
static vl_status note_rows(void *user, int64_t first, int64_t rows, vl_error *err)
{
    vl_fit_session *s = ((step *)user)->session;
    const vl_loader *loader = &s->readout.loader;
    int64_t *out = s->watch.rows + first;
    (void)rows;
    (void)err;
    for (int64_t p = 0; p < loader->n_pieces; p++)
        for (int64_t k = 0; k < loader->pieces[p].n; k++)
            *out++ = loader->pieces[p].first + k;
    return VL_OK;
}

static vl_status choose_adapter(vl_adapter *out, void *user, const vl_readout_cell *cell, vl_error *err)
{
    (void)err;
    *out = ((step *)user)->layers[cell->index]->adapter;
    return VL_OK;
}

/* One layer on one tile. The first tile overwrites the gradient. Nothing is cancelled between the layers of a tile. */
static vl_status on_cell(void *user, const vl_readout_cell *cell, vl_error *err)
{
    step *work = user;
    vl_fit_session *s = work->session;
    vl_fit_layer *layer = work->layers[cell->index];
    const vl_loader *loader = &s->readout.loader;
    vl_objective_tile tile = {cell->h, vl_loader_row_weight(loader), vl_loader_targets(loader), true};
    double began = vl_clock();
    layer->gradient.fresh = cell->first == 0;
    VL_TRY(vl_objective_layer(&s->objective, &tile, &cell->adapter, &layer->gradient, err));
    vl_loss_total_args total = {.total = vl_fit_watch_seen(s, slot_of(s, layer), VL_WATCH_LOSS, 2),
                                .loss = vl_tensor_1d(s->objective.loss.data, VL_F32, cell->rows),
                                .weight = tile.row_weight,
                                .first_row = cell->first,
                                .fresh = cell->first == 0};
    VL_TRY(vl_op_loss_total(s->device, &total, err));
    layer->step_rows += cell->rows - cell->n_unsound;
    vl_fit_note_unsound(s, layer, cell);
    layer->progress.seconds += vl_clock() - began;
    return work->at_once ? finish_layer(s, layer, err) : VL_OK;
}

/* The layers that take part, ready for a new gradient: zero where this process has no rows of the step. */
static vl_status choose_layers(step *work, bool has_rows, vl_error *err)
{
    vl_fit_session *s = work->session;
    int64_t n;
    vl_fit_layer *layers = vl_fit_in_flight(s, &n);
    if (!has_rows)
        VL_TRY(vl_fit_watch_reset(s, err));
    work->layers = vl_alloc((size_t)n + 1, sizeof *work->layers);
    work->states = vl_alloc((size_t)n + 1, sizeof *work->states);
    if (!work->layers || !work->states)
        return vl_fail_nomem(err, "layers of a step");
    for (int64_t i = 0; i < n; i++) {
        layers[i].step_loss = 0;
        layers[i].step_rows = 0;
        layers[i].bad_row = -1;
        if (!vl_fit_is_due(s, &layers[i]))
            continue;
        if (!has_rows && layers[i].gradient.weight.data)
            VL_TRY(vl_op_zero(s->device, layers[i].gradient.weight, err));
        if (!has_rows)
            VL_TRY(vl_op_zero(s->device, layers[i].gradient.bias, err));
        work->states[work->n] = layers[i].index;
        work->layers[work->n++] = &layers[i];
    }
    return VL_OK;
}

/* Mean loss of the layers that moved, for the progress line. */
static double mean_loss(const step *work)
{
    double sum = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < work->n; i++)
        if (isfinite(work->layers[i]->step_loss)) {
            sum += work->layers[i]->step_loss;
            n++;
        }
    return n ? sum / (double)n : (double)NAN;
}

vl_status vl_fit_take_step(vl_fit_session *s, vl_error *err)
{
    int64_t first, rows, all = s->plan.tokens_per_step;
    vl_status status = VL_OK;
    step work = {.session = s, .at_once = vl_fit_shares_gradient(s)};
    vl_fit_share_rows(s, &first, &rows);
    if (rows < all)
        vl_sampler_seek(&s->sampler, s->step * all + first);
    VL_GOTO(choose_layers(&work, rows > 0, err));
    vl_walk walk = {.sampler = &s->sampler,
                    .n_rows = rows,
                    .then = rows,
                    .scale = 1.0 / (double)all,
                    .states = work.states,
                    .n_states = work.n,
                    .teacher = vl_objective_needs_teacher(&s->objective) ? &s->objective.teacher : NULL,
                    .teacher_state = s->n_layers,
                    .tile = note_rows,
                    .adapter = choose_adapter,
                    .cell = on_cell,
                    .user = &work};
    VL_GOTO(vl_readout_walk(&s->readout, &walk, err));
    for (int64_t i = 0; i < work.n && !work.at_once; i++)
        VL_GOTO(finish_layer(s, work.layers[i], err));
    VL_GOTO(judge(&work, err));
    s->log.progress.kl = mean_loss(&work);
done:
    vl_free(work.layers);
    vl_free(work.states);
    return status;
}
