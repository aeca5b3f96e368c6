/* fit/optimizer.h - SGD, Adam and Muon over the tensors of an adapter, and the learning rate over the steps. */
#ifndef VL_FIT_OPTIMIZER_H
#define VL_FIT_OPTIMIZER_H

#include <vlens/config.h>

#include "kernels/ops.h"

typedef struct vl_optimizer_rule {
    vl_optimizer kind;
    double learning_rate, momentum, weight_decay;
    double clip; /* largest norm of a layer's gradient; 0: none */
    vl_schedule schedule;
    int64_t warmup, steps;
    bool fast; /* Muon's products in bf16 */
} vl_optimizer_rule;

/* Every default filled in. */
vl_optimizer_rule vl_optimizer_rule_of(const vl_config *config, int64_t steps);
/* The rate of step 0..steps-1: rises over `warmup` steps, then falls to 0 (linear, cosine) or stays. */
double vl_optimizer_rate(const vl_optimizer_rule *rule, int64_t step);

/* What an optimiser remembers of one tensor; shaped like it. */
typedef struct vl_optimizer_state {
    vl_tensor first;  /* momentum, or Adam's mean */
    vl_tensor second; /* Adam's square; NULL data where there is none */
} vl_optimizer_state;

typedef struct vl_optimizer_engine {
    vl_device *device;
    vl_optimizer_rule rule;
    vl_tensor scratch[4]; /* [D, D], Muon only */
} vl_optimizer_engine;

/* `d` is the width of the matrices that will be stepped; 0: vectors only. */
vl_status vl_optimizer_new(vl_optimizer_engine *out, vl_device *device, const vl_optimizer_rule *rule, int64_t d,
                           vl_error *err);
void vl_optimizer_clear(vl_optimizer_engine *engine);
/* Zeroed state for a parameter ([D, D] or [D]). */
vl_status vl_optimizer_state_new(vl_optimizer_state *out, const vl_optimizer_engine *engine, vl_tensor parameter,
                                 vl_error *err);
void vl_optimizer_state_clear(vl_optimizer_state *state, vl_device *device);

/* One step, in place. `scale` multiplies the gradient (clipping). */
vl_status vl_optimizer_step(const vl_optimizer_engine *engine, vl_tensor parameter, vl_tensor gradient,
                            const vl_optimizer_state *state, int64_t step, double scale, vl_error *err);

/* muon.c: the same for a matrix under Muon. */
vl_status vl_muon_step(const vl_optimizer_engine *engine, vl_tensor parameter, vl_tensor gradient, vl_tensor momentum,
                       int64_t step, double scale, vl_error *err);

#endif
