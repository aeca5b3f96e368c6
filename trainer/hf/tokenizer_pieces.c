#include "trainer/hf/tokenizer_parts.h"

#include <string.h>

#include "trainer/base/mem.h"

enum { MAX_DEPTH = 16, MAX_COMPONENTS = 256 };
static const size_t max_text = (size_t)1 << 30;

bool vl_grow(void *items, size_t *capacity, size_t n, size_t size)
{
    if (n < *capacity)
        return true;
    void *block;
    memcpy(&block, items, sizeof block);
    size_t larger = *capacity ? *capacity + *capacity / 2 : 16;
    block = vl_realloc(block, larger, size);
    if (!block)
        return false;
    memcpy(items, &block, sizeof block);
    *capacity = larger;
    return true;
}

void vl_pieces_open(vl_pieces *pieces, vl_piece like)
{
    if (!vl_grow(&pieces->items, &pieces->capacity, pieces->n, sizeof *pieces->items)) {
        pieces->failed = true;
        return;
    }
    like.start = pieces->text.size;
    like.size = 0;
    pieces->items[pieces->n++] = like;
}

void vl_pieces_close(vl_pieces *pieces)
{
    if (pieces->failed || pieces->n == 0)
        return;
    vl_piece *piece = &pieces->items[pieces->n - 1];
    piece->size = pieces->text.size - piece->start;
    if (piece->size == 0 && !pieces->keep_empty)
        pieces->n--;
}

void vl_pieces_add(vl_pieces *pieces, const char *text, size_t size, vl_piece like)
{
    vl_pieces_open(pieces, like);
    vl_str_append(&pieces->text, text, size);
    vl_pieces_close(pieces);
}

void vl_pieces_clear(vl_pieces *pieces)
{
    pieces->text.size = 0;
    pieces->n = 0;
}

void vl_pieces_free(vl_pieces *pieces)
{
    vl_str_clear(&pieces->text);
    vl_free(pieces->items);
    *pieces = (vl_pieces){0};
}

size_t vl_text_limit(size_t n)
{
    size_t limit = ((size_t)64 << 20) + 32 * n; /* the longest Unicode decomposition is 18 times its text */
    return limit < max_text ? limit : max_text;
}

vl_status vl_fail_too_large(const vl_str *text, size_t limit, vl_error *err)
{
    if (text->failed)
        return vl_fail_nomem(err, "the text of a tokenizer");
    return vl_fail(err, VL_EFORMAT, "tokenizer.json: its replacements blow a text up to %zu bytes (limit %zu)",
                   text->size, limit);
}

vl_status vl_pieces_check(const vl_pieces *pieces, vl_error *err)
{
    if (pieces->failed)
        return vl_fail_nomem(err, "the pieces of a text");
    if (pieces->text.failed || pieces->text.size > pieces->limit)
        return vl_fail_too_large(&pieces->text, pieces->limit, err);
    return VL_OK;
}

struct walk {
    const char *list_key;
    vl_component_fn add;
    void *owner;
    const char *where;
    int n;
};

static vl_status walk_component(struct walk *walk, const json_t *component, int depth, vl_error *err)
{
    const json_t *type = json_object_get(component, "type");
    if (!json_is_string(type))
        return vl_fail(err, VL_EFORMAT, "%s: a component is no object with a \"type\"", walk->where);
    if (++walk->n > MAX_COMPONENTS)
        return vl_fail(err, VL_EFORMAT, "%s: more than %d components", walk->where, MAX_COMPONENTS);
    if (strcmp(json_string_value(type), "Sequence") != 0)
        return walk->add(walk->owner, component, json_string_value(type), walk->where, err);
    if (depth >= MAX_DEPTH)
        return vl_fail(err, VL_EFORMAT, "%s: Sequences nested deeper than %d", walk->where, MAX_DEPTH);
    const json_t *list = json_object_get(component, walk->list_key), *child;
    if (!json_is_array(list))
        return vl_fail(err, VL_EFORMAT, "%s: Sequence without a list \"%s\"", walk->where, walk->list_key);
    size_t i;
    json_array_foreach(list, i, child) VL_TRY(walk_component(walk, child, depth + 1, err));
    return VL_OK;
}

vl_status vl_each_component(const json_t *root, const char *list_key, vl_component_fn add, void *owner,
                            const char *where, vl_error *err)
{
    if (!root || json_is_null(root))
        return VL_OK;
    struct walk walk = {list_key, add, owner, where, 0};
    return walk_component(&walk, root, 0, err);
}

vl_status vl_need_text(const char **text, size_t *size, const json_t *object, const char *key, const char *where,
                       vl_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value))
        return vl_fail(err, VL_EFORMAT, "%s: \"%s\" is missing or no string", where, key);
    *text = json_string_value(value);
    *size = json_string_length(value);
    return VL_OK;
}
