#include "trainer/hf/chat_template.h"

#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/hf/jinja.h"

enum { FILE_BYTES = 64 << 20, N_TOKENS = 4 };

static const char *const TOKENS[N_TOKENS] = {"bos_token", "eos_token", "unk_token", "pad_token"};

struct vl_chat_template {
    char *name;
    char *tokens[N_TOKENS]; /* or NULL */
    vl_jinja_arena arena;
    vl_jinja_node *statements;
    vl_error parse; /* why there are none */
};

/* ---- finding ----------------------------------------------------------------------------------------------- */

static const char *pick_default(const json_t *templates)
{
    const json_t *each;
    size_t i;
    json_array_foreach(templates, i, each)
    {
        const char *name = json_string_value(json_object_get(each, "name"));
        if (name && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(each, "template"));
    }
    return json_string_value(templates);
}

/* The template in one of the files; *out stays NULL where there is none. */
static vl_status look_into(char **out, const char *path, vl_error *err)
{
    vl_status status = VL_OK;
    json_t *root = NULL;
    size_t size;
    if (!vl_path_exists(path))
        return VL_OK;
    if (strstr(path, ".jinja"))
        return vl_file_read(out, &size, path, FILE_BYTES, err);
    VL_GOTO(vl_json_read(&root, path, FILE_BYTES, err));
    const char *text = pick_default(json_object_get(root, "chat_template"));
    if (text && !(*out = vl_strdup(text)))
        VL_GOTO(vl_fail_nomem(err, path));
done:
    json_decref(root);
    return status;
}

/* "<s>", or {"content": "<s>"}. */
static vl_status read_tokens(vl_chat_template *t, const char *path, vl_error *err)
{
    json_t *root = NULL;
    if (!vl_path_exists(path))
        return VL_OK;
    VL_TRY(vl_json_read(&root, path, FILE_BYTES, err));
    vl_status status = VL_OK;
    for (int i = 0; i < N_TOKENS && status == VL_OK; i++) {
        const json_t *token = json_object_get(root, TOKENS[i]);
        const char *text = json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
        if (!text || t->tokens[i])
            continue;
        t->tokens[i] = vl_strdup(text);
        status = t->tokens[i] ? VL_OK : vl_fail_nomem(err, path);
    }
    json_decref(root);
    return status;
}

static vl_status parse(vl_chat_template *t, const char *source, vl_error *err)
{
    const vl_jinja_token *tokens = NULL;
    vl_status status = vl_jinja_lex(&tokens, &t->arena, t->name, source, strlen(source), &t->parse);
    if (status == VL_OK)
        status = vl_jinja_parse(&t->statements, &t->arena, t->name, tokens, &t->parse);
    return status == VL_ENOMEM ? vl_fail_nomem(err, t->name) : VL_OK;
}

vl_status vl_chat_template_new(vl_chat_template **out, const char *name, const char *source, vl_error *err)
{
    *out = vl_calloc(1, sizeof **out);
    if (*out)
        (*out)->name = vl_strdup(name);
    vl_status status = *out && (*out)->name ? parse(*out, source, err) : vl_fail_nomem(err, "chat template");
    if (status != VL_OK) {
        vl_chat_template_close(*out);
        *out = NULL;
    }
    return status;
}

vl_status vl_chat_template_open(vl_chat_template **out, const char *directory, vl_error *err)
{
    static const char *const files[] = {"chat_template.jinja", "chat_template.json", "tokenizer_config.json"},
                             *const special[] = {"tokenizer_config.json", "special_tokens_map.json"};
    vl_status status = VL_OK;
    char *source = NULL, *path = NULL;
    *out = NULL;
    for (size_t i = 0; i < sizeof files / sizeof *files && !source; i++) {
        vl_free(path);
        path = vl_path_join(directory, files[i]);
        VL_GOTO(path ? look_into(&source, path, err) : vl_fail_nomem(err, directory));
    }
    if (!source)
        goto done;
    VL_GOTO(vl_chat_template_new(out, path, source, err));
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        vl_free(path);
        path = vl_path_join(directory, special[i]);
        VL_GOTO(path ? read_tokens(*out, path, err) : vl_fail_nomem(err, directory));
    }
done:
    vl_free(source);
    vl_free(path);
    if (status != VL_OK) {
        vl_chat_template_close(*out);
        *out = NULL;
    }
    return status;
}

void vl_chat_template_close(vl_chat_template *t)
{
    if (!t)
        return;
    for (int i = 0; i < N_TOKENS; i++)
        vl_free(t->tokens[i]);
    vl_jinja_arena_clear(&t->arena);
    vl_free(t->name);
    vl_free(t);
}

const char *vl_chat_template_name(const vl_chat_template *t)
{
    return t->name;
}

/* ---- rendering --------------------------------------------------------------------------------------------- */

static bool put(vl_jinja_value dict, vl_jinja_arena *arena, const char *key, vl_jinja_value value)
{
    return vl_jinja_dict_set(dict, arena, vl_jinja_string(key), value);
}

/* One item of a content: {"type": "image"}, or {"type": "text", "text": ...}. */
static bool add_part(vl_jinja_value list, vl_jinja_arena *arena, const char *text)
{
    vl_jinja_value item;
    return vl_jinja_dict_new(&item, arena) && put(item, arena, "type", vl_jinja_string(text ? "text" : "image")) &&
           (!text || put(item, arena, "text", vl_jinja_string(text))) && vl_jinja_list_add(list, arena, item);
}

static bool make_content(vl_jinja_value *out, vl_jinja_arena *arena, const vl_turn *turn, bool as_parts)
{
    if (as_parts) {
        bool made = vl_jinja_list_new(out, arena);
        for (int i = 0; i < turn->n_parts && made; i++)
            made = add_part(*out, arena, turn->parts[i].text);
        return made && (turn->n_parts > 0 || add_part(*out, arena, ""));
    }
    size_t size = 1, at = 0;
    for (int i = 0; i < turn->n_parts; i++)
        size += turn->parts[i].text ? strlen(turn->parts[i].text) : 0;
    char *text = vl_jinja_alloc(arena, size, 1);
    for (int i = 0; i < turn->n_parts && text; i++) {
        size_t n = turn->parts[i].text ? strlen(turn->parts[i].text) : 0;
        if (n > 0)
            memcpy(text + at, turn->parts[i].text, n);
        at += n;
    }
    if (text)
        *out = vl_jinja_text(text, at);
    return text;
}

static bool make_messages(vl_jinja_value *out, vl_jinja_arena *arena, const vl_chat *chat, int n)
{
    bool made = vl_jinja_list_new(out, arena);
    for (int i = 0; i < n && made; i++) {
        vl_jinja_value message, content;
        made = vl_jinja_dict_new(&message, arena) && make_content(&content, arena, &chat->turns[i], chat->as_parts) &&
               put(message, arena, "role", vl_jinja_string(chat->turns[i].role)) &&
               put(message, arena, "content", content) && vl_jinja_list_add(*out, arena, message);
    }
    return made;
}

/* The first n turns, and the start of an answer with `ask`. */
static vl_status render(vl_str *out, const vl_chat_template *t, const vl_chat *chat, int n, bool ask, vl_error *err)
{
    static const char *const functions[] = {"raise_exception", "strftime_now", "namespace", "range"};
    vl_jinja_arena arena = {0};
    vl_jinja_scope globals = {0};
    vl_jinja_value messages, function = {.kind = VL_JINJA_MACRO};
    vl_jinja_run run = {.name = t->name,
                        .arena = &arena,
                        .scope = &globals,
                        .globals = &globals,
                        .out = out,
                        .date = chat->date,
                        .err = err};
    bool made = vl_jinja_dict_new(&globals.names, &arena) && make_messages(&messages, &arena, chat, n) &&
                put(globals.names, &arena, "messages", messages) &&
                put(globals.names, &arena, "add_generation_prompt", vl_jinja_bool(ask)) &&
                put(globals.names, &arena, "tools", vl_jinja_none()) &&
                put(globals.names, &arena, "documents", vl_jinja_none());
    for (int i = 0; i < N_TOKENS && made; i++)
        made = !t->tokens[i] || put(globals.names, &arena, TOKENS[i], vl_jinja_string(t->tokens[i]));
    for (size_t i = 0; i < sizeof functions / sizeof *functions && made; i++)
        made = put(globals.names, &arena, functions[i], function);
    vl_status status = made ? vl_jinja_execute(&run, t->statements) : vl_fail_nomem(err, "chat template");
    vl_jinja_arena_clear(&arena);
    if (status == VL_EUNSUPPORTED)
        vl_error_prefix(err, status, "chat template not supported (data.template: none takes texts as they are): ");
    return status;
}

static bool starts_with(const vl_str *text, const vl_str *start)
{
    return start->size <= text->size && (start->size == 0 || memcmp(text->data, start->data, start->size) == 0);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* The text of a turn without white space around it; in `out`. */
static void trimmed_text(vl_str *out, const vl_turn *turn)
{
    vl_str text = VL_STR_INIT;
    for (int i = 0; i < turn->n_parts; i++)
        vl_str_puts(&text, turn->parts[i].text ? turn->parts[i].text : "");
    size_t first = 0, end = text.size;
    while (first < end && is_space(text.data[first]))
        first++;
    while (end > first && is_space(text.data[end - 1]))
        end--;
    vl_str_append(out, text.data ? text.data + first : "", end - first);
    vl_str_clear(&text);
}

/* The last place of `part` in the first `end` bytes of `text`; `end` where there is none. */
static size_t find_last(const vl_str *text, size_t end, const vl_str *part)
{
    for (size_t at = end >= part->size ? end - part->size + 1 : 0; part->size > 0 && at > 0; at--)
        if (memcmp(text->data + at - 1, part->data, part->size) == 0)
            return at - 1;
    return end;
}

/* By the text of the answer: where it stands last in `with`, and what follows it there. Holds where the whole text
 * continues from the answer in the same way. */
static bool locate(vl_chat_place *out, const vl_str *whole, const vl_str *before, const vl_str *with,
                   const vl_str *answer)
{
    size_t at = find_last(with, with->size, answer), end = with->size;
    while (end > at && is_space(with->data[end - 1]))
        end--;
    if (at == with->size)
        return false;
    if (starts_with(whole, with)) {
        *out = (vl_chat_place){with->size, at, end};
        return true;
    }
    for (size_t to = before->size; starts_with(whole, before) && to + end - at <= whole->size; to++)
        if (memcmp(whole->data + to, with->data + at, end - at) == 0) {
            *out = (vl_chat_place){to + end - at, before->size, to + end - at};
            return true;
        }
    return false;
}

/* An eos token that ends the conversation and not the turn: it is gone when another turn follows. */
static void drop_end_of_all(vl_str *with, const vl_chat_template *t, const vl_chat *chat, int k)
{
    static const vl_turn_part question = {"x"};
    const char *eos = t->tokens[1];
    size_t n = eos ? strlen(eos) : 0;
    vl_str more = VL_STR_INIT;
    vl_turn *turns = n > 0 && with->size >= n ? vl_calloc((size_t)k + 2, sizeof *turns) : NULL;
    if (turns && memcmp(with->data + with->size - n, eos, n) == 0) {
        memcpy(turns, chat->turns, ((size_t)k + 1) * sizeof *turns);
        turns[k + 1] = (vl_turn){"user", &question, 1};
        vl_chat longer = {turns, k + 2, chat->as_parts, chat->date};
        bool rendered = render(&more, t, &longer, k + 2, false, NULL) == VL_OK;
        if (rendered && !starts_with(&more, with)) {
            with->size -= n;
            with->size += starts_with(&more, with) ? 0 : n;
        }
    }
    vl_free(turns);
    vl_str_clear(&more);
}

/* Where the answer of turn k stands in the whole text: behind what the turns before it render to when they ask for an
 * answer, to the end of what they render to with it. Some templates write a turn otherwise once more turns follow
 * (thoughts that are dropped), or begin otherwise without any: there the answer is found by its text, or refused. */
static vl_status find_answer(vl_chat_place *out, const vl_str *whole, const vl_chat_template *t, const vl_chat *chat,
                             int k, vl_error *err)
{
    vl_str before = VL_STR_INIT, with = VL_STR_INIT, answer = VL_STR_INIT;
    vl_status status = VL_OK;
    bool asked = render(&before, t, chat, k, true, NULL) == VL_OK; /* not of no turn at all, with some templates */
    VL_GOTO(render(&with, t, chat, k + 1, false, err));
    drop_end_of_all(&with, t, chat, k);
    trimmed_text(&answer, &chat->turns[k]);
    *out = (vl_chat_place){with.size, before.size, with.size};
    bool framed = asked && starts_with(whole, &before) && starts_with(whole, &with) && with.size >= before.size;
    if (!framed && answer.size == 0)
        *out = (vl_chat_place){0, 0, 0}; /* nothing was said */
    else if (!framed && !locate(out, whole, &before, &with, &answer))
        VL_GOTO(vl_fail(err, VL_EUNSUPPORTED,
                        "%s writes turn %d otherwise than when it is answered, so that its answer cannot be told "
                        "from its frame (data.template: none takes texts as they are)",
                        t->name, k));
    while (out->answer_end > out->answer_first && is_space(whole->data[out->answer_end - 1]))
        out->answer_end--;
done:
    vl_str_clear(&before);
    vl_str_clear(&with);
    vl_str_clear(&answer);
    return status;
}

/* The end of turn k, where the turns up to it render to the start of the whole text. */
static void find_end(vl_chat_place *out, const vl_str *whole, const vl_chat_template *t, const vl_chat *chat, int k)
{
    vl_str with = VL_STR_INIT;
    *out = (vl_chat_place){0, 0, 0};
    if (render(&with, t, chat, k + 1, false, NULL) == VL_OK && starts_with(whole, &with))
        out->end = with.size;
    vl_str_clear(&with);
}

vl_status vl_chat_render(vl_str *out, vl_chat_place *places, const vl_chat_template *t, const vl_chat *chat,
                         vl_error *err)
{
    int n = chat->n_turns;
    bool ask = n == 0 || strcmp(chat->turns[n - 1].role, "assistant") != 0;
    if (t->parse.message[0])
        return vl_fail(err, VL_EUNSUPPORTED,
                       "chat template not supported (data.template: none takes texts as they are): %s",
                       t->parse.message);
    VL_TRY(render(out, t, chat, n, ask, err));
    for (int k = 0; k < n; k++) {
        if (strcmp(chat->turns[k].role, "assistant") == 0)
            VL_TRY(find_answer(&places[k], out, t, chat, k, err));
        else
            find_end(&places[k], out, t, chat, k);
    }
    return out->failed ? vl_fail_nomem(err, "prompt") : VL_OK;
}
