#include "trainer/config/settings.h"

#include <stdio.h>
#include <string.h>

#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/base/str.h"
#include "trainer/config/options.h"

vl_status vl_settings_make(char **out, const vl_config *config, unsigned affects, const vl_fact *facts, int n_facts,
                           vl_error *err)
{
    vl_str text = VL_STR_INIT;
    *out = NULL;
    for (int i = 0; i < vl_options_count; i++) {
        const vl_option *option = &vl_options[i];
        if (!(option->affects & affects) || (option->affects & affects >> 8) || option->type == VL_OPTION_TEXT)
            continue;
        char *value = vl_option_text(config, option);
        text.failed = text.failed || !value;
        vl_str_printf(&text, "%s=%s\n", option->key, value ? value : "");
        vl_free(value);
    }
    for (int i = 0; i < n_facts; i++)
        vl_str_printf(&text, "%s=%s\n", facts[i].name, facts[i].value);
    if (text.failed) {
        vl_str_clear(&text);
        return vl_fail_nomem(err, "settings");
    }
    *out = text.data ? text.data : vl_strdup("");
    return *out ? VL_OK : vl_fail_nomem(err, "settings");
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

/* The JSON object of a cache of version 1 as lines. */
static vl_status from_json(char **out, const char *stored, vl_error *err)
{
    json_t *object;
    const char *key;
    json_t *value;
    vl_str text = VL_STR_INIT;
    *out = NULL;
    VL_TRY(vl_json_parse(&object, stored, strlen(stored), "settings", err));
    json_object_foreach(object, key, value) if (json_is_string(value))
        vl_str_printf(&text, "%s=%s\n", key, json_string_value(value));
    json_decref(object);
    *out = text.data ? text.data : vl_strdup("");
    return text.failed || !*out ? vl_fail_nomem(err, "settings") : VL_OK;
}

/* The value of a key among lines, or NULL; *n is its length. */
static const char *find_value(const char *lines, const char *key, size_t *n)
{
    size_t length = strlen(key);
    for (; *lines; lines += strcspn(lines, "\n"), lines += *lines == '\n') {
        if (strncmp(lines, key, length) != 0 || lines[length] != '=')
            continue;
        *n = strcspn(lines + length + 1, "\n");
        return lines + length + 1;
    }
    return NULL;
}

char *vl_settings_find(const char *settings, const char *key)
{
    size_t n;
    char *lines = NULL, *out = NULL;
    if (settings[0] == '{' && from_json(&lines, settings, NULL) != VL_OK)
        return NULL;
    const char *value = find_value(lines ? lines : settings, key, &n);
    out = value ? vl_strndup(value, n) : NULL;
    vl_free(lines);
    return out;
}

/* Forms that earlier versions wrote and that the option itself does not read. */
static const char *modernise(const vl_option *option, const char *text)
{
    if (option->type == VL_OPTION_BOOL && (!strcmp(text, "1") || !strcmp(text, "0")))
        return text[0] == '1' ? "true" : "false";
    if (option->type == VL_OPTION_LAYERS && !strcmp(text, "0--1"))
        return "all";
    return text;
}

/* A value as the option itself writes it; what it cannot read stays as it is. Freed with vl_free. */
static char *canonical(vl_config *scratch, const vl_option *option, const char *text)
{
    if (!option || option->type == VL_OPTION_TEXT)
        return vl_strdup(text);
    text = modernise(option, text);
    return vl_option_set(scratch, option, text, NULL) == VL_OK ? vl_option_text(scratch, option) : vl_strdup(text);
}

/* ---- comparing --------------------------------------------------------------------------------------------- */

/* Keys that caches of version 1 depended on and did not record (the second stood in data.seed): nothing to compare. */
static bool is_unrecorded(const char *key)
{
    return strcmp(key, "cache.batch_tokens") == 0 || strcmp(key, "cache.seed") == 0;
}

static vl_status compare_value(vl_settings_difference *out, vl_config *scratch, const char *key, const char *then,
                               const char *now, vl_error *err)
{
    const vl_option *option = vl_option_find(key);
    if (!then && is_unrecorded(key))
        return VL_OK;
    char *a = canonical(scratch, option, then ? then : option ? option->initial : "(nothing)");
    char *b = canonical(scratch, option, now);
    vl_status status = a && b ? VL_OK : vl_fail_nomem(err, "settings");
    if (status == VL_OK && strcmp(a, b) != 0) {
        snprintf(out->key, sizeof out->key, "%s", key);
        snprintf(out->then, sizeof out->then, "%s", a);
        snprintf(out->now, sizeof out->now, "%s", b);
    }
    vl_free(a);
    vl_free(b);
    return status;
}

/* One line of `wanted`: "key=value". */
static vl_status compare_line(vl_settings_difference *out, vl_config *scratch, const char *stored, const char *line,
                              size_t length, vl_error *err)
{
    size_t split = strcspn(line, "="), n = 0;
    if (split >= length)
        return VL_OK;
    char *key = vl_strndup(line, split), *now = vl_strndup(line + split + 1, length - split - 1);
    const char *value = key ? find_value(stored, key, &n) : NULL;
    char *then = value ? vl_strndup(value, n) : NULL;
    vl_status status = key && now && (!value || then) ? VL_OK : vl_fail_nomem(err, "settings");
    if (status == VL_OK)
        status = compare_value(out, scratch, key, then, now, err);
    vl_free(key);
    vl_free(now);
    vl_free(then);
    return status;
}

vl_status vl_settings_compare(vl_settings_difference *out, const char *stored, const char *wanted, vl_error *err)
{
    vl_status status = VL_OK;
    char *lines = NULL;
    vl_config *scratch = NULL;
    *out = (vl_settings_difference){.key = ""};
    if (stored[0] == '{')
        VL_GOTO(from_json(&lines, stored, err));
    VL_GOTO(vl_config_new(&scratch, err));
    while (*wanted && !out->key[0]) {
        size_t length = strcspn(wanted, "\n");
        VL_GOTO(compare_line(out, scratch, lines ? lines : stored, wanted, length, err));
        wanted += length + (wanted[length] == '\n');
    }
done:
    vl_config_free(scratch);
    vl_free(lines);
    return status;
}
