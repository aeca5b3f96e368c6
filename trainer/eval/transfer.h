/* eval/transfer.h - the short form of an evaluation: one line a class, over all states. It shows at a glance what a
 * lens reads that was fitted on other classes or other data: against the logit lens, and against a lens fitted here
 * (eval.baseline); answers also by position, since a lens that was fitted on questions alone can be worse than none
 * there. */
#ifndef VL_EVAL_TRANSFER_H
#define VL_EVAL_TRANSFER_H

#include "trainer/base/str.h"
#include "trainer/eval/result.h"

typedef struct vl_transfer {
    vl_estimate kl[VL_EVAL_LENS_COUNT];   /* mean over the states 0..L-1; NaN of VL_EVAL_WRONG_PICTURE */
    vl_estimate gain[VL_EVAL_LENS_COUNT]; /* of the tuned lens over logit lens and baseline, paired */
} vl_transfer;

/* rows [n_groups]. Errors: VL_ENOMEM. */
vl_status vl_transfer_measure(vl_transfer *rows, const vl_eval_result *result, vl_error *err);
vl_status vl_transfer_put(vl_str *out, const vl_eval_result *result, vl_error *err);

#endif
