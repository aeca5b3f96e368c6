#include "trainer/serve/ask.h"

#include <string.h>

#include "trainer/base/json.h"
#include "trainer/base/mem.h"

void vl_ask_clear(vl_ask *ask)
{
    vl_free(ask->prompt);
    for (int i = 0; i < ask->n_words; i++)
        vl_free(ask->words[i]);
    *ask = (vl_ask){0};
}

static vl_status integer(int64_t *out, const json_t *value, const char *key, int64_t low, int64_t high, vl_error *err)
{
    if (!json_is_integer(value) || json_integer_value(value) < low || json_integer_value(value) > high)
        return vl_fail(err, VL_EFORMAT, "%s: expected an integer from %lld to %lld", key, (long long)low,
                       (long long)high);
    *out = json_integer_value(value);
    return VL_OK;
}

static vl_status text(char **out, const json_t *value, const char *key, size_t most, vl_error *err)
{
    if (!json_is_string(value) || json_string_length(value) > most)
        return vl_fail(err, VL_EFORMAT, "%s: expected a text of at most %zu bytes", key, most);
    *out = vl_strdup(json_string_value(value));
    return *out ? VL_OK : vl_fail_nomem(err, "question");
}

static vl_status pictures(vl_ask *out, const json_t *value, vl_error *err)
{
    if (!json_is_array(value) || json_array_size(value) > VL_ASK_PICTURES)
        return vl_fail(err, VL_EFORMAT, "pictures: expected at most %d numbers", VL_ASK_PICTURES);
    for (size_t i = 0; i < json_array_size(value); i++)
        VL_TRY(integer(&out->pictures[out->n_pictures++], json_array_get(value, i), "pictures", 1, INT32_MAX, err));
    return VL_OK;
}

static vl_status words(vl_ask *out, const json_t *value, vl_error *err)
{
    if (!json_is_array(value) || json_array_size(value) > VL_ASK_WORDS)
        return vl_fail(err, VL_EFORMAT, "track: expected at most %d words", VL_ASK_WORDS);
    for (size_t i = 0; i < json_array_size(value); i++) {
        VL_TRY(text(&out->words[out->n_words], json_array_get(value, i), "track", 200, err));
        out->n_words++;
    }
    return VL_OK;
}

static vl_status member(vl_ask *out, const char *key, const json_t *value, int n_lenses, vl_error *err)
{
    int64_t n = 0;
    vl_status status;
    if (!strcmp(key, "prompt")) {
        vl_free(out->prompt);
        out->prompt = NULL;
        return text(&out->prompt, value, key, VL_ASK_MAX_PROMPT, err);
    }
    if (!strcmp(key, "pictures"))
        return pictures(out, value, err);
    if (!strcmp(key, "track"))
        return words(out, value, err);
    if (!strcmp(key, "raw")) {
        out->raw = json_is_true(value);
        return json_is_boolean(value) ? VL_OK : vl_fail(err, VL_EFORMAT, "raw: expected true or false");
    }
    if (!strcmp(key, "lens")) {
        status = integer(&n, value, key, -1, n_lenses - 1, err);
        out->lens = (int)n;
    } else if (!strcmp(key, "k")) {
        status = integer(&n, value, key, 1, VL_ASK_MAX_K, err);
        out->k = (int)n;
    } else if (!strcmp(key, "generate")) {
        status = integer(&n, value, key, 0, VL_ASK_MAX_GENERATE, err);
        out->generate = (int)n;
    } else {
        status = vl_fail(err, VL_EFORMAT, "unknown key \"%.40s\"", key);
    }
    return status;
}

vl_status vl_ask_parse(vl_ask *out, const char *bytes, size_t n, int n_lenses, vl_error *err)
{
    json_t *root = NULL;
    const char *key;
    json_t *value;
    vl_status status = VL_OK;
    *out = (vl_ask){.lens = n_lenses > 0 ? 0 : -1, .k = 5, .generate = 16};
    VL_TRY(vl_json_parse(&root, bytes, n, "question", err));
    if (!json_is_object(root))
        VL_GOTO(vl_fail(err, VL_EFORMAT, "a question is a JSON object"));
    json_object_foreach(root, key, value) VL_GOTO(member(out, key, value, n_lenses, err));
    if (!out->prompt)
        VL_GOTO(vl_fail(err, VL_EFORMAT, "prompt is missing"));
done:
    json_decref(root);
    if (status != VL_OK)
        vl_ask_clear(out);
    return status;
}
