#include "trainer/model/families/llava_next/llava_next.h"

/* The number of rows is computed from the tiles: old processor_config.json files lack num_additional_image_tokens, and
 * later versions of transformers then count one too few. */
vl_status vl_llava_next_pictures_read(vl_anyres *out, const char *directory, int image_size, int patch, vl_error *err)
{
    static const vl_processor defaults = {
        .resample = VL_RESAMPLE_BICUBIC,
        .do_resize = true,
        .shortest_edge = 224,
        .normalise = {.do_rescale = true,
                      .do_normalize = true,
                      .rescale_factor = 1.0 / 255,
                      .mean = {0.48145466, 0.4578275, 0.40821073}, /* OPENAI_CLIP_MEAN, OPENAI_CLIP_STD */
                      .std = {0.26862954, 0.26130258, 0.27577711}},
    };
    *out = (vl_anyres){.patch = patch, .per_side = image_size / patch};
    return vl_anyres_read(out, directory, &defaults, image_size, err);
}
