#include "trainer/model/picture.h"

#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/model/chat_prompt.h"

/* ---- prompts ----------------------------------------------------------------------------------------------- */

void vl_str_repeat(vl_str *out, const char *text, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        vl_str_puts(out, text);
}

static vl_status expand(vl_str *out, const char *text, const vl_model *model, const vl_prompt *prompt,
                        const struct vl_sequence_image *images, const vl_placeholder *how, vl_error *err)
{
    VL_TRY(vl_check_image_count(vl_count_token(text, how->text), prompt->n_images, err));
    for (int i = 0; i < prompt->n_images; i++) {
        const char *at = strstr(text, how->text);
        vl_str_append(out, text, (size_t)(at - text));
        how->expand(out, &model->spec, &images[i]);
        text = at + strlen(how->text);
    }
    vl_str_puts(out, text);
    return VL_OK;
}

/* A tokenizer that begins every text with a token of its own does so behind a template, too: there must be one only. */
static vl_status skip_bos(const char **text, const vl_model *model, vl_error *err)
{
    vl_token_ids ids = {0};
    VL_TRY(vl_tokenizer_encode(&ids, model->tokenizer, "", 0, true, err));
    const char *bos = ids.n > 0 ? vl_tokenizer_piece(model->tokenizer, ids.ids[0]) : NULL;
    if (bos && strncmp(*text, bos, strlen(bos)) == 0)
        *text += strlen(bos);
    vl_release(ids.ids);
    return VL_OK;
}

static void put_plainly(vl_str *out, const vl_prompt *prompt, const vl_placeholder *how)
{
    vl_str_puts(out, how->before);
    for (int i = 0; i < prompt->n_images; i++) {
        vl_str_printf(out, "%s%s%s", how->before_each ? how->before_each : "", how->text,
                      how->behind_each ? how->behind_each : "");
    }
    vl_str_puts(out, prompt->text);
    vl_str_puts(out, how->after);
}

vl_status vl_wrap_pictures(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                           const struct vl_sequence_image *images, const vl_placeholder *how, vl_error *err)
{
    vl_str wrapped = VL_STR_INIT;
    vl_status status = VL_OK;
    bool found;
    if (prompt->raw || vl_count_token(prompt->text, how->text) > 0)
        return expand(out, prompt->text, model, prompt, images, how, err);
    VL_GOTO(vl_chat_prompt(&wrapped, &found, model->path, prompt->text, prompt->n_images, err));
    if (!found)
        put_plainly(&wrapped, prompt, how);
    if (wrapped.failed) {
        status = vl_fail_nomem(err, "prompt");
        goto done;
    }
    const char *text = wrapped.data ? wrapped.data : "";
    VL_GOTO(skip_bos(&text, model, err));
    VL_GOTO(expand(out, text, model, prompt, images, how, err));
done:
    vl_str_clear(&wrapped);
    return status;
}

/* ---- pictures ---------------------------------------------------------------------------------------------- */

void vl_image_put_grid(struct vl_sequence_image *image, int i, vl_size cells, vl_box box)
{
    image->grids[i] = (vl_image_grid){
        .rows = cells.height, .columns = cells.width, .x0 = box.x0, .y0 = box.y0, .x1 = box.x1, .y1 = box.y1};
}

vl_status vl_image_set_tiles(struct vl_sequence_image *image, int side, vl_error *err)
{
    const int64_t values = 3 * (int64_t)side * side;
    if (image->n_tiles > VL_IMAGE_MAX_VALUES / values)
        return vl_fail(err, VL_EFORMAT, "a picture would become %d tiles of %d x %d pixels", image->n_tiles, side,
                       side);
    return vl_image_set_pixels(image, image->n_tiles * values, err);
}

vl_status vl_image_set_seen_bitmap(struct vl_sequence_image *image, const vl_bitmap *bitmap, vl_error *err)
{
    VL_TRY(vl_image_set_seen(image, bitmap->size.width, bitmap->size.height, err));
    memcpy(image->seen, bitmap->rgb, 3 * (size_t)bitmap->size.width * (size_t)bitmap->size.height);
    return VL_OK;
}

vl_box vl_box_part(vl_box box, double x0, double y0, double x1, double y1)
{
    const double w = box.x1 - box.x0, h = box.y1 - box.y0;
    return (vl_box){box.x0 + x0 * w, box.y0 + y0 * h, box.x0 + x1 * w, box.y0 + y1 * h};
}

vl_box vl_box_whole(const struct vl_sequence_image *image)
{
    return (vl_box){0, 0, image->width, image->height};
}

vl_bitmap vl_bitmap_of(const vl_image *image)
{
    return (vl_bitmap){{image->height, image->width}, image->rgb};
}
