#include "trainer/base/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "trainer/base/status.h"

vl_status vl_log_poll(vl_log *log, vl_error *err)
{
    const vl_observer *o = log->observer;
    if (o && o->progress && o->progress(o->user, &log->progress) != 0)
        return vl_fail(err, VL_ECANCELLED, "%s: stopped after %lld of %lld %s", log->progress.stage,
                       (long long)log->progress.done, (long long)log->progress.total, log->progress.unit);
    return VL_OK;
}

void vl_log_say(const vl_log *log, int is_warning, const char *format, ...)
{
    const vl_observer *o = log->observer;
    char line[512];
    va_list args;
    if (!o || !o->message)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    o->message(o->user, is_warning, line);
}
