/* Mllama's prompts. Semantics: transformers 4.46.3, src/transformers/models/mllama/processing_mllama.py
 * (build_string_from_input, get_cross_attention_token_mask, convert_sparse_cross_attention_mask_to_dense). */
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/model/families/mllama/mllama.h"

static const char IMAGE_TOKEN[] = "<|image|>"; /* MllamaProcessor.__init__ */
static const char HEADER_TOKEN[] = "<|start_header_id|>";
enum { TEMPLATE_BYTES = 64 << 20, VISIBLE_BITS = 64 };

/* ---- base or instruct -------------------------------------------------------------------------------------- */

static bool has_header(const json_t *text)
{
    return json_is_string(text) && strstr(json_string_value(text), HEADER_TOKEN);
}

/* "chat_template" is a text, or a list of {"name", "template"}. */
static bool has_header_template(const json_t *root)
{
    const json_t *templates = json_object_get(root, "chat_template"), *each;
    size_t i;
    json_array_foreach(templates, i, each)
    {
        if (has_header(json_object_get(each, "template")))
            return true;
    }
    return has_header(templates);
}

/* Looks into one of the files where transformers keeps chat templates; a missing one is no error. */
static vl_status look_for_template(bool *instruct, const char *directory, const char *name, vl_error *err)
{
    vl_status status = VL_OK;
    json_t *root = NULL;
    char *path = vl_path_join(directory, name), *text = NULL;
    size_t size;
    if (!path)
        return vl_fail_nomem(err, directory);
    if (!vl_path_exists(path))
        goto done;
    if (strstr(name, ".json")) {
        VL_GOTO(vl_json_read(&root, path, TEMPLATE_BYTES, err));
        *instruct = *instruct || has_header_template(root);
    } else {
        VL_GOTO(vl_file_read(&text, &size, path, TEMPLATE_BYTES, err));
        *instruct = *instruct || strstr(text, HEADER_TOKEN);
    }
done:
    json_decref(root);
    vl_free(text);
    vl_free(path);
    return status;
}

vl_status vl_mllama_prompt_open(vl_mllama *mllama, const vl_model *model, vl_error *err)
{
    const char *directory = model->path;
    const vl_tokenizer *tokenizer = model->tokenizer;
    static const char *const files[] = {"tokenizer_config.json", "chat_template.json", "chat_template.jinja"};
    int32_t image = vl_tokenizer_id(tokenizer, IMAGE_TOKEN), bos = vl_tokenizer_bos(tokenizer);
    if (image != model->spec.vision.image_token)
        return vl_fail(err, VL_EMISMATCH, "%s: the tokenizer's id of \"%s\" is %d, config.json says %d", directory,
                       IMAGE_TOKEN, (int)image, (int)model->spec.vision.image_token);
    mllama->bos = bos >= 0 ? vl_tokenizer_piece(tokenizer, bos) : NULL;
    if (!mllama->bos)
        return vl_fail(err, VL_EFORMAT, "%s: the tokenizer names no bos token, which every prompt starts with",
                       directory);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        VL_TRY(look_for_template(&mllama->instruct, directory, files[i], err));
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

/* The templates are those of the model cards of Llama-3.2-11B-Vision and its Instruct sibling, with one turn. A text
 * that says itself where its pictures or its turns are is taken as it is. */
vl_status vl_mllama_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                         const struct vl_sequence_image *images, vl_error *err)
{
    (void)images;
    const vl_mllama *mllama = model->parts;
    int written = vl_count_token(prompt->text, IMAGE_TOKEN);
    if (prompt->raw || written > 0 || strstr(prompt->text, HEADER_TOKEN)) {
        VL_TRY(vl_check_image_count(written, prompt->n_images, err));
        put_with_bos(out, mllama, prompt->text);
        return VL_OK;
    }
    if (mllama->instruct)
        vl_str_printf(out, "%s%suser<|end_header_id|>\n\n", mllama->bos, HEADER_TOKEN);
    for (int i = 0; i < prompt->n_images; i++)
        vl_str_puts(out, IMAGE_TOKEN);
    if (!mllama->instruct && !strstr(prompt->text, mllama->bos))
        vl_str_puts(out, mllama->bos);
    vl_str_puts(out, prompt->text);
    if (mllama->instruct)
        vl_str_printf(out, "<|eot_id|>%sassistant<|end_header_id|>\n\n", HEADER_TOKEN);
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
