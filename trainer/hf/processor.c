#include "trainer/hf/processor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"

enum { MAX_FILE = 1 << 20 };

void vl_processor_close(vl_processor *processor)
{
    if (!processor)
        return;
    json_decref(processor->image);
    json_decref(processor->processor);
    vl_free(processor->image_path);
    vl_free(processor->processor_path);
    processor->image = processor->processor = NULL;
    processor->image_path = processor->processor_path = NULL;
}

static vl_status read_object(json_t **out, const char *path, vl_error *err)
{
    VL_TRY(vl_json_read(out, path, MAX_FILE, err));
    return json_is_object(*out) ? VL_OK : vl_fail(err, VL_EFORMAT, "%s: not a JSON object", path);
}

static vl_status read_files(vl_processor *out, const char *directory, vl_error *err)
{
    out->processor_path = vl_path_join(directory, "processor_config.json");
    if (!out->processor_path)
        return vl_fail_nomem(err, "image processor");
    if (vl_path_exists(out->processor_path))
        VL_TRY(read_object(&out->processor, out->processor_path, err));
    json_t *inside = json_object_get(out->processor, "image_processor");
    if (json_is_object(inside)) {
        out->image = json_incref(inside);
        out->image_path = vl_strdup(out->processor_path);
        return out->image_path ? VL_OK : vl_fail_nomem(err, "image processor");
    }
    out->image_path = vl_path_join(directory, "preprocessor_config.json");
    if (!out->image_path)
        return vl_fail_nomem(err, "image processor");
    return read_object(&out->image, out->image_path, err);
}

static bool cut_suffix(char *name, const char *suffix)
{
    const size_t n = strlen(name), m = strlen(suffix);
    if (n < m || strcmp(name + n - m, suffix) != 0)
        return false;
    name[n - m] = 0;
    return true;
}

static vl_status read_class(vl_processor *out, vl_error *err)
{
    const char *name = "";
    VL_TRY(vl_json_string(&name, out->image, "feature_extractor_type", out->image_path, err));
    VL_TRY(vl_json_string(&name, out->image, "image_processor_type", out->image_path, err));
    snprintf(out->class_name, sizeof out->class_name, "%s", name);
    const bool pillow = cut_suffix(out->class_name, "Pil");
    cut_suffix(out->class_name, "Fast");
    out->kernel = pillow ? VL_RESIZE_PILLOW : VL_RESIZE_TORCH;
    out->normalise.order = pillow ? VL_NORMALISE_STEPS : VL_NORMALISE_FUSED;
    return VL_OK;
}

/* Three numbers, or one for all channels. */
static vl_status read_channels(double out[3], const vl_processor *p, const char *key, vl_error *err)
{
    const json_t *value = json_object_get(p->image, key);
    if (!value || json_is_null(value))
        return VL_OK;
    const bool list = json_is_array(value);
    for (size_t c = 0; c < 3; c++) {
        const json_t *number = list ? json_array_get(value, c) : value;
        if (!json_is_number(number) || (list && json_array_size(value) != 3))
            return vl_fail(err, VL_EFORMAT, "%s: \"%s\" is not a list of 3 numbers", p->image_path, key);
        out[c] = json_number_value(number);
    }
    return VL_OK;
}

static vl_status read_normalise(vl_processor *out, vl_error *err)
{
    vl_normalise *n = &out->normalise;
    VL_TRY(vl_json_bool(&n->do_rescale, out->image, "do_rescale", out->image_path, err));
    VL_TRY(vl_json_bool(&n->do_normalize, out->image, "do_normalize", out->image_path, err));
    VL_TRY(vl_json_double(&n->rescale_factor, out->image, "rescale_factor", out->image_path, err));
    VL_TRY(read_channels(n->mean, out, "image_mean", err));
    VL_TRY(read_channels(n->std, out, "image_std", err));
    if (!isfinite((float)n->rescale_factor) || !isfinite(1 / (float)n->rescale_factor))
        return vl_fail(err, VL_EFORMAT, "%s: \"rescale_factor\" is %g", out->image_path, n->rescale_factor);
    for (int c = 0; c < 3; c++) {
        if (!isfinite((float)n->mean[c]) || !isfinite(1 / (float)n->std[c]))
            return vl_fail(err, VL_EFORMAT,
                           "%s: \"image_mean\" %g, \"image_std\" %g: expected finite numbers, and no division by 0",
                           out->image_path, n->mean[c], n->std[c]);
    }
    return VL_OK;
}

static vl_status read_side(int *out, const json_t *size, const char *key, int64_t max, const vl_processor *p,
                           vl_error *err)
{
    int64_t value = *out;
    VL_TRY(vl_json_int(&value, size, key, 1, max, p->image_path, err));
    *out = (int)value;
    return VL_OK;
}

/* A number is both sides. */
static vl_status read_size(vl_processor *out, vl_error *err)
{
    const json_t *size = json_object_get(out->image, "size");
    if (json_is_integer(size)) {
        VL_TRY(read_side(&out->size.height, out->image, "size", VL_PROCESSOR_MAX_SIDE, out, err));
        out->size.width = out->size.height;
    } else if (json_is_object(size)) {
        VL_TRY(read_side(&out->size.height, size, "height", VL_PROCESSOR_MAX_SIDE, out, err));
        VL_TRY(read_side(&out->size.width, size, "width", VL_PROCESSOR_MAX_SIDE, out, err));
        VL_TRY(read_side(&out->shortest_edge, size, "shortest_edge", INT32_MAX, out, err));
        VL_TRY(read_side(&out->longest_edge, size, "longest_edge", INT32_MAX, out, err));
    } else if (size && !json_is_null(size)) {
        return vl_fail(err, VL_EFORMAT, "%s: \"size\" is neither a number nor an object", out->image_path);
    }
    return VL_OK;
}

vl_status vl_processor_open(vl_processor *out, const char *directory, const vl_processor *defaults, vl_error *err)
{
    *out = *defaults;
    VL_TRY(read_files(out, directory, err));
    VL_TRY(read_class(out, err));
    int64_t resample = out->resample;
    VL_TRY(vl_json_int(&resample, out->image, "resample", 0, VL_RESAMPLE_HAMMING, out->image_path, err));
    if (resample == 0)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: \"resample\" is 0 (nearest), expected 1 to 5", out->image_path);
    out->resample = (vl_resample)resample;
    VL_TRY(vl_json_bool(&out->do_resize, out->image, "do_resize", out->image_path, err));
    if (!out->do_resize)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: \"do_resize\" is false, expected true", out->image_path);
    VL_TRY(read_normalise(out, err));
    return read_size(out, err);
}

static vl_status read_positive(int *out, const json_t *object, const char *key, int max, const char *path,
                               vl_error *err)
{
    int64_t value = *out;
    VL_TRY(vl_json_int(&value, object, key, 1, max, path, err));
    *out = (int)value;
    return VL_OK;
}

vl_status vl_processor_image_int(int *out, const vl_processor *processor, const char *key, int max, vl_error *err)
{
    return read_positive(out, processor->image, key, max, processor->image_path, err);
}

vl_status vl_processor_int(int *out, const vl_processor *processor, const char *key, int max, vl_error *err)
{
    return read_positive(out, processor->processor, key, max, processor->processor_path, err);
}
