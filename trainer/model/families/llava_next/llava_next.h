/* families/llava_next - LLaVA-NeXT (1.6). */
#ifndef VL_FAMILIES_LLAVA_NEXT_H
#define VL_FAMILIES_LLAVA_NEXT_H

#include "trainer/model/anyres.h"

/* image_size and patch: vision_config of config.json. Errors: of vl_anyres_read. */
vl_status vl_llava_next_pictures_read(vl_anyres *out, const char *directory, int image_size, int patch, vl_error *err);

#endif
