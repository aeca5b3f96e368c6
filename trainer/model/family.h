/* model/family.h - what differs between families of models, as one table of functions each.
 *
 * model.c opens what all have (config, weights, tokenizer), forward.c and generate.c drive the blocks; a family adds
 * its vision tower, its chat template and its kinds of blocks. A new family is one more file and one more row in
 * model.c. */
#ifndef VL_MODEL_FAMILY_H
#define VL_MODEL_FAMILY_H

#include <vlens/model.h>

#include "trainer/base/str.h"
#include "trainer/hf/preprocess.h"
#include "trainer/model/llama.h"

typedef struct vl_family {
    /* Loads what the text decoder does not hold into model->parts. After a failure `close` is called. */
    vl_status (*open)(vl_model *model, vl_loader *loader, vl_error *err);
    void (*close)(vl_model *model);
    /* The text that goes to the tokenizer: template applied, image tokens expanded. */
    vl_status (*wrap)(vl_str *out, const vl_model *model, const vl_prompt *prompt, vl_error *err);
    /* Fills image, patch and visible of a tokenised sequence whose pictures are read. */
    vl_status (*place)(vl_sequence *sequence, const vl_model *model, vl_error *err);
    /* Pixel values of a decoded picture: sets pixels, n_tiles and aspect_ratio_id. */
    vl_status (*picture)(struct vl_sequence_image *out, const vl_model *model, const vl_image *image, vl_error *err);
    /* Before the first block of a pass, whatever state it starts at; what it keeps is pass->context. `end` frees it,
     * and is called after every begin, also one that failed or was never reached (context is NULL then). */
    vl_status (*begin)(const vl_model *model, vl_pass *pass, vl_error *err);
    void (*end)(const vl_model *model, vl_pass *pass);
    /* State 0 of all rows of the pass. */
    vl_status (*embed)(const vl_model *model, vl_pass *pass, vl_error *err);
    /* Asks for the weights of block `layer` to be read from their file. */
    void (*expect)(const vl_model *model, int layer);
    /* x = block `layer` of x. */
    vl_status (*block)(const vl_model *model, vl_pass *pass, int layer, vl_error *err);
} vl_family;

extern const vl_family vl_family_llama, vl_family_llava, vl_family_mllama;

struct vl_model {
    char *path;
    vl_device *device; /* borrowed */
    vl_precision precision;
    vl_hf_config config;
    vl_hf_directory *directory;
    vl_tokenizer *tokenizer;
    vl_preprocess preprocess; /* of families that see pictures */
    const vl_family *family;
    void *parts; /* of the family */
    vl_llama text;
    struct vl_model_digest_job *digest; /* digest.h; NULL before it is asked for */
    const vl_weight_view *norm;         /* [D]: the final norm, left to the head */
    const vl_weight_view *head;         /* [V, D] */
    vl_model_info info;
};

/* vl_family.expect of a decoder that is a LLaMA. */
void vl_expect_llama(const vl_model *model, int layer);
/* State 0 from the token table alone: ids of all sequences, those of picture rows as `image_id`. */
vl_status vl_embed_sequences(const vl_model *model, vl_pass *pass, int32_t image_id, vl_error *err);

/* A sequence of n rows: all VL_TEXT, no picture. Freed with vl_sequence_free. Errors: VL_ENOMEM. */
vl_status vl_sequence_new(vl_sequence **out, int64_t n, vl_error *err);
/* How often a token is spelled out in a text. */
int vl_count_token(const char *text, const char *token);
/* VL_EINVAL "prompt has N image tokens for M images" unless they are equal. */
vl_status vl_check_image_count(int64_t n_tokens, int n_images, vl_error *err);

#endif
