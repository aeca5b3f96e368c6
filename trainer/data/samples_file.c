/* The file of samples: JSON lines, a JSON array, or COCO's captions. Objects are found by their brackets and parsed one
 * by one, so that a file of gigabytes needs no more memory than its samples, and a bad one has its line. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/data/samples.h"

typedef struct reader {
    vl_sample_list *list;
    vl_turn_source source;
    const char *text;
    size_t size, at;
    int64_t line;                      /* of `at`, from 1 */
    int64_t most;                      /* samples; 0: all */
    int64_t taken[VL_FORMAT_COCO + 1]; /* samples of each format */
    vl_error *err;
} reader;

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static void skip_space(reader *r)
{
    for (; r->at < r->size && is_space(r->text[r->at]); r->at++)
        r->line += r->text[r->at] == '\n';
}

static bool full(const reader *r)
{
    return r->most > 0 && r->list->n >= r->most;
}

/* The end of the value that begins at `at`: behind its last bracket. The size of the text where it has no end. Sets how
 * deep it is nested. */
static size_t value_end(const char *text, size_t at, size_t size, int *deepest)
{
    int depth = 0;
    bool quoted = false;
    *deepest = 0;
    for (; at < size; at++) {
        char c = text[at];
        if (quoted) {
            if (c == '\\')
                at++;
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            *deepest = ++depth > *deepest ? depth : *deepest;
        } else if (c == '}' || c == ']') {
            if (--depth <= 0)
                return depth < 0 ? at : at + 1;
        } else if (c == ',' && depth == 0) {
            return at;
        }
    }
    return size;
}

static vl_status fault(reader *r, int64_t number, const vl_error *why)
{
    if (why->status == VL_ENOMEM)
        return vl_fail(r->err, VL_ENOMEM, "%s", why->message);
    return vl_samples_add_fault(r->list, number, r->line, why->message, r->err);
}

/* One object, text[first, first + n), as sample `number`; what is wrong with it becomes a fault. */
static vl_status read_object(reader *r, int64_t number, const char *text, size_t n)
{
    vl_error why = VL_ERROR_INIT;
    json_error_t where;
    json_t *object = NULL;
    int deepest;
    vl_data_format found = VL_FORMAT_AUTO;
    vl_status status = VL_OK;
    if (number > INT32_MAX - 1) /* tokens name their sample in 32 bits */
        return vl_fail(r->err, VL_EUNSUPPORTED, "%s: more than %d samples", r->list->path, INT32_MAX - 1);
    value_end(text, 0, n, &deepest);
    if (n > VL_SAMPLE_LINE_BYTES)
        status = vl_fail(&why, VL_EFORMAT, "a line of %zu bytes, at most %d are read", n, VL_SAMPLE_LINE_BYTES);
    else if (deepest > VL_SAMPLE_DEPTH)
        status = vl_fail(&why, VL_EFORMAT, "nested deeper than %d levels", VL_SAMPLE_DEPTH);
    else if (!(object = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where)))
        status = vl_fail(&why, VL_EFORMAT, "no valid JSON: %s (column %d)", where.text, where.column);
    if (status != VL_OK)
        return fault(r, number, &why);
    vl_sample *sample = vl_samples_add(r->list);
    if (!sample) {
        status = vl_fail_nomem(r->err, "samples");
    } else {
        sample->number = number;
        sample->line = r->line;
        if (vl_sample_read_object(sample, &found, &r->source, object, &why) != VL_OK) {
            vl_sample_clear(sample);
            r->list->n--;
            status = fault(r, number, &why);
        }
    }
    r->taken[found] += status == VL_OK;
    json_decref(object);
    return status;
}

static vl_status read_lines(reader *r)
{
    for (; r->at < r->size && !full(r); r->line++) {
        const char *end = memchr(r->text + r->at, '\n', r->size - r->at);
        size_t n = end ? (size_t)(end - r->text) - r->at : r->size - r->at, blank = 0;
        while (blank < n && is_space(r->text[r->at + blank]))
            blank++;
        if (blank < n)
            VL_TRY(read_object(r, r->line - 1, r->text + r->at, n));
        r->at += n + 1;
    }
    return VL_OK;
}

/* Behind "[". */
static vl_status read_array(reader *r)
{
    int deepest;
    for (int64_t number = 0; !full(r); number++) {
        skip_space(r);
        if (r->at < r->size && r->text[r->at] == ']' && number == 0)
            return VL_OK;
        size_t end = value_end(r->text, r->at, r->size, &deepest);
        if (end >= r->size)
            return vl_samples_add_fault(r->list, number, r->line, "the array ends in the middle of this object",
                                        r->err);
        VL_TRY(read_object(r, number, r->text + r->at, end - r->at));
        for (; r->at < end; r->at++)
            r->line += r->text[r->at] == '\n';
        skip_space(r);
        char next = r->at < r->size ? r->text[r->at++] : 0;
        if (next == ']')
            return VL_OK;
        if (next != ',')
            return vl_samples_add_fault(r->list, number + 1, r->line, "no valid JSON: expected \",\" or \"]\" here",
                                        r->err);
    }
    return VL_OK;
}

/* ---- COCO -------------------------------------------------------------------------------------------------- */

typedef struct picture {
    int64_t id;
    const char *name;
} picture;

static int by_id(const void *a, const void *b)
{
    const picture *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static vl_status read_caption(reader *r, int64_t number, const json_t *annotation, const picture *pictures, size_t n)
{
    vl_error why = VL_ERROR_INIT;
    picture key = {json_integer_value(json_object_get(annotation, "image_id")), NULL};
    const picture *found = bsearch(&key, pictures, n, sizeof *pictures, by_id);
    const char *caption = json_string_value(json_object_get(annotation, "caption"));
    vl_sample *sample = vl_samples_add(r->list);
    if (!sample)
        return vl_fail_nomem(r->err, "samples");
    sample->number = number;
    vl_status status = VL_OK;
    if (!caption)
        status = vl_fail(&why, VL_EFORMAT, "annotation %lld has no \"caption\"", (long long)number);
    else if (!found || !found->name)
        status = vl_fail(&why, VL_EFORMAT, "annotation %lld: no picture has the id %lld", (long long)number,
                         (long long)key.id);
    json_t *object = NULL;
    if (status == VL_OK && !(object = json_pack("{s:s, s:s}", "image", found->name, "caption", caption)))
        status = vl_fail_nomem(&why, "samples");
    vl_data_format format;
    if (status == VL_OK)
        status = vl_sample_read_object(sample, &format, &r->source, object, &why);
    json_decref(object);
    if (status == VL_OK) {
        r->taken[VL_FORMAT_COCO]++;
        return VL_OK;
    }
    vl_sample_clear(sample);
    r->list->n--;
    return fault(r, number, &why);
}

static vl_status read_coco(reader *r)
{
    vl_status status = VL_OK;
    json_t *root = NULL;
    picture *pictures = NULL;
    if (!r->source.question || !r->source.question[0])
        return vl_fail(r->err, VL_EINVAL,
                       "%s holds captions (COCO): data.prompt says what is asked of each picture "
                       "(\"Describe the image.\", say)",
                       r->list->path);
    VL_GOTO(vl_json_parse(&root, r->text, r->size, r->list->path, r->err));
    const json_t *images = json_object_get(root, "images"), *annotations = json_object_get(root, "annotations");
    size_t n = json_array_size(images);
    pictures = vl_calloc(n + 1, sizeof *pictures);
    if (!pictures)
        VL_GOTO(vl_fail_nomem(r->err, "samples"));
    for (size_t i = 0; i < n; i++) {
        const json_t *image = json_array_get(images, i);
        pictures[i] = (picture){json_integer_value(json_object_get(image, "id")),
                                json_string_value(json_object_get(image, "file_name"))};
    }
    qsort(pictures, n, sizeof *pictures, by_id);
    r->line = 0;
    for (size_t i = 0; i < json_array_size(annotations) && !full(r); i++)
        VL_GOTO(read_caption(r, (int64_t)i, json_array_get(annotations, i), pictures, n));
done:
    vl_free(pictures);
    json_decref(root);
    return status;
}

/* One object and nothing behind it, with both lists of COCO. */
static bool is_coco(const reader *r)
{
    int deepest;
    size_t end = value_end(r->text, r->at, r->size, &deepest), rest = end;
    while (rest < r->size && is_space(r->text[rest]))
        rest++;
    if (rest < r->size)
        return false;
    vl_str text = VL_STR_INIT; /* NUL-terminated for strstr */
    vl_str_append(&text, r->text + r->at, end - r->at);
    bool found = text.data && strstr(text.data, "\"annotations\"") && strstr(text.data, "\"images\"");
    vl_str_clear(&text);
    return found;
}

/* ---- any ----------------------------------------------------------------------------------------------------- */

static void say_what(const reader *r, const char *container)
{
    static const char *const names[] = {
        "objects", "prompts", "LLaVA conversations", "ShareGPT conversations", "Hugging Face messages", "captions"};
    int most = 0, kinds = 0;
    for (int i = 1; i <= VL_FORMAT_COCO; i++) {
        kinds += r->taken[i] > 0;
        most = r->taken[i] > r->taken[most] ? i : most;
    }
    snprintf(r->list->taken_as, sizeof r->list->taken_as, "%s of %s%s", container, names[most],
             kinds > 1 ? " and others" : "");
}

static vl_status read_all(reader *r)
{
    static const char mark[] = "\xef\xbb\xbf"; /* of UTF-8, as some editors put it */
    if (r->size >= 3 && memcmp(r->text, mark, 3) == 0)
        r->at = 3;
    size_t start = r->at;
    skip_space(r);
    bool coco = r->source.format == VL_FORMAT_COCO, object = r->at < r->size && r->text[r->at] == '{';
    if (r->at < r->size && r->text[r->at] == '[') {
        r->at++;
        VL_TRY(read_array(r));
        say_what(r, "a JSON array");
        return VL_OK;
    }
    if (object && (coco || r->source.format == VL_FORMAT_AUTO) && is_coco(r)) {
        VL_TRY(read_coco(r));
        snprintf(r->list->taken_as, sizeof r->list->taken_as, "captions of COCO");
        return VL_OK;
    }
    r->at = start;
    r->line = 1;
    VL_TRY(read_lines(r));
    say_what(r, "JSON lines");
    return VL_OK;
}

vl_status vl_samples_read_file(vl_sample_list *list, const vl_config *config, vl_error *err)
{
    vl_status status = VL_OK;
    vl_map map = {NULL, 0};
    vl_image_folder folder = {NULL, NULL, false};
    VL_GOTO(vl_map_open(&map, list->path, err));
    VL_GOTO(vl_sha256_file(list->path, list->sha256, err));
    VL_GOTO(vl_image_folder_open(&folder, config, err));
    reader r = {.list = list,
                .source = {&folder, config->data.format, config->data.prompt},
                .text = (const char *)map.data,
                .size = map.size,
                .line = 1,
                .most = config->data.max_samples,
                .err = err};
    VL_GOTO(read_all(&r));
done:
    vl_image_folder_clear(&folder);
    vl_map_close(&map);
    return status;
}
