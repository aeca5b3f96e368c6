#include "trainer/base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *vl_status_name(vl_status status)
{
    switch (status) {
    case VL_OK: return "ok";
    case VL_EINVAL: return "invalid argument";
    case VL_ENOMEM: return "out of memory";
    case VL_EIO: return "input/output error";
    case VL_EFORMAT: return "bad format";
    case VL_ESHAPE: return "wrong shape";
    case VL_EUNSUPPORTED: return "not supported";
    case VL_EMISMATCH: return "mismatch";
    case VL_EDEVICE: return "device error";
    case VL_ECANCELLED: return "cancelled";
    case VL_EINTERNAL: return "internal error";
    case VL_EBUSY: return "in use";
    case VL_ELENGTH: return "too long";
    }
    return "unknown status";
}

/* Messages quote names out of files that strangers made: control characters would break the one-line promise. */
static void keep_one_line(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            *c = '?';
}

#undef vl_fail
vl_status vl_fail(vl_error *err, vl_status status, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->status = status;
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        keep_one_line(err->message);
    }
    return status;
}

#undef vl_fail_errno
vl_status vl_fail_errno(vl_error *err, vl_status status, const char *format, ...)
{
    int saved = errno;
    if (err) {
        va_list args;
        va_start(args, format);
        err->status = status;
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used, ": %s", strerror(saved));
        keep_one_line(err->message);
    }
    return status;
}

#undef vl_error_prefix
vl_status vl_error_prefix(vl_error *err, vl_status status, const char *format, ...)
{
    if (err) {
        char tail[VL_ERROR_MESSAGE_SIZE];
        memcpy(tail, err->message, sizeof tail);
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used, "%s", tail);
        err->status = status;
        keep_one_line(err->message);
    }
    return status;
}
