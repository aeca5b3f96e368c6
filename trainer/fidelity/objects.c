#include "trainer/fidelity/objects.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/data/samples.h"

enum { MAX_BYTES = 256 << 20 };
static const char *const name_keys[3] = {"name", "shape", "color"};

void vl_objects_clear(vl_object_list *list)
{
    for (int64_t i = 0; i < list->n; i++) {
        vl_picture_objects *picture = &list->pictures[i];
        for (int k = 0; k < picture->n; k++) {
            for (int j = 0; j < 3; j++)
                vl_free(picture->objects[k].name[j]);
            vl_free(picture->objects[k].patch);
        }
        vl_free(picture->objects);
        vl_free(picture->path);
    }
    vl_free(list->pictures);
    *list = (vl_object_list){0, NULL};
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

static vl_status read_patches(vl_object *object, const json_t *patches, const int grid[2], const char *where,
                              vl_error *err)
{
    size_t n = json_array_size(patches);
    if (!json_is_array(patches) || n > (size_t)grid[0] * (size_t)grid[1])
        return vl_fail(err, VL_EFORMAT,
                       "%s: \"patches\" is missing, no list or too long, expected [[row, column], ...]", where);
    object->patch = vl_alloc(n + 1, sizeof *object->patch);
    if (!object->patch)
        return vl_fail_nomem(err, "objects");
    for (; object->n_patches < (int)n; object->n_patches++) {
        const json_t *pair = json_array_get(patches, (size_t)object->n_patches);
        for (size_t i = 0; i < 2; i++) {
            const json_t *value = json_array_get(pair, i);
            json_int_t at = json_integer_value(value);
            if (json_array_size(pair) != 2 || !json_is_integer(value) || at < 0 || at >= grid[i])
                return vl_fail(err, VL_EFORMAT, "%s: patch %d is not [row, column] in a grid of %d x %d", where,
                               object->n_patches, grid[0], grid[1]);
            object->patch[object->n_patches][i] = (int16_t)at;
        }
    }
    return VL_OK;
}

static vl_status read_picture(vl_picture_objects *out, const json_t *line, const vl_image_folder *folder,
                              const int grid[2], const char *where, vl_error *err)
{
    const char *image = NULL;
    const json_t *objects = json_object_get(line, "objects");
    VL_TRY(vl_json_string(&image, line, "image", where, err));
    if (!image || !json_is_array(objects))
        return vl_fail(err, VL_EFORMAT, "%s: expected \"image\" and a list \"objects\"", where);
    vl_status status = vl_image_folder_find(&out->path, folder, image, err);
    if (status != VL_OK)
        return vl_error_prefix(err, status, "%s: ", where);
    out->objects = vl_calloc(json_array_size(objects) + 1, sizeof *out->objects);
    if (!out->objects)
        return vl_fail_nomem(err, "objects");
    for (size_t i = 0; i < json_array_size(objects); i++) {
        const json_t *entry = json_array_get(objects, i);
        vl_object *object = &out->objects[out->n++];
        for (int k = 0; k < 3; k++) {
            const char *name = NULL;
            VL_TRY(vl_json_string(&name, entry, name_keys[k], where, err));
            object->name[k] = name ? vl_strdup(name) : NULL;
            if (name && !object->name[k])
                return vl_fail_nomem(err, "objects");
        }
        VL_TRY(read_patches(object, json_object_get(entry, "patches"), grid, where, err));
    }
    return VL_OK;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const vl_picture_objects *)a)->path, ((const vl_picture_objects *)b)->path);
}

static vl_status add_line(vl_object_list *list, const char *text, size_t n, const vl_image_folder *folder,
                          const int grid[2], const char *where, vl_error *err)
{
    json_t *line;
    vl_picture_objects *all = vl_realloc(list->pictures, (size_t)list->n + 1, sizeof *all);
    if (!all)
        return vl_fail_nomem(err, "objects");
    list->pictures = all;
    all[list->n] = (vl_picture_objects){NULL, 0, NULL};
    VL_TRY(vl_json_parse(&line, text, n, where, err));
    vl_status status = read_picture(&all[list->n++], line, folder, grid, where, err);
    json_decref(line);
    return status;
}

vl_status vl_objects_read(vl_object_list *out, const vl_config *config, const int grid[2], vl_error *err)
{
    const char *path = config->fidelity.objects;
    vl_image_folder folder = {NULL, NULL, false};
    char *text = NULL, where[1100];
    size_t size;
    vl_status status = VL_OK;
    *out = (vl_object_list){0, NULL};
    VL_GOTO(vl_file_read(&text, &size, path, MAX_BYTES, err));
    VL_GOTO(vl_image_folder_open(&folder, config, err));
    for (size_t at = 0, line = 1; at < size; line++) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t n = end ? (size_t)(end - text) - at : size - at;
        snprintf(where, sizeof where, "%s:%zu", path, line);
        if (strspn(text + at, " \t\r") < n)
            VL_GOTO(add_line(out, text + at, n, &folder, grid, where, err));
        at += n + 1;
    }
    if (out->n)
        qsort(out->pictures, (size_t)out->n, sizeof *out->pictures, by_path);
done:
    vl_image_folder_clear(&folder);
    vl_free(text);
    return status;
}

/* ---- what a prompt asks about ------------------------------------------------------------------------------- */

static bool is_letter(char c)
{
    return isalnum((unsigned char)c) || (unsigned char)c >= 0x80; /* letters of other scripts in UTF-8 */
}

static bool holds_words(const char *text, const char *words)
{
    size_t n = strlen(words);
    for (const char *at = text; n && *at; at++)
        if (strncasecmp(at, words, n) == 0 && (at == text || !is_letter(at[-1])) && !is_letter(at[n]))
            return true;
    return false;
}

static bool is_named(const vl_object *object, const char *prompt)
{
    for (int k = 0; k < 3; k++)
        if (object->name[k] && holds_words(prompt, object->name[k]))
            return true;
    return false;
}

const vl_object *vl_object_asked(const vl_object_list *list, const char *path, const char *prompt)
{
    const vl_picture_objects key = {.path = (char *)path};
    const vl_picture_objects *picture = bsearch(&key, list->pictures, (size_t)list->n, sizeof key, by_path);
    const vl_object *asked = NULL;
    int n = 0;
    for (int k = 0; picture && k < picture->n; k++)
        if (is_named(&picture->objects[k], prompt)) {
            asked = &picture->objects[k];
            n++;
        }
    return n == 1 && asked->n_patches > 0 ? asked : NULL;
}
