/* base/str.h - a growing byte string. After a failed append `failed` stays set and later appends do nothing,
 * so that a builder is checked once at its end. */
#ifndef VL_BASE_STR_H
#define VL_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>

typedef struct vl_str {
    char *data; /* NUL-terminated; NULL while empty */
    size_t size;
    size_t capacity;
    bool failed;
} vl_str;

#define VL_STR_INIT                                                                                                    \
    {                                                                                                                  \
        NULL, 0, 0, false                                                                                              \
    }

void vl_str_append(vl_str *str, const char *text, size_t n);
void vl_str_puts(vl_str *str, const char *text);
void vl_str_putc(vl_str *str, char c);
void vl_str_printf(vl_str *str, const char *format, ...) __attribute__((format(printf, 2, 3)));
void vl_str_clear(vl_str *str); /* frees */

#endif
