/* base/file.h - files: whole reads, read-only maps, and writes that appear whole or not at all. */
#ifndef VL_BASE_FILE_H
#define VL_BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include "trainer/base/status.h"

/* A read-only map of a whole regular file. An empty file has data == NULL, size == 0. */
typedef struct vl_map {
    const uint8_t *data;
    size_t size;
} vl_map;

/* Errors: VL_EIO (missing, a directory, unreadable). */
vl_status vl_map_open(vl_map *out, const char *path, vl_error *err);
void vl_map_close(vl_map *map);
/* Says that a part of some map will be read soon: it is brought into memory meanwhile. Advice; it cannot fail. */
void vl_map_expect(const void *data, size_t bytes);

/* Zeroed memory that belongs to a nameless file in `folder`: where memory is short, the system moves it there. For what
 * is large and seldom touched. Freed with vl_file_memory_free, NULL allowed. Errors: VL_EIO (no room on that disk). */
vl_status vl_file_memory(void **out, size_t bytes, const char *folder, vl_error *err);
void vl_file_memory_free(void *memory, size_t bytes);

/* Reads a file of at most `limit` bytes; *out is NUL-terminated (the NUL is not counted) and freed by the
 * caller with vl_free. Errors: VL_EIO, VL_EFORMAT (larger than the limit), VL_ENOMEM. */
vl_status vl_file_read(char **out, size_t *size, const char *path, size_t limit, vl_error *err);

/* An output file that becomes visible under its name only when committed: written to `<path>.tmp-<pid>`,
 * fsynced, renamed, and the folder fsynced. Dropping it removes the temporary file. */
typedef struct vl_atomic_file {
    FILE *stream; /* write here; errors are found at commit */
    char *path;
    char *temporary;
} vl_atomic_file;

vl_status vl_atomic_begin(vl_atomic_file *out, const char *path, vl_error *err);
/* On failure nothing is left behind, and the old file at `path` is as it was. Frees either way. */
vl_status vl_atomic_commit(vl_atomic_file *file, vl_error *err);
void vl_atomic_drop(vl_atomic_file *file);
/* begin + write + commit. */
vl_status vl_atomic_write(const char *path, const void *data, size_t size, vl_error *err);
/* fsyncs an already closed file, renames it to `path`, fsyncs the folder (for files that a library writes). */
vl_status vl_publish_file(const char *temporary, const char *path, vl_error *err);

/* Whether a file is a pointer of git-lfs: what a clone without git-lfs holds in the place of a large file. */
bool vl_is_lfs_pointer(const void *data, size_t size);
/* VL_EFORMAT that says so, and what to do. */
vl_status vl_fail_lfs(vl_error *err, const char *path);
/* Gives a file that vlens did not write another name, "<path>.replaced-1" or the next that is free. Where `out` is not
 * NULL it is that name, freed with vl_free. */
vl_status vl_move_aside(char **out, const char *path, vl_error *err);

/* Removes `<path>.tmp-<digits>` that writers left which were killed; nobody else may be writing `path`. */
void vl_atomic_clean(const char *path);

/* `a/b`; b alone when it is absolute. The caller frees. NULL when out of memory. */
char *vl_path_join(const char *a, const char *b);
/* Folder part of a path ("." where there is none). The caller frees. */
char *vl_path_parent(const char *path);
bool vl_path_exists(const char *path);
bool vl_path_is_directory(const char *path);
/* mkdir -p. */
vl_status vl_make_directories(const char *path, vl_error *err);

/* When a file was last written, in nanoseconds since 1970. */
int64_t vl_mtime(const struct stat *info);

/* Seconds of a clock that never goes back. */
double vl_clock(void);

#endif
