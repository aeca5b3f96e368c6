/* A folder of a test's own, with files written from text, removed at its end. */
#ifndef VL_TESTS_TEMP_FOLDER_H
#define VL_TESTS_TEMP_FOLDER_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { TEMP_PATH_SIZE = 1024 };

/* snprintf that fails the test where the text does not fit. */
__attribute__((format(printf, 3, 4))) static inline void temp_format(char *out, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(out, size, format, args);
    va_end(args);
    assert_true(length >= 0 && (size_t)length < size);
}

static inline int temp_setup(void **state)
{
    const char *base = getenv("TMPDIR");
    char *folder = malloc(TEMP_PATH_SIZE);
    if (!folder)
        return -1;
    temp_format(folder, TEMP_PATH_SIZE, "%s/vlens-test-XXXXXX", base && base[0] ? base : P_tmpdir);
    *state = mkdtemp(folder);
    return *state ? 0 : -1;
}

static inline void temp_remove(const char *path)
{
    struct stat info;
    if (lstat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        DIR *dir = opendir(path);
        for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
            char inner[TEMP_PATH_SIZE];
            if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                continue;
            temp_format(inner, sizeof inner, "%s/%s", path, e->d_name);
            temp_remove(inner);
        }
        if (dir)
            closedir(dir);
        rmdir(path);
    } else {
        unlink(path);
    }
}

static inline int temp_teardown(void **state)
{
    temp_remove(*state);
    free(*state);
    return 0;
}

/* "folder/name" in a buffer of the caller. */
static inline const char *temp_path(char out[TEMP_PATH_SIZE], const char *folder, const char *name)
{
    temp_format(out, TEMP_PATH_SIZE, "%s/%s", folder, name);
    return out;
}

static inline void temp_write(const char *folder, const char *name, const void *data, size_t size)
{
    char path[TEMP_PATH_SIZE];
    FILE *file = fopen(temp_path(path, folder, name), "wb");
    assert_non_null(file);
    if (size > 0)
        assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static inline void temp_text(const char *folder, const char *name, const char *text)
{
    temp_write(folder, name, text, strlen(text));
}

/* A safetensors file of this header, said to be `length` bytes long, and n_data bytes of data 0, 1, 2 ... */
static inline void temp_safetensors_as(const char *path, const char *header, size_t header_size, uint64_t length,
                                       size_t n_data)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(&length, 1, 8, file), 8);
    if (header_size > 0)
        assert_int_equal(fwrite(header, 1, header_size, file), header_size);
    for (size_t i = 0; i < n_data; i++)
        fputc((int)(i & 0xff), file);
    assert_int_equal(fclose(file), 0);
}

static inline void temp_safetensors(const char *folder, const char *name, const char *header, size_t n_data)
{
    char path[TEMP_PATH_SIZE];
    temp_safetensors_as(temp_path(path, folder, name), header, strlen(header), strlen(header), n_data);
}

#endif
