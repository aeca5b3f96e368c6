#include "trainer/fit/notice.h"

#include <stdarg.h>
#include <stdio.h>

#include "trainer/base/status.h"

vl_status vl_notice_poll(vl_notice *notice, vl_error *err)
{
    const vl_observer *o = notice->observer;
    if (o && o->progress && o->progress(o->user, &notice->progress) != 0)
        return vl_fail(err, VL_ECANCELLED, "%s: stopped after %lld of %lld %s", notice->progress.stage,
                       (long long)notice->progress.done, (long long)notice->progress.total, notice->progress.unit);
    return VL_OK;
}

void vl_notice_say(const vl_notice *notice, int is_warning, const char *format, ...)
{
    const vl_observer *o = notice->observer;
    char line[512];
    va_list args;
    if (!o || !o->message)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    o->message(o->user, is_warning, line);
}
