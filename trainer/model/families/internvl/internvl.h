/* families/internvl - InternVL 2.5 and 3 in the layout of transformers ("-hf").
 *
 * Semantics: transformers 5.24.0, models/internvl and models/got_ocr2 (the image processor). */
#ifndef VL_FAMILIES_INTERNVL_H
#define VL_FAMILIES_INTERNVL_H

#include "trainer/hf/processor.h"
#include "trainer/model/picture.h"

typedef struct vl_internvl_pictures {
    vl_processor processor;
    int tile;     /* T: pixels of a side of a tile */
    int per_side; /* rows of the decoder on a side of a tile */
    double seen;  /* part of a side that the patches cover */
    int min_tiles, max_tiles;
} vl_internvl_pictures;

/* Of config.json: vision_config.image_size and patch_size, and 1 / downsample_ratio. */
typedef struct vl_internvl_shape {
    int image_size, patch_size, shuffle;
} vl_internvl_shape;

/* Errors: of vl_processor_open; VL_EMISMATCH where the files contradict the tower. Closed with vl_processor_close, also
 * after a failure. */
vl_status vl_internvl_pictures_read(vl_internvl_pictures *out, const char *directory, vl_internvl_shape shape,
                                    vl_error *err);
extern const vl_picture_rules vl_internvl_rules; /* settings: vl_internvl_pictures */

#endif
