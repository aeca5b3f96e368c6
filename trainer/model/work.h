/* model/work.h - how much arithmetic a forward is: for benchmarks. */
#ifndef VL_MODEL_WORK_H
#define VL_MODEL_WORK_H

#include <vlens/model.h>

/* Floating-point operations (a multiplication and an addition are two) of the products and the attention in one forward
 * over n sequences up to state `stop_state`, vision tower included, as the mathematics needs them: half of the score
 * matrix where attention is causal, no work for weights that are read twice. */
double vl_model_work(const vl_model *model, const vl_sequence *const *sequences, int n, int stop_state);

#endif
