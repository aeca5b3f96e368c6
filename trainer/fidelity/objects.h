/* eval/objects.h - which patches of a picture an object covers: fidelity.objects, JSON lines like
 * {"image": "a.png", "objects": [{"name": "dog", "patches": [[row, column], ...]}, ...]}; `shape` and `color` name an
 * object as `name` does, other keys are left alone. */
#ifndef VL_EVAL_OBJECTS_H
#define VL_EVAL_OBJECTS_H

#include <vlens/config.h>

#include "trainer/base/status.h"

typedef struct vl_object {
    char *name[3]; /* name, shape, color; NULL where there is none */
    int n_patches;
    int16_t (*patch)[2]; /* [n_patches] row, column */
} vl_object;

typedef struct vl_picture_objects {
    char *path; /* as data.images leads to it */
    int n;
    vl_object *objects; /* [n] */
} vl_picture_objects;

typedef struct vl_object_list {
    int64_t n;
    vl_picture_objects *pictures; /* [n] by rising path */
} vl_object_list;

/* Patches must lie in a grid of rows x columns. Errors: VL_EIO, VL_EFORMAT "file:line: ...", VL_ENOMEM. Cleared with
 * vl_objects_clear, also after a failure. */
vl_status vl_objects_read(vl_object_list *out, const vl_config *config, const int grid[2], vl_error *err);
void vl_objects_clear(vl_object_list *list);
/* The only object of a picture that a prompt names (as whole words, whatever their case); NULL where there is none, or
 * several, or no patch of it is listed. */
const vl_object *vl_object_asked(const vl_object_list *list, const char *path, const char *prompt);

#endif
