/* layer.c - the layers in flight: their memory on the device, and what is kept of them. */
#include <math.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/fit/session.h"

vl_fit_layer *vl_fit_in_flight(const vl_fit_session *s, int64_t *n)
{
    int64_t left = s->share.n - s->in_flight;
    *n = left < s->at_once ? left : s->at_once;
    return s->layers + s->share.first + s->in_flight;
}

static vl_status new_zeroed(vl_tensor *out, vl_device *device, int64_t rows, int64_t columns, vl_error *err)
{
    VL_TRY(vl_tensor_new(out, device, VL_F32, rows, columns, err));
    if (rows == 1)
        *out = vl_tensor_1d(out->data, VL_F32, columns);
    return vl_op_zero(device, *out, err);
}

static vl_status new_adapter(vl_adapter *out, const vl_fit_session *s, vl_error *err)
{
    if (s->config->lens.kind == VL_LENS_AFFINE)
        VL_TRY(new_zeroed(&out->weight, s->device, s->d_model, s->d_model, err));
    return new_zeroed(&out->bias, s->device, 1, s->d_model, err);
}

static vl_status new_gradient(vl_adapter_gradient *out, const vl_fit_session *s, vl_error *err)
{
    vl_adapter shape = {.weight = {.data = NULL}};
    vl_status status = new_adapter(&shape, s, err);
    *out = (vl_adapter_gradient){shape.weight, shape.bias, true};
    return status;
}

/* Layers whose step is one tile follow one another with all that a step is: they need one gradient between them. */
static vl_status share_gradient(vl_fit_session *s, vl_error *err)
{
    if (!vl_fit_shares_gradient(s) || s->gradient.bias.data)
        return VL_OK;
    return new_gradient(&s->gradient, s, err);
}

static vl_status open_layer(vl_fit_layer *layer, const vl_fit_session *s, vl_error *err)
{
    VL_TRY(new_adapter(&layer->adapter, s, err));
    if (s->config->fit.early_stop && s->plan.validation.n_rows > 0)
        VL_TRY(new_adapter(&layer->best, s, err));
    layer->gradient = s->gradient;
    if (!s->gradient.bias.data)
        VL_TRY(new_gradient(&layer->gradient, s, err));
    if (layer->adapter.weight.data)
        VL_TRY(vl_optimizer_state_new(&layer->weight_state, &s->optimizer, layer->adapter.weight, err));
    return vl_optimizer_state_new(&layer->bias_state, &s->optimizer, layer->adapter.bias, err);
}

/* The states of the layers that have steps to take, and the teacher's. */
static vl_status keep_states(vl_fit_session *s, const vl_fit_layer *layers, int64_t n, vl_error *err)
{
    const vl_rows *parts[] = {&s->plan.train, &s->plan.validation};
    int64_t *states = vl_alloc((size_t)n + 1, sizeof *states), n_states = 0;
    if (!states)
        return vl_fail_nomem(err, "states");
    for (int64_t i = 0; i < n; i++)
        if (!vl_fit_is_over(&layers[i]))
            states[n_states++] = layers[i].index;
    if (n_states > 0 && vl_objective_needs_teacher(&s->objective))
        states[n_states++] = s->n_layers;
    vl_keep_args args = {states, n_states, parts, 2, 1.0 / (double)s->plan.tokens_per_step};
    vl_status status = vl_loader_keep(&s->readout.loader, &args, err);
    vl_free(states);
    return status;
}

vl_status vl_fit_layers_open(vl_fit_session *s, vl_error *err)
{
    int64_t n;
    vl_fit_layer *layers = vl_fit_in_flight(s, &n);
    VL_TRY(share_gradient(s, err));
    for (int64_t i = 0; i < n; i++) {
        if (layers[i].progress.phase == VL_FIT_DONE)
            continue;
        vl_status status = open_layer(&layers[i], s, err);
        if (status == VL_OK)
            status = vl_fit_resume_in_flight(s, &layers[i], err);
        if (status != VL_OK) {
            vl_fit_layers_close(s);
            return vl_error_prefix(err, status, "%lld layers at once (fit.layers_in_flight): ", (long long)n);
        }
    }
    return s->keeps_states ? keep_states(s, layers, n, err) : VL_OK;
}

void vl_fit_layers_close(vl_fit_session *s)
{
    int64_t n;
    vl_fit_layer *layers = vl_fit_in_flight(s, &n);
    for (int64_t i = 0; i < n; i++) {
        vl_fit_layer *l = &layers[i];
        if (l->gradient.bias.data == s->gradient.bias.data)
            l->gradient = (vl_adapter_gradient){.weight = {.data = NULL}};
        vl_tensor *tensors[] = {&l->adapter.weight, &l->adapter.bias,    &l->best.weight,
                                &l->best.bias,      &l->gradient.weight, &l->gradient.bias};
        for (size_t k = 0; k < sizeof tensors / sizeof *tensors; k++) {
            vl_device_free(s->device, tensors[k]->data);
            tensors[k]->data = NULL;
        }
        vl_optimizer_state_clear(&l->weight_state, s->device);
        vl_optimizer_state_clear(&l->bias_state, s->device);
    }
    vl_loader_drop(&s->readout.loader);
    vl_device_free(s->device, s->gradient.weight.data);
    vl_device_free(s->device, s->gradient.bias.data);
    s->gradient = (vl_adapter_gradient){.weight = {.data = NULL}};
}

static vl_status copy(vl_device *device, vl_tensor to, vl_tensor from, vl_error *err)
{
    if (from.ndim == 1) {
        to = vl_tensor_2d(to.data, VL_F32, 1, to.shape[0]);
        from = vl_tensor_2d(from.data, VL_F32, 1, from.shape[0]);
    }
    return vl_op_cast(device, &(vl_cast_args){.out = to, .x = from}, err);
}

vl_status vl_fit_keep_best(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    if (layer->adapter.weight.data)
        VL_TRY(copy(s->device, layer->best.weight, layer->adapter.weight, err));
    return copy(s->device, layer->best.bias, layer->adapter.bias, err);
}

static vl_status reset(vl_device *device, const vl_optimizer_state *state, vl_error *err)
{
    if (state->exp_avg.data)
        VL_TRY(vl_op_zero(device, state->exp_avg, err));
    return state->exp_avg_sq.data ? vl_op_zero(device, state->exp_avg_sq, err) : VL_OK;
}

vl_status vl_fit_reset_optimizer(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    VL_TRY(reset(s->device, &layer->weight_state, err));
    return reset(s->device, &layer->bias_state, err);
}

vl_status vl_fit_roll_back(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    if (layer->adapter.weight.data)
        VL_TRY(copy(s->device, layer->adapter.weight, layer->best.weight, err));
    VL_TRY(copy(s->device, layer->adapter.bias, layer->best.bias, err));
    return vl_fit_reset_optimizer(s, layer, err);
}

static bool all_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

vl_status vl_fit_kept_new(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    size_t d = (size_t)s->d_model;
    void *memory;
    VL_TRY(vl_file_memory(&memory, d * d * sizeof(float), s->config->output, err));
    layer->kept_weight = memory;
    return VL_OK;
}

void vl_fit_kept_clear(const vl_fit_session *s, vl_fit_layer *layer)
{
    size_t d = (size_t)s->d_model;
    vl_file_memory_free(layer->kept_weight, d * d * sizeof(float));
    vl_free(layer->kept_bias);
    layer->kept_weight = layer->kept_bias = NULL;
}

static vl_status to_host(vl_fit_session *s, vl_fit_layer *l, const vl_adapter *kept, vl_error *err)
{
    l->kept_bias = vl_alloc((size_t)s->d_model, sizeof(float));
    if (!l->kept_bias)
        return vl_fail_nomem(err, "adapters");
    VL_TRY(vl_device_read(s->device, l->kept_bias, &kept->bias, err));
    if (!kept->weight.data)
        return VL_OK;
    VL_TRY(vl_fit_kept_new(s, l, err));
    return vl_device_read(s->device, l->kept_weight, &kept->weight, err);
}

static vl_status keep_layer(vl_fit_session *s, vl_fit_layer *l, vl_error *err)
{
    bool has_best = l->best.bias.data && isfinite(l->progress.best_loss);
    const vl_adapter *kept = has_best ? &l->best : &l->adapter;
    size_t d = (size_t)s->d_model;
    VL_TRY(to_host(s, l, kept, err));
    if (all_finite(l->kept_bias, d) && (!l->kept_weight || all_finite(l->kept_weight, d * d)))
        return VL_OK;
    vl_log_say(&s->log, 1, "layer %lld: its parameters are no finite numbers; the lens is written without it",
               (long long)l->index);
    vl_fit_kept_clear(s, l);
    if (l->progress.stopped_step < 0)
        l->progress.stopped_step = s->step;
    return VL_OK;
}

vl_status vl_fit_layers_keep(vl_fit_session *s, vl_error *err)
{
    int64_t n;
    vl_fit_layer *layers = vl_fit_in_flight(s, &n);
    for (int64_t i = 0; i < n; i++) {
        if (layers[i].progress.phase == VL_FIT_DONE)
            continue;
        if (vl_fit_is_root(s))
            VL_TRY(keep_layer(s, &layers[i], err));
        layers[i].progress.phase = VL_FIT_DONE;
    }
    return VL_OK;
}
