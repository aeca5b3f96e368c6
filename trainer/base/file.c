#include "trainer/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "trainer/base/mem.h"

static vl_status open_regular(int *fd, size_t *size, const char *path, vl_error *err)
{
    struct stat info;
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0)
        return vl_fail_errno(err, VL_EIO, "%s: cannot open", path);
    if (fstat(*fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(*fd);
        return vl_fail(err, VL_EIO, "%s: not a regular file", path);
    }
    *size = (size_t)info.st_size;
    return VL_OK;
}

vl_status vl_map_open(vl_map *out, const char *path, vl_error *err)
{
    int fd;
    size_t size;
    *out = (vl_map){NULL, 0};
    VL_TRY(open_regular(&fd, &size, path, err));
    if (size > 0) {
        void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            vl_status status = vl_fail_errno(err, VL_EIO, "%s: cannot map %zu bytes", path, size);
            close(fd);
            return status;
        }
        *out = (vl_map){data, size};
    }
    close(fd);
    return VL_OK;
}

void vl_map_close(vl_map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->size);
    *map = (vl_map){NULL, 0};
}

void vl_map_expect(const void *data, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data / page * page;
    posix_madvise((void *)begin, (uintptr_t)data + bytes - begin, POSIX_MADV_WILLNEED);
}

/* The descriptor of a file without a name. */
static vl_status open_nameless(int *fd, const char *folder, vl_error *err)
{
    char *path = vl_path_join(folder, ".vlens-memory-XXXXXX");
    if (!path)
        return vl_fail_nomem(err, folder);
    vl_status status = VL_OK;
    *fd = mkstemp(path);
    if (*fd < 0)
        status = vl_fail_errno(err, VL_EIO, "%s: cannot make a file", folder);
    else
        unlink(path);
    vl_free(path);
    return status;
}

vl_status vl_file_memory(void **out, size_t bytes, const char *folder, vl_error *err)
{
    int fd;
    *out = NULL;
    VL_TRY(open_nameless(&fd, folder, err));
    vl_status status = VL_OK;
    /* All blocks now: a full disk is an error here, and would be a signal later. */
    int failure = posix_fallocate(fd, 0, (off_t)bytes);
    void *memory = failure ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (failure)
        errno = failure;
    if (memory == MAP_FAILED)
        status = vl_fail_errno(err, VL_EIO, "%s: no room for %zu bytes", folder, bytes);
    else
        *out = memory;
    close(fd);
    return status;
}

void vl_file_memory_free(void *memory, size_t bytes)
{
    if (memory)
        munmap(memory, bytes);
}

vl_status vl_file_read(char **out, size_t *size, const char *path, size_t limit, vl_error *err)
{
    int fd;
    size_t total;
    *out = NULL;
    VL_TRY(open_regular(&fd, &total, path, err));
    if (total > limit) {
        close(fd);
        return vl_fail(err, VL_EFORMAT, "%s: %zu bytes, more than the limit of %zu", path, total, limit);
    }
    char *data = vl_alloc(total + 1, 1);
    if (!data) {
        close(fd);
        return vl_fail_nomem(err, path);
    }
    size_t have = 0;
    while (have < total) {
        ssize_t n = read(fd, data + have, total - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            vl_status status = n < 0 ? vl_fail_errno(err, VL_EIO, "%s: read failed", path)
                                     : vl_fail(err, VL_EIO, "%s: ended after %zu of %zu bytes", path, have, total);
            close(fd);
            vl_free(data);
            return status;
        }
        have += (size_t)n;
    }
    close(fd);
    data[total] = 0;
    *out = data;
    if (size)
        *size = total;
    return VL_OK;
}

vl_status vl_atomic_begin(vl_atomic_file *out, const char *path, vl_error *err)
{
    *out = (vl_atomic_file){NULL, NULL, NULL};
    size_t length = strlen(path) + 32;
    char *temporary = vl_alloc(length, 1);
    char *copy = vl_strdup(path);
    if (!temporary || !copy) {
        vl_free(temporary);
        vl_free(copy);
        return vl_fail_nomem(err, path);
    }
    snprintf(temporary, length, "%s.tmp-%ld", path, (long)getpid());
    FILE *stream = fopen(temporary, "wb");
    if (!stream) {
        vl_status status = vl_fail_errno(err, VL_EIO, "%s: cannot create", temporary);
        vl_free(temporary);
        vl_free(copy);
        return status;
    }
    *out = (vl_atomic_file){stream, copy, temporary};
    return VL_OK;
}

static vl_status sync_parent(const char *path, vl_error *err)
{
    char *parent = vl_path_parent(path);
    if (!parent)
        return vl_fail_nomem(err, path);
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    vl_status status = VL_OK;
    /* Some file systems cannot fsync a folder (EINVAL); the rename itself has happened by then. */
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL))
        status = vl_fail_errno(err, VL_EIO, "%s: cannot fsync the folder", parent);
    if (fd >= 0)
        close(fd);
    vl_free(parent);
    return status;
}

vl_status vl_atomic_commit(vl_atomic_file *file, vl_error *err)
{
    vl_status status = VL_OK;
    if (fflush(file->stream) != 0 || ferror(file->stream) || fsync(fileno(file->stream)) != 0)
        status = vl_fail_errno(err, VL_EIO, "%s: write failed", file->path);
    if (fclose(file->stream) != 0 && status == VL_OK)
        status = vl_fail_errno(err, VL_EIO, "%s: close failed", file->path);
    file->stream = NULL;
    if (status == VL_OK && rename(file->temporary, file->path) != 0)
        status = vl_fail_errno(err, VL_EIO, "%s: cannot rename into place", file->path);
    if (status == VL_OK)
        status = sync_parent(file->path, err);
    else
        unlink(file->temporary);
    vl_free(file->path);
    vl_free(file->temporary);
    *file = (vl_atomic_file){NULL, NULL, NULL};
    return status;
}

void vl_atomic_drop(vl_atomic_file *file)
{
    if (file->stream) {
        fclose(file->stream);
        unlink(file->temporary);
    }
    vl_free(file->path);
    vl_free(file->temporary);
    *file = (vl_atomic_file){NULL, NULL, NULL};
}

vl_status vl_atomic_write(const char *path, const void *data, size_t size, vl_error *err)
{
    vl_atomic_file file;
    VL_TRY(vl_atomic_begin(&file, path, err));
    fwrite(data, 1, size, file.stream);
    return vl_atomic_commit(&file, err);
}

vl_status vl_publish_file(const char *temporary, const char *path, vl_error *err)
{
    int fd = open(temporary, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return vl_fail_errno(err, VL_EIO, "%s: cannot open", temporary);
    vl_status status = VL_OK;
    if (fsync(fd) != 0)
        status = vl_fail_errno(err, VL_EIO, "%s: fsync failed", temporary);
    close(fd);
    if (status == VL_OK && rename(temporary, path) != 0)
        status = vl_fail_errno(err, VL_EIO, "%s: cannot rename into place", path);
    return status == VL_OK ? sync_parent(path, err) : status;
}

bool vl_is_lfs_pointer(const void *data, size_t size)
{
    static const char mark[] = "version https://git-lfs.github.com/spec/";
    return size >= sizeof mark - 1 && memcmp(data, mark, sizeof mark - 1) == 0;
}

vl_status vl_fail_lfs(vl_error *err, const char *path)
{
    return vl_fail(err, VL_EFORMAT, "%s: a pointer of git-lfs, not the file itself: \"git lfs pull\" fetches it", path);
}

vl_status vl_move_aside(char **out, const char *path, vl_error *err)
{
    size_t size = strlen(path) + 32;
    struct stat info;
    char *to = vl_alloc(size, 1);
    if (!to)
        return vl_fail_nomem(err, path);
    for (int n = 1; n == 1 || lstat(to, &info) == 0; n++)
        snprintf(to, size, "%s.replaced-%d", path, n);
    vl_status status = VL_OK;
    if (rename(path, to) != 0)
        status = vl_fail_errno(err, VL_EIO, "%s: cannot be moved aside to %s", path, to);
    if (status == VL_OK && out)
        *out = to;
    else
        vl_free(to);
    return status;
}

static bool is_temporary_of(const char *name, const char *base)
{
    static const char mark[] = ".tmp-";
    size_t n = strlen(base);
    if (strncmp(name, base, n) != 0 || strncmp(name + n, mark, sizeof mark - 1) != 0)
        return false;
    const char *digits = name + n + sizeof mark - 1;
    return digits[0] && digits[strspn(digits, "0123456789")] == 0;
}

void vl_atomic_clean(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent = vl_path_parent(path);
    DIR *dir = parent ? opendir(parent) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;)
        if (is_temporary_of(e->d_name, slash ? slash + 1 : path))
            unlinkat(dirfd(dir), e->d_name, 0);
    if (dir)
        closedir(dir);
    vl_free(parent);
}

char *vl_path_join(const char *a, const char *b)
{
    if (b[0] == '/' || !a[0])
        return vl_strdup(b);
    size_t n = strlen(a), size = n + strlen(b) + 2;
    char *path = vl_alloc(size, 1);
    if (path)
        snprintf(path, size, "%s%s%s", a, a[n - 1] == '/' ? "" : "/", b);
    return path;
}

char *vl_path_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return vl_strdup(".");
    return slash == path ? vl_strdup("/") : vl_strndup(path, (size_t)(slash - path));
}

bool vl_path_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool vl_path_is_directory(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

vl_status vl_make_directories(const char *path, vl_error *err)
{
    char *copy = vl_strdup(path);
    if (!copy)
        return vl_fail_nomem(err, path);
    vl_status status = VL_OK;
    for (char *c = copy + 1; status == VL_OK; c++) {
        if (*c != '/' && *c != 0)
            continue;
        char end = *c;
        *c = 0;
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            status = vl_fail_errno(err, VL_EIO, "%s: cannot create the folder", copy);
        *c = end;
        if (!end)
            break;
    }
    vl_free(copy);
    if (status == VL_OK && !vl_path_is_directory(path))
        status = vl_fail(err, VL_EIO, "%s: exists and is no folder", path);
    return status;
}

int64_t vl_mtime(const struct stat *info)
{
    return (int64_t)info->st_mtim.tv_sec * 1000000000 + (int64_t)info->st_mtim.tv_nsec;
}

double vl_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
