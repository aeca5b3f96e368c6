/* hf/preprocess_config.c - reading preprocessor_config.json: keys, defaults and checks of
 * models/clip/image_processing_clip.py, models/mllama/image_processing_mllama.py and image_processing_utils.py
 * (get_size_dict). */
#include <math.h>
#include <string.h>

#include "trainer/base/json.h"
#include "trainer/hf/preprocess.h"

/* MAX_SIDE keeps every product of sides and tiles within an int. */
enum { MAX_FILE = 1 << 20, MAX_SIDE = 16384, MAX_TILES = 64 };

static const vl_preprocess CLIP_DEFAULTS = {
    .kind = VL_PREPROCESS_CLIP,
    .do_resize = true,
    .do_center_crop = true,
    .do_rescale = true,
    .do_normalize = true,
    .do_convert_rgb = true,
    .shortest_edge = 224,
    .crop_height = 224,
    .crop_width = 224,
    .resample = VL_RESAMPLE_BICUBIC,
    .rescale_factor = 1.0 / 255,
    .mean = {0.48145466, 0.4578275, 0.40821073}, /* OPENAI_CLIP_MEAN, OPENAI_CLIP_STD */
    .std = {0.26862954, 0.26130258, 0.27577711},
};

static const vl_preprocess MLLAMA_DEFAULTS = {
    .kind = VL_PREPROCESS_MLLAMA,
    .do_resize = true,
    .do_rescale = true,
    .do_normalize = true,
    .do_convert_rgb = true,
    .do_pad = true,
    .height = 224,
    .width = 224,
    .resample = VL_RESAMPLE_BILINEAR,
    .rescale_factor = 1.0 / 255,
    .mean = {0.5, 0.5, 0.5}, /* IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD */
    .std = {0.5, 0.5, 0.5},
    .max_image_tiles = 4,
};

/* "image_processor_type", in old files "feature_extractor_type"; where there is neither, what tells the two apart. */
static vl_status find_class(vl_preprocess *out, const json_t *root, const char *path, vl_error *err)
{
    static const char *const clip[] = {"CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPFeatureExtractor",
                                       "LlavaImageProcessor", "LlavaImageProcessorFast"};
    static const char *const mllama[] = {"MllamaImageProcessor", "MllamaImageProcessorFast"};
    const char *name = NULL;
    VL_TRY(vl_json_string(&name, root, "feature_extractor_type", path, err));
    VL_TRY(vl_json_string(&name, root, "image_processor_type", path, err));
    if (!name)
        name = json_object_get(root, "max_image_tiles") ? mllama[0] : clip[0];
    for (size_t i = 0; i < sizeof clip / sizeof *clip; i++) {
        if (strcmp(name, clip[i]) == 0) {
            *out = CLIP_DEFAULTS;
            return VL_OK;
        }
    }
    for (size_t i = 0; i < sizeof mllama / sizeof *mllama; i++) {
        if (strcmp(name, mllama[i]) == 0) {
            *out = MLLAMA_DEFAULTS;
            return VL_OK;
        }
    }
    return vl_fail(err, VL_EUNSUPPORTED,
                   "%s: image processor \"%s\", expected CLIPImageProcessor or "
                   "MllamaImageProcessor",
                   path, name);
}

static vl_status read_side(int *out, const json_t *object, const char *key, const char *path, vl_error *err)
{
    int64_t side = 0;
    VL_TRY(vl_json_int(&side, object, key, 1, MAX_SIDE, path, err));
    if (side == 0)
        return vl_fail(err, VL_EFORMAT, "%s: a size without \"%s\"", path, key);
    *out = (int)side;
    return VL_OK;
}

/* A number is both sides; else {"height", "width"}. */
static vl_status read_rectangle(int *height, int *width, const json_t *root, const char *key, const char *path,
                                vl_error *err)
{
    const json_t *value = json_object_get(root, key);
    if (!value || json_is_null(value))
        return VL_OK;
    if (json_is_integer(value)) {
        VL_TRY(read_side(height, root, key, path, err));
        *width = *height;
        return VL_OK;
    }
    if (!json_is_object(value))
        return vl_fail(err, VL_EFORMAT, "%s: \"%s\" is neither a number nor an object with height and width", path,
                       key);
    VL_TRY(read_side(height, value, "height", path, err));
    return read_side(width, value, "width", path, err);
}

/* CLIP: a number or {"shortest_edge"} keeps the aspect ratio; {"height", "width"} does not. */
static vl_status read_clip_size(vl_preprocess *out, const json_t *root, const char *path, vl_error *err)
{
    const json_t *value = json_object_get(root, "size");
    if (!value || json_is_null(value))
        return VL_OK;
    if (json_is_integer(value))
        return read_side(&out->shortest_edge, root, "size", path, err);
    if (json_is_object(value) && json_object_get(value, "shortest_edge"))
        return read_side(&out->shortest_edge, value, "shortest_edge", path, err);
    out->shortest_edge = 0;
    return read_rectangle(&out->height, &out->width, root, "size", path, err);
}

/* Three numbers, or one for all channels. */
static vl_status read_channels(double out[3], const json_t *root, const char *key, const char *path, vl_error *err)
{
    const json_t *value = json_object_get(root, key);
    if (!value || json_is_null(value))
        return VL_OK;
    const bool list = json_is_array(value);
    for (size_t c = 0; c < 3; c++) {
        const json_t *number = list ? json_array_get(value, c) : value;
        if (!json_is_number(number) || (list && json_array_size(value) != 3))
            return vl_fail(err, VL_EFORMAT, "%s: \"%s\" is not a list of 3 numbers", path, key);
        out[c] = json_number_value(number);
    }
    return VL_OK;
}

static vl_status read_common(vl_preprocess *out, const json_t *root, const char *path, vl_error *err)
{
    int64_t resample = out->resample;
    VL_TRY(vl_json_bool(&out->do_resize, root, "do_resize", path, err));
    VL_TRY(vl_json_bool(&out->do_rescale, root, "do_rescale", path, err));
    VL_TRY(vl_json_bool(&out->do_normalize, root, "do_normalize", path, err));
    VL_TRY(vl_json_bool(&out->do_convert_rgb, root, "do_convert_rgb", path, err));
    VL_TRY(vl_json_bool(&out->do_pad, root, "do_pad", path, err));
    VL_TRY(vl_json_int(&resample, root, "resample", VL_RESAMPLE_LANCZOS, VL_RESAMPLE_HAMMING, path, err));
    out->resample = (vl_resample)resample;
    VL_TRY(vl_json_double(&out->rescale_factor, root, "rescale_factor", path, err));
    VL_TRY(read_channels(out->mean, root, "image_mean", path, err));
    VL_TRY(read_channels(out->std, root, "image_std", path, err));
    if (!isfinite((float)out->rescale_factor))
        return vl_fail(err, VL_EFORMAT, "%s: \"rescale_factor\" is no finite 32-bit number", path);
    for (int c = 0; c < 3; c++) {
        if (!isfinite((float)out->mean[c]) || !isfinite(1 / (float)out->std[c]))
            return vl_fail(err, VL_EFORMAT,
                           "%s: \"image_mean\" %g, \"image_std\" %g: expected finite numbers, and no "
                           "division by 0",
                           path, out->mean[c], out->std[c]);
    }
    return VL_OK;
}

static vl_status read_clip(vl_preprocess *out, const json_t *root, const char *path, vl_error *err)
{
    VL_TRY(read_clip_size(out, root, path, err));
    VL_TRY(vl_json_bool(&out->do_center_crop, root, "do_center_crop", path, err));
    VL_TRY(read_rectangle(&out->crop_height, &out->crop_width, root, "crop_size", path, err));
    if (out->do_pad) /* LlavaImageProcessor can pad to a square first; llava-1.5 does not */
        return vl_fail(err, VL_EUNSUPPORTED, "%s: \"do_pad\" is true, expected false for a CLIP picture", path);
    return VL_OK;
}

/* The checks of _validate_mllama_preprocess_arguments. */
static vl_status read_mllama(vl_preprocess *out, const json_t *root, const char *path, vl_error *err)
{
    int64_t tiles = out->max_image_tiles;
    VL_TRY(read_rectangle(&out->height, &out->width, root, "size", path, err));
    VL_TRY(vl_json_int(&tiles, root, "max_image_tiles", 1, MAX_TILES, path, err));
    out->max_image_tiles = (int)tiles;
    if (out->height != out->width)
        return vl_fail(err, VL_EFORMAT, "%s: tiles of %d x %d pixels, expected squares", path, out->width, out->height);
    if (tiles * out->height * out->width > VL_IMAGE_MAX_PIXELS)
        return vl_fail(err, VL_EFORMAT, "%s: %lld tiles of %d x %d pixels, more than the limit of %lld pixels", path,
                       (long long)tiles, out->width, out->height, (long long)VL_IMAGE_MAX_PIXELS);
    if (!out->do_pad || !out->do_resize)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: \"do_pad\" and \"do_resize\" must be true for Mllama", path);
    return VL_OK;
}

vl_status vl_preprocess_read(vl_preprocess *out, const char *path, vl_error *err)
{
    json_t *root = NULL;
    vl_status status = VL_OK;
    *out = (vl_preprocess){0};
    VL_GOTO(vl_json_read(&root, path, MAX_FILE, err));
    if (!json_is_object(root)) {
        status = vl_fail(err, VL_EFORMAT, "%s: not a JSON object", path);
        goto done;
    }
    VL_GOTO(find_class(out, root, path, err));
    VL_GOTO(read_common(out, root, path, err));
    if (out->kind == VL_PREPROCESS_CLIP)
        VL_GOTO(read_clip(out, root, path, err));
    else
        VL_GOTO(read_mllama(out, root, path, err));
done:
    json_decref(root);
    return status;
}
