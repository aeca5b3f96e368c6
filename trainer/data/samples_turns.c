/* One JSON object as turns. Its keys say what it is:
 *     {"image", "prompt", "answer"}           a question and what may be said to it
 *     {"image", "caption"}                    the question is data.prompt
 *     {"conversations": [{"from", "value"}]}  LLaVA and ShareGPT; "<image>" stands where a picture does
 *     {"messages": [{"role", "content"}]}     Hugging Face; contents are texts, or lists of texts and pictures */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/data/samples.h"

static const char MARK[] = "<image>";

static const char *kind(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a text";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "true or false";
    case JSON_NULL: break;
    }
    return "null";
}

/* A member that is there and not null. */
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static vl_status need_text(const char **out, const json_t *value, const char *key, vl_error *err)
{
    if (!json_is_string(value))
        return vl_fail(err, VL_EFORMAT, "\"%s\" is %s, expected a text", key, value ? kind(value) : "missing");
    *out = json_string_value(value);
    return VL_OK;
}

/* ---- pictures ---------------------------------------------------------------------------------------------- */

vl_status vl_sample_add_image(vl_sample *sample, const vl_image_folder *folder, const char *name, vl_error *err)
{
    if (sample->n_images == VL_SAMPLE_IMAGES)
        return vl_fail(err, VL_EFORMAT, "more than %d images", VL_SAMPLE_IMAGES);
    if (strstr(name, "://"))
        return vl_fail(err, VL_EFORMAT, "image \"%.200s\" is an address, only files are read", name);
    char **images = vl_realloc(sample->images, (size_t)sample->n_images + 1, sizeof *images);
    if (!images)
        return vl_fail_nomem(err, "images");
    sample->images = images;
    VL_TRY(vl_image_folder_find(&images[sample->n_images], folder, name, err));
    sample->n_images++;
    return VL_OK;
}

/* "image" or "images": a path or a list of paths. */
static vl_status read_images(vl_sample *sample, const vl_image_folder *folder, const json_t *object, vl_error *err)
{
    const json_t *one = member(object, "image"), *many = member(object, "images");
    const json_t *image = one ? one : many;
    const char *key = one ? "image" : "images";
    if (one && many)
        return vl_fail(err, VL_EFORMAT, "both \"image\" and \"images\", expected one of them");
    if (!image)
        return VL_OK;
    size_t n = json_is_array(image) ? json_array_size(image) : 1;
    if (n > VL_SAMPLE_IMAGES)
        return vl_fail(err, VL_EFORMAT, "%zu images, at most %d are read", n, VL_SAMPLE_IMAGES);
    for (size_t i = 0; i < n; i++) {
        const json_t *name = json_is_array(image) ? json_array_get(image, i) : image;
        if (!json_is_string(name))
            return vl_fail(err, VL_EFORMAT, "\"%s\" holds %s, expected a path or a list of paths", key, kind(name));
        VL_TRY(vl_sample_add_image(sample, folder, json_string_value(name), err));
    }
    return VL_OK;
}

/* ---- turns ------------------------------------------------------------------------------------------------- */

static vl_turn *new_turn(vl_sample *sample, const char *role, vl_error *err)
{
    vl_turn *turns = NULL;
    if (sample->n_turns >= VL_SAMPLE_TURNS)
        vl_fail(err, VL_EFORMAT, "more than %d turns", VL_SAMPLE_TURNS);
    else if (!(turns = vl_realloc(sample->turns, (size_t)sample->n_turns + 1, sizeof *turns)))
        vl_fail_nomem(err, "turns");
    if (!turns)
        return NULL;
    sample->turns = turns;
    turns[sample->n_turns] = (vl_turn){role, NULL, 0};
    return &turns[sample->n_turns++];
}

/* A part of `turn`: a copy of n bytes, or a picture where text is NULL. */
static vl_status add_part(vl_turn *turn, const char *text, size_t n, vl_error *err)
{
    vl_turn_part *parts = vl_realloc((void *)(uintptr_t)turn->parts, (size_t)turn->n_parts + 1, sizeof *parts);
    if (!parts)
        return vl_fail_nomem(err, "turns");
    turn->parts = parts;
    parts[turn->n_parts].text = text ? vl_strndup(text, n) : NULL;
    if (text && !parts[turn->n_parts].text)
        return vl_fail_nomem(err, "turns");
    turn->n_parts++;
    return VL_OK;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* White space between a mark and an end of the text goes with the mark, as in LLaVA's own preprocessing. */
vl_status vl_sample_add_turn(vl_sample *sample, const char *role, const char *text, const char *mark, vl_error *err)
{
    vl_turn *turn = new_turn(sample, role, err);
    size_t end = strlen(text);
    if (!turn)
        return err && err->status != VL_OK ? err->status : VL_ENOMEM;
    if (!mark || !strstr(text, mark))
        return end > 0 ? add_part(turn, text, end, err) : VL_OK;
    const char *at = text, *last = text + end;
    while (at < last && is_space(*at))
        at++;
    while (last > at && is_space(last[-1]))
        last--;
    bool first = true;
    while (at < last) {
        const char *next = strstr(at, mark), *stop = next && next < last ? next : last;
        const char *from = at, *to = stop;
        while (first && turn->n_parts > 0 && from < to && is_space(*from)) /* behind the marks that begin the text */
            from++;
        while (stop == last - (next ? strlen(mark) : 0) && to > from && next && next < last && is_space(to[-1]))
            to--; /* before the mark that ends it */
        if (to > from) {
            VL_TRY(add_part(turn, from, (size_t)(to - from), err));
            first = false;
        }
        at = stop;
        if (stop == next) {
            VL_TRY(add_part(turn, NULL, 0, err));
            at += strlen(mark);
        }
    }
    return VL_OK;
}

static const char *role_of(const char *name)
{
    static const struct {
        const char *name, *role;
    } roles[] = {{"system", "system"},   {"human", "user"},          {"user", "user"},        {"gpt", "assistant"},
                 {"model", "assistant"}, {"assistant", "assistant"}, {"chatgpt", "assistant"}};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(name, roles[i].name) == 0)
            return roles[i].role;
    return NULL;
}

static int count_marks(const json_t *turns)
{
    int n = 0;
    const json_t *turn;
    size_t i;
    json_array_foreach(turns, i, turn)
    {
        const char *text = json_string_value(json_object_get(turn, "value"));
        text = text ? text : json_string_value(json_object_get(turn, "content"));
        for (; text && (text = strstr(text, MARK)); text += sizeof MARK - 1)
            n++;
    }
    return n;
}

/* A content that is a list: {"type": "text", "text"} and {"type": "image"}, with or without a path. */
static vl_status read_parts(vl_sample *sample, const vl_turn_source *source, const json_t *content, const char *role,
                            vl_error *err)
{
    static const char *const places[] = {"image", "path", "url", "image_url"};
    const json_t *part;
    size_t i;
    vl_turn *turn = new_turn(sample, role, err);
    if (!turn)
        return err && err->status != VL_OK ? err->status : VL_ENOMEM;
    json_array_foreach(content, i, part)
    {
        const char *type = json_string_value(json_object_get(part, "type")), *text = NULL;
        if (json_is_string(part) || (type && strcmp(type, "text") == 0)) {
            VL_TRY(need_text(&text, json_is_string(part) ? part : member(part, "text"), "text", err));
            VL_TRY(add_part(turn, text, strlen(text), err));
            continue;
        }
        if (!type || (strcmp(type, "image") != 0 && strcmp(type, "image_url") != 0))
            return vl_fail(err, VL_EFORMAT, "part %zu of a content is of type \"%.60s\", expected text or image", i,
                           type ? type : kind(part));
        VL_TRY(add_part(turn, NULL, 0, err));
        for (size_t k = 0; k < sizeof places / sizeof *places && !text; k++) {
            const json_t *place = json_object_get(part, places[k]);
            text = json_string_value(json_is_object(place) ? json_object_get(place, "url") : place);
        }
        if (text)
            VL_TRY(vl_sample_add_image(sample, source->folder, text, err));
    }
    return VL_OK;
}

static vl_status read_turn(vl_sample *sample, const vl_turn_source *source, const json_t *turn, size_t i,
                           const char *mark, vl_error *err)
{
    const json_t *from = member(turn, "from") ? member(turn, "from") : member(turn, "role");
    const json_t *value = member(turn, "value") ? member(turn, "value") : json_object_get(turn, "content");
    const char *text = "";
    if (!json_is_string(from) || !value)
        return vl_fail(err, VL_EFORMAT, "turn %zu has no \"from\" and \"value\" (or \"role\" and \"content\")", i);
    const char *role = role_of(json_string_value(from));
    if (!role)
        return vl_fail(err, VL_EFORMAT, "turn %zu is from \"%.60s\", expected system, user (human) or assistant (gpt)",
                       i, json_string_value(from));
    if (json_is_array(value))
        return read_parts(sample, source, value, role, err);
    if (!json_is_null(value))
        VL_TRY(need_text(&text, value, member(turn, "value") ? "value" : "content", err));
    return vl_sample_add_turn(sample, role, text, mark, err);
}

static int count_pictures(const vl_sample *sample)
{
    int n = 0;
    for (int i = 0; i < sample->n_turns; i++)
        for (int k = 0; k < sample->turns[i].n_parts; k++)
            n += !sample->turns[i].parts[k].text;
    return n;
}

/* Pictures that no turn places stand before the text of the user's first turn. */
static vl_status place_first(vl_sample *sample, vl_error *err)
{
    int turn = 0, n = sample->n_images;
    while (turn < sample->n_turns && strcmp(sample->turns[turn].role, "user") != 0)
        turn++;
    if (turn == sample->n_turns)
        return VL_OK; /* vl_sample_finish refuses it */
    vl_turn *first = &sample->turns[turn];
    vl_turn_part *parts = vl_realloc((void *)(uintptr_t)first->parts, (size_t)(first->n_parts + n), sizeof *parts);
    if (!parts)
        return vl_fail_nomem(err, "turns");
    memmove(parts + n, parts, (size_t)first->n_parts * sizeof *parts);
    memset(parts, 0, (size_t)n * sizeof *parts);
    first->parts = parts;
    first->n_parts += n;
    return VL_OK;
}

static vl_status read_conversation(vl_sample *sample, const vl_turn_source *source, const json_t *turns,
                                   const char *key, vl_error *err)
{
    if (!json_is_array(turns))
        return vl_fail(err, VL_EFORMAT, "\"%s\" is %s, expected a list", key, kind(turns));
    int marks = sample->n_images > 0 ? count_marks(turns) : 0, given = sample->n_images;
    if (marks > 0 && marks != given)
        return vl_fail(err, VL_EFORMAT, "%d times \"%s\" in the turns, but %d images", marks, MARK, given);
    for (size_t i = 0; i < json_array_size(turns); i++)
        VL_TRY(read_turn(sample, source, json_array_get(turns, i), i, marks > 0 ? MARK : NULL, err));
    int placed = count_pictures(sample);
    if (placed == 0 && sample->n_images > 0)
        return place_first(sample, err);
    if (placed != sample->n_images)
        return vl_fail(err, VL_EFORMAT, "the turns have places for %d images, %d are named", placed, sample->n_images);
    return VL_OK;
}

/* ---- samples ----------------------------------------------------------------------------------------------- */

static vl_status copy_turn_text(char **out, const vl_turn *turn, vl_error *err)
{
    vl_str text = VL_STR_INIT;
    for (int k = 0; k < turn->n_parts; k++)
        vl_str_puts(&text, turn->parts[k].text ? turn->parts[k].text : "");
    *out = text.failed ? NULL : vl_strdup(text.data ? text.data : "");
    vl_str_clear(&text);
    return *out ? VL_OK : vl_fail_nomem(err, "turns");
}

vl_status vl_sample_finish(vl_sample *sample, vl_error *err)
{
    for (int i = 0; i < sample->n_turns; i++) {
        if (!sample->prompt && strcmp(sample->turns[i].role, "user") == 0)
            VL_TRY(copy_turn_text(&sample->prompt, &sample->turns[i], err));
        if (!sample->answer && strcmp(sample->turns[i].role, "assistant") == 0)
            VL_TRY(copy_turn_text(&sample->answer, &sample->turns[i], err));
    }
    return sample->prompt ? VL_OK : vl_fail(err, VL_EFORMAT, "no turn is from the user (\"human\", \"user\")");
}

static vl_status read_question(vl_sample *sample, const vl_turn_source *source, const json_t *object,
                               const char *answer_key, vl_error *err)
{
    const char *prompt = source->question, *answer;
    if (member(object, "prompt"))
        VL_TRY(need_text(&prompt, member(object, "prompt"), "prompt", err));
    if (!prompt || !prompt[0])
        return vl_fail(err, VL_EFORMAT, "a caption without a question: data.prompt says what is asked of each picture");
    sample->unplaced = true;
    VL_TRY(vl_sample_add_turn(sample, "user", prompt, NULL, err));
    if (sample->turns[0].n_parts == 0)
        VL_TRY(add_part(&sample->turns[0], "", 0, err));
    if (sample->n_images > 0)
        VL_TRY(place_first(sample, err));
    if (!member(object, answer_key))
        return VL_OK;
    VL_TRY(need_text(&answer, member(object, answer_key), answer_key, err));
    return vl_sample_add_turn(sample, "assistant", answer, NULL, err);
}

/* Which of the formats the keys of an object are; their number in *n. */
static vl_data_format find_format(const json_t *object, int *n)
{
    static const struct {
        const char *key;
        vl_data_format format;
    } keys[] = {{"prompt", VL_FORMAT_PROMPT},
                {"conversations", VL_FORMAT_LLAVA},
                {"conversation", VL_FORMAT_LLAVA},
                {"messages", VL_FORMAT_MESSAGES},
                {"caption", VL_FORMAT_COCO}};
    vl_data_format found = VL_FORMAT_AUTO;
    *n = 0;
    for (size_t i = sizeof keys / sizeof *keys; i-- > 0;)
        if (member(object, keys[i].key) && !(keys[i].format == VL_FORMAT_COCO && member(object, "prompt"))) {
            found = keys[i].format;
            ++*n;
        }
    if (found == VL_FORMAT_LLAVA && !member(object, "image") && !member(object, "images"))
        found = VL_FORMAT_SHAREGPT;
    return found;
}

static bool fits(vl_data_format found, vl_data_format wanted)
{
    bool talks = found == VL_FORMAT_LLAVA || found == VL_FORMAT_SHAREGPT;
    return wanted == VL_FORMAT_AUTO || found == wanted ||
           (talks && (wanted == VL_FORMAT_LLAVA || wanted == VL_FORMAT_SHAREGPT));
}

vl_status vl_sample_read_object(vl_sample *sample, vl_data_format *found, const vl_turn_source *source,
                                const struct json_t *object, vl_error *err)
{
    int n;
    if (!json_is_object(object))
        return vl_fail(err, VL_EFORMAT,
                       "this is %s, expected an object with \"prompt\", \"conversations\" or "
                       "\"messages\"",
                       kind(object));
    *found = find_format(object, &n);
    if (n > 1)
        return vl_fail(err, VL_EFORMAT,
                       "more than one of \"prompt\", \"conversations\" and \"messages\", expected one");
    if (n == 0 || !fits(*found, source->format))
        return vl_fail(err, VL_EFORMAT, "%s is missing",
                       source->format == VL_FORMAT_PROMPT     ? "\"prompt\""
                       : source->format == VL_FORMAT_MESSAGES ? "\"messages\""
                       : source->format == VL_FORMAT_AUTO     ? "\"prompt\" (or \"conversations\", \"messages\")"
                                                              : "\"conversations\"");
    VL_TRY(read_images(sample, source->folder, object, err));
    if (*found == VL_FORMAT_PROMPT || *found == VL_FORMAT_COCO)
        VL_TRY(read_question(sample, source, object, *found == VL_FORMAT_COCO ? "caption" : "answer", err));
    else if (*found == VL_FORMAT_MESSAGES)
        VL_TRY(read_conversation(sample, source, member(object, "messages"), "messages", err));
    else
        VL_TRY(read_conversation(sample, source,
                                 member(object, "conversations") ? member(object, "conversations")
                                                                 : member(object, "conversation"),
                                 "conversations", err));
    return vl_sample_finish(sample, err);
}
