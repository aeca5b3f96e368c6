/* families/idefics3 - Idefics3 and SmolVLM: the same model under two names.
 *
 * Semantics: transformers 5.24.0, models/idefics3 (image_processing_idefics3.py, processing_idefics3.py). */
#ifndef VL_FAMILIES_IDEFICS3_H
#define VL_FAMILIES_IDEFICS3_H

#include "trainer/hf/processor.h"
#include "trainer/model/picture.h"

typedef struct vl_idefics3_pictures {
    vl_processor processor;
    int tile;     /* T: pixels of a side of a tile */
    int patch;    /* pixels of a side of a patch: T need not be a multiple, the rest is not seen */
    int per_side; /* rows of the decoder on a side of a tile */
    int shuffle;  /* patches on a side of what one of those rows covers */
    bool splitting;
} vl_idefics3_pictures;

/* patch and shuffle are vision_config.patch_size and scale_factor of config.json. Errors: of vl_processor_open;
 * VL_EMISMATCH where image_seq_len is not what the tiles give. Closed with vl_processor_close, also after a failure. */
vl_status vl_idefics3_pictures_read(vl_idefics3_pictures *out, const char *directory, int patch, int shuffle,
                                    vl_error *err);
extern const vl_picture_rules vl_idefics3_rules; /* settings: vl_idefics3_pictures */

#endif
