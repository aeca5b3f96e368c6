/* What is inside of a value: members, slices, letters; and how a value is shown. */
#include <inttypes.h>
#include <string.h>

#include "trainer/hf/jinja.h"

typedef vl_jinja_run run;
typedef vl_jinja_node node;
typedef vl_jinja_value value;

/* Bytes of the letter at text[at]. */
static size_t letter(value text, size_t at)
{
    size_t n = 1;
    while (at + n < text.size && ((unsigned char)text.text[at + n] & 0xc0) == 0x80)
        n++;
    return n;
}

vl_status vl_jinja_items(value *list, run *r, const node *n, value from)
{
    if (from.kind == VL_JINJA_LIST) {
        *list = from;
        return VL_OK;
    }
    bool made = vl_jinja_list_new(list, r->arena);
    if (from.kind == VL_JINJA_TEXT) {
        for (size_t at = 0; made && at < from.size; at += letter(from, at))
            made = vl_jinja_list_add(*list, r->arena, vl_jinja_text(from.text + at, letter(from, at)));
    } else if (from.kind == VL_JINJA_DICT) {
        for (size_t i = 0; made && i < from.dict->n; i++)
            made = vl_jinja_list_add(*list, r->arena, from.dict->keys[i]);
    } else if (from.kind != VL_JINJA_UNDEFINED) {
        return vl_jinja_fail(r, n, VL_EFORMAT, "%s has no items", vl_jinja_kind_name(from.kind));
    }
    return made ? VL_OK : vl_jinja_nomem(r);
}

vl_status vl_jinja_member(value *out, run *r, const node *n, value object, value name)
{
    *out = (value){.kind = VL_JINJA_UNDEFINED};
    if (object.kind == VL_JINJA_UNDEFINED)
        return vl_jinja_fail(r, n, VL_EFORMAT, "what should have a member \"%.*s\" is undefined",
                             name.kind == VL_JINJA_TEXT ? (int)name.size : 1,
                             name.kind == VL_JINJA_TEXT ? name.text : "#");
    if (object.kind == VL_JINJA_DICT && name.kind == VL_JINJA_TEXT) {
        const value *found = vl_jinja_dict_get(object, name.text, name.size);
        if (found)
            *out = *found;
    }
    if ((object.kind == VL_JINJA_LIST || object.kind == VL_JINJA_TEXT) && name.kind == VL_JINJA_INT) {
        value list;
        VL_TRY(vl_jinja_items(&list, r, n, object));
        int64_t size = (int64_t)list.list->n, at = name.number < 0 ? name.number + size : name.number;
        if (at >= 0 && at < size)
            *out = list.list->items[at];
    }
    return VL_OK;
}

/* A bound as Python takes it: from the end where negative, cut to [low, high]. */
static int64_t bound(value given, int64_t initial, int64_t n, int64_t low, int64_t high)
{
    if (given.kind != VL_JINJA_INT)
        return initial;
    int64_t at = given.number < 0 ? given.number + n : given.number;
    return at < low ? low : at > high ? high : at;
}

vl_status vl_jinja_slice(value *out, run *r, const node *n, value object, const value bounds[3])
{
    value list;
    if (object.kind != VL_JINJA_LIST && object.kind != VL_JINJA_TEXT)
        return vl_jinja_fail(r, n, VL_EFORMAT, "a slice of %s", vl_jinja_kind_name(object.kind));
    for (int i = 0; i < 3; i++)
        if (bounds[i].kind != VL_JINJA_INT && bounds[i].kind != VL_JINJA_NONE)
            return vl_jinja_fail(r, n, VL_EFORMAT, "a slice with a bound that is %s",
                                 vl_jinja_kind_name(bounds[i].kind));
    int64_t step = bounds[2].kind == VL_JINJA_INT ? bounds[2].number : 1;
    if (step == 0)
        return vl_jinja_fail(r, n, VL_EFORMAT, "a slice with step 0");
    VL_TRY(vl_jinja_items(&list, r, n, object));
    int64_t size = (int64_t)list.list->n, back = step < 0;
    int64_t first = bound(bounds[0], back ? size - 1 : 0, size, back ? -1 : 0, back ? size - 1 : size);
    int64_t end = bound(bounds[1], back ? -1 : size, size, back ? -1 : 0, back ? size - 1 : size);
    value part;
    if (!vl_jinja_list_new(&part, r->arena))
        return vl_jinja_nomem(r);
    for (int64_t i = first; back ? i > end : i < end; i += step) {
        if (!vl_jinja_list_add(part, r->arena, list.list->items[i]))
            return vl_jinja_nomem(r);
        if (step > size || step < -size)
            break;
    }
    *out = part;
    if (object.kind == VL_JINJA_LIST)
        return VL_OK;
    vl_str text = VL_STR_INIT;
    for (size_t i = 0; i < part.list->n; i++)
        vl_str_append(&text, part.list->items[i].text, part.list->items[i].size);
    return vl_jinja_finish(out, r, &text);
}

vl_status vl_jinja_contains(bool *out, run *r, const node *n, value a, value b)
{
    *out = false;
    if (b.kind == VL_JINJA_TEXT) {
        if (a.kind != VL_JINJA_TEXT)
            return vl_jinja_fail(r, n, VL_EFORMAT, "%s in a text", vl_jinja_kind_name(a.kind));
        for (size_t at = 0; at + a.size <= b.size && !*out; at++)
            *out = a.size == 0 || memcmp(b.text + at, a.text, a.size) == 0;
        return VL_OK;
    }
    value list;
    VL_TRY(vl_jinja_items(&list, r, n, b));
    for (size_t i = 0; i < list.list->n && !*out; i++)
        *out = vl_jinja_equal(a, list.list->items[i]);
    return VL_OK;
}

vl_status vl_jinja_show(vl_str *out, run *r, const node *n, value shown)
{
    switch (shown.kind) {
    case VL_JINJA_UNDEFINED: break;
    case VL_JINJA_NONE: vl_str_puts(out, "None"); break;
    case VL_JINJA_BOOL: vl_str_puts(out, shown.truth ? "True" : "False"); break;
    case VL_JINJA_INT: vl_str_printf(out, "%" PRId64, shown.number); break;
    case VL_JINJA_TEXT: vl_str_append(out, shown.text, shown.size); break;
    default: return vl_jinja_fail(r, n, VL_EUNSUPPORTED, "%s as text", vl_jinja_kind_name(shown.kind));
    }
    return VL_OK;
}
