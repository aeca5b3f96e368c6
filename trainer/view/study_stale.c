/* view/study_stale.c - pages of an earlier run that this one did not write again. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/view/study_index.h"

enum { INDEX_LIMIT = 256 << 20 };
static const char *const kinds[] = {"page", "graph", "table", "picture"};

/* Exactly a name that a study gives (docs/FORMATS.md): nothing else is ever removed, whatever study.json says. */
static bool is_ours(const char *name)
{
    static const struct {
        const char *folder, *digits, *end;
    } names[] = {{"pages/", "0123456789", ".html"},
                 {"graphs/", "0123456789", ".svg"},
                 {"tables/", "0123456789", ".csv"},
                 {"pictures/", "0123456789", ".png"},
                 {"compare/", "0123456789-", ".html"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t start = strlen(names[i].folder), n = strspn(name + (strlen(name) < start ? 0 : start), names[i].digits);
        if (!strncmp(name, names[i].folder, start) && n > 0 && !strcmp(name + start + n, names[i].end))
            return true;
    }
    return false;
}

/* Sets every file that an index names as a key of `names`. */
static void list_names(json_t *names, const json_t *index)
{
    const json_t *questions = json_object_get(index, "questions"), *pairs = json_object_get(index, "compare");
    for (size_t i = 0; i < json_array_size(questions); i++)
        for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
            const char *name = json_string_value(json_object_get(json_array_get(questions, i), kinds[k]));
            if (name)
                json_object_set_new(names, name, json_true());
        }
    for (size_t i = 0; i < json_array_size(pairs); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(pairs, i), "page"));
        if (name)
            json_object_set_new(names, name, json_true());
    }
}

json_t *vl_study_stale_list(const char *index_path)
{
    json_t *index = NULL, *names = json_object();
    if (vl_json_read(&index, index_path, INDEX_LIMIT, NULL) == VL_OK) {
        const char *format = json_string_value(json_object_get(index, "format"));
        if (format && !strcmp(format, "vlens-study"))
            list_names(names, index);
    }
    json_decref(index);
    return names;
}

vl_status vl_study_stale_remove(const char *folder, const json_t *before, const json_t *index, vl_error *err)
{
    json_t *now = json_object();
    const char *name;
    json_t *value;
    vl_status status = VL_OK;
    list_names(now, index);
    json_object_foreach((json_t *)before, name, value)
    {
        if (json_object_get(now, name) || !is_ours(name) || status != VL_OK)
            continue;
        char *path = vl_path_join(folder, name);
        if (!path)
            status = vl_fail_nomem(err, "study");
        else if (unlink(path) != 0 && errno != ENOENT)
            status = vl_fail_errno(err, VL_EIO, "%s: a page of an earlier run cannot be removed", path);
        vl_free(path);
    }
    json_decref(now);
    return status;
}
