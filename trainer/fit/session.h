/* fit/session.h - one run of the fit, as its parts share it: start.c, step.c, validate.c, checkpoint.c, report.c. */
#ifndef VL_FIT_SESSION_H
#define VL_FIT_SESSION_H

#include <vlens/lens.h>

#include "trainer/base/team.h"
#include "trainer/fit/feeder.h"
#include "trainer/fit/notice.h"
#include "trainer/fit/objective.h"
#include "trainer/fit/optimizer.h"
#include "trainer/fit/plan.h"

/* Numbers of one layer that a checkpoint stores as they lie here: doubles only. Losses are the objective, in nats. */
typedef struct vl_fit_numbers {
    double started;      /* 1: the closed-form start has been made */
    double position;     /* the step that it takes next */
    double validated;    /* position at which it was validated last; -1: never */
    double kept;         /* 1: done; what is kept of it is on the host */
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
    double followed; /* numbers.returns when the leader's parameters were taken over last */
    int64_t bad_row; /* of the cache: the first of this step or validation whose loss is no finite number; -1 */
    /* On the device while its group is in flight. */
    vl_adapter adapter, best;
    vl_adapter_gradient gradient;
    vl_optimizer_state weight_state, bias_state;
    /* On the host when its group is done. NULL weight: A = 0; NULL bias: there is no adapter. The matrix is memory of
     * a file (vl_file_memory), so that the layers that are done are no burden. */
    float *kept_weight, *kept_bias;
} vl_fit_layer;

/* What this process does. Layers know nothing of each other, so that a part of them needs no traffic at all; where
 * there are more members than layers, those of one part share its rows. */
typedef struct vl_fit_share {
    const vl_team *team;
    int part, n_parts;             /* of the layers */
    int64_t first, n;              /* my layers, in session->layers */
    int member, n_members, leader; /* of my part; `leader` is the rank of member 0, which alone chooses and writes */
    float *exchange;               /* [D, D] on its way; NULL with one member */
} vl_fit_share;

typedef struct vl_fit_session {
    const vl_config *config;
    vl_cache *cache;
    vl_device *device;
    vl_notice notice;
    vl_head *head;
    char *lens_path, *checkpoint_path, *metrics_path;
    char *settings; /* config/settings.h: what decides the parameters */
    int64_t d_model, n_layers;
    vl_plan plan;
    vl_sampler sampler;
    vl_feeder feeder;
    vl_objective objective;
    vl_adapter_gradient gradient; /* shared by all layers where a step is one tile; else no data */
    const vl_part *teacher_of;    /* the part whose only tile the objective holds the teacher of; NULL: none */
    vl_optimizer_engine optimizer;
    vl_fit_layer *layers; /* [n_trained], the layers of lens.layers */
    int64_t n_trained;
    vl_fit_share share;
    int64_t per_group, n_groups;  /* of my layers */
    struct vl_fit_resume *resume; /* checkpoints of earlier runs, or NULL */
    /* Where the run is: */
    int64_t group; /* my layers [group * per_group, ...) are in flight */
    int64_t step;  /* of the group; layers that are further on wait for it */
    int64_t resumed_from_step;
    double earlier_seconds, began; /* of the runs before a resume; clock at the start of this one */
} vl_fit_session;

/* The layers in flight. */
vl_fit_layer *vl_fit_group(const vl_fit_session *session, int64_t *n);
/* Whether it has come to its end, by itself or by numbers that are none. */
static inline bool vl_fit_is_stopped(const vl_fit_layer *layer)
{
    return layer->numbers.stopped_step >= 0 || layer->numbers.kept > 0;
}
/* Whether it takes part in the group's next step. */
static inline bool vl_fit_is_due(const vl_fit_session *session, const vl_fit_layer *layer)
{
    return !vl_fit_is_stopped(layer) && (int64_t)layer->numbers.position == session->step;
}

/* A step is one tile of this process alone: layers take it one after the other, with one gradient between them. */
static inline bool vl_fit_shares_gradient(const vl_fit_session *session)
{
    return session->plan.tokens_per_step <= session->feeder.capacity && session->share.n_members == 1;
}

/* group.c: device memory of the layers in flight; the parameters that are kept, to the host. */
vl_status vl_fit_group_open(vl_fit_session *session, vl_error *err);
vl_status vl_fit_group_keep(vl_fit_session *session, vl_error *err);
void vl_fit_group_close(vl_fit_session *session);
/* Memory of kept_weight, and its end. */
vl_status vl_fit_kept_new(vl_fit_session *session, vl_fit_layer *layer, vl_error *err);
void vl_fit_kept_clear(const vl_fit_session *session, vl_fit_layer *layer);
/* adapter -> best. */
vl_status vl_fit_remember_best(vl_fit_session *session, vl_fit_layer *layer, vl_error *err);

/* best -> adapter; what the optimiser remembers is forgotten. */
vl_status vl_fit_return_to_best(vl_fit_session *session, vl_fit_layer *layer, vl_error *err);
vl_status vl_fit_forget(vl_fit_session *session, vl_fit_layer *layer, vl_error *err);

/* fault.c: looks for a row of the tile whose loss is no finite number. */
void vl_fit_note_bad_row(const vl_fit_session *session, vl_fit_layer *layer);
/* A step whose loss or gradient (of this norm) is no finite number: the layer stops, or goes back to its best
 * parameters where the numbers in the cache are sound. */
vl_status vl_fit_handle_bad_step(vl_fit_session *session, vl_fit_layer *layer, double norm, vl_error *err);
/* A validation loss: *usable where it can be the best. A layer that diverged goes back to its best parameters. */
vl_status vl_fit_handle_score(bool *usable, vl_fit_session *session, vl_fit_layer *layer, double loss, vl_error *err);

/* share.c: who does what. */
vl_status vl_fit_share_out(vl_fit_session *session, const vl_team *team, vl_error *err);
/* Rows [*first, *first + *n) of each step are mine. */
void vl_fit_share_rows(const vl_fit_session *session, int64_t *first, int64_t *n);
/* Nothing to do with one member: the sums of a part, of the gradient and the step's loss; */
vl_status vl_fit_add_gradients(vl_fit_session *session, vl_fit_layer *layer, vl_error *err);
/* the leader's numbers, and its parameters where it has just made them (`anew`) or gone back to earlier ones. */
vl_status vl_fit_follow(vl_fit_session *session, vl_fit_layer *layer, bool anew, vl_error *err);
static inline bool vl_fit_is_leader(const vl_fit_session *session)
{
    return session->share.member == 0;
}

/* settings.c: session->settings; and VL_EMISMATCH that names `path` and the first key that `stored` has otherwise. */
vl_status vl_fit_settings_make(vl_fit_session *session, vl_error *err);
vl_status vl_fit_settings_check(const vl_fit_session *session, const char *path, const char *stored, vl_error *err);

/* memory.c: what the fit takes of a device with memory of its own. It decides how many layers fly at once, and says so.
 * VL_ENOMEM: not even one layer fits. */
vl_status vl_fit_plan_memory(vl_fit_session *session, int64_t tile_rows, vl_error *err);

/* start.c: the parameters that the descent starts from, for the layers that have none yet. */
vl_status vl_fit_start_group(vl_fit_session *session, vl_error *err);
/* step.c: one step of all layers in flight. Cancelled in the middle, nothing has changed. */
vl_status vl_fit_take_step(vl_fit_session *session, vl_error *err);
/* validate.c: the objective of `n` layers on the rows of `part`: by class and as a whole (NaN without rows). The
 * teacher of a part of one tile is made once, as long as nothing else is asked of it. */
typedef struct vl_fit_score {
    double loss, by_class[VL_CLASS_COUNT];
} vl_fit_score;
vl_status vl_fit_score_layers(vl_fit_score *out, vl_fit_session *session, vl_fit_layer *const *layers, int64_t n,
                              const vl_part *part, vl_error *err);
/* The teacher of the feeder's tile, for all layers that follow; `whole` as for teacher_of, NULL for a tile of many.
 * `next`: the state that will be read next. */
vl_status vl_fit_load_teacher(vl_fit_session *session, const vl_part *whole, int64_t next, vl_error *err);
/* Scores the layers that take part in the next step, once at each position; notes start, last and best. */
vl_status vl_fit_validate(vl_fit_session *session, vl_error *err);

/* claim.c: VL_EMISMATCH where lens, metrics or checkpoint would replace a file of another program; with `fresh` such a
 * file is moved aside. */
vl_status vl_fit_claim(const vl_fit_session *session, bool fresh, vl_error *err);
bool vl_fit_checkpoint_is_ours(const char *path);

/* checkpoint.c */
vl_status vl_fit_checkpoint_save(vl_fit_session *session, vl_error *err);

/* resume.c: every process leaves a checkpoint of its own layers, and any number of them goes on from all that lie in
 * the output folder: of each layer, the one where it is furthest. VL_EMISMATCH names the setting that has changed. */
typedef struct vl_fit_resume {
    char **paths;
    struct vl_safetensors **files; /* [n] */
    int64_t n;
    int64_t *file_of; /* [n_trained] where a layer is, or -1 */
} vl_fit_resume;
/* Whether any lies there. */
bool vl_fit_resume_exists(const vl_fit_session *session);
/* Opens what there is; session->resume stays NULL where there is nothing. */
vl_status vl_fit_resume_open(vl_fit_session *session, vl_error *err);
void vl_fit_resume_close(vl_fit_session *session);
/* Numbers, history and kept parameters of the layers [first, first + n). */
vl_status vl_fit_resume_layers(vl_fit_session *session, int64_t first, int64_t n, vl_error *err);
/* The device memory of a layer whose group was opened. */
vl_status vl_fit_resume_in_flight(vl_fit_session *session, const vl_fit_layer *layer, vl_error *err);
/* Removes all checkpoints of the output folder. */
vl_status vl_fit_resume_remove(const vl_fit_session *session, vl_error *err);
/* What a layer has in flight, by name: "first.3.weight". */
#define VL_FIT_CHECKPOINT "3" /* the form of the file */
enum { VL_FIT_NAME = 48, VL_FIT_KINDS = 4 };
extern const char *const vl_fit_kinds[VL_FIT_KINDS]; /* "adapter", "first", "second", "best" */

/* report.c: lens.safetensors and metrics.json; the result of a run that is finished, from these files. */
vl_status vl_fit_write_lens(vl_fit_session *session, vl_error *err);
vl_status vl_fit_result_new(vl_fit_result *result, int64_t n_layers, vl_error *err);
vl_status vl_fit_fill_result(vl_fit_result *result, const vl_fit_session *session, vl_error *err);
/* *finished: the lens of these very settings lies there already. VL_EMISMATCH: one of other settings does. */
vl_status vl_fit_find_finished(bool *finished, vl_fit_result *result, const vl_fit_session *session, vl_error *err);

#endif
