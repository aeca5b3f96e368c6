#include "tests/support/fit_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/synthetic_cache.h"
#include "trainer/base/file.h"

void ok(vl_status status, const vl_error *err)
{
    if (status != VL_OK)
        fail_msg("%s: %s", vl_status_name(status), err->message);
}

char *folder_new(void)
{
    char *folder = strdup("fit-test-XXXXXX");
    assert_non_null(folder);
    assert_non_null(mkdtemp(folder));
    return folder;
}

static void remove_tree(const char *path)
{
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *child = vl_path_join(path, entry->d_name);
        assert_non_null(child);
        remove_tree(child);
        vl_release(child);
    }
    if (directory)
        closedir(directory);
    remove(path);
}

void folder_remove(char *folder)
{
    remove_tree(folder);
    free(folder);
}

const char *in(const char *folder, const char *name)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void set(vl_config *config, const char *assignment)
{
    vl_error err = VL_ERROR_INIT;
    ok(vl_config_set(config, assignment, &err), &err);
}

vl_config *small_config(const char *output)
{
    vl_config *config;
    vl_error err = VL_ERROR_INIT;
    char text[600];
    ok(vl_config_new(&config, &err), &err);
    snprintf(text, sizeof text, "output=%s", output);
    set(config, text);
    set(config, "precision=exact");
    set(config, "lens.skip_positions=1");
    set(config, "fit.tokens_per_step=96");
    set(config, "fit.tile_tokens=64");
    set(config, "fit.steps=20");
    set(config, "fit.validation=0.2");
    set(config, "fit.validate_every=5");
    return config;
}

vl_cache *small_cache(const char *folder)
{
    vl_cache *cache;
    vl_error err = VL_ERROR_INIT;
    const char *path = in(folder, "cache");
    ok(synthetic_cache_write(path, 3, 24, 24, 16, 40, VL_BF16, 7, &err), &err);
    ok(vl_cache_open(&cache, path, &err), &err);
    return cache;
}

float *fixture_floats(const vl_safetensors *file, const char *name, size_t n)
{
    const vl_weight_view *view = vl_safetensors_find(file, name);
    if (!view || view->dtype != VL_F64 || view->bytes != n * sizeof(double))
        fail_msg("fixture has no %s of %zu float64", name, n);
    float *out = malloc((n ? n : 1) * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < n; i++) {
        double value;
        memcpy(&value, view->data + i * sizeof value, sizeof value);
        out[i] = (float)value;
    }
    return out;
}

double relative_error(const float *a, const float *b, size_t n)
{
    double worst = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i]))
            return INFINITY;
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
        size = fmax(size, fabs((double)b[i]));
    }
    return worst > 0 ? worst / size : 0;
}

vl_tensor to_device(vl_device *device, const float *values, int64_t rows, int64_t columns)
{
    vl_tensor t;
    vl_error err = VL_ERROR_INIT;
    ok(vl_tensor_new(&t, device, VL_F32, rows, columns, &err), &err);
    if (values)
        ok(vl_device_write(device, &t, values, &err), &err);
    else
        ok(vl_op_zero(device, t, &err), &err);
    return t;
}

float *from_device(vl_device *device, vl_tensor tensor)
{
    vl_error err = VL_ERROR_INIT;
    size_t n = (size_t)tensor.shape[0] * (size_t)(tensor.ndim == 2 ? tensor.shape[1] : 1);
    float *out = malloc(n * sizeof *out);
    assert_non_null(out);
    ok(vl_device_read(device, out, &tensor, &err), &err);
    return out;
}
