#include "trainer/hf/jinja.h"

#include <string.h>

#include "trainer/base/mem.h"

/* ---- memory ------------------------------------------------------------------------------------------------ */

typedef struct vl_jinja_chunk {
    struct vl_jinja_chunk *next;
    size_t size, used;
    _Alignas(16) char bytes[];
} vl_jinja_chunk;

void *vl_jinja_alloc(vl_jinja_arena *arena, size_t count, size_t size)
{
    enum { CHUNK = 16 << 10 };
    size_t bytes;
    vl_jinja_chunk *chunk = arena->chunks;
    if (!vl_mul_size(&bytes, count, size) || bytes > VL_JINJA_MEMORY || arena->used + bytes > VL_JINJA_MEMORY)
        return NULL;
    bytes = (bytes + 15) / 16 * 16;
    if (!chunk || chunk->size - chunk->used < bytes) {
        size_t room = bytes > CHUNK ? bytes : CHUNK;
        chunk = vl_alloc(1, sizeof *chunk + room);
        if (!chunk)
            return NULL;
        *chunk = (vl_jinja_chunk){.next = arena->chunks, .size = room};
        arena->chunks = chunk;
    }
    char *block = chunk->bytes + chunk->used;
    chunk->used += bytes;
    arena->used += bytes;
    memset(block, 0, bytes);
    return block;
}

void vl_jinja_arena_clear(vl_jinja_arena *arena)
{
    while (arena->chunks) {
        vl_jinja_chunk *next = arena->chunks->next;
        vl_free(arena->chunks);
        arena->chunks = next;
    }
    arena->used = 0;
}

/* ---- values ------------------------------------------------------------------------------------------------ */

vl_jinja_value vl_jinja_text(const char *text, size_t size)
{
    vl_jinja_value value = {.kind = VL_JINJA_TEXT};
    value.text = text;
    value.size = size;
    return value;
}

vl_jinja_value vl_jinja_string(const char *text)
{
    return vl_jinja_text(text, strlen(text));
}

vl_jinja_value vl_jinja_bool(bool truth)
{
    return (vl_jinja_value){.kind = VL_JINJA_BOOL, .truth = truth};
}

vl_jinja_value vl_jinja_int(int64_t number)
{
    return (vl_jinja_value){.kind = VL_JINJA_INT, .number = number};
}

vl_jinja_value vl_jinja_none(void)
{
    return (vl_jinja_value){.kind = VL_JINJA_NONE};
}

bool vl_jinja_list_new(vl_jinja_value *out, vl_jinja_arena *arena)
{
    *out = (vl_jinja_value){.kind = VL_JINJA_LIST, .list = vl_jinja_alloc(arena, 1, sizeof(vl_jinja_list))};
    return out->list;
}

/* A larger copy of an array of values; the old one stays in the arena. */
static bool grow(vl_jinja_value **items, vl_jinja_arena *arena, size_t n, size_t capacity)
{
    vl_jinja_value *larger = vl_jinja_alloc(arena, capacity, sizeof *larger);
    if (larger && n > 0)
        memcpy(larger, *items, n * sizeof *larger);
    if (larger)
        *items = larger;
    return larger;
}

bool vl_jinja_list_add(vl_jinja_value list, vl_jinja_arena *arena, vl_jinja_value item)
{
    vl_jinja_list *to = list.list;
    if (to->n == to->capacity) {
        size_t capacity = to->capacity ? 2 * to->capacity : 4;
        if (!grow(&to->items, arena, to->n, capacity))
            return false;
        to->capacity = capacity;
    }
    to->items[to->n++] = item;
    return true;
}

bool vl_jinja_dict_new(vl_jinja_value *out, vl_jinja_arena *arena)
{
    *out = (vl_jinja_value){.kind = VL_JINJA_DICT, .dict = vl_jinja_alloc(arena, 1, sizeof(vl_jinja_dict))};
    return out->dict;
}

static bool same_text(vl_jinja_value value, const char *text, size_t size)
{
    return value.kind == VL_JINJA_TEXT && value.size == size && memcmp(value.text, text, size) == 0;
}

bool vl_jinja_dict_set(vl_jinja_value dict, vl_jinja_arena *arena, vl_jinja_value key, vl_jinja_value value)
{
    vl_jinja_dict *to = dict.dict;
    for (size_t i = 0; i < to->n; i++)
        if (same_text(to->keys[i], key.text, key.size)) {
            to->values[i] = value;
            return true;
        }
    if (to->n == to->capacity) {
        size_t capacity = to->capacity ? 2 * to->capacity : 8;
        if (!grow(&to->keys, arena, to->n, capacity) || !grow(&to->values, arena, to->n, capacity))
            return false;
        to->capacity = capacity;
    }
    to->keys[to->n] = key;
    to->values[to->n++] = value;
    return true;
}

const vl_jinja_value *vl_jinja_dict_get(vl_jinja_value dict, const char *key, size_t size)
{
    for (size_t i = 0; i < dict.dict->n; i++)
        if (same_text(dict.dict->keys[i], key, size))
            return &dict.dict->values[i];
    return NULL;
}

bool vl_jinja_is(vl_jinja_value value, const char *text)
{
    return same_text(value, text, strlen(text));
}

bool vl_jinja_is_true(vl_jinja_value value)
{
    switch (value.kind) {
    case VL_JINJA_UNDEFINED:
    case VL_JINJA_NONE: return false;
    case VL_JINJA_BOOL: return value.truth;
    case VL_JINJA_INT: return value.number != 0;
    case VL_JINJA_FLOAT: return value.real != 0;
    case VL_JINJA_TEXT: return value.size > 0;
    case VL_JINJA_LIST: return value.list->n > 0;
    case VL_JINJA_DICT: return value.dict->n > 0 || value.dict->is_namespace;
    case VL_JINJA_MACRO: break;
    }
    return true;
}

/* Truth values are numbers, as in Python. */
static bool as_number(double *out, vl_jinja_value value)
{
    if (value.kind == VL_JINJA_BOOL)
        *out = value.truth;
    else if (value.kind == VL_JINJA_INT)
        *out = (double)value.number;
    else if (value.kind == VL_JINJA_FLOAT)
        *out = value.real;
    else
        return false;
    return true;
}

static bool equal_dicts(const vl_jinja_dict *a, vl_jinja_value b)
{
    if (a->n != b.dict->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const vl_jinja_value *other = vl_jinja_dict_get(b, a->keys[i].text, a->keys[i].size);
        if (!other || !vl_jinja_equal(a->values[i], *other))
            return false;
    }
    return true;
}

bool vl_jinja_equal(vl_jinja_value a, vl_jinja_value b)
{
    double x, y;
    if (as_number(&x, a) && as_number(&y, b))
        return a.kind == VL_JINJA_INT && b.kind == VL_JINJA_INT ? a.number == b.number : x == y;
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case VL_JINJA_TEXT: return same_text(a, b.text, b.size);
    case VL_JINJA_LIST:
        for (size_t i = 0; i < a.list->n && a.list->n == b.list->n; i++)
            if (!vl_jinja_equal(a.list->items[i], b.list->items[i]))
                return false;
        return a.list->n == b.list->n;
    case VL_JINJA_DICT: return equal_dicts(a.dict, b);
    case VL_JINJA_MACRO: return a.macro == b.macro;
    default: break;
    }
    return true; /* two that are undefined, or none */
}

const char *vl_jinja_kind_name(vl_jinja_kind kind)
{
    static const char *const names[] = {"undefined", "none",   "true or false", "a number", "a number",
                                        "a text",    "a list", "a mapping",     "a macro"};
    return names[kind];
}
