#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/data/samples.h"

static const char *kind(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a text";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "true or false";
    case JSON_NULL: break;
    }
    return "null";
}

/* A member that is there and not null. */
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static vl_status copy_text(char **out, const json_t *value, const char *key, vl_error *err)
{
    if (!json_is_string(value))
        return vl_fail(err, VL_EFORMAT, "\"%s\" is %s, expected a text", key, kind(value));
    *out = vl_strdup(json_string_value(value));
    return *out ? VL_OK : vl_fail_nomem(err, key);
}

/* ---- images ------------------------------------------------------------------------------------------------ */

static vl_status add_image(vl_sample *sample, const vl_image_folder *folder, const json_t *name, vl_error *err)
{
    if (!json_is_string(name))
        return vl_fail(err, VL_EFORMAT, "\"image\" holds %s, expected a path or a list of paths", kind(name));
    VL_TRY(vl_image_folder_find(&sample->images[sample->n_images], folder, json_string_value(name), err));
    sample->n_images++;
    return VL_OK;
}

static vl_status read_images(vl_sample *sample, const vl_image_folder *folder, const json_t *object, vl_error *err)
{
    const json_t *image = member(object, "image");
    if (!image) {
        if (member(object, "images")) /* a near miss that would silently drop the pictures */
            return vl_fail(err, VL_EFORMAT,
                           "key \"images\" is not known, expected \"image\" (a path or a list of "
                           "paths)");
        return VL_OK;
    }
    size_t n = json_is_array(image) ? json_array_size(image) : 1;
    if (n > VL_SAMPLE_IMAGES)
        return vl_fail(err, VL_EFORMAT, "%zu images, at most %d are read", n, VL_SAMPLE_IMAGES);
    sample->images = vl_calloc(n + 1, sizeof *sample->images);
    if (!sample->images)
        return vl_fail_nomem(err, "images");
    if (!json_is_array(image))
        return add_image(sample, folder, image, err);
    for (size_t i = 0; i < n; i++)
        VL_TRY(add_image(sample, folder, json_array_get(image, i), err));
    return VL_OK;
}

/* ---- conversations ----------------------------------------------------------------------------------------- */

/* LLaVA's files spell the place of an image as "<image>" and a line break. The template puts it where the model
 * expects it, as LLaVA's own preprocessing does. */
static vl_status strip_image_tokens(vl_sample *sample, vl_error *err)
{
    static const char token[] = "<image>";
    int n = 0;
    for (char *at; (at = strstr(sample->prompt, token)) != NULL; n++)
        memmove(at, at + sizeof token - 1, strlen(at + sizeof token - 1) + 1);
    if (n > 0 && n != sample->n_images)
        return vl_fail(err, VL_EFORMAT, "%d times \"<image>\" in the first human turn, but %d images", n,
                       sample->n_images);
    if (n > 0) {
        char *start = sample->prompt + strspn(sample->prompt, " \t\r\n");
        memmove(sample->prompt, start, strlen(start) + 1);
        for (size_t end = strlen(sample->prompt); end > 0 && strchr(" \t\r\n", sample->prompt[end - 1]); end--)
            sample->prompt[end - 1] = 0;
    }
    return VL_OK;
}

static bool from_any(const char *from, const char *a, const char *b)
{
    return strcmp(from, a) == 0 || strcmp(from, b) == 0;
}

/* The first human turn is the prompt, the first answer after it the answer. */
static vl_status read_conversation(vl_sample *sample, const json_t *turns, vl_error *err)
{
    if (!json_is_array(turns))
        return vl_fail(err, VL_EFORMAT, "\"conversations\" is %s, expected a list", kind(turns));
    for (size_t i = 0; i < json_array_size(turns) && !sample->answer; i++) {
        const json_t *turn = json_array_get(turns, i), *from = member(turn, "from"), *value = member(turn, "value");
        if (!json_is_string(from) || !value)
            return vl_fail(err, VL_EFORMAT, "turn %zu of \"conversations\" is no object with \"from\" and \"value\"",
                           i);
        const char *who = json_string_value(from);
        if (!sample->prompt && from_any(who, "human", "user"))
            VL_TRY(copy_text(&sample->prompt, value, "value", err));
        else if (sample->prompt && from_any(who, "gpt", "assistant"))
            VL_TRY(copy_text(&sample->answer, value, "value", err));
    }
    if (!sample->prompt)
        return vl_fail(err, VL_EFORMAT, "\"conversations\" has no turn from \"human\"");
    return strip_image_tokens(sample, err);
}

/* ---- lines ------------------------------------------------------------------------------------------------- */

static bool too_deep(const char *text, size_t n)
{
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        if (quoted) {
            if (text[i] == '\\')
                i++;
            else if (text[i] == '"')
                quoted = false;
        } else if (text[i] == '"') {
            quoted = true;
        } else if (text[i] == '{' || text[i] == '[') {
            if (++depth > VL_SAMPLE_DEPTH)
                return true;
        } else if (text[i] == '}' || text[i] == ']') {
            depth--;
        }
    }
    return false;
}

static vl_status read_object(vl_sample *sample, const vl_image_folder *folder, const json_t *object, vl_error *err)
{
    const json_t *prompt = member(object, "prompt"), *turns = member(object, "conversations");
    if (!json_is_object(object))
        return vl_fail(err, VL_EFORMAT, "the line is %s, expected an object with \"prompt\"", kind(object));
    if (!prompt == !turns)
        return vl_fail(err, VL_EFORMAT,
                       prompt ? "both \"prompt\" and \"conversations\", expected one of them"
                              : "\"prompt\" (or \"conversations\") is missing");
    VL_TRY(read_images(sample, folder, object, err));
    if (turns)
        return read_conversation(sample, turns, err);
    VL_TRY(copy_text(&sample->prompt, prompt, "prompt", err));
    if (member(object, "answer"))
        VL_TRY(copy_text(&sample->answer, member(object, "answer"), "answer", err));
    return VL_OK;
}

static vl_status read_line(vl_sample_list *list, const vl_image_folder *folder, int64_t number, const char *text,
                           size_t n, vl_error *err)
{
    json_error_t where;
    if (n > VL_SAMPLE_LINE_BYTES)
        return vl_fail(err, VL_EFORMAT, "%s:%lld: a line of %zu bytes, at most %d are read", list->path,
                       (long long)number + 1, n, VL_SAMPLE_LINE_BYTES);
    if (too_deep(text, n))
        return vl_fail(err, VL_EFORMAT, "%s:%lld: nested deeper than %d levels", list->path, (long long)number + 1,
                       VL_SAMPLE_DEPTH);
    json_t *object = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where);
    if (!object)
        return vl_fail(err, VL_EFORMAT, "%s:%lld:%d: no valid JSON: %s; expected one object per line", list->path,
                       (long long)number + 1, where.column, where.text);
    vl_sample *sample = vl_samples_add(list);
    vl_status status = VL_OK;
    if (!sample) {
        status = vl_fail_nomem(err, "samples");
    } else {
        sample->number = number;
        status = read_object(sample, folder, object, err);
        if (status != VL_OK)
            vl_sample_prefix(err, status, list, sample);
    }
    json_decref(object);
    return status;
}

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!memchr(" \t\r", text[i], 3))
            return false;
    return true;
}

static vl_status read_all(vl_sample_list *list, const vl_config *config, const vl_map *map,
                          const vl_image_folder *folder, vl_error *err)
{
    static const char mark[] = "\xef\xbb\xbf"; /* of UTF-8, as some editors put it */
    const char *text = (const char *)map->data;
    size_t at = map->size >= 3 && memcmp(text, mark, 3) == 0 ? 3 : 0;
    int64_t most = config->data.max_samples;
    for (int64_t number = 0; at < map->size && (most == 0 || list->n < most); number++) {
        if (number > INT32_MAX - 1) /* tokens name their sample in 32 bits */
            return vl_fail(err, VL_EUNSUPPORTED, "%s: more than %d lines", list->path, INT32_MAX - 1);
        const char *end = memchr(text + at, '\n', map->size - at);
        size_t n = end ? (size_t)(end - text) - at : map->size - at;
        if (!is_blank(text + at, n))
            VL_TRY(read_line(list, folder, number, text + at, n, err));
        at += n + 1;
    }
    return VL_OK;
}

vl_status vl_samples_read_lines(vl_sample_list *list, const vl_config *config, vl_error *err)
{
    vl_status status = VL_OK;
    vl_map map = {NULL, 0};
    vl_image_folder folder = {NULL, NULL, false};
    VL_GOTO(vl_map_open(&map, list->path, err));
    VL_GOTO(vl_sha256_file(list->path, list->sha256, err));
    VL_GOTO(vl_image_folder_open(&folder, config, err));
    VL_GOTO(read_all(list, config, &map, &folder, err));
done:
    vl_image_folder_clear(&folder);
    vl_map_close(&map);
    return status;
}
