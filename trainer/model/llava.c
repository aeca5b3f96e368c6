/* Semantics: transformers 4.46.3, src/transformers/models/llava/modeling_llava.py (get_image_features,
 * LlavaMultiModalProjector, the masked_scatter of forward) and processing_llava.py (the expansion of "<image>"). */
#include "trainer/model/llava.h"

#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/model/family.h"
#include "trainer/model/buffers.h"

/* Pictures that share one pass over the tower's weights. */
enum { PICTURES = 4 };

static const char IMAGE_TOKEN[] = "<image>";

/* ---- weights ----------------------------------------------------------------------------------------------- */

static vl_status llava_open(vl_model *model, vl_loader *loader, vl_error *err)
{
    const vl_hf_config *config = &model->config;
    if (model->preprocess.kind != VL_PREPROCESS_CLIP)
        return vl_fail(err, VL_EMISMATCH, "%s: preprocessor_config.json is not that of a CLIP image processor",
                       model->path);
    vl_llava *llava = vl_calloc(1, sizeof *llava);
    if (!llava)
        return vl_fail_nomem(err, "model");
    model->parts = llava;
    llava->config = config;
    int64_t c = config->clip.hidden_size, d = config->text.hidden_size;
    VL_TRY(vl_clip_load(&llava->tower, loader, config->vision_state, err));
    vl_scope scope = vl_scope_make(loader, VL_HF_PROJECTOR, "%s", "");
    VL_TRY(vl_load_linear(&llava->linear_1, &scope, "linear_1", vl_hf_shape2(d, c), config->projector_bias, err));
    return vl_load_linear(&llava->linear_2, &scope, "linear_2", vl_hf_shape2(d, d), config->projector_bias, err);
}

static void llava_close(vl_model *model)
{
    vl_llava *llava = model->parts;
    if (!llava)
        return;
    vl_clip_free(&llava->tower, model->device);
    vl_linear_free(model->device, &llava->linear_1);
    vl_linear_free(model->device, &llava->linear_2);
    vl_free(llava);
    model->parts = NULL;
}

/* ---- pictures into rows ------------------------------------------------------------------------------------ */

/* Up to PICTURES pictures on their way; N rows each in the tower, image_tokens of them in the stream. */
typedef struct batch {
    const vl_llava *llava;
    vl_pass *pass;
    int n;
    int sequence[PICTURES], image[PICTURES];
    const float *pixels[PICTURES];
    void *memory, *hidden, *middle, *out; /* [PICTURES * N, C], [.., D], [.., D] */
} batch;

static vl_tensor batch_rows(const batch *b, void *data, int64_t columns)
{
    return vl_tensor_2d(data, VL_F32, (int64_t)b->n * (b->llava->config->clip.n_patches + 1), columns);
}

/* The rows of picture i: without its class row where the config drops that. */
static vl_tensor picture_rows(const batch *b, vl_tensor rows, int i, bool keep_class_row)
{
    int64_t n = b->llava->config->clip.n_patches + 1, skip = keep_class_row ? 0 : 1;
    return vl_tensor_rows(rows, i * n + skip, n - skip);
}

static vl_status show(const batch *b, const char *name, vl_tensor rows, bool keep_class_row, vl_error *err)
{
    for (int i = 0; b->pass->stage && i < b->n; i++) {
        vl_tensor part = picture_rows(b, rows, i, keep_class_row);
        if (b->pass->stage(b->pass->user, name, b->sequence[i], &part) != 0)
            return vl_fail(err, VL_ECANCELLED, "the forward was stopped at %s", name);
    }
    return VL_OK;
}

static vl_status show_hidden(void *user, int state, vl_tensor rows, vl_error *err)
{
    char name[] = "vision.hidden.00";
    name[sizeof name - 3] = (char)('0' + state / 10 % 10);
    name[sizeof name - 2] = (char)('0' + state % 10);
    return show(user, name, rows, true, err);
}

/* Copies the rows of picture i to the rows of the stream that it owns, run by run. */
static vl_status scatter(const batch *b, int i, vl_tensor rows, vl_error *err)
{
    const vl_sequence *sequence = b->pass->sequences[b->sequence[i]];
    vl_tensor x = vl_tensor_rows(vl_pass_x(b->pass), b->pass->spans[b->sequence[i]].first, sequence->n_tokens);
    int64_t used = 0;
    for (int64_t t = 0; t < sequence->n_tokens;) {
        int64_t run = 0;
        while (t + run < sequence->n_tokens && sequence->image[t + run] == b->image[i])
            run++;
        if (used + run > rows.shape[0])
            break;
        if (run > 0)
            VL_TRY(vl_op_cast(b->pass->device,
                              &(vl_cast_args){.out = vl_tensor_rows(x, t, run), .x = vl_tensor_rows(rows, used, run)},
                              err));
        used += run;
        t += run > 0 ? run : 1;
    }
    int64_t wanted = 0;
    for (int64_t t = 0; t < sequence->n_tokens; t++)
        wanted += sequence->image[t] == b->image[i];
    if (wanted != rows.shape[0])
        return vl_fail(err, VL_EINVAL, "picture %d has %lld rows in its sequence, expected %lld", b->image[i],
                       (long long)wanted, (long long)rows.shape[0]);
    return VL_OK;
}

/* Tower, projector and merge of the pictures in the batch, which is empty afterwards. */
static vl_status flush(batch *b, vl_error *err)
{
    const vl_hf_config *config = b->llava->config;
    vl_device *device = b->pass->device;
    vl_tensor hidden = batch_rows(b, b->hidden, config->clip.hidden_size);
    vl_tensor middle = batch_rows(b, b->middle, config->text.hidden_size);
    vl_tensor out = batch_rows(b, b->out, config->text.hidden_size);
    if (b->n == 0)
        return VL_OK;
    vl_clip_args args = {b->pixels, b->n, hidden, b->pass->stage ? show_hidden : NULL, b};
    VL_TRY(vl_clip_forward(&b->llava->tower, device, &args, err));
    VL_TRY(vl_linear_apply(device, &b->llava->linear_1, middle, hidden, err));
    vl_activation_args act = {.out = middle, .x = middle, .kind = config->projector_act};
    VL_TRY(vl_op_activation(device, &act, err));
    VL_TRY(vl_linear_apply(device, &b->llava->linear_2, out, middle, err));
    VL_TRY(show(b, "vision.out", out, config->keep_class_row, err));
    for (int i = 0; i < b->n; i++)
        VL_TRY(scatter(b, i, picture_rows(b, out, i, config->keep_class_row), err));
    b->n = 0;
    return VL_OK;
}

static vl_status merge_all(batch *b, vl_error *err)
{
    for (int s = 0; s < b->pass->n_sequences; s++) {
        const vl_sequence *sequence = b->pass->sequences[s];
        for (int i = 0; i < sequence->n_images; i++) {
            b->sequence[b->n] = s;
            b->image[b->n] = i;
            b->pixels[b->n++] = sequence->images[i].pixels;
            if (b->n == PICTURES)
                VL_TRY(flush(b, err));
        }
    }
    return flush(b, err);
}

vl_status vl_llava_merge(const vl_llava *llava, vl_pass *pass, vl_error *err)
{
    batch b = {.llava = llava, .pass = pass};
    int64_t n_pictures = 0;
    for (int s = 0; s < pass->n_sequences; s++)
        n_pictures += pass->sequences[s]->n_images;
    if (n_pictures == 0)
        return VL_OK;
    int64_t rows = (n_pictures < PICTURES ? n_pictures : PICTURES) * (llava->config->clip.n_patches + 1);
    const vl_buffer_request requests[] = {
        {&b.hidden, rows, llava->config->clip.hidden_size},
        {&b.middle, rows, llava->config->text.hidden_size},
        {&b.out, rows, llava->config->text.hidden_size},
    };
    vl_status status = VL_OK;
    VL_GOTO(vl_buffers_alloc(&b.memory, pass->device, requests, 3, err));
    VL_GOTO(merge_all(&b, err));
done:
    vl_device_free(pass->device, b.memory);
    return status;
}

/* ---- prompts ----------------------------------------------------------------------------------------------- */

/* Appends text with every "<image>" written as often as a picture has rows. */
static void put_expanded(vl_str *out, const char *text, int copies)
{
    const char *at;
    while ((at = strstr(text, IMAGE_TOKEN))) {
        vl_str_append(out, text, (size_t)(at - text));
        for (int i = 0; i < copies; i++)
            vl_str_puts(out, IMAGE_TOKEN);
        text = at + strlen(IMAGE_TOKEN);
    }
    vl_str_puts(out, text);
}

/* The template is that of the model card of llava-hf/llava-1.5-7b-hf. A text that says itself where its pictures go
 * is taken as it is. */
static vl_status llava_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt, vl_error *err)
{
    int copies = model->config.image_tokens, written = vl_count_token(prompt->text, IMAGE_TOKEN);
    if (prompt->raw || written > 0) {
        VL_TRY(vl_check_image_count(written, prompt->n_images, err));
        put_expanded(out, prompt->text, copies);
        return VL_OK;
    }
    vl_str_puts(out, "USER: ");
    for (int i = 0; i < prompt->n_images; i++) {
        put_expanded(out, IMAGE_TOKEN, copies);
        vl_str_putc(out, '\n');
    }
    vl_str_puts(out, prompt->text);
    vl_str_puts(out, " ASSISTANT:");
    return VL_OK;
}

/* Row r of a picture is patch r in raster order, behind the class row where that is kept. */
static vl_status llava_place(vl_sequence *sequence, const vl_model *model, vl_error *err)
{
    const vl_hf_config *config = &model->config;
    int64_t per_image = config->image_tokens, count = 0;
    for (int64_t t = 0; t < sequence->n_tokens; t++)
        count += sequence->ids[t] == config->image_token_index;
    if (count != per_image * sequence->n_images)
        return vl_fail(err, VL_EINVAL, "prompt has %lld rows of token %d, expected %lld for each of %d images",
                       (long long)count, config->image_token_index, (long long)per_image, sequence->n_images);
    count = 0;
    for (int64_t t = 0; t < sequence->n_tokens; t++) {
        if (sequence->ids[t] != config->image_token_index)
            continue;
        int64_t patch = count % per_image - (config->keep_class_row ? 1 : 0);
        sequence->token_class[t] = VL_IMAGE;
        sequence->image[t] = (int32_t)(count / per_image);
        sequence->patch[t][0] = 0;
        sequence->patch[t][1] = (int16_t)(patch < 0 ? -1 : patch / config->clip.grid);
        sequence->patch[t][2] = (int16_t)(patch < 0 ? -1 : patch % config->clip.grid);
        count++;
    }
    return VL_OK;
}

/* A picture as CLIPImageProcessor prepares it. */
static vl_status llava_picture(struct vl_sequence_image *out, const vl_model *model, const vl_image *image,
                               vl_error *err)
{
    const vl_clip_config *config = &model->config.clip;
    vl_clip_plan plan;
    VL_TRY(vl_preprocess_clip_plan(&plan, &model->preprocess, image->width, image->height, err));
    if (plan.width != config->image_size || plan.height != config->image_size || config->n_channels != 3)
        return vl_fail(
            err, VL_EMISMATCH,
            "preprocessor_config.json gives pixel values of 3 x %d x %d, the vision tower reads %d x %d x %d",
            plan.height, plan.width, config->n_channels, config->image_size, config->image_size);
    out->pixels = vl_alloc((size_t)plan.height * (size_t)plan.width, 3 * sizeof *out->pixels);
    if (!out->pixels)
        return vl_fail_nomem(err, "pixel values");
    out->n_tiles = 1;
    return vl_preprocess_clip(out->pixels, &model->preprocess, image, err);
}

static vl_status llava_embed(const vl_model *model, vl_pass *pass, vl_error *err)
{
    VL_TRY(vl_embed_sequences(model, pass, model->config.image_token_index, err));
    return vl_llava_merge(model->parts, pass, err);
}

static vl_status llava_block(const vl_model *model, vl_pass *pass, int layer, vl_error *err)
{
    return vl_llama_run_block(&model->text, pass, layer, err);
}

const vl_family vl_family_llava = {.open = llava_open,
                                   .close = llava_close,
                                   .wrap = llava_wrap,
                                   .place = llava_place,
                                   .picture = llava_picture,
                                   .embed = llava_embed,
                                   .expect = vl_expect_llama,
                                   .block = llava_block};
