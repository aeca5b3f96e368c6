/* Filters (x | name) and tests (x is name). */
#include <string.h>

#include "trainer/hf/jinja.h"

typedef vl_jinja_run run;
typedef vl_jinja_call call;
typedef vl_jinja_value value;

bool vl_jinja_named(const call *c, const char *name)
{
    return c->name_size == strlen(name) && memcmp(c->name, name, c->name_size) == 0;
}

const value *vl_jinja_argument(const call *c, int i, const char *keyword)
{
    if (i < c->n)
        return &c->arguments[i];
    return keyword ? vl_jinja_dict_get(c->keywords, keyword, strlen(keyword)) : NULL;
}

/* ---- tests ------------------------------------------------------------------------------------------------- */

static bool is_sequence(value v)
{
    return v.kind == VL_JINJA_LIST || v.kind == VL_JINJA_TEXT || v.kind == VL_JINJA_DICT;
}

/* Tests of the kind of a value; false where the name is none of them. */
static bool test_kind(bool *out, const call *c)
{
    value v = c->self;
    const struct {
        const char *name;
        bool holds;
    } tests[] = {
        {"defined", v.kind != VL_JINJA_UNDEFINED},
        {"undefined", v.kind == VL_JINJA_UNDEFINED},
        {"none", v.kind == VL_JINJA_NONE},
        {"string", v.kind == VL_JINJA_TEXT},
        {"boolean", v.kind == VL_JINJA_BOOL},
        {"true", v.kind == VL_JINJA_BOOL && v.truth},
        {"false", v.kind == VL_JINJA_BOOL && !v.truth},
        {"integer", v.kind == VL_JINJA_INT},
        {"number", v.kind == VL_JINJA_INT || v.kind == VL_JINJA_FLOAT || v.kind == VL_JINJA_BOOL},
        {"mapping", v.kind == VL_JINJA_DICT},
        {"sequence", is_sequence(v)},
        {"iterable", is_sequence(v) || v.kind == VL_JINJA_UNDEFINED},
        {"callable", v.kind == VL_JINJA_MACRO},
        {"odd", v.kind == VL_JINJA_INT && v.number % 2 != 0},
        {"even", v.kind == VL_JINJA_INT && v.number % 2 == 0},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (vl_jinja_named(c, tests[i].name)) {
            *out = tests[i].holds;
            return true;
        }
    return false;
}

vl_status vl_jinja_test(bool *out, run *r, const call *c)
{
    static const char *const equal[] = {"equalto", "eq", "sameas"};
    const value *other = vl_jinja_argument(c, 0, "other");
    if (test_kind(out, c))
        return VL_OK;
    for (size_t i = 0; i < sizeof equal / sizeof *equal; i++)
        if (other && vl_jinja_named(c, equal[i])) {
            *out = vl_jinja_equal(c->self, *other);
            return VL_OK;
        }
    if (other && vl_jinja_named(c, "ne")) {
        *out = !vl_jinja_equal(c->self, *other);
        return VL_OK;
    }
    if (other && vl_jinja_named(c, "in"))
        return vl_jinja_contains(out, r, c->node, c->self, *other);
    return vl_jinja_fail(r, c->node, VL_EUNSUPPORTED, "the test \"%.*s\"", (int)c->name_size, c->name);
}

/* ---- filters of lists -------------------------------------------------------------------------------------- */

/* attribute="a.b" of an item. */
static vl_status attribute_of(value *out, run *r, const call *c, value item, value path)
{
    *out = item;
    for (size_t at = 0; at <= path.size;) {
        const char *dot = memchr(path.text + at, '.', path.size - at);
        size_t end = dot ? (size_t)(dot - path.text) : path.size;
        VL_TRY(vl_jinja_member(out, r, c->node, *out, vl_jinja_text(path.text + at, end - at)));
        at = end + 1;
    }
    return VL_OK;
}

/* select, reject, selectattr, rejectattr: items for which a test holds (or whether they are true). */
static vl_status filter_select(value *out, run *r, const call *c)
{
    bool by_attribute = c->name_size > 6, keep = c->name[0] == 's';
    int test_at = by_attribute ? 1 : 0;
    value list;
    if (by_attribute && (c->n < 1 || c->arguments[0].kind != VL_JINJA_TEXT))
        return vl_jinja_fail(r, c->node, VL_EFORMAT, "%.*s without the name of an attribute", (int)c->name_size,
                             c->name);
    VL_TRY(vl_jinja_items(&list, r, c->node, c->self));
    if (!vl_jinja_list_new(out, r->arena))
        return vl_jinja_nomem(r);
    for (size_t i = 0; i < list.list->n; i++) {
        call test = {.node = c->node, .self = list.list->items[i], .keywords = c->keywords};
        bool holds;
        if (by_attribute)
            VL_TRY(attribute_of(&test.self, r, c, list.list->items[i], c->arguments[0]));
        holds = vl_jinja_is_true(test.self);
        if (c->n > test_at) {
            if (c->arguments[test_at].kind != VL_JINJA_TEXT)
                return vl_jinja_fail(r, c->node, VL_EFORMAT, "the name of a test is no text");
            test.name = vl_jinja_is(c->arguments[test_at], "==") ? "eq" : c->arguments[test_at].text;
            test.name_size = vl_jinja_is(c->arguments[test_at], "==") ? 2 : c->arguments[test_at].size;
            test.arguments = c->arguments + test_at + 1;
            test.n = c->n - test_at - 1;
            VL_TRY(vl_jinja_test(&holds, r, &test));
        }
        if (holds == keep && !vl_jinja_list_add(*out, r->arena, list.list->items[i]))
            return vl_jinja_nomem(r);
    }
    return VL_OK;
}

static vl_status filter_map(value *out, run *r, const call *c)
{
    const value *path = vl_jinja_argument(c, 64, "attribute");
    value list;
    if (!path && (c->n < 1 || c->arguments[0].kind != VL_JINJA_TEXT))
        return vl_jinja_fail(r, c->node, VL_EFORMAT, "map without a filter or an attribute");
    VL_TRY(vl_jinja_items(&list, r, c->node, c->self));
    if (!vl_jinja_list_new(out, r->arena))
        return vl_jinja_nomem(r);
    for (size_t i = 0; i < list.list->n; i++) {
        value item;
        if (path && path->kind == VL_JINJA_TEXT) {
            VL_TRY(attribute_of(&item, r, c, list.list->items[i], *path));
        } else if (path) {
            VL_TRY(vl_jinja_member(&item, r, c->node, list.list->items[i], *path));
        } else {
            call inner = {.node = c->node,
                          .name = c->arguments[0].text,
                          .name_size = c->arguments[0].size,
                          .self = list.list->items[i],
                          .arguments = c->arguments + 1,
                          .n = c->n - 1,
                          .keywords = c->keywords};
            VL_TRY(vl_jinja_filter(&item, r, &inner));
        }
        if (!vl_jinja_list_add(*out, r->arena, item))
            return vl_jinja_nomem(r);
    }
    return VL_OK;
}

static vl_status filter_join(value *out, run *r, const call *c)
{
    const value *between = vl_jinja_argument(c, 0, "d"), *path = vl_jinja_argument(c, 1, "attribute");
    value list;
    vl_str text = VL_STR_INIT;
    vl_status status = vl_jinja_items(&list, r, c->node, c->self);
    for (size_t i = 0; status == VL_OK && i < list.list->n; i++) {
        value item = list.list->items[i];
        if (i > 0 && between)
            status = vl_jinja_show(&text, r, c->node, *between);
        if (status == VL_OK && path && path->kind == VL_JINJA_TEXT)
            status = attribute_of(&item, r, c, list.list->items[i], *path);
        if (status == VL_OK)
            status = vl_jinja_show(&text, r, c->node, item);
    }
    if (status == VL_OK)
        return vl_jinja_finish(out, r, &text);
    vl_str_clear(&text);
    return status;
}

static vl_status filter_length(value *out, run *r, const call *c)
{
    value list;
    *out = vl_jinja_int(c->self.kind == VL_JINJA_DICT ? (int64_t)c->self.dict->n : 0);
    if (c->self.kind == VL_JINJA_DICT)
        return VL_OK;
    VL_TRY(vl_jinja_items(&list, r, c->node, c->self));
    *out = vl_jinja_int((int64_t)list.list->n);
    return VL_OK;
}

static vl_status filter_list(value *out, run *r, const call *c)
{
    return vl_jinja_items(out, r, c->node, c->self);
}

static vl_status filter_end(value *out, run *r, const call *c)
{
    value list;
    VL_TRY(vl_jinja_items(&list, r, c->node, c->self));
    *out = (value){.kind = VL_JINJA_UNDEFINED};
    if (list.list->n > 0)
        *out = list.list->items[vl_jinja_named(c, "first") ? 0 : list.list->n - 1];
    return VL_OK;
}

static vl_status filter_reverse(value *out, run *r, const call *c)
{
    value bounds[3] = {vl_jinja_none(), vl_jinja_none(), vl_jinja_int(-1)};
    return vl_jinja_slice(out, r, c->node, c->self, bounds);
}

/* ---- other filters ----------------------------------------------------------------------------------------- */

static vl_status filter_default(value *out, run *r, const call *c)
{
    const value *other = vl_jinja_argument(c, 0, "default_value"), *falsy = vl_jinja_argument(c, 1, "boolean");
    (void)r;
    bool missing =
        c->self.kind == VL_JINJA_UNDEFINED || (falsy && vl_jinja_is_true(*falsy) && !vl_jinja_is_true(c->self));
    *out = !missing ? c->self : other ? *other : vl_jinja_string("");
    return VL_OK;
}

static vl_status filter_string(value *out, run *r, const call *c)
{
    vl_str text = VL_STR_INIT;
    vl_status status = vl_jinja_show(&text, r, c->node, c->self);
    if (status == VL_OK)
        return vl_jinja_finish(out, r, &text);
    vl_str_clear(&text);
    return status;
}

/* As a text, and then the method of that name. */
static vl_status filter_method(value *out, run *r, const call *c)
{
    call method = *c;
    VL_TRY(filter_string(&method.self, r, c));
    if (vl_jinja_named(c, "trim")) {
        method.name = "strip";
        method.name_size = 5;
    }
    return vl_jinja_invoke(out, r, &method);
}

static void put_json_text(vl_str *out, value text)
{
    vl_str_putc(out, '"');
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.text[i];
        static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
        const char *at = c ? strchr(from, c) : NULL;
        if (at)
            vl_str_printf(out, "\\%c", to[at - from]);
        else if (c < 0x20)
            vl_str_printf(out, "\\u%04x", c);
        else
            vl_str_putc(out, (char)c);
    }
    vl_str_putc(out, '"');
}

static vl_status put_json(vl_str *out, run *r, const call *c, value v)
{
    vl_status status = VL_OK;
    if (++r->depth > VL_JINJA_DEPTH)
        return vl_jinja_fail(r, c->node, VL_EFORMAT, "nested deeper than %d levels", VL_JINJA_DEPTH);
    if (v.kind == VL_JINJA_TEXT) {
        put_json_text(out, v);
    } else if (v.kind == VL_JINJA_NONE || v.kind == VL_JINJA_BOOL) {
        vl_str_puts(out, v.kind == VL_JINJA_NONE ? "null" : v.truth ? "true" : "false");
    } else if (v.kind == VL_JINJA_INT) {
        status = vl_jinja_show(out, r, c->node, v);
    } else if (v.kind == VL_JINJA_LIST || v.kind == VL_JINJA_DICT) {
        bool list = v.kind == VL_JINJA_LIST;
        size_t n = list ? v.list->n : v.dict->n;
        vl_str_putc(out, list ? '[' : '{');
        for (size_t i = 0; i < n && status == VL_OK; i++) {
            vl_str_puts(out, i > 0 ? ", " : "");
            if (!list) {
                put_json_text(out, v.dict->keys[i]);
                vl_str_puts(out, ": ");
            }
            status = put_json(out, r, c, list ? v.list->items[i] : v.dict->values[i]);
        }
        vl_str_putc(out, list ? ']' : '}');
    } else {
        status = vl_jinja_fail(r, c->node, VL_EUNSUPPORTED, "%s as JSON", vl_jinja_kind_name(v.kind));
    }
    r->depth--;
    return status;
}

static vl_status filter_tojson(value *out, run *r, const call *c)
{
    vl_str text = VL_STR_INIT;
    if (c->n > 0 || c->keywords.dict->n > 0)
        return vl_jinja_fail(r, c->node, VL_EUNSUPPORTED, "tojson with arguments");
    vl_status status = put_json(&text, r, c, c->self);
    if (status == VL_OK)
        return vl_jinja_finish(out, r, &text);
    vl_str_clear(&text);
    return status;
}

vl_status vl_jinja_filter(value *out, run *r, const call *c)
{
    static const struct {
        const char *name;
        vl_status (*apply)(value *out, run *r, const call *c);
    } filters[] = {
        {"trim", filter_method},     {"length", filter_length},     {"count", filter_length},
        {"join", filter_join},       {"map", filter_map},           {"select", filter_select},
        {"reject", filter_select},   {"selectattr", filter_select}, {"rejectattr", filter_select},
        {"list", filter_list},       {"first", filter_end},         {"last", filter_end},
        {"reverse", filter_reverse}, {"default", filter_default},   {"d", filter_default},
        {"string", filter_string},   {"safe", filter_string},       {"upper", filter_method},
        {"lower", filter_method},    {"title", filter_method},      {"capitalize", filter_method},
        {"replace", filter_method},  {"items", filter_method},      {"tojson", filter_tojson},
    };
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (vl_jinja_named(c, filters[i].name)) {
            if (c->self.kind == VL_JINJA_DICT && filters[i].apply == filter_method)
                return vl_jinja_invoke(out, r, c);
            return filters[i].apply(out, r, c);
        }
    return vl_jinja_fail(r, c->node, VL_EUNSUPPORTED, "the filter \"%.*s\"", (int)c->name_size, c->name);
}
