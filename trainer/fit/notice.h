/* fit/notice.h - what the fit tells its observer, and the question whether to stop. */
#ifndef VL_FIT_NOTICE_H
#define VL_FIT_NOTICE_H

#include <vlens/progress.h>

typedef struct vl_notice {
    const vl_observer *observer; /* may be NULL */
    vl_progress progress;        /* kept up to date by whoever works */
} vl_notice;

/* Reports the progress; VL_ECANCELLED where the observer asks to stop. Cheap enough for every tile. */
vl_status vl_notice_poll(vl_notice *notice, vl_error *err);
/* A line for the person. */
void vl_notice_say(const vl_notice *notice, int is_warning, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
