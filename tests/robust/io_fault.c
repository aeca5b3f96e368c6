/* A library for LD_PRELOAD: counts the calls that write (and read) files under FAULT_ROOT, and makes one of them fail.
 * To write is to create a file or folder, to give it room, to write, fsync and rename.
 *
 *     FAULT_ROOT   only files under this folder are counted
 *     FAULT_AT     the call that fails, from 0; none where it is missing
 *     FAULT_KIND   ENOSPC | EIO | EDQUOT: the error; a write fails from there on, as on a full disk
 *                  short: that write writes half; read: that read fails with EIO
 *     FAULT_LOG    gets "WRITES READS", the calls counted
 *
 * stdio calls write inside libc, where nothing can be put in between: streams that are opened for writing are made of
 * write itself (fopencookie). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { MOST_STREAMS = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long writes, reads;
static struct {
    FILE *stream;
    int fd;
} streams[MOST_STREAMS];

#define REAL(name) (__extension__(__typeof__(&(name))) dlsym(RTLD_NEXT, #name))

static bool is_under_root(const char *path)
{
    const char *root = getenv("FAULT_ROOT");
    return root && strncmp(path, root, strlen(root)) == 0;
}

static bool is_ours(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    return is_under_root(path);
}

static void log_counts(void)
{
    const char *path = getenv("FAULT_LOG");
    char text[64];
    if (!path)
        return;
    int fd = REAL(open)(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    int n = snprintf(text, sizeof text, "%ld %ld\n", writes, reads);
    if (fd >= 0 && REAL(write)(fd, text, (size_t)n) != n)
        abort();
    close(fd);
}

/* What becomes of a call: 0, an errno, or -1 for half a write. */
static int outcome(bool is_write)
{
    const char *at = getenv("FAULT_AT"), *kind = getenv("FAULT_KIND");
    pthread_mutex_lock(&lock);
    long call = is_write ? writes++ : reads++;
    log_counts();
    pthread_mutex_unlock(&lock);
    if (!at || !kind)
        return 0;
    bool reading = strcmp(kind, "read") == 0;
    if (reading != !is_write)
        return 0;
    long target = atol(at);
    if (reading)
        return call == target ? EIO : 0;
    if (strcmp(kind, "short") == 0)
        return call == target ? -1 : 0;
    return call < target ? 0 : strcmp(kind, "ENOSPC") == 0 ? ENOSPC : strcmp(kind, "EDQUOT") == 0 ? EDQUOT : EIO;
}

/* Whether the call goes on; where not, errno is set. *n may be halved. */
static bool allowed(int fd, bool is_write, size_t *n)
{
    int what = is_ours(fd) ? outcome(is_write) : 0;
    if (what > 0) {
        errno = what;
        return false;
    }
    if (what < 0 && n && *n > 1)
        *n /= 2;
    return true;
}

ssize_t write(int fd, const void *data, size_t n)
{
    return allowed(fd, true, &n) ? REAL(write)(fd, data, n) : -1;
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    return allowed(fd, true, &n) ? REAL(pwrite)(fd, data, n, at) : -1;
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at)
{
    return allowed(fd, true, &n) ? REAL(pwrite64)(fd, data, n, at) : -1;
}

int fsync(int fd)
{
    return allowed(fd, true, NULL) ? REAL(fsync)(fd) : -1;
}

int ftruncate(int fd, off_t size)
{
    return allowed(fd, true, NULL) ? REAL(ftruncate)(fd, size) : -1;
}

int ftruncate64(int fd, off64_t size)
{
    return allowed(fd, true, NULL) ? REAL(ftruncate64)(fd, size) : -1;
}

/* It returns the error. */
int posix_fallocate(int fd, off_t at, off_t n)
{
    return allowed(fd, true, NULL) ? REAL(posix_fallocate)(fd, at, n) : errno;
}

int posix_fallocate64(int fd, off64_t at, off64_t n)
{
    return allowed(fd, true, NULL) ? REAL(posix_fallocate64)(fd, at, n) : errno;
}

/* For calls that name their file. */
static bool allowed_path(const char *path)
{
    int what = is_under_root(path) ? outcome(true) : 0;
    if (what > 0)
        errno = what;
    return what <= 0;
}

int rename(const char *from, const char *to)
{
    return allowed_path(from) ? REAL(rename)(from, to) : -1;
}

int mkdir(const char *path, mode_t mode)
{
    return allowed_path(path) ? REAL(mkdir)(path, mode) : -1;
}

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
        if (!allowed_path(path))
            return -1;
    }
    return REAL(open)(path, flags, mode);
}

/* The same call where off_t has 64 bits. */
_Static_assert(sizeof(off_t) == sizeof(off64_t), "open64 is another call");
int open64(const char *path, int flags, ...) __attribute__((alias("open")));

ssize_t read(int fd, void *data, size_t n)
{
    return allowed(fd, false, NULL) ? REAL(read)(fd, data, n) : -1;
}

ssize_t pread(int fd, void *data, size_t n, off_t at)
{
    return allowed(fd, false, NULL) ? REAL(pread)(fd, data, n, at) : -1;
}

ssize_t pread64(int fd, void *data, size_t n, off64_t at)
{
    return allowed(fd, false, NULL) ? REAL(pread64)(fd, data, n, at) : -1;
}

/* As libc does: until all is written, or an error. */
static ssize_t cookie_write(void *cookie, const char *data, size_t n)
{
    int fd = *(int *)cookie;
    for (size_t done = 0; done < n;) {
        ssize_t wrote = write(fd, data + done, n - done);
        if (wrote < 0)
            return 0;
        done += (size_t)wrote;
    }
    return (ssize_t)n;
}

static int cookie_close(void *cookie)
{
    int fd = *(int *)cookie;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MOST_STREAMS; i++)
        if (streams[i].stream && streams[i].fd == fd)
            streams[i].stream = NULL;
    pthread_mutex_unlock(&lock);
    free(cookie);
    return close(fd);
}

static FILE *open_stream(const char *path)
{
    cookie_io_functions_t io = {NULL, cookie_write, NULL, cookie_close};
    int *fd = malloc(sizeof *fd);
    if (!fd)
        return NULL;
    *fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    FILE *stream = *fd >= 0 ? fopencookie(fd, "wb", io) : NULL;
    if (!stream) {
        free(fd);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MOST_STREAMS; i++)
        if (!streams[i].stream) {
            streams[i].stream = stream;
            streams[i].fd = *fd;
            break;
        }
    pthread_mutex_unlock(&lock);
    return stream;
}

FILE *fopen(const char *path, const char *mode)
{
    return mode[0] == 'w' && is_under_root(path) ? open_stream(path) : REAL(fopen)(path, mode);
}

FILE *fopen64(const char *path, const char *mode)
{
    return fopen(path, mode);
}

int fileno(FILE *stream)
{
    for (int i = 0; i < MOST_STREAMS; i++)
        if (streams[i].stream == stream)
            return streams[i].fd;
    return REAL(fileno)(stream);
}
