/* fit/session.h - one run of the fit, as its parts share it: start.c, step.c, validate.c, checkpoint.c, report.c. */
#ifndef VL_FIT_SESSION_H
#define VL_FIT_SESSION_H

#include <vlens/lens.h>

#include "trainer/fit/feeder.h"
#include "trainer/fit/notice.h"
#include "trainer/fit/objective.h"
#include "trainer/fit/optimizer.h"
#include "trainer/fit/plan.h"

/* Numbers of one layer that a checkpoint stores as they lie here: doubles only. Losses are the objective, in nats. */
typedef struct vl_fit_numbers {
    double started;      /* 1: the closed-form start has been made */
    double steps;        /* taken */
    double stopped_step; /* where its loss or gradient was no finite number; -1: nowhere */
    double ridge; /* lambda of the closed form; NaN without one, infinite where the logit lens was the better start */
    double weight_rate, bias_rate;     /* full learning rates, fixed by the start */
    double start_loss;                 /* validation loss of the start; NaN without a validation part */
    double best_loss, best_step;       /* lowest validation loss, early_stop only */
    double last_loss;                  /* of the last validation */
    double class_loss[VL_CLASS_COUNT]; /* validation, by class, of the parameters that are kept */
    double seconds;
    double returns, restart_step; /* times that it went back to its best parameters; the step of the last */
} vl_fit_numbers;
enum { VL_FIT_NUMBERS = sizeof(vl_fit_numbers) / sizeof(double) };

typedef struct vl_fit_layer {
    int64_t index; /* the state that it reads */
    vl_fit_numbers numbers;
    double *history; /* [steps] objective of each step */
    double step_loss;
    int64_t bad_row; /* of the cache: the first of this step or validation whose loss is no finite number; -1 */
    /* On the device while its group is in flight. */
    vl_adapter adapter, best;
    vl_adapter_gradient gradient;
    vl_optimizer_state weight_state, bias_state;
    /* On the host when its group is done. NULL weight: A = 0; NULL bias: there is no adapter. */
    float *kept_weight, *kept_bias;
} vl_fit_layer;

typedef struct vl_fit_session {
    const vl_config *config;
    vl_cache *cache;
    vl_device *device;
    vl_notice notice;
    vl_head *head;
    char *lens_path, *checkpoint_path, *metrics_path;
    char *settings; /* settings.h */
    int64_t d_model, n_layers;
    vl_plan plan;
    vl_sampler sampler;
    vl_feeder feeder;
    vl_objective objective;
    const vl_part *teacher_of; /* the part whose only tile the objective holds the teacher of; NULL: none */
    vl_optimizer_engine optimizer;
    vl_fit_layer *layers; /* [n_trained], the layers of lens.layers */
    int64_t n_trained, per_group, n_groups;
    /* Where the run is: */
    int64_t group;     /* layers [group * per_group, ...) are in flight */
    int64_t step;      /* steps that this group has taken */
    int64_t validated; /* step count at which the last validation was made; -1: none */
    int64_t resumed_from_step;
    double earlier_seconds, began; /* of the runs before a resume; clock at the start of this one */
} vl_fit_session;

/* The layers in flight. */
vl_fit_layer *vl_fit_group(const vl_fit_session *session, int64_t *n);
static inline bool vl_fit_is_stopped(const vl_fit_layer *layer)
{
    return layer->numbers.stopped_step >= 0;
}

/* group.c: device memory of the layers in flight; the parameters that are kept, to the host. */
vl_status vl_fit_group_open(vl_fit_session *session, vl_error *err);
vl_status vl_fit_group_keep(vl_fit_session *session, vl_error *err);
void vl_fit_group_close(vl_fit_session *session);
/* adapter -> best. */
vl_status vl_fit_remember_best(vl_fit_session *session, vl_fit_layer *layer, vl_error *err);

/* best -> adapter; what the optimiser remembers is forgotten. */
vl_status vl_fit_return_to_best(vl_fit_session *session, vl_fit_layer *layer, vl_error *err);

/* fault.c: looks for a row of the tile whose loss is no finite number. */
void vl_fit_note_bad_row(const vl_fit_session *session, vl_fit_layer *layer);
/* A step whose loss or gradient (of this norm) is no finite number: the layer stops, or goes back to its best
 * parameters where the numbers in the cache are sound. */
vl_status vl_fit_handle_bad_step(vl_fit_session *session, vl_fit_layer *layer, double norm, vl_error *err);
/* A validation loss: *usable where it can be the best. A layer that diverged goes back to its best parameters. */
vl_status vl_fit_handle_score(bool *usable, vl_fit_session *session, vl_fit_layer *layer, double loss, vl_error *err);

/* start.c: the parameters that the descent starts from, for the layers that have none yet. */
vl_status vl_fit_start_group(vl_fit_session *session, vl_error *err);
/* step.c: one step of all layers in flight. Cancelled in the middle, nothing has changed. */
vl_status vl_fit_take_step(vl_fit_session *session, vl_error *err);
/* validate.c: the objective of `n` layers on the rows of `part`: by class and as a whole (NaN without rows). The
 * teacher of a part of one tile is made once, as long as nothing else is asked of it. */
typedef struct vl_fit_score {
    double loss, by_class[VL_CLASS_COUNT];
} vl_fit_score;
vl_status vl_fit_score_layers(vl_fit_score *out, vl_fit_session *session, vl_fit_layer *layers, int64_t n,
                              const vl_part *part, vl_error *err);
/* The teacher of the feeder's tile, for all layers that follow; `whole` as for teacher_of, NULL for a tile of many. */
vl_status vl_fit_load_teacher(vl_fit_session *session, const vl_part *whole, vl_error *err);
/* Scores the layers in flight and notes start, last and best. */
vl_status vl_fit_validate(vl_fit_session *session, vl_error *err);

/* checkpoint.c */
vl_status vl_fit_checkpoint_save(vl_fit_session *session, vl_error *err);
/* Opens the group that was in flight. VL_EMISMATCH names the setting that has changed. */
vl_status vl_fit_checkpoint_load(vl_fit_session *session, vl_error *err);

/* report.c: lens.safetensors and metrics.json; the result of a run that is finished, from these files. */
vl_status vl_fit_write_lens(vl_fit_session *session, vl_error *err);
vl_status vl_fit_result_new(vl_fit_result *result, int64_t n_layers, vl_error *err);
vl_status vl_fit_fill_result(vl_fit_result *result, const vl_fit_session *session, vl_error *err);
/* *finished: the lens of these very settings lies there already. VL_EMISMATCH: one of other settings does. */
vl_status vl_fit_find_finished(bool *finished, vl_fit_result *result, const vl_fit_session *session, vl_error *err);

#endif
