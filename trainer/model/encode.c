/* From a prompt to a sequence: template, tokens, pictures. */
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/model/conversation.h"
#include "trainer/model/encode.h"
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

void vl_put_expanded(vl_str *out, const char *text, const char *token, const struct vl_sequence_image *images)
{
    const char *at;
    for (int i = 0; (at = strstr(text, token)); i++) {
        vl_str_append(out, text, (size_t)(at - text));
        for (int64_t row = 0; row < images[i].n_rows; row++)
            vl_str_puts(out, token);
        text = at + strlen(token);
    }
    vl_str_puts(out, text);
}

/* ---- length ------------------------------------------------------------------------------------------------ */

/* The longest sequence that the model was made for; 0 where its positions stretch with the length. Linear and yarn
 * scaling multiply the length that the config names; longrope's config names the stretched one. */
static int64_t own_limit(const vl_decoder_spec *spec)
{
    const vl_rope_spec *rope = &spec->ropes[0];
    if (spec->n_ropes == 0)
        return spec->position_rows ? spec->position_rows - spec->position_offset : spec->max_position;
    switch (rope->kind) {
    case VL_ROPE_DYNAMIC: return 0;
    case VL_ROPE_LINEAR:
    case VL_ROPE_YARN: return (int64_t)(spec->max_position * (rope->factor > 1 ? rope->factor : 1));
    case VL_ROPE_DEFAULT:
    case VL_ROPE_LLAMA3:
    case VL_ROPE_LONGROPE: break;
    }
    return spec->max_position;
}

static vl_status check_length(const vl_model *model, const vl_prompt *prompt, int64_t n, vl_error *err)
{
    int64_t own = own_limit(&model->spec.decoder);
    if (n == 0)
        return vl_fail(err, VL_EINVAL, "the prompt has no tokens");
    if (prompt->truncate)
        return VL_OK;
    if (prompt->max_tokens > 0 && n > prompt->max_tokens)
        return vl_fail(err, VL_ELENGTH, "the prompt has %lld tokens, data.max_tokens is %lld", (long long)n,
                       (long long)prompt->max_tokens);
    if (prompt->max_tokens == 0 && own > 0 && n > own)
        return vl_fail(err, VL_ELENGTH, "the prompt has %lld tokens, the model's limit is %lld", (long long)n,
                       (long long)own);
    return VL_OK;
}

/* ---- pictures ---------------------------------------------------------------------------------------------- */

static vl_status measure(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height, vl_error *err)
{
    out->width = width;
    out->height = height;
    return spec->family->measure(out, spec, width, height, err);
}

vl_status vl_picture_open(struct vl_sequence_image *out, const vl_model_spec *spec, const char *path,
                          const vl_picture_options *how, vl_error *err)
{
    vl_status status = VL_OK;
    vl_image image = {0};
    vl_image_options options = vl_preprocess_image_options(&spec->preprocess, !how->ignore_exif);
    options.max_pixels = how->max_pixels > 0 ? how->max_pixels : VL_PROMPT_MAX_PIXELS;
    out->alone = how->alone;
    out->path = vl_strdup(path);
    if (!out->path)
        return vl_fail_nomem(err, "picture");
    VL_GOTO(vl_image_open(&image, path, &options, err));
    memcpy(out->sha256, image.sha256, sizeof out->sha256);
    status = measure(out, spec, image.width, image.height, err);
    if (status == VL_OK && !how->only_measure)
        status = spec->family->pixels(out, spec, &image, err);
    if (status != VL_OK)
        vl_error_prefix(err, status, "%s: ", path);
done:
    vl_image_clear(&image);
    return status;
}

/* The prompt's pictures. Where only rows are counted, a picture is opened only if its size makes a difference. */
static vl_status read_pictures(vl_sequence *holder, const vl_model *model, const vl_prompt *prompt, bool only_measure,
                               vl_error *err)
{
    const vl_model_spec *spec = &model->spec;
    vl_picture_options how = {prompt->ignore_exif, only_measure, prompt->n_images == 1, prompt->max_pixels};
    if (prompt->n_images <= 0)
        return VL_OK;
    if (spec->vision.path == VL_VISION_NONE)
        return vl_fail(err, VL_EINVAL, "%d images were given, but a model of type %s reads text only", prompt->n_images,
                       spec->model_type);
    holder->images = vl_calloc((size_t)prompt->n_images, sizeof *holder->images);
    if (!holder->images)
        return vl_fail_nomem(err, "pictures");
    holder->n_images = prompt->n_images;
    for (int i = 0; i < prompt->n_images; i++) {
        if (only_measure && spec->vision.rows_fixed)
            VL_TRY(measure(&holder->images[i], spec, spec->vision.sample_side, spec->vision.sample_side, err));
        else
            VL_TRY(vl_picture_open(&holder->images[i], spec, prompt->image_paths[i], &how, err));
    }
    return VL_OK;
}

/* ---- text -------------------------------------------------------------------------------------------------- */

static vl_status wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                      const struct vl_sequence_image *images, vl_error *err)
{
    if (model->spec.family->wrap)
        return model->spec.family->wrap(out, model, prompt, images, err);
    vl_str_puts(out, prompt->text);
    return VL_OK;
}

typedef struct source {
    const vl_model *model;
    const vl_prompt *prompt;
    const struct vl_sequence_image *images;
} source;

/* Token ids of the first bytes of a written text, with every image token as often as its picture has rows. */
static vl_status tokenize(vl_token_ids *out, void *user, const vl_written *written, size_t bytes, int n_images,
                          vl_error *err)
{
    const source *from = user;
    vl_status status = VL_OK;
    vl_str text = VL_STR_INIT, start = VL_STR_INIT;
    vl_prompt prompt = *from->prompt;
    vl_str_append(&start, written->text.data ? written->text.data : "", bytes);
    prompt.text = start.data ? start.data : "";
    prompt.n_images = n_images;
    prompt.raw = true;
    VL_GOTO(wrap(&text, from->model, &prompt, from->images, err));
    if (text.failed || start.failed)
        VL_GOTO(vl_fail_nomem(err, "prompt"));
    VL_GOTO(vl_tokenizer_encode(out, from->model->tokenizer, text.data ? text.data : "", text.size,
                                written->add_special, err));
done:
    vl_str_clear(&text);
    vl_str_clear(&start);
    return status;
}

/* Cuts the end of a sequence that is too long. The rows of a picture stay whole, or it is refused. */
static vl_status truncate(vl_sequence *sequence, const vl_model *model, const vl_prompt *prompt, vl_error *err)
{
    int64_t most = prompt->max_tokens > 0 ? prompt->max_tokens : own_limit(&model->spec.decoder);
    if (!prompt->truncate || most <= 0 || sequence->n_tokens <= most)
        return VL_OK;
    for (int64_t t = most; t < sequence->n_tokens; t++)
        if (sequence->image[t] >= 0 || sequence->ids[t] == model->info.image_token)
            return vl_fail(err, VL_ELENGTH, "the prompt has %lld tokens, and to cut it to %lld would cut a picture",
                           (long long)sequence->n_tokens, (long long)most);
    sequence->n_tokens = sequence->n_prompt = most;
    sequence->answered = true; /* what comes next is not asked for */
    return VL_OK;
}

/* Pictures come first: how many rows they become decides how often the image token is written. */
static vl_status encode(vl_sequence **out, const vl_model *model, const vl_prompt *prompt, bool only_measure,
                        vl_error *err)
{
    *out = NULL;
    vl_status status = VL_OK;
    vl_sequence *sequence = NULL, pictures = {0};
    vl_written written = {0};
    vl_token_ids tokens = {NULL, 0};
    source from = {model, prompt, NULL};
    vl_ids_of_start starts = {tokenize, &from};
    VL_GOTO(read_pictures(&pictures, model, prompt, only_measure, err));
    from.images = pictures.images;
    VL_GOTO(vl_conversation_write(&written, model, prompt, err));
    VL_GOTO(tokenize(&tokens, &from, &written, written.text.size, prompt->n_images, err));
    VL_GOTO(check_length(model, prompt, tokens.n, err));
    VL_GOTO(vl_sequence_from_ids(&sequence, model, tokens.ids, tokens.n, err));
    sequence->images = pictures.images;
    sequence->n_images = pictures.n_images;
    pictures = (vl_sequence){0};
    if (model->spec.family->place)
        VL_GOTO(model->spec.family->place(sequence, &model->spec, err));
    VL_GOTO(vl_conversation_mark(sequence, &written, &starts, err));
    VL_GOTO(truncate(sequence, model, prompt, err));
    *out = sequence;
    sequence = NULL;
done:
    for (int i = 0; i < pictures.n_images; i++)
        vl_image_release(&pictures.images[i]);
    vl_free(pictures.images);
    vl_release(tokens.ids);
    vl_written_clear(&written);
    vl_sequence_free(sequence);
    return status;
}

vl_status vl_model_encode(vl_sequence **out, const vl_model *model, const vl_prompt *prompt, vl_error *err)
{
    return encode(out, model, prompt, false, err);
}

vl_status vl_model_outline(vl_sequence **out, const vl_model *model, const vl_prompt *prompt, vl_error *err)
{
    return encode(out, model, prompt, true, err);
}
