/* families/llava_onevision - LLaVA-OneVision. */
#ifndef VL_FAMILIES_LLAVA_ONEVISION_H
#define VL_FAMILIES_LLAVA_ONEVISION_H

#include "trainer/model/anyres.h"

/* image_size and patch: vision_config of config.json. Errors: of vl_anyres_read; VL_EUNSUPPORTED (a
 * vision_aspect_ratio other than anyres_max_N). */
vl_status vl_llava_onevision_pictures_read(vl_anyres *out, const char *directory, int image_size, int patch,
                                           vl_error *err);

#endif
