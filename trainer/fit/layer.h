/* fit/layer.h - one layer of a fit: its parameters, what the optimiser remembers of them, and how far it is. */
#ifndef VL_FIT_LAYER_H
#define VL_FIT_LAYER_H

#include "trainer/fit/optimizer.h"
#include "trainer/readout/objective.h"

typedef enum vl_fit_phase {
    VL_FIT_NEW = 0, /* it has no start yet */
    VL_FIT_RUNNING,
    VL_FIT_STOPPED, /* its loss or gradient was no finite number, or it diverged: it keeps its last good parameters */
    VL_FIT_DONE     /* what is kept of it is on the host */
} vl_fit_phase;

/* How far a layer is: all that a checkpoint must know beside its tensors. Losses are the objective, in nats. */
typedef struct vl_fit_progress {
    vl_fit_phase phase;
    int64_t position;     /* the step that it takes next */
    int64_t validated;    /* position at which it was validated last; -1: never */
    int64_t steps;        /* taken */
    int64_t stopped_step; /* where it stopped; -1: nowhere */
    int64_t best_step;    /* of the lowest validation loss; -1: none yet */
    int64_t rollbacks;    /* times that it went back to its best parameters */
    int64_t restart_step; /* the step of the last */
    double ridge; /* lambda of the closed form; NaN without one, infinite where the logit lens was the better start */
    double weight_rate, bias_rate;     /* full learning rates, fixed by the start */
    double start_loss;                 /* validation loss of the start; NaN without a validation part */
    double best_loss;                  /* lowest validation loss, early_stop only; else NaN */
    double last_loss;                  /* of the last validation */
    double class_loss[VL_CLASS_COUNT]; /* validation, by class, of the parameters that are kept */
    double seconds;
} vl_fit_progress;

/* The same as doubles, in the order of a checkpoint's "numbers.{i}": the classes take as many as there are. */
enum { VL_FIT_NUMBERS = 16 + VL_CLASS_COUNT };
vl_fit_progress vl_fit_progress_new(void);
void vl_fit_progress_pack(double out[VL_FIT_NUMBERS], const vl_fit_progress *progress);
/* False: `n` is no length that any version has written. */
bool vl_fit_progress_unpack(vl_fit_progress *out, const double *numbers, int64_t n);

typedef struct vl_fit_layer {
    int64_t index; /* the state that it reads */
    vl_fit_progress progress;
    double *history; /* [steps] objective of each step */
    double step_loss;
    int64_t step_rows; /* rows of the step that count */
    bool said_unsound; /* that rows are left out */
    int64_t followed;  /* progress.rollbacks when the root's parameters were taken over last */
    int64_t bad_row;   /* of the cache: the first of this step or validation whose loss is no finite number; -1 */
    /* On the device while it is in flight: */
    vl_adapter adapter, best;
    vl_adapter_gradient gradient;
    vl_optimizer_state weight_state, bias_state;
    /* On the host when it is done. NULL weight: A = 0; NULL bias: there is no adapter. The matrix is memory of a file
     * (vl_file_memory), so that the layers that are done are no burden. */
    float *kept_weight, *kept_bias;
} vl_fit_layer;

/* Whether it has come to its end. */
static inline bool vl_fit_is_over(const vl_fit_layer *layer)
{
    return layer->progress.phase >= VL_FIT_STOPPED;
}

#endif
