#include "trainer/hf/tokenizer_parts.h"

#include <string.h>

#include "trainer/base/mem.h"

/* ---- hash tables ---- */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

uint64_t vl_hash_bytes(const char *text, size_t size)
{
    uint64_t hash = 0x9e3779b97f4a7c15u ^ size, word;
    for (; size >= 8; size -= 8, text += 8) {
        memcpy(&word, text, 8);
        hash = mix(hash ^ word);
    }
    word = 0;
    memcpy(&word, text, size);
    return mix(hash ^ word);
}

/* The slot that holds the text, or the empty one where it belongs. */
static size_t find_slot(const vl_vocab *vocab, const char *text, size_t size)
{
    size_t slot = vl_hash_bytes(text, size) & vocab->slot_mask;
    for (; vocab->slots[slot] != 0; slot = (slot + 1) & vocab->slot_mask) {
        uint32_t id = vocab->slots[slot] - 1;
        if (vocab->length[id] == size && memcmp(vocab->bytes + vocab->start[id], text, size) == 0)
            break;
    }
    return slot;
}

int32_t vl_vocab_find(const vl_vocab *vocab, const char *text, size_t size)
{
    return (int32_t)vocab->slots[find_slot(vocab, text, size)] - 1;
}

int32_t vl_vocab_find_model(const vl_vocab *vocab, const char *text, size_t size)
{
    int32_t id = vl_vocab_find(vocab, text, size);
    return id >= 0 && (vocab->flags[id] & VL_TOKEN_MODEL) ? id : -1;
}

static vl_merge *find_merge(const vl_vocab *vocab, uint64_t pair)
{
    size_t slot = mix(pair) & vocab->merge_mask;
    while (vocab->merges[slot].pair != pair && vocab->merges[slot].pair != UINT64_MAX)
        slot = (slot + 1) & vocab->merge_mask;
    return &vocab->merges[slot];
}

const vl_merge *vl_vocab_merge(const vl_vocab *vocab, int32_t left, int32_t right)
{
    const vl_merge *merge = find_merge(vocab, (uint64_t)left << 32 | (uint32_t)right);
    return merge->pair == UINT64_MAX ? NULL : merge;
}

static size_t table_size(size_t n)
{
    size_t size = 64;
    while (size < n + n / 2 + 1)
        size *= 2;
    return size;
}

/* ---- filling ---- */

static vl_status read_id(int32_t *out, const json_t *value, const char *token, const char *where, vl_error *err)
{
    if (!json_is_integer(value))
        return vl_fail(err, VL_EFORMAT, "%s: the id of token \"%.80s\" is no integer", where, token);
    json_int_t id = json_integer_value(value);
    if (id < 0 || id >= VL_TOKEN_ID_LIMIT)
        return vl_fail(err, VL_EFORMAT, "%s: token \"%.80s\" has id %lld, expected 0 to %d", where, token,
                       (long long)id, VL_TOKEN_ID_LIMIT - 1);
    *out = (int32_t)id;
    return VL_OK;
}

struct totals {
    int32_t max_id;
    size_t tokens, bytes;
};

static vl_status count(struct totals *t, const json_t *id_value, const char *token, size_t size, const char *where,
                       vl_error *err)
{
    int32_t id;
    VL_TRY(read_id(&id, id_value, token, where, err));
    t->max_id = id > t->max_id ? id : t->max_id;
    t->tokens++;
    t->bytes += size + 1;
    return VL_OK;
}

static vl_status make_room(vl_vocab *vocab, const struct totals *t, const char *where, vl_error *err)
{
    size_t n = (size_t)t->max_id + 1, slots = table_size(t->tokens);
    vocab->bytes = vl_alloc(t->bytes, 1);
    vocab->start = vl_calloc(n, sizeof *vocab->start);
    vocab->length = vl_calloc(n, sizeof *vocab->length);
    vocab->flags = vl_calloc(n, 1);
    vocab->slots = vl_calloc(slots, sizeof *vocab->slots);
    if (!vocab->bytes || !vocab->start || !vocab->length || !vocab->flags || !vocab->slots)
        return vl_fail_nomem(err, where);
    vocab->size = (int32_t)n;
    vocab->capacity = t->bytes;
    vocab->slot_mask = slots - 1;
    return VL_OK;
}

static vl_status put(vl_vocab *vocab, int32_t id, const char *token, size_t size, const char *where, vl_error *err)
{
    size_t slot = find_slot(vocab, token, size);
    if (vocab->flags[id])
        return vl_fail(err, VL_EFORMAT, "%s: id %d belongs to \"%.80s\" and to \"%.80s\"", where, id,
                       vocab->bytes + vocab->start[id], token);
    if (vocab->slots[slot] != 0)
        return vl_fail(err, VL_EFORMAT, "%s: token \"%.80s\" has ids %d and %d", where, token,
                       (int)vocab->slots[slot] - 1, id);
    if (size + 1 > vocab->capacity - vocab->used)
        return vl_fail(err, VL_EINTERNAL, "%s: tokens were counted wrongly", where);
    vocab->slots[slot] = (uint32_t)id + 1;
    vocab->start[id] = (uint32_t)vocab->used;
    vocab->length[id] = (uint32_t)size;
    memcpy(vocab->bytes + vocab->used, token, size);
    vocab->bytes[vocab->used + size] = 0;
    vocab->used += size + 1;
    return VL_OK;
}

/* An added token is a new one, or names one of the model's, then with the same id. */
static vl_status put_added(vl_vocab *vocab, const json_t *added, const char *where, vl_error *err)
{
    size_t i;
    const json_t *token;
    json_array_foreach(added, i, token)
    {
        const char *text;
        size_t size;
        int32_t id;
        VL_TRY(vl_need_text(&text, &size, token, "content", where, err));
        VL_TRY(read_id(&id, json_object_get(token, "id"), text, where, err));
        int32_t known = vl_vocab_find(vocab, text, size);
        if (known != id || (vocab->flags[id] & VL_TOKEN_ADDED))
            VL_TRY(put(vocab, id, text, size, where, err));
        vocab->flags[id] |= VL_TOKEN_ADDED;
        if (json_is_true(json_object_get(token, "special")))
            vocab->flags[id] |= VL_TOKEN_SPECIAL;
    }
    return VL_OK;
}

static vl_status put_tokens(vl_vocab *vocab, const json_t *model, const json_t *added, const char *where, vl_error *err)
{
    const json_t *tokens = json_object_get(model, "vocab"), *value;
    const char *token, *text;
    struct totals totals = {0, 0, 0};
    size_t i, size;
    json_object_foreach((json_t *)(uintptr_t)tokens, token, value)
        VL_TRY(count(&totals, value, token, strlen(token), where, err));
    json_array_foreach(added, i, value)
    {
        VL_TRY(vl_need_text(&text, &size, value, "content", where, err));
        VL_TRY(count(&totals, json_object_get(value, "id"), text, size, where, err));
    }
    VL_TRY(make_room(vocab, &totals, where, err));
    json_object_foreach((json_t *)(uintptr_t)tokens, token, value)
    {
        int32_t id = (int32_t)json_integer_value(value); /* checked by count */
        VL_TRY(put(vocab, id, token, strlen(token), where, err));
        vocab->flags[id] = VL_TOKEN_MODEL;
    }
    return put_added(vocab, added, where, err);
}

/* ---- merges ---- */

struct merge_text {
    const char *left, *right;
    size_t left_size, right_size;
};

/* ["a", "b"], or "a b" in older files, where no token holds a space. */
static vl_status read_merge(struct merge_text *out, const json_t *merge, size_t rank, const char *where, vl_error *err)
{
    if (json_is_array(merge) && json_array_size(merge) == 2) {
        const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
        if (json_is_string(left) && json_is_string(right)) {
            *out = (struct merge_text){json_string_value(left), json_string_value(right), json_string_length(left),
                                       json_string_length(right)};
            return VL_OK;
        }
    }
    const char *text = json_is_string(merge) ? json_string_value(merge) : NULL;
    const char *space = text ? strchr(text, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return vl_fail(err, VL_EFORMAT, "%s: merges[%zu] is neither \"a b\" nor [\"a\", \"b\"]", where, rank);
    *out = (struct merge_text){text, space + 1, (size_t)(space - text), strlen(space + 1)};
    return VL_OK;
}

static vl_status put_merge(vl_vocab *vocab, const struct merge_text *m, size_t rank, vl_str *joined, const char *where,
                           vl_error *err)
{
    joined->size = 0;
    vl_str_append(joined, m->left, m->left_size);
    vl_str_append(joined, m->right, m->right_size);
    if (joined->failed)
        return vl_fail_nomem(err, where);
    int32_t left = vl_vocab_find_model(vocab, m->left, m->left_size);
    int32_t right = vl_vocab_find_model(vocab, m->right, m->right_size);
    int32_t id = vl_vocab_find_model(vocab, joined->data, joined->size);
    if (left < 0 || right < 0 || id < 0)
        return vl_fail(err, VL_EFORMAT, "%s: merges[%zu] names \"%.80s\", which is not in the vocabulary", where, rank,
                       left < 0    ? m->left
                       : right < 0 ? m->right
                                   : joined->data);
    uint64_t pair = (uint64_t)left << 32 | (uint32_t)right;
    *find_merge(vocab, pair) = (vl_merge){pair, (uint32_t)rank, id}; /* named twice, the later rank counts */
    return VL_OK;
}

static vl_status put_merges(vl_vocab *vocab, const json_t *merges, const char *where, vl_error *err)
{
    size_t n = json_array_size(merges), slots = table_size(n), i;
    vocab->merges = vl_alloc(slots, sizeof *vocab->merges);
    if (!vocab->merges)
        return vl_fail_nomem(err, where);
    vocab->merge_mask = slots - 1;
    for (i = 0; i < slots; i++)
        vocab->merges[i].pair = UINT64_MAX;
    vl_str joined = VL_STR_INIT;
    vl_status status = VL_OK;
    const json_t *merge;
    json_array_foreach(merges, i, merge)
    {
        struct merge_text text = {NULL, NULL, 0, 0};
        VL_GOTO(read_merge(&text, merge, i, where, err));
        VL_GOTO(put_merge(vocab, &text, i, &joined, where, err));
    }
done:
    vl_str_clear(&joined);
    return status;
}

vl_status vl_vocab_parse(vl_vocab *out, const json_t *model, const json_t *added, const char *where, vl_error *err)
{
    const json_t *tokens = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges");
    *out = (vl_vocab){0};
    if (!json_is_object(tokens) || json_object_size(tokens) == 0)
        return vl_fail(err, VL_EFORMAT, "%s: \"model.vocab\" is no object of tokens", where);
    if (!json_is_array(merges))
        return vl_fail(err, VL_EFORMAT, "%s: \"model.merges\" is no list", where);
    if (added && !json_is_null(added) && !json_is_array(added))
        return vl_fail(err, VL_EFORMAT, "%s: \"added_tokens\" is no list", where);
    VL_TRY(put_tokens(out, model, added, where, err));
    return put_merges(out, merges, where, err);
}

void vl_vocab_free(vl_vocab *vocab)
{
    vl_free(vocab->bytes);
    vl_free(vocab->start);
    vl_free(vocab->length);
    vl_free(vocab->flags);
    vl_free(vocab->slots);
    vl_free(vocab->merges);
    *vocab = (vl_vocab){0};
}
