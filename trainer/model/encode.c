/* From a prompt to a sequence: template, tokens, pictures. */
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/model/family.h"

int vl_count_token(const char *text, const char *token)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, token)); at += strlen(token))
        n++;
    return n;
}

vl_status vl_check_image_count(int64_t n_tokens, int n_images, vl_error *err)
{
    if (n_tokens == n_images)
        return VL_OK;
    return vl_fail(err, VL_EINVAL, "prompt has %lld image tokens for %d images", (long long)n_tokens, n_images);
}

/* The longest sequence that the model was made for; 0 where its positions stretch with the length. Linear and yarn
 * scaling multiply the length that the config names. */
static int64_t own_limit(const vl_text_config *text)
{
    switch (text->rope.kind) {
    case VL_HF_ROPE_DYNAMIC: return 0;
    case VL_HF_ROPE_LINEAR:
    case VL_HF_ROPE_YARN: return (int64_t)(text->max_position * (text->rope.factor > 1 ? text->rope.factor : 1));
    case VL_HF_ROPE_DEFAULT:
    case VL_HF_ROPE_LLAMA3: break;
    }
    return text->max_position;
}

static vl_status check_length(const vl_model *model, const vl_prompt *prompt, int64_t n, vl_error *err)
{
    int64_t own = own_limit(&model->config.text);
    if (n == 0)
        return vl_fail(err, VL_EINVAL, "the prompt has no tokens");
    if (prompt->max_tokens > 0 && n > prompt->max_tokens)
        return vl_fail(err, VL_EINVAL, "the prompt has %lld tokens, max_tokens is %lld", (long long)n,
                       (long long)prompt->max_tokens);
    if (prompt->max_tokens == 0 && own > 0 && n > own)
        return vl_fail(err, VL_EINVAL, "the prompt has %lld tokens, the model's limit is %lld", (long long)n,
                       (long long)own);
    return VL_OK;
}

/* Template and tokenizer: a sequence of text rows. */
static vl_status tokenize(vl_sequence **out, const vl_model *model, const vl_prompt *prompt, vl_error *err)
{
    vl_status status = VL_OK;
    vl_str text = VL_STR_INIT;
    vl_token_ids tokens = {0};
    VL_GOTO(model->family->wrap(&text, model, prompt, err));
    if (text.failed) {
        status = vl_fail_nomem(err, "prompt");
        goto done;
    }
    VL_GOTO(vl_tokenizer_encode(&tokens, model->tokenizer, text.data ? text.data : "", text.size, true, err));
    VL_GOTO(check_length(model, prompt, tokens.n, err));
    VL_GOTO(vl_sequence_from_ids(out, model, tokens.ids, tokens.n, err));
done:
    vl_str_clear(&text);
    vl_release(tokens.ids);
    return status;
}

static vl_status read_picture(struct vl_sequence_image *out, const vl_model *model, const char *path,
                              const vl_prompt *prompt, vl_error *err)
{
    vl_status status = VL_OK;
    vl_image image = {0};
    vl_image_options options = vl_preprocess_image_options(&model->preprocess, !prompt->ignore_exif);
    options.max_pixels = prompt->max_pixels > 0 ? prompt->max_pixels : VL_PROMPT_MAX_PIXELS;
    out->path = vl_strdup(path);
    if (!out->path)
        return vl_fail_nomem(err, "picture");
    VL_GOTO(vl_image_open(&image, path, &options, err));
    out->width = image.width;
    out->height = image.height;
    memcpy(out->sha256, image.sha256, sizeof out->sha256);
    status = model->family->picture(out, model, &image, err);
    if (status != VL_OK)
        vl_error_prefix(err, status, "%s: ", path);
done:
    vl_image_clear(&image);
    return status;
}

static vl_status read_pictures(vl_sequence *sequence, const vl_model *model, const vl_prompt *prompt, vl_error *err)
{
    if (prompt->n_images <= 0)
        return VL_OK;
    sequence->images = vl_calloc((size_t)prompt->n_images, sizeof *sequence->images);
    if (!sequence->images)
        return vl_fail_nomem(err, "pictures");
    sequence->n_images = prompt->n_images;
    for (int i = 0; i < prompt->n_images; i++)
        VL_TRY(read_picture(&sequence->images[i], model, prompt->image_paths[i], prompt, err));
    return VL_OK;
}

vl_status vl_model_encode(vl_sequence **out, const vl_model *model, const vl_prompt *prompt, vl_error *err)
{
    *out = NULL;
    vl_status status = VL_OK;
    vl_sequence *sequence = NULL;
    VL_GOTO(tokenize(&sequence, model, prompt, err));
    VL_GOTO(read_pictures(sequence, model, prompt, err));
    if (model->family->place)
        VL_GOTO(model->family->place(sequence, model, err));
    sequence->token_class[sequence->n_tokens - 1] = VL_LAST;
    *out = sequence;
    sequence = NULL;
done:
    vl_sequence_free(sequence);
    return status;
}
