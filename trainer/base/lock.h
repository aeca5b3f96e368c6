/* base/lock.h - one run at a time in an output folder.
 *
 * The kernel's lock on the file `<folder>/.lock` (flock) keeps others out and ends with its process, however that dies.
 * The file's text says who holds it: process, host, boot and time. Where a file system has no such locks, or the text
 * is from another machine whose locks may not be seen here, the text alone decides. */
#ifndef VL_BASE_LOCK_H
#define VL_BASE_LOCK_H

#include "trainer/base/status.h"

typedef struct vl_lock {
    int fd;          /* -1: none */
    char *path;      /* owned */
    char stale[160]; /* "" or who held it and is gone: "process 12 on host a since ..." */
} vl_lock;

#define VL_LOCK_NONE                                                                                                   \
    {                                                                                                                  \
        -1, NULL, ""                                                                                                   \
    }

/* Takes the lock of a folder that exists. Errors: VL_EBUSY names who holds it and since when; VL_EIO; VL_ENOMEM. On
 * failure there is nothing to release. */
vl_status vl_lock_take(vl_lock *out, const char *folder, vl_error *err);
/* Removes the file. None is allowed. */
void vl_lock_release(vl_lock *lock);

#endif
