#include "trainer/fit/optimizer.h"

#include <math.h>

#include "trainer/base/status.h"

/* Rates that work from a ridge start over widths of 64 to 4096 (docs/TRAINING.md has the measurements). SGD's is that
 * of the Python package: lr_scale 1 times (1 - momentum) with momentum 0.9. Muon's is the spectral norm of a step
 * relative to the identity, and so does not depend on the width. */
static double default_rate(vl_optimizer kind)
{
    switch (kind) {
    case VL_OPTIMIZER_SGD: return 0.1;
    case VL_OPTIMIZER_MUON: return 0.02;
    case VL_OPTIMIZER_ADAM: break;
    }
    return 1e-3;
}

vl_optimizer_rule vl_optimizer_rule_of(const vl_config *config, int64_t steps)
{
    vl_optimizer_rule rule = {.kind = config->fit.optimizer,
                              .learning_rate = config->fit.learning_rate,
                              .momentum = config->fit.momentum,
                              .weight_decay = config->fit.weight_decay,
                              .clip = config->fit.clip,
                              .schedule = config->fit.schedule,
                              .steps = steps,
                              .fast = config->precision == VL_PRECISION_FAST};
    if (rule.learning_rate <= 0)
        rule.learning_rate = default_rate(rule.kind);
    rule.warmup = (int64_t)(config->fit.warmup * (double)steps);
    return rule;
}

double vl_optimizer_rate(const vl_optimizer_rule *rule, int64_t step)
{
    if (step < rule->warmup)
        return rule->learning_rate * (double)(step + 1) / (double)(rule->warmup + 1);
    double left = (double)(rule->steps - step) / (double)(rule->steps - rule->warmup); /* 1 ... > 0 */
    switch (rule->schedule) {
    case VL_SCHEDULE_LINEAR: return rule->learning_rate * left;
    case VL_SCHEDULE_COSINE: return rule->learning_rate * 0.5 * (1.0 - cos(left * acos(-1.0)));
    case VL_SCHEDULE_CONSTANT: break;
    }
    return rule->learning_rate;
}

vl_status vl_optimizer_new(vl_optimizer_engine *out, vl_device *device, const vl_optimizer_rule *rule, int64_t d,
                           vl_error *err)
{
    vl_status status = VL_OK;
    *out = (vl_optimizer_engine){.device = device, .rule = *rule};
    for (size_t i = 0; d > 0 && rule->kind == VL_OPTIMIZER_MUON && i < sizeof out->scratch / sizeof *out->scratch; i++)
        VL_GOTO(vl_tensor_new(&out->scratch[i], device, VL_F32, d, d, err));
done:
    if (status != VL_OK)
        vl_optimizer_clear(out);
    return status;
}

void vl_optimizer_clear(vl_optimizer_engine *engine)
{
    for (size_t i = 0; engine->device && i < sizeof engine->scratch / sizeof *engine->scratch; i++)
        vl_device_free(engine->device, engine->scratch[i].data);
    *engine = (vl_optimizer_engine){.device = NULL};
}

/* Biases take Adam's step under Muon: orthogonalising is for matrices. */
static bool uses_adam(const vl_optimizer_rule *rule, vl_tensor parameter)
{
    return rule->kind == VL_OPTIMIZER_ADAM || (rule->kind == VL_OPTIMIZER_MUON && parameter.ndim == 1);
}

static vl_status zeroed_like(vl_tensor *out, vl_device *device, vl_tensor like, vl_error *err)
{
    int64_t rows = like.ndim == 2 ? like.shape[0] : 1, columns = like.shape[like.ndim - 1];
    VL_TRY(vl_tensor_new(out, device, VL_F32, rows, columns, err));
    if (like.ndim == 1)
        *out = vl_tensor_1d(out->data, VL_F32, columns);
    return vl_op_zero(device, *out, err);
}

vl_status vl_optimizer_state_new(vl_optimizer_state *out, const vl_optimizer_engine *engine, vl_tensor parameter,
                                 vl_error *err)
{
    *out = (vl_optimizer_state){.first = {.data = NULL}};
    vl_status status = zeroed_like(&out->first, engine->device, parameter, err);
    if (status == VL_OK && uses_adam(&engine->rule, parameter))
        status = zeroed_like(&out->second, engine->device, parameter, err);
    if (status != VL_OK)
        vl_optimizer_state_clear(out, engine->device);
    return status;
}

void vl_optimizer_state_clear(vl_optimizer_state *state, vl_device *device)
{
    vl_device_free(device, state->first.data);
    vl_device_free(device, state->second.data);
    *state = (vl_optimizer_state){.first = {.data = NULL}};
}

vl_status vl_optimizer_step(const vl_optimizer_engine *engine, vl_tensor parameter, vl_tensor gradient,
                            const vl_optimizer_state *state, int64_t step, double scale, vl_error *err)
{
    const vl_optimizer_rule *rule = &engine->rule;
    float rate = (float)vl_optimizer_rate(rule, step);
    if (uses_adam(rule, parameter)) {
        /* Kingma and Ba, "Adam", 2015, with the decoupled decay of Loshchilov and Hutter, 2019. */
        vl_adam_args args = {.parameter = parameter,
                             .gradient = gradient,
                             .mean = state->first,
                             .square = state->second,
                             .learning_rate = rate,
                             .beta1 = 0.9f,
                             .beta2 = 0.999f,
                             .epsilon = 1e-8f,
                             .weight_decay = (float)rule->weight_decay,
                             .gradient_scale = (float)scale,
                             .step = step + 1};
        return vl_op_adam(engine->device, &args, err);
    }
    if (rule->kind == VL_OPTIMIZER_MUON)
        return vl_muon_step(engine, parameter, gradient, state->first, step, scale, err);
    vl_sgd_args args = {.parameter = parameter,
                        .gradient = gradient,
                        .momentum = state->first,
                        .learning_rate = rate,
                        .momentum_factor = (float)rule->momentum,
                        .weight_decay = (float)rule->weight_decay,
                        .gradient_scale = (float)scale,
                        .nesterov = rule->momentum > 0,
                        .first = step == 0};
    return vl_op_sgd(engine->device, &args, err);
}
