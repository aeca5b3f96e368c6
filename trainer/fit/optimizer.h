/* fit/optimizer.h - SGD, Adam and Muon over the tensors of an adapter, and the learning rate over the steps. */
#ifndef VL_FIT_OPTIMIZER_H
#define VL_FIT_OPTIMIZER_H

#include <vlens/config.h>

#include "kernels/ops.h"

typedef struct vl_optimizer_rule {
    vl_optimizer kind;
    double learning_rate, momentum, weight_decay;
    double bias_rate; /* of a bias under Adam and Muon, whose unit is that of the state: see vl_optimizer_rates */
    bool relative;    /* the rates are shares of what the start leaves unexplained */
    double clip;      /* largest norm of a layer's gradient; 0: none */
    vl_schedule schedule;
    int64_t warmup, steps;
    bool fast; /* Muon's products in bf16, as by its authors */
} vl_optimizer_rule;

/* Every default filled in, for adapters of width `d`; `fast` is the caller's. */
vl_optimizer_rule vl_optimizer_rule_of(const vl_config *config, int64_t d, int64_t steps);
/* The share of the full rate at step 0..steps-1: rises over `warmup` steps, then falls to 0 (linear, cosine) or stays.
 */
double vl_optimizer_schedule(const vl_optimizer_rule *rule, int64_t step);
/* Full rates of the two tensors of one layer. `spread`: root mean square of its states; `unexplained`: of what the
 * start leaves to do, in that unit (ridge.h). */
typedef struct vl_optimizer_rates {
    double weight, bias;
} vl_optimizer_rates;
vl_optimizer_rates vl_optimizer_rates_of(const vl_optimizer_rule *rule, double spread, double unexplained);

/* What an optimiser remembers of one tensor; shaped like it. */
typedef struct vl_optimizer_state {
    vl_tensor exp_avg;    /* momentum, or Adam's mean of gradients */
    vl_tensor exp_avg_sq; /* Adam's mean of their squares; NULL data where there is none */
} vl_optimizer_state;

typedef struct vl_optimizer_engine {
    vl_device *device;
    vl_optimizer_rule rule;
    /* Muon only, [D, D]: f32; and four in the type that the device likes its products' operands in */
    vl_tensor direction, scratch[4];
} vl_optimizer_engine;

/* `d` is the width of the matrices that will be stepped; 0: vectors only. */
vl_status vl_optimizer_new(vl_optimizer_engine *out, vl_device *device, const vl_optimizer_rule *rule, int64_t d,
                           vl_error *err);
void vl_optimizer_clear(vl_optimizer_engine *engine);
/* Zeroed state for a parameter ([D, D] or [D]). */
vl_status vl_optimizer_state_new(vl_optimizer_state *out, const vl_optimizer_engine *engine, vl_tensor parameter,
                                 vl_error *err);
void vl_optimizer_state_clear(vl_optimizer_state *state, vl_device *device);

/* One step of one tensor, in place. */
typedef struct vl_optimizer_move {
    vl_tensor parameter, gradient;
    const vl_optimizer_state *state;
    int64_t step;    /* of the run: the schedule's */
    int64_t age;     /* steps since the state was zeroed */
    double rate;     /* full rate; the schedule is applied here */
    vl_tensor scale; /* [2] of vl_op_step_scale: clips the gradient, or forbids the step; no data: neither */
} vl_optimizer_move;
vl_status vl_optimizer_step(const vl_optimizer_engine *engine, const vl_optimizer_move *move, vl_error *err);
/* The two numbers of move->scale, for the operations: the clip, and what only forbids. */
static inline vl_tensor vl_optimizer_clip(const vl_optimizer_move *move)
{
    return vl_tensor_1d(move->scale.data, VL_F32, 1);
}
static inline vl_tensor vl_optimizer_gate(const vl_optimizer_move *move)
{
    return vl_tensor_1d(move->scale.data ? (float *)move->scale.data + 1 : NULL, VL_F32, 1);
}
/* muon.c: the same for a matrix under Muon. */
vl_status vl_muon_step(const vl_optimizer_engine *engine, const vl_optimizer_move *move, vl_error *err);

#endif
