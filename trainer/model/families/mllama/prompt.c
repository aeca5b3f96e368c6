/* Mllama's prompts. Semantics: transformers 4.46.3, src/transformers/models/mllama/processing_mllama.py
 * (build_string_from_input, get_cross_attention_token_mask, convert_sparse_cross_attention_mask_to_dense). */
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/model/families/mllama/mllama.h"

static const char IMAGE_TOKEN[] = "<|image|>"; /* MllamaProcessor.__init__ */
enum { VISIBLE_BITS = 64 };

vl_status vl_mllama_prompt_open(vl_mllama *mllama, const vl_model *model, vl_error *err)
{
    const char *directory = model->path;
    const vl_tokenizer *tokenizer = model->tokenizer;
    int32_t image = vl_tokenizer_id(tokenizer, IMAGE_TOKEN), bos = vl_tokenizer_bos(tokenizer);
    if (image != model->spec.vision.image_token)
        return vl_fail(err, VL_EMISMATCH, "%s: the tokenizer's id of \"%s\" is %d, config.json says %d", directory,
                       IMAGE_TOKEN, (int)image, (int)model->spec.vision.image_token);
    mllama->bos = bos >= 0 ? vl_tokenizer_piece(tokenizer, bos) : NULL;
    if (!mllama->bos)
        return vl_fail(err, VL_EFORMAT, "%s: the tokenizer names no bos token, which every prompt starts with",
                       directory);
    return VL_OK;
}

/* ---- text -------------------------------------------------------------------------------------------------- */

/* The processor puts bos behind the image tokens that a text begins with, unless the text has one anywhere. */
static void put_with_bos(vl_str *out, const vl_mllama *mllama, const char *text)
{
    const char *rest = text;
    if (!strstr(text, mllama->bos)) {
        while (strncmp(rest, IMAGE_TOKEN, strlen(IMAGE_TOKEN)) == 0)
            rest += strlen(IMAGE_TOKEN);
        vl_str_append(out, text, (size_t)(rest - text));
        vl_str_puts(out, mllama->bos);
    }
    vl_str_puts(out, rest);
}

vl_status vl_mllama_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                         const struct vl_sequence_image *images, vl_error *err)
{
    (void)images;
    VL_TRY(vl_check_image_count(vl_count_token(prompt->text, IMAGE_TOKEN), prompt->n_images, err));
    put_with_bos(out, model->parts, prompt->text);
    return VL_OK;
}

/* ---- who sees what ----------------------------------------------------------------------------------------- */

/* A picture is seen from its own token up to the next picture's, the last one to the end. Pictures that stand directly
 * one behind another are seen up to the same end: that of the last of them. Walks from the end, where that is known. */
static void fill_visible(vl_sequence *sequence, int32_t image_token, int max_tiles)
{
    int64_t next = sequence->n_tokens, end = sequence->n_tokens;
    int image = sequence->n_images - 1;
    for (int64_t start = sequence->n_tokens - 1; start >= 0; start--) {
        if (sequence->ids[start] != image_token)
            continue;
        if (next != start + 1) /* else the end is that of the neighbour behind it */
            end = next;
        uint64_t tiles = (UINT64_C(1) << sequence->images[image].n_tiles) - 1;
        for (int64_t t = start; t < end; t++)
            sequence->visible[t] |= tiles << (image * max_tiles);
        next = start;
        image--;
    }
}

vl_status vl_mllama_place(vl_sequence *sequence, const vl_model_spec *spec, vl_error *err)
{
    int64_t n_tokens = 0;
    int max_tiles = spec->vision.max_tiles;
    for (int64_t t = 0; t < sequence->n_tokens; t++)
        n_tokens += sequence->ids[t] == spec->vision.image_token;
    VL_TRY(vl_check_image_count(n_tokens, sequence->n_images, err));
    if (sequence->n_images == 0)
        return VL_OK;
    if (sequence->n_images > VISIBLE_BITS / max_tiles)
        return vl_fail(err, VL_EUNSUPPORTED, "a prompt with %d images; supported: up to %d of %d tiles",
                       sequence->n_images, VISIBLE_BITS / max_tiles, max_tiles);
    sequence->visible = vl_calloc((size_t)sequence->n_tokens, sizeof *sequence->visible);
    if (!sequence->visible)
        return vl_fail_nomem(err, "sequence");
    fill_visible(sequence, spec->vision.image_token, max_tiles);
    return VL_OK;
}
