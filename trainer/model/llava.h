/* model/llava.h - LLaVA 1.5: CLIP tower, projector, and a LLaMA decoder that reads picture rows among its tokens. */
#ifndef VL_MODEL_LLAVA_H
#define VL_MODEL_LLAVA_H

#include "trainer/model/clip.h"
#include "trainer/model/pass.h"

/* Names of sizes as in clip.h; D is the width of the decoder. */
typedef struct vl_llava {
    const vl_hf_config *config; /* borrowed */
    vl_clip tower;
    vl_linear linear_1; /* [D, C] */
    vl_linear linear_2; /* [D, D] */
} vl_llava;

/* Projects the pictures of all sequences of the pass and puts their rows into x, over the rows whose `image` is set.
 * Errors: VL_EINVAL where a sequence does not have image_tokens rows for each picture. */
vl_status vl_llava_merge(const vl_llava *llava, vl_pass *pass, vl_error *err);

#endif
