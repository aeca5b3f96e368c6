#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/data/samples.h"

vl_status vl_image_folder_open(vl_image_folder *out, const vl_config *config, vl_error *err)
{
    const char *images = config->data.images;
    char real[PATH_MAX];
    *out = (vl_image_folder){NULL, NULL, config->data.allow_outside};
    out->path = images && images[0] ? vl_strdup(images) : vl_path_parent(config->data.samples);
    if (!out->path)
        return vl_fail_nomem(err, "image folder");
    if (out->allow_outside)
        return VL_OK;
    if (!realpath(out->path, real)) {
        vl_status status = vl_fail_errno(err, VL_EIO, "data.images: %s", out->path);
        vl_image_folder_clear(out);
        return status;
    }
    out->real = vl_strdup(real);
    return out->real ? VL_OK : vl_fail_nomem(err, "image folder");
}

void vl_image_folder_clear(vl_image_folder *folder)
{
    vl_free(folder->path);
    vl_free(folder->real);
    *folder = (vl_image_folder){NULL, NULL, false};
}

static bool has_control(const char *name)
{
    for (const unsigned char *c = (const unsigned char *)name; *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            return true;
    return false;
}

/* ".." as a whole part of the path. */
static bool climbs(const char *name)
{
    for (const char *at = name; (at = strstr(at, "..")); at += 2)
        if ((at == name || at[-1] == '/') && (at[2] == 0 || at[2] == '/'))
            return true;
    return false;
}

static bool lies_inside(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    if (strcmp(folder, "/") == 0)
        return true;
    return strncmp(path, folder, n) == 0 && path[n] == '/';
}

vl_status vl_image_folder_find(char **out, const vl_image_folder *folder, const char *name, vl_error *err)
{
    char real[PATH_MAX];
    *out = NULL;
    if (!name[0])
        return vl_fail(err, VL_EFORMAT, "an image name is empty");
    if (has_control(name))
        return vl_fail(err, VL_EFORMAT, "image \"%.200s\": control characters in a name are refused", name);
    if (!folder->allow_outside && (name[0] == '/' || climbs(name)))
        return vl_fail(err, VL_EFORMAT, "image \"%.200s\" leaves the folder %s (data.allow_outside permits it)", name,
                       folder->path);
    char *path = vl_path_join(folder->path, name);
    if (!path)
        return vl_fail_nomem(err, name);
    vl_status status = VL_OK;
    if (!realpath(path, real))
        status = vl_fail_errno(err, VL_EIO, "image %s", path);
    else if (!folder->allow_outside && !lies_inside(real, folder->real))
        status = vl_fail(err, VL_EFORMAT,
                         "image \"%.200s\" is a link that leaves the folder %s (data.allow_outside "
                         "permits it)",
                         name, folder->path);
    if (status == VL_OK)
        *out = path;
    else
        vl_free(path);
    return status;
}
