#include "trainer/base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"

static bool reserve(vl_str *str, size_t extra)
{
    size_t need;
    if (str->failed || !vl_add_size(&need, str->size, extra) || !vl_add_size(&need, need, 1)) {
        str->failed = true;
        return false;
    }
    if (need <= str->capacity)
        return true;
    size_t capacity;
    if (!vl_add_size(&capacity, str->capacity, str->capacity / 2) || capacity < need)
        capacity = need;
    if (capacity < 64)
        capacity = 64;
    char *data = vl_realloc(str->data, capacity, 1);
    if (!data) {
        str->failed = true;
        return false;
    }
    str->data = data;
    str->capacity = capacity;
    return true;
}

void vl_str_append(vl_str *str, const char *text, size_t n)
{
    if (!reserve(str, n))
        return;
    if (n > 0)
        memcpy(str->data + str->size, text, n);
    str->size += n;
    str->data[str->size] = 0;
}

void vl_str_puts(vl_str *str, const char *text)
{
    vl_str_append(str, text, strlen(text));
}

void vl_str_putc(vl_str *str, char c)
{
    vl_str_append(str, &c, 1);
}

void vl_str_printf(vl_str *str, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        str->failed = true;
    else if (reserve(str, (size_t)n)) {
        vsnprintf(str->data + str->size, (size_t)n + 1, format, again);
        str->size += (size_t)n;
    }
    va_end(again);
}

void vl_str_clear(vl_str *str)
{
    vl_free(str->data);
    *str = (vl_str)VL_STR_INIT;
}
