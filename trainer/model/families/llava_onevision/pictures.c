#include "trainer/model/families/llava_onevision/llava_onevision.h"

#include <stdio.h>

#include "trainer/base/json.h"

vl_status vl_llava_onevision_pictures_read(vl_anyres *out, const char *directory, int image_size, int patch,
                                           vl_error *err)
{
    static const vl_processor defaults = {
        .resample = VL_RESAMPLE_BICUBIC,
        .do_resize = true,
        .size = {384, 384},
        .normalise = {.do_rescale = true,
                      .do_normalize = true,
                      .rescale_factor = 1.0 / 255,
                      .mean = {0.48145466, 0.4578275, 0.40821073}, /* OPENAI_CLIP_MEAN, OPENAI_CLIP_STD */
                      .std = {0.26862954, 0.26130258, 0.27577711}},
    };
    const char *ratio = "anyres_max_9";
    char after;
    *out = (vl_anyres){.patch = patch, .per_side = image_size / patch, .one_tile_each = true};
    VL_TRY(vl_anyres_read(out, directory, &defaults, image_size, err));
    VL_TRY(vl_json_string(&ratio, out->processor.processor, "vision_aspect_ratio", out->processor.processor_path, err));
    if (sscanf(ratio, "anyres_max_%d%c", &out->max_tiles, &after) != 1 || out->max_tiles < 1)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: \"vision_aspect_ratio\" is \"%s\", expected anyres_max_N",
                       out->processor.processor_path, ratio);
    return VL_OK;
}
