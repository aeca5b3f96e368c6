#include "trainer/model/unread.h"

#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/model/family.h"

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

static bool is_buffer(const char *name, const vl_family *family)
{
    for (const char *const *end = family->ignored; end && *end; end++)
        if (ends_with(name, *end))
            return true;
    return false;
}

/* Layers behind the state that is read, and the norm behind all of them. */
static bool is_behind_state(const char *name, const vl_model_spec *spec)
{
    const vl_tower_spec *tower = &spec->vision.tower;
    if (spec->vision.path == VL_VISION_NONE || !tower->names.layer)
        return false;
    for (const char *const *prefix = spec->family->prefixes[VL_PART_VISION]; *prefix; prefix++) {
        size_t n = strlen(*prefix);
        if (strncmp(name, *prefix, n) != 0)
            continue;
        const char *rest = name + n, *hole = strstr(tower->names.layer, "%d");
        if (tower->names.post_norm && !tower->post_norm &&
            strncmp(rest, tower->names.post_norm, strlen(tower->names.post_norm)) == 0)
            return true;
        if (strncmp(rest, tower->names.layer, (size_t)(hole - tower->names.layer)) == 0 &&
            strtol(rest + (hole - tower->names.layer), NULL, 10) >= tower->state)
            return true;
    }
    return false;
}

vl_status vl_unread_collect(const char ***out, size_t *n, const vl_loader *loader, vl_error *err)
{
    const vl_hf_directory *dir = loader->directory;
    *n = 0;
    *out = vl_calloc(dir->n_tensors + 1, sizeof **out);
    if (!*out)
        return vl_fail_nomem(err, "model");
    for (size_t i = 0; i < dir->n_tensors; i++) {
        const char *name = dir->tensors[i].name;
        if (!dir->tensors[i].read && !is_buffer(name, loader->spec->family) && !is_behind_state(name, loader->spec))
            (*out)[(*n)++] = name;
    }
    return VL_OK;
}
