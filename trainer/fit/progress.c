/* progress.c - how far a layer is, as a checkpoint stores it and a team sends it. */
#include <math.h>

#include "trainer/fit/layer.h"

enum { BEFORE_CLASSES = 13, BEHIND_CLASSES = VL_FIT_NUMBERS - BEFORE_CLASSES - VL_CLASS_COUNT };

vl_fit_progress vl_fit_progress_new(void)
{
    vl_fit_progress p = {.validated = -1, .stopped_step = -1, .best_step = -1};
    p.ridge = p.start_loss = p.best_loss = p.last_loss = NAN;
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        p.class_loss[c] = NAN;
    return p;
}

void vl_fit_progress_pack(double out[VL_FIT_NUMBERS], const vl_fit_progress *p)
{
    const double head[BEFORE_CLASSES] = {p->phase > VL_FIT_NEW,
                                         (double)p->position,
                                         (double)p->validated,
                                         p->phase == VL_FIT_DONE,
                                         (double)p->steps,
                                         (double)p->stopped_step,
                                         p->ridge,
                                         p->weight_rate,
                                         p->bias_rate,
                                         p->start_loss,
                                         p->best_loss,
                                         p->best_step < 0 ? (double)NAN : (double)p->best_step,
                                         p->last_loss};
    const double tail[BEHIND_CLASSES] = {p->seconds, (double)p->rollbacks, (double)p->restart_step};
    for (int i = 0; i < BEFORE_CLASSES; i++)
        out[i] = head[i];
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        out[BEFORE_CLASSES + c] = p->class_loss[c];
    for (int i = 0; i < BEHIND_CLASSES; i++)
        out[BEFORE_CLASSES + VL_CLASS_COUNT + i] = tail[i];
}

/* A count that was stored as a double; -1 for what is none. */
static int64_t whole(double value)
{
    return value >= 0 && value < 0x1p53 ? (int64_t)value : -1;
}

bool vl_fit_progress_unpack(vl_fit_progress *out, const double *n, int64_t length)
{
    int64_t classes = length - BEFORE_CLASSES - BEHIND_CLASSES; /* a version with fewer classes wrote fewer */
    if (classes < 1 || classes > VL_CLASS_COUNT)
        return false;
    const double *tail = n + BEFORE_CLASSES + classes;
    *out = vl_fit_progress_new();
    out->phase = n[3] > 0 ? VL_FIT_DONE : n[5] >= 0 ? VL_FIT_STOPPED : n[0] > 0 ? VL_FIT_RUNNING : VL_FIT_NEW;
    out->position = whole(n[1]);
    out->validated = whole(n[2]);
    out->steps = whole(n[4]);
    out->stopped_step = whole(n[5]);
    out->ridge = n[6];
    out->weight_rate = n[7];
    out->bias_rate = n[8];
    out->start_loss = n[9];
    out->best_loss = n[10];
    out->best_step = whole(n[11]);
    out->last_loss = n[12];
    for (int64_t c = 0; c < classes; c++)
        out->class_loss[c] = n[BEFORE_CLASSES + c];
    out->seconds = tail[0];
    out->rollbacks = whole(tail[1]);
    out->restart_step = whole(tail[2]);
    return true;
}
