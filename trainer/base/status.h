/* base/status.h - the one-line checks that carry vl_status and vl_error through the library. */
#ifndef VL_BASE_STATUS_H
#define VL_BASE_STATUS_H

#include <vlens/error.h>

/* Fills *err (may be NULL) and returns `status`: `return vl_fail(err, VL_EIO, "%s: ...", path);` */
vl_status vl_fail(vl_error *err, vl_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Same, with ": " and the text of errno appended. */
vl_status vl_fail_errno(vl_error *err, vl_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Puts text in front of the message of an error that is on its way up. Returns err's status. */
vl_status vl_error_prefix(vl_error *err, vl_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* clang-tidy looks into one file at a time: here it learns that a failure returns the status that it was given. */
#ifdef __clang_analyzer__
#define vl_fail(err, status, ...)         ((void)vl_fail(err, status, __VA_ARGS__), (status))
#define vl_fail_errno(err, status, ...)   ((void)vl_fail_errno(err, status, __VA_ARGS__), (status))
#define vl_error_prefix(err, status, ...) ((void)vl_error_prefix(err, status, __VA_ARGS__), (status))
#endif

/* Returns from the function on failure: for functions that hold nothing to free. */
#define VL_TRY(expression)                                                                                             \
    do {                                                                                                               \
        vl_status vl_try_status = (expression);                                                                        \
        if (vl_try_status != VL_OK)                                                                                    \
            return vl_try_status;                                                                                      \
    } while (0)

/* Jumps to `done:` on failure; needs a local `vl_status status = VL_OK;`. */
#define VL_GOTO(expression)                                                                                            \
    do {                                                                                                               \
        status = (expression);                                                                                         \
        if (status != VL_OK)                                                                                           \
            goto done;                                                                                                 \
    } while (0)

#endif
