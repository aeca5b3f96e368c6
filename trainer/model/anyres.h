/* model/anyres.h - pictures as LLaVA-NeXT and LLaVA-OneVision take them: the whole picture as one tile, then tiles of
 * a canvas into which it was fitted, whose map of patches is cut back to the picture's aspect.
 *
 * Semantics: transformers 5.24.0, models/llava_next (image_processing_llava_next.py, pack_image_features and
 * unpad_image of modeling_llava_next.py) and models/llava_onevision. */
#ifndef VL_MODEL_ANYRES_H
#define VL_MODEL_ANYRES_H

#include "trainer/hf/processor.h"
#include "trainer/model/picture.h"

enum { VL_ANYRES_MAX_CANVASES = 64 };

typedef struct vl_anyres {
    vl_processor processor;
    vl_size canvases[VL_ANYRES_MAX_CANVASES]; /* image_grid_pinpoints, in pixels */
    int n_canvases;
    int tile;           /* T: pixels of a side of a tile */
    int patch;          /* pixels of a side of a patch: T need not be a multiple, the rest is not seen */
    int per_side;       /* g: patches on a side of a tile */
    int max_tiles;      /* OneVision's anyres_max_N: the map is pooled to about N tiles; 0: never */
    bool one_tile_each; /* OneVision: several pictures in a prompt are one tile each, padded to squares */
} vl_anyres;

/* Fills processor, canvases and tile, and checks them against the tower; `out` holds the other members already.
 * Errors: of vl_processor_open; VL_EMISMATCH where the tiles are not what the tower reads. Closed with
 * vl_processor_close(&out->processor), also after a failure. */
vl_status vl_anyres_read(vl_anyres *out, const char *directory, const vl_processor *defaults, int image_size,
                         vl_error *err);

/* Where the rows of a picture come from: rows of the map of the canvas, [map.height, map.width] patches. */
typedef struct vl_anyres_layout {
    vl_size tiles;  /* of the canvas; 0 x 0: one tile alone (then one newline follows it) */
    vl_size map;    /* patches of the canvas */
    vl_size cut;    /* from its top and bottom, or from its left and right */
    vl_size kept;   /* what is left */
    vl_size pooled; /* what that is resized to; equal to kept where it is not */
} vl_anyres_layout;

vl_anyres_layout vl_anyres_plan(const vl_anyres *settings, vl_size original, int n_pictures);

extern const vl_picture_rules vl_anyres_rules; /* settings: vl_anyres; "<image>" */

#endif
