/* step.c - one optimiser step of all layers in flight.
 *
 * Tiles are the outer loop and layers the inner one: the teacher's logits are the dearest thing that the layers have in
 * common, and are made once for all of them. Gradients of the tiles of a step add up. */
#include <math.h>

#include "trainer/base/file.h"
#include "trainer/fit/session.h"

static vl_status layer_on_tile(vl_fit_session *s, vl_fit_layer *layer, bool fresh, int64_t next, vl_error *err)
{
    vl_objective_tile tile = {.row_weight = vl_feeder_row_weight(&s->feeder), .targets = vl_feeder_targets(&s->feeder)};
    double began = vl_clock();
    layer->gradient.fresh = fresh;
    VL_TRY(vl_feeder_load(&tile.h, &s->feeder, layer->index, next, err));
    VL_TRY(vl_objective_layer(&s->objective, &tile, &layer->adapter, &layer->gradient, err));
    for (int64_t r = 0; r < s->feeder.rows; r++)
        layer->step_loss += (double)s->feeder.weight[r] * (double)s->objective.host_loss[r];
    if (!isfinite(layer->step_loss))
        vl_fit_note_bad_row(s, layer);
    layer->numbers.seconds += vl_clock() - began;
    return VL_OK;
}

/* The first tile overwrites the gradient; without any tile it is zero. */
static vl_status clear(vl_fit_session *s, vl_fit_layer *layer, bool gradient, vl_error *err)
{
    layer->step_loss = 0;
    layer->bad_row = -1;
    if (!gradient || !vl_fit_is_due(s, layer))
        return VL_OK;
    if (layer->gradient.weight.data)
        VL_TRY(vl_op_zero(s->device, layer->gradient.weight, err));
    return vl_op_zero(s->device, layer->gradient.bias, err);
}

/* Norm of the gradient over matrix and bias. */
static vl_status gradient_norm(double *out, vl_fit_session *s, const vl_fit_layer *layer, vl_error *err)
{
    double weight = 0, bias;
    if (layer->gradient.weight.data)
        VL_TRY(vl_op_sum_squares(s->device, &weight, layer->gradient.weight, err));
    VL_TRY(vl_op_sum_squares(s->device, &bias, layer->gradient.bias, err));
    *out = sqrt(weight + bias);
    return VL_OK;
}

static vl_status update(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    double norm, clip = s->optimizer.rule.clip;
    VL_TRY(gradient_norm(&norm, s, layer, err));
    if (!isfinite(norm) || !isfinite(layer->step_loss))
        return vl_fit_is_leader(s) ? vl_fit_handle_bad_step(s, layer, norm, err) : VL_OK;
    double scale = clip > 0 && norm > clip ? clip / norm : 1.0;
    vl_optimizer_move move = {.step = s->step, .age = s->step - (int64_t)layer->numbers.restart_step, .scale = scale};
    if (layer->adapter.weight.data) {
        move.parameter = layer->adapter.weight;
        move.gradient = layer->gradient.weight;
        move.state = &layer->weight_state;
        move.rate = layer->numbers.weight_rate;
        VL_TRY(vl_optimizer_step(&s->optimizer, &move, err));
    }
    move.parameter = layer->adapter.bias;
    move.gradient = layer->gradient.bias;
    move.state = &layer->bias_state;
    move.rate = layer->numbers.bias_rate;
    VL_TRY(vl_optimizer_step(&s->optimizer, &move, err));
    layer->history[s->step] = layer->step_loss;
    layer->numbers.steps++;
    return VL_OK;
}

/* What ends a step of a layer: its gradient is whole, and it moves. */
static vl_status finish_layer(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    double began = vl_clock();
    VL_TRY(vl_fit_add_gradients(s, layer, err));
    VL_TRY(update(s, layer, err));
    layer->numbers.position = (double)(s->step + 1);
    VL_TRY(vl_fit_follow(s, layer, false, err));
    layer->numbers.seconds += vl_clock() - began;
    return VL_OK;
}

/* The state that layers [i, n) will need first. */
static int64_t next_state(const vl_fit_session *s, const vl_fit_layer *layers, int64_t i, int64_t n)
{
    while (i < n && !vl_fit_is_due(s, &layers[i]))
        i++;
    return i < n ? layers[i].index : VL_FEEDER_NEXT_TILE;
}

/* Gradients, tile by tile, and the updates: at the end, or of each layer at once where they share a gradient. Nothing
 * is cancelled between the layers of a tile. */
static vl_status walk_tiles(vl_fit_session *s, vl_fit_layer *layers, int64_t n, vl_error *err)
{
    int64_t first, rows, all = s->plan.tokens_per_step;
    bool at_once = vl_fit_shares_gradient(s);
    vl_fit_share_rows(s, &first, &rows);
    if (rows < all)
        vl_sampler_seek(&s->sampler, s->step * all + first);
    for (int64_t i = 0; i < n; i++)
        VL_TRY(clear(s, &layers[i], rows == 0, err));
    for (int64_t done = 0; done < rows; done += s->feeder.rows) {
        VL_TRY(vl_feeder_next(&s->feeder, &s->sampler, rows - done, 1.0 / (double)all, err));
        VL_TRY(vl_fit_load_teacher(s, NULL, next_state(s, layers, 0, n), err));
        for (int64_t i = 0; i < n; i++) {
            if (!vl_fit_is_due(s, &layers[i]))
                continue;
            VL_TRY(layer_on_tile(s, &layers[i], done == 0, next_state(s, layers, i + 1, n), err));
            if (at_once)
                VL_TRY(finish_layer(s, &layers[i], err));
        }
    }
    for (int64_t i = 0; i < n && !at_once; i++)
        if (vl_fit_is_due(s, &layers[i]))
            VL_TRY(finish_layer(s, &layers[i], err));
    return VL_OK;
}

vl_status vl_fit_take_step(vl_fit_session *s, vl_error *err)
{
    int64_t n, active = 0;
    vl_fit_layer *layers = vl_fit_group(s, &n);
    double sum = 0;
    VL_TRY(walk_tiles(s, layers, n, err));
    for (int64_t i = 0; i < n; i++) {
        if ((int64_t)layers[i].numbers.position != s->step + 1 || !isfinite(layers[i].step_loss))
            continue;
        sum += layers[i].step_loss;
        active++;
    }
    s->step++;
    s->notice.progress.done++;
    s->notice.progress.kl = active ? sum / (double)active : (double)NAN;
    return VL_OK;
}
