/* vlens/progress.h - how long-running calls report, and how they are asked to stop. */
#ifndef VLENS_PROGRESS_H
#define VLENS_PROGRESS_H

#include <stdint.h>

#include <vlens/error.h>

typedef struct vl_progress {
    const char *stage; /* "cache", "ridge", "fit", "eval": static string */
    const char *unit;  /* what done and total count: "samples", "tokens", "steps" */
    int64_t done;
    int64_t total;
    double kl; /* current KL in nats, NaN where the stage has none */
} vl_progress;

/* Called from the calling thread, at least once a second while work goes on, and once with done == total.
 * A non-zero return asks the call to stop: it saves what it promises to save and returns VL_ECANCELLED. */
typedef int (*vl_progress_fn)(void *user, const vl_progress *progress);

/* A line of information or a warning for the person ("held out 231 of 640 images"). */
typedef void (*vl_message_fn)(void *user, int is_warning, const char *line);

/* The two callbacks that every long-running call takes; both may be NULL. */
typedef struct vl_observer {
    vl_progress_fn progress;
    vl_message_fn message;
    void *user;
} vl_observer;

#endif
