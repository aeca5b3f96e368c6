/* fit/session.h - one run of a fit, as its parts share it. fit.c has the loop. */
#ifndef VL_FIT_SESSION_H
#define VL_FIT_SESSION_H

#include <vlens/fit.h>

#include "trainer/base/log.h"
#include "trainer/base/team.h"
#include "trainer/fit/layer.h"
#include "trainer/fit/plan.h"
#include "trainer/readout/readout.h"

/* What this process does. Layers know nothing of each other, so that a share of them needs no traffic at all; where
 * there are more processes than layers, those of one share split its rows. */
typedef struct vl_fit_share {
    const vl_team *team;
    int share, n_shares; /* of the layers */
    int64_t first, n;    /* my layers, in session->layers */
    int rank, size;      /* of this process among those of its share; rank 0, the root, alone chooses and writes */
    int root;            /* its rank in the team */
    float *exchange;     /* [D, D] on its way; NULL with one process */
} vl_fit_share;

/* What a step is judged by. It stays on the device, where it decides about the step, and is read once when the step is
 * over. */
enum { VL_WATCH_LOSS = 0, VL_WATCH_BAD_ROW, VL_WATCH_NORM, VL_WATCH_COLUMNS = 4 };
typedef struct vl_fit_watch {
    vl_tensor seen;   /* [at_once, VL_WATCH_COLUMNS] f64 of the layers in flight: loss, first row (of the step) whose
                         loss is no finite number or -1, norm of the gradient */
    vl_tensor scales; /* [at_once, 2] of vl_op_step_scale */
    double *host;     /* [at_once, VL_WATCH_COLUMNS] as it was read */
    int64_t *rows;    /* [tokens_per_step] rows of the cache */
} vl_fit_watch;

typedef struct vl_fit_session {
    /* What is asked for: */
    const vl_config *config;
    vl_cache *cache;
    vl_device *device;
    vl_log log;
    bool said_teacher_unsound;
    char *lens_path, *checkpoint_path, *metrics_path;
    char *settings; /* config/settings.h: what decides the parameters */
    int64_t d_model, n_layers;
    vl_plan plan;
    /* What it is done with: */
    vl_head *head;
    vl_readout readout;
    vl_objective objective;
    vl_optimizer_engine optimizer;
    vl_sampler sampler; /* of the training rows */
    vl_fit_watch watch;
    vl_adapter_gradient gradient; /* shared by all layers where a step is one tile; else no data */
    vl_fit_share share;
    struct vl_fit_resume *resume; /* checkpoints of earlier runs, or NULL */
    /* The layers, and where the run is: */
    vl_fit_layer *layers; /* [n_trained], the layers of lens.layers */
    int64_t n_trained;
    int64_t at_once;   /* layers in flight at most */
    bool keeps_states; /* all their states stay on the device */
    int64_t in_flight; /* my layers [in_flight, in_flight + at_once) are; share.n: all are done */
    int64_t step;      /* of those; layers that are further on wait for it */
    int64_t resumed_from_step;
    double saved_at;               /* clock at the last checkpoint, or at the start */
    double earlier_seconds, began; /* of the runs before a resume; clock at the start of this one */
} vl_fit_session;

/* setup.c: all that a run needs. Everything but what is needed only when there is something to do; then the rest. */
vl_status vl_fit_open(vl_fit_session *session, const vl_fit_options *options, vl_error *err);
vl_status vl_fit_open_machinery(vl_fit_session *session, vl_error *err);
void vl_fit_close(vl_fit_session *session);

/* layer.c: the layers in flight; their memory on the device; the parameters that are kept, to the host. */
vl_fit_layer *vl_fit_in_flight(const vl_fit_session *session, int64_t *n);
vl_status vl_fit_layers_open(vl_fit_session *session, vl_error *err);
vl_status vl_fit_layers_keep(vl_fit_session *session, vl_error *err);
void vl_fit_layers_close(vl_fit_session *session);
/* Memory of kept_weight, and its end. */
vl_status vl_fit_kept_new(vl_fit_session *session, vl_fit_layer *layer, vl_error *err);
void vl_fit_kept_clear(const vl_fit_session *session, vl_fit_layer *layer);
/* adapter -> best. */
vl_status vl_fit_keep_best(vl_fit_session *session, vl_fit_layer *layer, vl_error *err);
/* best -> adapter, and the optimiser as it was before its first step. */
vl_status vl_fit_roll_back(vl_fit_session *session, vl_fit_layer *layer, vl_error *err);
vl_status vl_fit_reset_optimizer(vl_fit_session *session, vl_fit_layer *layer, vl_error *err);

/* Whether it takes part in the next step. */
static inline bool vl_fit_is_due(const vl_fit_session *session, const vl_fit_layer *layer)
{
    return !vl_fit_is_over(layer) && layer->progress.position == session->step;
}
/* A step is one tile of this process alone: layers take it one after the other, with one gradient between them. */
static inline bool vl_fit_shares_gradient(const vl_fit_session *session)
{
    return session->plan.tokens_per_step <= session->readout.loader.capacity && session->share.size == 1;
}

/* watch.c: for at_once layers. */
vl_status vl_fit_watch_new(vl_fit_session *session, vl_error *err);
void vl_fit_watch_clear(vl_fit_session *session);
/* No loss, no bad row. */
vl_status vl_fit_watch_reset(vl_fit_session *session, vl_error *err);
/* Its row of `seen`, from a column on, and its scales. `slot`: its number among those in flight. */
vl_tensor vl_fit_watch_seen(const vl_fit_session *session, int64_t slot, int column, int64_t n);
vl_tensor vl_fit_watch_scales(const vl_fit_session *session, int64_t slot);

/* fault.c: looks for a row of the cell that counts and whose loss is no finite number. */
void vl_fit_note_bad_row(const vl_fit_session *session, vl_fit_layer *layer, const vl_readout_cell *cell);
/* Says once of a layer, or once of the teacher, that rows are left out whose numbers in the cache are not finite. */
void vl_fit_note_unsound(vl_fit_session *session, vl_fit_layer *layer, const vl_readout_cell *cell);
/* A step whose loss or gradient (of this norm) is no finite number: the layer stops, or goes back to its best
 * parameters where the numbers in the cache are sound. */
vl_status vl_fit_handle_bad_step(vl_fit_session *session, vl_fit_layer *layer, double norm, vl_error *err);
/* A validation loss: *usable where it can be the best. A layer that diverged goes back to its best parameters. */
vl_status vl_fit_handle_score(bool *usable, vl_fit_session *session, vl_fit_layer *layer, double loss, vl_error *err);

/* share.c: who does what. */
vl_status vl_fit_share_out(vl_fit_session *session, const vl_team *team, vl_error *err);
/* Rows [*first, *first + *n) of each step are mine. */
void vl_fit_share_rows(const vl_fit_session *session, int64_t *first, int64_t *n);
/* Nothing to do with one process: the sums of a share, of the gradient and the step's loss; */
vl_status vl_fit_add_gradients(vl_fit_session *session, vl_fit_layer *layer, vl_error *err);
/* the root's progress, and its parameters where it has just made them (`anew`) or gone back to earlier ones. */
vl_status vl_fit_follow(vl_fit_session *session, vl_fit_layer *layer, bool anew, vl_error *err);
static inline bool vl_fit_is_root(const vl_fit_session *session)
{
    return session->share.rank == 0;
}

/* settings.c: session->settings; and VL_EMISMATCH that names `path` and the first key that `stored` has otherwise. */
vl_status vl_fit_settings_make(vl_fit_session *session, vl_error *err);
vl_status vl_fit_settings_check(const vl_fit_session *session, const char *path, const char *stored, vl_error *err);

/* memory.c: what the fit takes of a device with memory of its own. It decides how many layers fly at once and whether
 * their states stay there, and says so.
 * VL_ENOMEM: not even one layer fits. */
vl_status vl_fit_plan_memory(vl_fit_session *session, int64_t tile_rows, vl_error *err);

/* start.c: the parameters that the descent starts from, for the layers in flight that have none yet. */
vl_status vl_fit_start(vl_fit_session *session, vl_error *err);
/* step.c: gradients and updates of all layers in flight on the rows of session->step. Cancelled in the middle, nothing
 * has changed. */
vl_status vl_fit_take_step(vl_fit_session *session, vl_error *err);
/* validate.c: whether the rows that are set aside are to be looked at before the next step. */
bool vl_fit_validation_is_due(const vl_fit_session *session);
/* Scores the layers that take part in the next step, once at each position; notes start, last and best. */
vl_status vl_fit_validate(vl_fit_session *session, vl_error *err);
/* The objective of `n` layers on `rows`: by class and as a whole (NaN without rows). */
typedef struct vl_fit_score {
    double loss, by_class[VL_CLASS_COUNT];
} vl_fit_score;
vl_status vl_fit_score_layers(vl_fit_score *out, vl_fit_session *session, vl_fit_layer *const *layers, int64_t n,
                              const vl_rows *rows, vl_error *err);

/* claim.c: VL_EMISMATCH where lens, metrics or checkpoint would replace a file of another program; with `fresh` such a
 * file is moved aside. */
vl_status vl_fit_claim(const vl_fit_session *session, bool fresh, vl_error *err);
bool vl_fit_checkpoint_is_ours(const char *path);

/* checkpoint.c: everything that a run needs to go on with the same bits. */
vl_status vl_fit_checkpoint_save(vl_fit_session *session, vl_error *err);
/* The same where fit.checkpoint_every has passed since the last one. `after_step`: steps count, too. Only the root
 * saves. On VL_EIO (a full disk) the checkpoint before stays. */
vl_status vl_fit_checkpoint_if_due(vl_fit_session *session, bool after_step, vl_error *err);

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
/* Progress, history and kept parameters of the layers [first, first + n). */
vl_status vl_fit_resume_layers(vl_fit_session *session, int64_t first, int64_t n, vl_error *err);
/* The device memory of a layer that was opened. */
vl_status vl_fit_resume_in_flight(vl_fit_session *session, const vl_fit_layer *layer, vl_error *err);
/* Removes all checkpoints of the output folder. */
vl_status vl_fit_resume_remove(const vl_fit_session *session, vl_error *err);
/* What a layer has in flight, by name: "first.3.weight". The file's names are older than those of the code:
 * "first" is exp_avg, "second" exp_avg_sq. */
#define VL_FIT_CHECKPOINT "3" /* the form of the file */
enum { VL_FIT_NAME = 48, VL_FIT_KINDS = 4 };
extern const char *const vl_fit_kinds[VL_FIT_KINDS]; /* "adapter", "first", "second", "best" */
/* The tensors of one layer in that order. */
void vl_fit_tensors(vl_adapter out[VL_FIT_KINDS], const vl_fit_layer *layer);

/* report.c: lens.safetensors and metrics.json; the result of a run that is finished, from these files. */
vl_status vl_fit_write_lens(vl_fit_session *session, vl_error *err);
vl_status vl_fit_result_new(vl_fit_result *result, int64_t n_layers, vl_error *err);
vl_status vl_fit_fill_result(vl_fit_result *result, const vl_fit_session *session, vl_error *err);
/* *finished: the lens of these very settings lies there already. VL_EMISMATCH: one of other settings does. */
vl_status vl_fit_find_finished(bool *finished, vl_fit_result *result, const vl_fit_session *session, vl_error *err);

#endif
