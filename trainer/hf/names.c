#include "trainer/hf/names.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

enum { MAX_NAME = 320, LAYOUTS = 2 };

/* [part][family][layout]: before transformers 4.52, and since (each VLM's _checkpoint_conversion_mapping). NULL: the
 * family has no such part, or the layout does not differ. */
static const char *const prefixes[4][3][LAYOUTS] = {
    [VL_HF_TEXT] = {[VL_HF_LLAMA] = {"model.", NULL},
                    [VL_HF_LLAVA] = {"language_model.model.", "model.language_model."},
                    [VL_HF_MLLAMA] = {"language_model.model.", "model.language_model."}},
    [VL_HF_HEAD] = {[VL_HF_LLAMA] = {"lm_head.", NULL},
                    [VL_HF_LLAVA] = {"language_model.lm_head.", "lm_head."},
                    [VL_HF_MLLAMA] = {"language_model.lm_head.", "lm_head."}},
    [VL_HF_VISION] = {[VL_HF_LLAMA] = {NULL, NULL},
                      [VL_HF_LLAVA] = {"vision_tower.vision_model.", "model.vision_tower.vision_model."},
                      [VL_HF_MLLAMA] = {"vision_model.", "model.vision_model."}},
    [VL_HF_PROJECTOR] = {[VL_HF_LLAMA] = {NULL, NULL},
                         [VL_HF_LLAVA] = {"multi_modal_projector.", "model.multi_modal_projector."},
                         [VL_HF_MLLAMA] = {"multi_modal_projector.", "model.multi_modal_projector."}},
};

typedef struct request {
    vl_hf_part part;
    vl_hf_shape shape;
    char suffix[MAX_NAME / 2];
    char names[LAYOUTS][MAX_NAME]; /* filled by find: what was looked for, empty where a layout has none */
} request;

__attribute__((format(printf, 2, 0))) static void set_suffix(request *ask, const char *format, va_list args)
{
    int length = vsnprintf(ask->suffix, sizeof ask->suffix, format, args);
    assert(length > 0 && (size_t)length < sizeof ask->suffix); /* suffixes are literals of this program */
    (void)length;
}

static vl_status check(const vl_weight_view *view, const vl_hf_source *source, const request *ask, vl_error *err)
{
    char expected[96], found[192];
    bool same = view->ndim == ask->shape.ndim;
    for (int i = 0; same && i < view->ndim; i++)
        same = view->shape[i] == ask->shape.size[i];
    if (!same)
        return vl_fail(err, VL_ESHAPE, "%s: tensor %s is %s, config.json asks for %s", source->dir->path, view->name,
                       vl_shape_text(found, sizeof found, view->ndim, view->shape),
                       vl_shape_text(expected, sizeof expected, ask->shape.ndim, ask->shape.size));
    if (view->raw || (view->dtype != VL_F32 && view->dtype != VL_F16 && view->dtype != VL_BF16))
        return vl_fail(err, VL_ESHAPE, "%s: tensor %s holds %s, expected F32, F16 or BF16", source->dir->path,
                       view->name, view->dtype_name);
    return VL_OK;
}

/* *out is NULL with VL_OK when neither layout has the tensor. */
static vl_status find(const vl_weight_view **out, request *ask, const vl_hf_source *source, vl_error *err)
{
    const vl_weight_view *found = NULL;
    *out = NULL;
    for (int layout = 0; layout < LAYOUTS; layout++) {
        const char *prefix = prefixes[ask->part][source->config->family][layout];
        ask->names[layout][0] = 0;
        if (!prefix)
            continue;
        snprintf(ask->names[layout], MAX_NAME, "%s%s", prefix, ask->suffix);
        const vl_weight_view *view = vl_hf_find(source->dir, ask->names[layout]);
        if (view && found)
            return vl_fail(err, VL_EFORMAT, "%s: both %s and %s are there, which of them counts is not known",
                           source->dir->path, found->name, view->name);
        if (view)
            found = view;
    }
    if (!found)
        return VL_OK;
    VL_TRY(check(found, source, ask, err));
    vl_hf_mark_read(source->dir, found->name);
    *out = found;
    return VL_OK;
}

vl_status vl_hf_weight(const vl_weight_view **out, const vl_hf_source *source, vl_hf_part part, vl_hf_shape shape,
                       vl_error *err, const char *suffix, ...)
{
    request ask = {.part = part, .shape = shape};
    va_list args;
    va_start(args, suffix);
    set_suffix(&ask, suffix, args);
    va_end(args);
    VL_TRY(find(out, &ask, source, err));
    if (*out)
        return VL_OK;
    char expected[96];
    return vl_fail(err, VL_EFORMAT, "%s: no tensor %s%s%s (%s is expected of a %s model)", source->dir->path,
                   ask.names[0], ask.names[1][0] ? " or " : "", ask.names[1],
                   vl_shape_text(expected, sizeof expected, shape.ndim, shape.size), source->config->model_type);
}

vl_status vl_hf_weight_optional(const vl_weight_view **out, const vl_hf_source *source, vl_hf_part part,
                                vl_hf_shape shape, vl_error *err, const char *suffix, ...)
{
    request ask = {.part = part, .shape = shape};
    va_list args;
    va_start(args, suffix);
    set_suffix(&ask, suffix, args);
    va_end(args);
    return find(out, &ask, source, err);
}

vl_status vl_hf_head(const vl_weight_view **out, const vl_hf_source *source, vl_error *err)
{
    const vl_text_config *text = &source->config->text;
    /* Tied: the table counts even where the file has an lm_head too, since transformers ties after loading
     * (modeling_utils.py, tie_weights). */
    if (text->tie_embeddings)
        return vl_hf_weight(out, source, VL_HF_TEXT, vl_hf_shape2(text->embed_rows, text->hidden_size), err,
                            "embed_tokens.weight");
    VL_TRY(vl_hf_weight_optional(out, source, VL_HF_HEAD, vl_hf_shape2(text->vocab_size, text->hidden_size), err,
                                 "weight"));
    if (!*out)
        return vl_fail(err, VL_EFORMAT,
                       "%s: no lm_head.weight, and config.json does not tie it to the embeddings "
                       "(tie_word_embeddings)",
                       source->dir->path);
    return VL_OK;
}
