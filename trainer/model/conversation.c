#include "trainer/model/conversation.h"

#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/model/family.h"

/* ---- writing ----------------------------------------------------------------------------------------------- */

/* How the model's image token is spelled; NULL for a model of text. */
static const char *image_token(const vl_model *model)
{
    return model->info.image_token >= 0 ? vl_tokenizer_piece(model->tokenizer, model->info.image_token) : NULL;
}

/* Does a text say itself where its pictures are, or its turns where there is a template for them? */
static bool is_framed(const vl_model *model, const char *text)
{
    static const char *const frames[] = {"<|start_header_id|>", "<|im_start|>", "<start_of_turn>", "[INST]"};
    const char *image = image_token(model);
    int32_t bos = vl_tokenizer_bos(model->tokenizer);
    const char *first = bos >= 0 ? vl_tokenizer_piece(model->tokenizer, bos) : NULL;
    if (image && strstr(text, image))
        return true;
    if (!model->chat)
        return false;
    if (first && first[0] && strncmp(text, first, strlen(first)) == 0)
        return true;
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
        if (vl_tokenizer_id(model->tokenizer, frames[i]) >= 0 && strstr(text, frames[i]))
            return true;
    return false;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static bool is_assistant(const vl_turn *turn)
{
    return strcmp(turn->role, "assistant") == 0;
}

static void put_parts(vl_str *out, const vl_turn *turn, const char *picture)
{
    for (int k = 0; k < turn->n_parts; k++)
        vl_str_puts(out, turn->parts[k].text ? turn->parts[k].text : picture);
}

/* One turn behind the other, a space between them where neither has white space there. */
static void write_plain(vl_written *out, const vl_prompt *prompt, const char *picture)
{
    for (int i = 0; i < out->n_turns; i++) {
        vl_str turn = VL_STR_INIT;
        put_parts(&turn, &prompt->turns[i], picture);
        size_t first = out->text.size;
        bool apart = first > 0 && turn.size > 0 && !is_space(out->text.data[first - 1]) && !is_space(turn.data[0]);
        vl_str_puts(&out->text, apart ? " " : "");
        vl_str_append(&out->text, turn.data ? turn.data : "", turn.size);
        out->text.failed = out->text.failed || turn.failed;
        out->places[i] = (vl_chat_place){.end = out->text.size};
        if (is_assistant(&prompt->turns[i]))
            out->places[i] = (vl_chat_place){out->text.size, first, out->text.size};
        vl_str_clear(&turn);
    }
}

static vl_status write_template(vl_written *out, const vl_model *model, const vl_prompt *prompt, vl_error *err)
{
    int32_t bos = vl_tokenizer_bos(model->tokenizer);
    const char *first = bos >= 0 ? vl_tokenizer_piece(model->tokenizer, bos) : NULL;
    vl_chat chat = {prompt->turns, prompt->n_turns, model->info.sees_images, prompt->date};
    VL_TRY(vl_chat_render(&out->text, out->places, model->chat, &chat, err));
    /* As transformers does: a template writes the first token of a text itself; processors of pictures put it where
     * the template has not. */
    bool has_first = first && out->text.data && strncmp(out->text.data, first, strlen(first)) == 0;
    out->add_special = model->info.sees_images && !has_first;
    return VL_OK;
}

static vl_status write_turns(vl_written *out, const vl_model *model, const vl_prompt *prompt, vl_error *err)
{
    int n = prompt->n_turns, pictures = 0;
    bool framed = prompt->raw || !model->chat;
    const char *token = image_token(model), *picture = token ? token : "";
    out->places = vl_calloc((size_t)n, sizeof *out->places);
    out->images = vl_calloc((size_t)n, sizeof *out->images);
    if (!out->places || !out->images)
        return vl_fail_nomem(err, "turns");
    out->n_turns = n;
    out->open = n == 0 || !is_assistant(&prompt->turns[n - 1]);
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < prompt->turns[i].n_parts; k++) {
            const char *text = prompt->turns[i].parts[k].text;
            pictures += !text;
            framed = framed || (text && prompt->unplaced && !is_assistant(&prompt->turns[i]) && is_framed(model, text));
        }
        out->images[i] = prompt->unplaced && prompt->n_images > 0 ? prompt->n_images : pictures;
    }
    if (pictures != prompt->n_images)
        return vl_fail(err, VL_EINVAL, "the turns have places for %d images, %d are given", pictures, prompt->n_images);
    if (pictures > 0 && !token)
        return vl_fail(err, VL_EINVAL, "%d images were given, but a model of type %s reads text only", pictures,
                       model->info.model_type);
    if (!framed)
        return write_template(out, model, prompt, err);
    /* Where nobody said where the pictures stand, a text that is taken as it is says it or is refused. */
    bool said = !prompt->unplaced ||
                (!prompt->raw && !model->chat && pictures > 0 && !is_framed(model, prompt->text ? prompt->text : ""));
    write_plain(out, prompt, said ? picture : "");
    return VL_OK;
}

vl_status vl_conversation_write(vl_written *out, const vl_model *model, const vl_prompt *prompt, vl_error *err)
{
    vl_status status = VL_OK;
    *out = (vl_written){.add_special = true, .open = true};
    if (prompt->n_turns > 0) {
        status = write_turns(out, model, prompt, err);
    } else if (prompt->raw || !model->info.sees_images || is_framed(model, prompt->text)) {
        vl_str_puts(&out->text, prompt->text); /* a prompt of a text model is the start of a text */
    } else {
        vl_turn_part *parts = vl_calloc((size_t)prompt->n_images + 1, sizeof *parts);
        if (!parts)
            return vl_fail_nomem(err, "prompt");
        parts[prompt->n_images].text = prompt->text;
        vl_turn turn = {"user", parts, prompt->n_images + 1};
        vl_prompt asked = *prompt;
        asked.turns = &turn;
        asked.n_turns = 1;
        asked.unplaced = true;
        status = write_turns(out, model, &asked, err);
        vl_free(parts);
    }
    return status == VL_OK && out->text.failed ? vl_fail_nomem(err, "prompt") : status;
}

void vl_written_clear(vl_written *written)
{
    vl_str_clear(&written->text);
    vl_free(written->places);
    vl_free(written->images);
    memset(written, 0, sizeof *written);
}

/* ---- marking ----------------------------------------------------------------------------------------------- */

/* How many tokens of the sequence end in the first `bytes` of its text: those that the text cut there has too. */
static vl_status count_tokens(int64_t *out, const vl_sequence *sequence, const vl_written *written, size_t bytes,
                              int n_images, const vl_ids_of_start *ids, vl_error *err)
{
    vl_token_ids start = {NULL, 0};
    *out = bytes >= written->text.size ? sequence->n_tokens : 0;
    if (*out > 0 || bytes == 0)
        return VL_OK;
    VL_TRY(ids->read(&start, ids->user, written, bytes, n_images, err));
    while (*out < start.n && *out < sequence->n_tokens && start.ids[*out] == sequence->ids[*out])
        ++*out;
    vl_release(start.ids);
    return VL_OK;
}

static vl_status mark_answer(vl_sequence *sequence, const vl_written *written, int turn, const vl_ids_of_start *ids,
                             vl_error *err)
{
    const vl_chat_place *place = &written->places[turn];
    int64_t first, end;
    if (place->answer_end == place->answer_first)
        return VL_OK;
    int before = turn > 0 ? written->images[turn - 1] : 0;
    VL_TRY(count_tokens(&first, sequence, written, place->answer_first, before, ids, err));
    VL_TRY(count_tokens(&end, sequence, written, place->answer_end, written->images[turn], ids, err));
    for (int64_t t = first; t < end; t++)
        if (sequence->token_class[t] == VL_TEXT || sequence->token_class[t] == VL_LAST)
            sequence->token_class[t] = VL_ANSWER;
    if (first > 0 && end > first && sequence->token_class[first - 1] != VL_ANSWER)
        sequence->token_class[first - 1] = VL_LAST;
    return VL_OK;
}

vl_status vl_conversation_mark(vl_sequence *sequence, const vl_written *written, const vl_ids_of_start *ids,
                               vl_error *err)
{
    int64_t from = 0;
    for (int i = 0; i < written->n_turns; i++) {
        int64_t end = 0;
        if (i + 1 == written->n_turns && !written->open)
            end = sequence->n_tokens;
        else
            VL_TRY(count_tokens(&end, sequence, written, written->places[i].end, written->images[i], ids, err));
        for (; from < end; from++)
            sequence->turn[from] = (int16_t)i;
        VL_TRY(mark_answer(sequence, written, i, ids, err));
    }
    for (; from < sequence->n_tokens; from++)
        sequence->turn[from] = (int16_t)written->n_turns;
    sequence->answered = !written->open;
    if (written->open)
        sequence->token_class[sequence->n_tokens - 1] = VL_LAST;
    return VL_OK;
}
