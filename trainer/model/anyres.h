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

/* vl_model_spec.own of both families */
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

/* Fills all but the last two members; the tower is in *spec already. `defaults` is what the processor's class has.
 * Errors: of vl_processor_read; VL_EMISMATCH where the tiles are not what the tower reads. */
vl_status vl_anyres_read(vl_anyres *out, const vl_model_spec *spec, const vl_processor *defaults,
                         const vl_hf_reader *in);
/* Tiles that a picture can become, at most. */
int vl_anyres_most_tiles(const vl_anyres *settings);

/* Where the rows of a picture come from: rows of the map of the canvas, [map.height, map.width] patches. */
typedef struct vl_anyres_layout {
    vl_size tiles;  /* of the canvas; 0 x 0: one tile alone, and one newline behind it */
    vl_size map;    /* patches of the canvas */
    vl_size cut;    /* from its top and bottom, or from its left and right */
    vl_size kept;   /* what is left */
    vl_size pooled; /* what that is resized to; equal to kept where it is not */
} vl_anyres_layout;
vl_anyres_layout vl_anyres_plan(const vl_anyres *settings, vl_size original, bool alone);

/* vl_family.measure, pixels, wrap and place; settings are spec->own. */
vl_status vl_anyres_measure(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height,
                            vl_error *err);
vl_status vl_anyres_pixels(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image,
                           vl_error *err);
vl_status vl_anyres_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                         const struct vl_sequence_image *images, vl_error *err);
vl_status vl_anyres_place(vl_sequence *sequence, const vl_model_spec *spec, vl_error *err);

/* vl_family.pack: tile rows [n_tiles * g * g + 1, D], the last of them the newline, to the rows of the picture. */
vl_status vl_anyres_pack(const vl_model *model, const struct vl_sequence_image *image, vl_tensor out, vl_tensor tiles,
                         vl_error *err);

#endif
