/* What Gemma 2 and the decoder of Gemma 3 share. */
#ifndef VL_MODEL_FAMILIES_GEMMA2_H
#define VL_MODEL_FAMILIES_GEMMA2_H

#include "trainer/model/family.h"

/* A decoder with four norms of 1 + w a block, scaled embeddings, a tanh gelu and tied embeddings, and the keys that
 * both configs have. Caps, ropes and windows are left to the family. *out is zero but for sizes that differ. */
vl_status vl_gemma_read(vl_decoder_spec *out, const vl_hf_reader *in);

#endif
