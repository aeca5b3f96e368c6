/* model/family.h - what a family of models is: one folder under model/families and one row in families/table.c.
 *
 * A text family is its `text`: from the keys of config.json to a vl_decoder_spec. The rest of the program asks the
 * spec, the model's info or the sequence, and never which family it is (tools/check_family.py).
 *
 * A family that sees pictures reads its decoder through vl_spec_text_section, so that it may stand on any text family,
 * and adds `describe` and, in the order in which they are called for a prompt:
 *     measure   what a picture of a size becomes: tiles, rows, and the grids that say what each row shows
 *     pixels    the pixel values of a decoded picture
 *     wrap      a written prompt as it goes to the tokenizer: image tokens as often as there are rows
 *     place     which rows of the tokenised sequence are which patch of which picture; positions where they differ
 * and in a forward:
 *     encode    pictures into rows of the decoder's width. NULL: tower and connector as the vl_vision_spec says
 * All but `encode` and `wrap` need no weights. */
#ifndef VL_MODEL_FAMILY_H
#define VL_MODEL_FAMILY_H

#include <vlens/model.h>

#include "trainer/base/str.h"
#include "trainer/model/model.h"
#include "trainer/model/spec.h"

/* Pictures of a pass that are encoded together. */
typedef struct vl_encode_args {
    const vl_pass *pass;         /* device, sequences, stage callback */
    int n;                       /* 1 .. vision.pictures_at_once */
    const int *sequence, *image; /* [n] sequences[sequence[i]]->images[image[i]] */
    vl_tensor out;               /* [sum of n_rows, D], picture by picture */
    const vl_tensor *deep;       /* [vision.n_deep] of the same shape: what is added behind the first blocks */
} vl_encode_args;

typedef struct vl_family {
    const char *model_type;    /* of config.json */
    const char *chat_template; /* of directories that have none; NULL: texts as they are */
    const char *architecture;  /* the first of "architectures" where that is written */
    /* How the names of each part start, newest layout or oldest first as you like; NULL at the end. "" is a prefix. */
    const char *prefixes[VL_PARTS][VL_MAX_LAYOUTS + 1];
    const char
        *rules; /* conventions that no file states and versions of transformers differ in; part of what a state is */
    const char *const *ignored; /* endings of tensors that are buffers, not weights; NULL at the end, or NULL */

    /* A text family: fills *out (zero) from the keys of config.json, or of the text_config of another family, and
     * refuses what is not computed. */
    vl_status (*text)(vl_decoder_spec *out, const vl_hf_reader *in);

    /* ---- pictures; all NULL in a text family ---- */

    /* Fills decoder, vision, preprocess and own from the files of the directory. *out is zero but for what all have. */
    vl_status (*describe)(vl_model_spec *out, const vl_hf_config *config, vl_error *err);

    /* Sets n_tiles, n_rows and grids of a picture of width x height pixels. */
    vl_status (*measure)(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height,
                         vl_error *err);
    /* Sets pixels, and seen: what the model sees of the picture, in bytes. `out` is measured already. */
    vl_status (*pixels)(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image, vl_error *err);
    vl_status (*wrap)(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                      const struct vl_sequence_image *images, vl_error *err);
    /* Fills token_class, image and patch (in the stream) or visible (cross-attention), and position where it is not
     * the number of the row. Pictures are measured, not always decoded. */
    vl_status (*place)(vl_sequence *sequence, const vl_model_spec *spec, vl_error *err);

    /* From the rows of a picture's tiles [n_tiles * rows of a tile, D], and the newline where there is one as the last
     * row, to those of the stream [n_rows, D]. NULL: they are the same. */
    vl_status (*pack)(const vl_model *model, const struct vl_sequence_image *image, vl_tensor out, vl_tensor tiles,
                      vl_error *err);

    /* A tower of its own: loads it into model->parts. After a failure `close` is called. */
    vl_status (*open)(vl_model *model, vl_loader *loader, vl_error *err);
    void (*close)(vl_model *model);
    vl_status (*encode)(const vl_model *model, const vl_encode_args *args, vl_error *err);
    /* Floating-point operations of `encode` for one picture (model/work.h). */
    double (*encode_work)(const vl_model_spec *spec, const struct vl_sequence_image *image);
} vl_family;

/* The row of families/table.c for a model_type; NULL where there is none. */
const vl_family *vl_family_find(const char *model_type);
/* Row i; NULL behind the last. */
const vl_family *vl_family_at(size_t i);

/* ---- for families: prompts and rows (encode.c, sequence.c) --------------------------------------------------- */

/* How often a token is spelled out in a text. */
int vl_count_token(const char *text, const char *token);
/* VL_EINVAL "prompt has N image tokens for M images" unless they are equal. */
vl_status vl_check_image_count(int64_t n_tokens, int n_images, vl_error *err);
/* Appends `text` with the i-th `token` in it written images[i].n_rows times. As many tokens as images are there. */
void vl_put_expanded(vl_str *out, const char *text, const char *token, const struct vl_sequence_image *images);
/* Marks the rows whose id is the image token as those of the pictures, in order: row r of a picture is cell r of its
 * grids, one grid after another in raster order; `skipped` rows before the first cell belong to no cell (a class row).
 * VL_EINVAL unless there are as many rows as the pictures have. */
vl_status vl_place_rows(vl_sequence *sequence, const vl_model_spec *spec, int skipped, vl_error *err);

/* Room for n grids of a picture. Errors: VL_ENOMEM. */
vl_status vl_image_set_grids(struct vl_sequence_image *image, int n, vl_error *err);
/* Room for n pixel values, and for the bytes of seen. Errors: VL_ENOMEM. */
vl_status vl_image_set_pixels(struct vl_sequence_image *image, int64_t n, vl_error *err);
vl_status vl_image_set_seen(struct vl_sequence_image *image, int width, int height, vl_error *err);
/* Frees what a picture owns. */
void vl_image_release(struct vl_sequence_image *image);

/* A sequence of n rows: all VL_TEXT, no picture, position = row. Freed with vl_sequence_free. Errors: VL_ENOMEM. */
vl_status vl_sequence_new(vl_sequence **out, int64_t n, vl_error *err);

#endif
