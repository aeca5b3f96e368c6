/* hf/preprocess_config.c - reading preprocessor_config.json: keys, defaults and checks of
 * models/clip/image_processing_clip.py and image_processing_utils.py
 * (get_size_dict). */
#include <math.h>
#include <string.h>

#include "trainer/hf/preprocess.h"

/* MAX_SIDE keeps every product of sides and tiles within an int. */
enum { MAX_SIDE = 16384 };

const vl_preprocess vl_preprocess_clip_defaults = {
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

vl_status vl_preprocess_check_class(const vl_hf_reader *in, const char *const *classes)
{
    const char *name = NULL;
    VL_TRY(vl_hf_key_string(&name, in, "feature_extractor_type"));
    VL_TRY(vl_hf_key_string(&name, in, "image_processor_type"));
    for (const char *const *c = classes; name && *c; c++)
        if (strcmp(name, *c) == 0)
            return VL_OK;
    if (!name)
        return VL_OK;
    return vl_fail(in->err, VL_EUNSUPPORTED, "%s: image processor \"%s\", expected %s", in->where, name, classes[0]);
}

static vl_status read_side(int *out, const vl_hf_reader *in, const char *key)
{
    int side = 0;
    VL_TRY(vl_hf_key_int(&side, in, key, 1, MAX_SIDE));
    if (side == 0)
        return vl_fail(in->err, VL_EFORMAT, "%s: a size without \"%s\"", in->where, key);
    *out = side;
    return VL_OK;
}

/* A number is both sides; else {"height", "width"}. */
vl_status vl_preprocess_read_rectangle(int *height, int *width, const vl_hf_reader *in, const char *key)
{
    const json_t *value = json_object_get(in->object, key);
    if (!value || json_is_null(value))
        return VL_OK;
    if (json_is_integer(value)) {
        VL_TRY(read_side(height, in, key));
        *width = *height;
        return VL_OK;
    }
    if (!json_is_object(value))
        return vl_fail(in->err, VL_EFORMAT, "%s: \"%s\" is neither a number nor an object with height and width",
                       in->where, key);
    const vl_hf_reader inner = {value, in->where, in->err};
    VL_TRY(read_side(height, &inner, "height"));
    return read_side(width, &inner, "width");
}

/* A number or {"shortest_edge"} keeps the aspect ratio; {"height", "width"} does not. */
static vl_status read_clip_size(vl_preprocess *out, const vl_hf_reader *in)
{
    const json_t *value = json_object_get(in->object, "size");
    const vl_hf_reader inner = {value, in->where, in->err};
    if (!value || json_is_null(value))
        return VL_OK;
    if (json_is_integer(value))
        return read_side(&out->shortest_edge, in, "size");
    if (json_is_object(value) && json_object_get(value, "shortest_edge"))
        return read_side(&out->shortest_edge, &inner, "shortest_edge");
    out->shortest_edge = 0;
    return vl_preprocess_read_rectangle(&out->height, &out->width, in, "size");
}

vl_status vl_preprocess_read_common(vl_preprocess *out, const vl_hf_reader *in)
{
    int resample = (int)out->resample;
    VL_TRY(vl_hf_key_bool(&out->do_resize, in, "do_resize"));
    VL_TRY(vl_hf_key_bool(&out->do_rescale, in, "do_rescale"));
    VL_TRY(vl_hf_key_bool(&out->do_normalize, in, "do_normalize"));
    VL_TRY(vl_hf_key_bool(&out->do_convert_rgb, in, "do_convert_rgb"));
    VL_TRY(vl_hf_key_bool(&out->do_pad, in, "do_pad"));
    VL_TRY(vl_hf_key_int(&resample, in, "resample", VL_RESAMPLE_LANCZOS, VL_RESAMPLE_HAMMING));
    out->resample = (vl_resample)resample;
    VL_TRY(vl_json_double(&out->rescale_factor, in->object, "rescale_factor", in->where, in->err));
    VL_TRY(vl_hf_key_channels(out->mean, in, "image_mean"));
    VL_TRY(vl_hf_key_channels(out->std, in, "image_std"));
    if (!isfinite((float)out->rescale_factor))
        return vl_fail(in->err, VL_EFORMAT, "%s: \"rescale_factor\" is no finite 32-bit number", in->where);
    for (int c = 0; c < 3; c++) {
        if (!isfinite((float)out->mean[c]) || !isfinite(1 / (float)out->std[c]))
            return vl_fail(in->err, VL_EFORMAT,
                           "%s: \"image_mean\" %g, \"image_std\" %g: expected finite numbers, and no "
                           "division by 0",
                           in->where, out->mean[c], out->std[c]);
    }
    return VL_OK;
}

vl_status vl_preprocess_read_clip(vl_preprocess *out, const vl_hf_reader *in)
{
    VL_TRY(vl_preprocess_read_common(out, in));
    VL_TRY(read_clip_size(out, in));
    VL_TRY(vl_hf_key_bool(&out->do_center_crop, in, "do_center_crop"));
    VL_TRY(vl_preprocess_read_rectangle(&out->crop_height, &out->crop_width, in, "crop_size"));
    if (out->do_pad) /* LlavaImageProcessor can pad to a square first; llava-1.5 does not */
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"do_pad\" is true, expected false for a CLIP picture",
                       in->where);
    return VL_OK;
}
