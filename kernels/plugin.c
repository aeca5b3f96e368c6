#define _GNU_SOURCE /* dladdr */
#include "kernels/plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "trainer/base/status.h"

static const char anchor; /* an address inside this library */

/* The path of this library (or of the program that it is linked into) without its file name; "." if unknown. */
static void own_folder(char *out, size_t size)
{
    Dl_info info;
    const char *end = dladdr(&anchor, &info) && info.dli_fname ? strrchr(info.dli_fname, '/') : NULL;
    if (end)
        snprintf(out, size, "%.*s", (int)(end - info.dli_fname), info.dli_fname);
    else
        snprintf(out, size, ".");
}

static void *open_file(const char *path)
{
    return dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}

static vl_status open_library(void **out, const char *file, vl_error *err)
{
    static const char *const places[] = {"", "vlens/", "../lib/vlens/"};
    char folder[PATH_MAX], path[PATH_MAX + 64];
    own_folder(folder, sizeof folder);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s/%s%s", folder, places[i], file);
        if (access(path, R_OK) != 0)
            continue;
        *out = open_file(path);
        return *out ? VL_OK : vl_fail(err, VL_EDEVICE, "it cannot be loaded: %s", dlerror());
    }
    *out = open_file(file);
    return *out ? VL_OK : vl_fail(err, VL_EDEVICE, "it cannot be loaded: %s", dlerror());
}

vl_status vl_plugin_load(const vl_backend **out, const char *file, vl_error *err)
{
    void *library, *symbol;
    const vl_backend *(*get)(const char *version, size_t size);
    VL_TRY(open_library(&library, file, err));
    symbol = dlsym(library, "vl_cuda_backend");
    memcpy(&get, &symbol, sizeof get); /* POSIX gives functions as object pointers */
    *out = get ? get(VLENS_VERSION, sizeof **out) : NULL;
    return *out ? VL_OK : vl_fail(err, VL_EDEVICE, "%s belongs to another version of vlens", file);
}

bool vl_plugin_driver_present(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
    return driver != NULL;
}
