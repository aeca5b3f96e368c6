/* fit/log.h - what the fit tells its observer, and the question whether to stop. */
#ifndef VL_BASE_LOG_H
#define VL_BASE_LOG_H

#include <vlens/progress.h>

typedef struct vl_log {
    const vl_observer *observer; /* may be NULL */
    vl_progress progress;        /* kept up to date by whoever works */
} vl_log;

/* Reports the progress; VL_ECANCELLED where the observer asks to stop. Cheap enough for every tile. */
vl_status vl_log_poll(vl_log *log, vl_error *err);
/* A line for the person. */
void vl_log_say(const vl_log *log, int is_warning, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
