/* Option values from text and back. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/config/options.h"

static void *field(const vl_config *config, const vl_option *option)
{
    return (char *)(uintptr_t)config + option->offset;
}

static vl_status set_int(int64_t *out, const vl_option *option, const char *text, vl_error *err)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno)
        return vl_fail(err, VL_EINVAL, "%s is \"%s\", expected an integer%s", option->key, text,
                       option->type == VL_OPTION_COUNT ? " or all" : "");
    if ((double)value < option->min || (double)value > option->max)
        return vl_fail(err, VL_EINVAL, "%s is %lld, expected %.0f to %.0f", option->key, value, option->min,
                       option->max);
    *out = value;
    return VL_OK;
}

static vl_status set_double(double *out, const vl_option *option, const char *text, vl_error *err)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        return vl_fail(err, VL_EINVAL, "%s is \"%s\", expected a number", option->key, text);
    if (value < option->min || value > option->max)
        return vl_fail(err, VL_EINVAL, "%s is %g, expected %g to %g", option->key, value, option->min, option->max);
    *out = value;
    return VL_OK;
}

static const struct {
    const char *suffix;
    double factor;
} byte_units[] = {{"", 1},         {"B", 1},    {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30},
                  {"TiB", 0x1p40}, {"kB", 1e3}, {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12}};

static vl_status set_bytes(int64_t *out, const vl_option *option, const char *text, vl_error *err)
{
    char *end;
    double value = strtod(text, &end);
    while (*end == ' ')
        end++;
    for (size_t i = 0; end != text && i < sizeof byte_units / sizeof byte_units[0]; i++)
        if (!strcmp(end, byte_units[i].suffix) && value >= 0 && value * byte_units[i].factor <= option->max) {
            *out = (int64_t)(value * byte_units[i].factor);
            return VL_OK;
        }
    return vl_fail(err, VL_EINVAL, "%s is \"%s\", expected a size such as 40GiB or 500MB", option->key, text);
}

static const struct {
    const char *suffix;
    double seconds;
} time_units[] = {{"s", 1}, {"min", 60}, {"h", 3600}};
enum { TIME_UNITS = sizeof time_units / sizeof time_units[0] };

/* A number alone is one of steps. */
static vl_status set_interval(vl_interval *out, const vl_option *option, const char *text, vl_error *err)
{
    char *end;
    double value = strtod(text, &end);
    bool good = end != text && value >= 0 && value <= option->max;
    if (good && !*end && value == floor(value)) {
        *out = (vl_interval){.steps = (int64_t)value};
        return VL_OK;
    }
    while (*end == ' ')
        end++;
    for (int i = 0; good && i < TIME_UNITS; i++)
        if (!strcmp(end, time_units[i].suffix)) {
            *out = (vl_interval){.seconds = value * time_units[i].seconds};
            return VL_OK;
        }
    return vl_fail(err, VL_EINVAL, "%s is \"%s\", expected a time such as 10min, 30s or 2h, or a number of steps",
                   option->key, text);
}

/* Index of `text` (n bytes) in "a|b|c", or -1. */
static int name_index(const char *names, const char *text, size_t n)
{
    for (int index = 0;; index++) {
        const char *end = strchr(names, '|');
        size_t length = end ? (size_t)(end - names) : strlen(names);
        if (length == n && !memcmp(names, text, n))
            return index;
        if (!end)
            return -1;
        names = end + 1;
    }
}

static void name_at(const char *names, int index, const char **start, int *length)
{
    for (; index > 0; index--)
        names = strchr(names, '|') + 1;
    const char *end = strchr(names, '|');
    *start = names;
    *length = end ? (int)(end - names) : (int)strlen(names);
}

static vl_status set_set(unsigned *out, const vl_option *option, const char *text, vl_error *err)
{
    unsigned mask = 0;
    for (const char *at = text; *at;) {
        const char *comma = strchr(at, ',');
        size_t n = comma ? (size_t)(comma - at) : strlen(at);
        int index = name_index(option->names, at, n);
        if (index < 0)
            return vl_fail(err, VL_EINVAL, "%s holds \"%.*s\", expected some of %s", option->key, (int)n, at,
                           option->names);
        mask |= 1u << index;
        at += n + (comma != NULL);
    }
    if (!mask)
        return vl_fail(err, VL_EINVAL, "%s is empty, expected some of %s", option->key, option->names);
    *out = mask;
    return VL_OK;
}

static vl_status set_layers(int64_t out[2], const vl_option *option, const char *text, vl_error *err)
{
    int first, last, used = 0;
    if (!strcmp(text, "all")) {
        out[0] = 0;
        out[1] = VL_ALL;
        return VL_OK;
    }
    if (sscanf(text, "%d-%d%n", &first, &last, &used) != 2 || text[used]) {
        used = 0;
        if (sscanf(text, "%d%n", &first, &used) != 1 || text[used])
            first = -1;
        last = first;
    }
    if (first < 0 || last < first)
        return vl_fail(err, VL_EINVAL, "%s is \"%s\", expected all, N or N-M", option->key, text);
    out[0] = first;
    out[1] = last;
    return VL_OK;
}

static vl_status set_text(char **out, const vl_option *option, const char *text, vl_error *err)
{
    char *copy = *text ? vl_strdup(text) : NULL;
    if (*text && !copy)
        return vl_fail_nomem(err, option->key);
    vl_free(*out);
    *out = copy;
    return VL_OK;
}

vl_status vl_option_set(vl_config *config, const vl_option *option, const char *text, vl_error *err)
{
    void *at = field(config, option);
    switch (option->type) {
    case VL_OPTION_TEXT: return set_text(at, option, text, err);
    case VL_OPTION_COUNT:
        if (!strcmp(text, "all")) {
            *(int64_t *)at = VL_ALL;
            return VL_OK;
        }
        return set_int(at, option, text, err);
    case VL_OPTION_INT: return set_int(at, option, text, err);
    case VL_OPTION_BYTES: return set_bytes(at, option, text, err);
    case VL_OPTION_DOUBLE: return set_double(at, option, text, err);
    case VL_OPTION_BOOL:
        if (strcmp(text, "true") && strcmp(text, "false"))
            return vl_fail(err, VL_EINVAL, "%s is \"%s\", expected true or false", option->key, text);
        *(bool *)at = text[0] == 't';
        return VL_OK;
    case VL_OPTION_ENUM: {
        int index = name_index(option->names, text, strlen(text));
        if (index < 0)
            return vl_fail(err, VL_EINVAL, "%s is \"%s\", expected one of %s", option->key, text, option->names);
        *(int *)at = index;
        return VL_OK;
    }
    case VL_OPTION_SET: return set_set(at, option, text, err);
    case VL_OPTION_INTERVAL: return set_interval(at, option, text, err);
    case VL_OPTION_LAYERS: return set_layers(at, option, text, err);
    }
    return vl_fail(err, VL_EINTERNAL, "%s has no type", option->key);
}

/* In the largest binary unit that holds it exactly. */
static void bytes_text(char *out, size_t size, int64_t bytes)
{
    static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    for (; bytes && bytes % 1024 == 0 && unit < 4; unit++)
        bytes /= 1024;
    snprintf(out, size, "%lld%s", (long long)bytes, units[unit]);
}

/* In the largest unit that gives a whole number. */
static void interval_text(char *out, size_t size, const vl_interval *interval)
{
    int unit = TIME_UNITS - 1;
    if (!(interval->seconds > 0)) {
        snprintf(out, size, "%lld", (long long)interval->steps);
        return;
    }
    while (unit > 0 && fmod(interval->seconds, time_units[unit].seconds) != 0)
        unit--;
    snprintf(out, size, "%.15g%s", interval->seconds / time_units[unit].seconds, time_units[unit].suffix);
}

static char *set_to_text(unsigned mask, const char *names)
{
    char text[256];
    size_t used = 0;
    for (int i = 0; i < 32; i++)
        if (mask & 1u << i) {
            const char *start;
            int length;
            name_at(names, i, &start, &length);
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%.*s", used ? "," : "", length, start);
        }
    return vl_strdup(text);
}

char *vl_option_text(const vl_config *config, const vl_option *option)
{
    char text[64];
    const char *start;
    int length;
    const void *at = field(config, option);
    const int64_t *numbers = at;
    switch (option->type) {
    case VL_OPTION_TEXT: return vl_strdup(*(char *const *)at ? *(char *const *)at : "");
    case VL_OPTION_INT: snprintf(text, sizeof text, "%lld", (long long)numbers[0]); break;
    case VL_OPTION_BYTES: bytes_text(text, sizeof text, numbers[0]); break;
    case VL_OPTION_COUNT:
        if (numbers[0] == VL_ALL)
            return vl_strdup("all");
        snprintf(text, sizeof text, "%lld", (long long)numbers[0]);
        break;
    case VL_OPTION_DOUBLE:
        snprintf(text, sizeof text, "%.15g", *(const double *)at);
        if (strtod(text, NULL) != *(const double *)at)
            snprintf(text, sizeof text, "%.17g", *(const double *)at);
        break;
    case VL_OPTION_BOOL: return vl_strdup(*(const bool *)at ? "true" : "false");
    case VL_OPTION_ENUM:
        name_at(option->names, *(const int *)at, &start, &length);
        return vl_strndup(start, (size_t)length);
    case VL_OPTION_SET: return set_to_text(*(const unsigned *)at, option->names);
    case VL_OPTION_INTERVAL: interval_text(text, sizeof text, at); break;
    case VL_OPTION_LAYERS:
        if (numbers[1] == VL_ALL)
            return vl_strdup("all");
        snprintf(text, sizeof text, "%lld-%lld", (long long)numbers[0], (long long)numbers[1]);
        break;
    }
    return vl_strdup(text);
}
