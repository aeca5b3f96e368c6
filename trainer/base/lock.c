#include "trainer/base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"

enum { TEXT_SIZE = 512, FIELD_SIZE = 65 };

typedef struct holder {
    long pid;     /* 0: the file says nothing */
    bool foreign; /* it says something else: not a lock of vlens */
    char host[FIELD_SIZE], boot[FIELD_SIZE], since[FIELD_SIZE];
} holder;

/* ---- the text ---------------------------------------------------------------------------------------------- */

/* A process number means something only until the next boot. */
static void find_boot(char out[FIELD_SIZE])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, out, FIELD_SIZE - 1) : 0;
    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = 0;
    out[strcspn(out, " \n")] = 0;
    if (!out[0])
        snprintf(out, FIELD_SIZE, "-");
}

static holder find_self(void)
{
    holder self = {.pid = (long)getpid()};
    time_t now = time(NULL);
    struct tm utc;
    if (gethostname(self.host, sizeof self.host - 1) != 0 || !self.host[0])
        snprintf(self.host, sizeof self.host, "-");
    find_boot(self.boot);
    if (!gmtime_r(&now, &utc) || !strftime(self.since, sizeof self.since, "%Y-%m-%dT%H:%M:%SZ", &utc))
        snprintf(self.since, sizeof self.since, "-");
    return self;
}

static holder read_holder(int fd)
{
    holder h = {.pid = 0};
    char text[TEXT_SIZE];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    if (sscanf(text, "pid %ld host %64s boot %64s since %64s", &h.pid, h.host, h.boot, h.since) != 4 || h.pid < 1)
        h.pid = 0;
    h.foreign = h.pid == 0 && n > 0 && strncmp(text, "pid ", 4) != 0;
    return h;
}

static vl_status write_holder(int fd, const holder *h, const char *path, vl_error *err)
{
    char text[TEXT_SIZE];
    int n = snprintf(text, sizeof text, "pid %ld\nhost %s\nboot %s\nsince %s\n", h->pid, h->host, h->boot, h->since);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return vl_fail_errno(err, VL_EIO, "%s: cannot write", path);
    return VL_OK;
}

/* ---- who holds it ------------------------------------------------------------------------------------------ */

static vl_status busy(vl_error *err, const char *folder, const holder *h)
{
    if (h->pid == 0)
        return vl_fail(err, VL_EBUSY, "%s: in use by another run", folder);
    return vl_fail(err, VL_EBUSY, "%s: in use by another run: process %ld on host %s since %s", folder, h->pid, h->host,
                   h->since);
}

/* The text of a holder whose kernel lock is not to be seen: is it gone? `locks`: the file system has such locks, so
 * that a holder on this machine would have been seen. */
static vl_status judge(vl_lock *lock, const holder *h, const holder *self, bool locks, const char *folder,
                       vl_error *err)
{
    bool here = strcmp(h->boot, self->boot) == 0 || strcmp(h->host, self->host) == 0;
    bool same_boot = strcmp(h->boot, self->boot) == 0;
    if (h->pid == 0)
        return VL_OK;
    if (!here)
        return vl_fail(err, VL_EBUSY,
                       "%s: process %ld on host %s holds it since %s, which cannot be asked from host %s; if that run "
                       "is gone, remove %s",
                       folder, h->pid, h->host, h->since, self->host, lock->path);
    if (!locks && same_boot && h->pid != self->pid && (kill((pid_t)h->pid, 0) == 0 || errno == EPERM))
        return busy(err, folder, h);
    snprintf(lock->stale, sizeof lock->stale, "process %ld on host %.50s since %.40s", h->pid, h->host, h->since);
    return VL_OK;
}

/* Is the open file still the one of that name? Its holder may have removed it after we opened it. */
static bool is_current(int fd, const char *path)
{
    struct stat open_one, named;
    return fstat(fd, &open_one) == 0 && stat(path, &named) == 0 && open_one.st_ino == named.st_ino &&
           open_one.st_dev == named.st_dev;
}

static vl_status try_once(vl_lock *lock, bool *again, const char *folder, vl_error *err)
{
    *again = false;
    lock->fd = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (lock->fd < 0)
        return vl_fail_errno(err, VL_EIO, "%s: cannot create", lock->path);
    bool locks = flock(lock->fd, LOCK_EX | LOCK_NB) == 0;
    if (!locks && errno == EWOULDBLOCK) {
        holder h = read_holder(lock->fd);
        return busy(err, folder, &h);
    }
    if (!is_current(lock->fd, lock->path)) {
        close(lock->fd);
        lock->fd = -1;
        *again = true;
        return VL_OK;
    }
    holder self = find_self(), h = read_holder(lock->fd);
    if (h.foreign)
        return vl_fail(err, VL_EMISMATCH, "%s: is no lock of vlens: move it away, or choose another folder",
                       lock->path);
    VL_TRY(judge(lock, &h, &self, locks, folder, err));
    return write_holder(lock->fd, &self, lock->path, err);
}

vl_status vl_lock_take(vl_lock *out, const char *folder, vl_error *err)
{
    enum { TRIES = 100 };
    *out = (vl_lock)VL_LOCK_NONE;
    out->path = vl_path_join(folder, ".lock");
    if (!out->path)
        return vl_fail_nomem(err, folder);
    vl_status status = VL_OK;
    bool again = true;
    for (int i = 0; again && i < TRIES; i++)
        status = try_once(out, &again, folder, err);
    if (status == VL_OK && again)
        status = vl_fail(err, VL_EBUSY, "%s: other runs come and go in this folder", folder);
    if (status == VL_OK)
        return VL_OK;
    if (out->fd >= 0)
        close(out->fd);
    vl_free(out->path);
    *out = (vl_lock)VL_LOCK_NONE;
    return status;
}

void vl_lock_release(vl_lock *lock)
{
    if (lock->fd >= 0) {
        unlink(lock->path); /* while it is held: nobody can have taken it in between */
        close(lock->fd);
    }
    vl_free(lock->path);
    *lock = (vl_lock)VL_LOCK_NONE;
}
