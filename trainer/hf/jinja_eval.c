/* Rendering: expressions. */
#include <string.h>

#include "trainer/hf/jinja.h"

typedef vl_jinja_run run;
typedef vl_jinja_node node;
typedef vl_jinja_value value;

static vl_status make_list(value *out, run *r, const node *n)
{
    if (!vl_jinja_list_new(out, r->arena))
        return vl_jinja_nomem(r);
    for (int i = 0; i < n->n_items; i++) {
        value item;
        VL_TRY(vl_jinja_evaluate(&item, r, n->items[i]));
        if (!vl_jinja_list_add(*out, r->arena, item))
            return vl_jinja_nomem(r);
    }
    return VL_OK;
}

static vl_status make_dict(value *out, run *r, const node *owner, node *const *pairs, int n)
{
    if (!vl_jinja_dict_new(out, r->arena))
        return vl_jinja_nomem(r);
    for (int i = 0; i + 1 < n; i += 2) {
        value key, item;
        VL_TRY(vl_jinja_evaluate(&key, r, pairs[i]));
        VL_TRY(vl_jinja_evaluate(&item, r, pairs[i + 1]));
        if (key.kind != VL_JINJA_TEXT)
            return vl_jinja_fail(r, owner, VL_EUNSUPPORTED, "a key that is %s", vl_jinja_kind_name(key.kind));
        if (!vl_jinja_dict_set(*out, r->arena, key, item))
            return vl_jinja_nomem(r);
    }
    return VL_OK;
}

static vl_status read_call(vl_jinja_call *out, run *r, const node *n)
{
    value list;
    *out = (vl_jinja_call){.node = n, .name = n->value.text, .name_size = n->value.size};
    VL_TRY(make_list(&list, r, n));
    out->arguments = list.list->items;
    out->n = n->n_items;
    return make_dict(&out->keywords, r, n, n->named, n->n_named);
}

static vl_status evaluate_call(value *out, run *r, const node *n)
{
    vl_jinja_call call;
    value callee = {.kind = VL_JINJA_UNDEFINED};
    VL_TRY(read_call(&call, r, n));
    if (n->a->kind == VL_JINJA_ATTRIBUTE) {
        VL_TRY(vl_jinja_evaluate(&call.self, r, n->a->a));
        if (call.self.kind == VL_JINJA_UNDEFINED)
            return vl_jinja_member(out, r, n, call.self, n->a->value); /* fails */
        const value *member =
            call.self.kind == VL_JINJA_DICT ? vl_jinja_dict_get(call.self, n->a->value.text, n->a->value.size) : NULL;
        callee = member ? *member : callee;
    } else {
        VL_TRY(vl_jinja_evaluate(&callee, r, n->a));
    }
    if (callee.kind == VL_JINJA_MACRO && callee.macro)
        return vl_jinja_call_macro(out, r, callee.macro, &call);
    call.name = n->a->value.text;
    call.name_size = n->a->value.size;
    if (n->a->kind != VL_JINJA_VARIABLE && n->a->kind != VL_JINJA_ATTRIBUTE)
        return vl_jinja_fail(r, n, VL_EFORMAT, "%s is called", vl_jinja_kind_name(callee.kind));
    return vl_jinja_invoke(out, r, &call);
}

static vl_status evaluate_filter(value *out, run *r, const node *n)
{
    vl_jinja_call call;
    VL_TRY(read_call(&call, r, n));
    VL_TRY(vl_jinja_evaluate(&call.self, r, n->a));
    if (n->kind == VL_JINJA_FILTER)
        return vl_jinja_filter(out, r, &call);
    bool holds;
    VL_TRY(vl_jinja_test(&holds, r, &call));
    *out = vl_jinja_bool(holds);
    return VL_OK;
}

static vl_status evaluate_item(value *out, run *r, const node *n)
{
    value object, index;
    VL_TRY(vl_jinja_evaluate(&object, r, n->a));
    if (n->kind == VL_JINJA_ATTRIBUTE)
        index = n->value;
    else
        VL_TRY(vl_jinja_evaluate(&index, r, n->b));
    return vl_jinja_member(out, r, n, object, index);
}

static bool is_number(value v)
{
    return v.kind == VL_JINJA_INT || v.kind == VL_JINJA_FLOAT;
}

static double real(value v)
{
    return v.kind == VL_JINJA_INT ? (double)v.number : v.real;
}

/* Rounds down, as Python does. */
static int64_t floor_divide(int64_t a, int64_t b)
{
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static vl_status calculate(value *out, run *r, const node *n, value a, value b)
{
    char op = n->value.text[0];
    bool whole = n->value.size == 2, ints = a.kind == VL_JINJA_INT && b.kind == VL_JINJA_INT;
    if (strchr("/%", op) && real(b) == 0)
        return vl_jinja_fail(r, n, VL_EFORMAT, "division by zero");
    if (ints && (op != '/' || whole)) {
        uint64_t x = (uint64_t)a.number, y = (uint64_t)b.number;
        int64_t quotient = strchr("/%", op) && !(b.number == -1) ? floor_divide(a.number, b.number) : (int64_t)(0 - x);
        *out = vl_jinja_int(op == '+'   ? (int64_t)(x + y)
                            : op == '-' ? (int64_t)(x - y)
                            : op == '*' ? (int64_t)(x * y)
                            : op == '/' ? quotient
                                        : (int64_t)(x - (uint64_t)quotient * y));
        return VL_OK;
    }
    if (op == '%' || whole)
        return vl_jinja_fail(r, n, VL_EUNSUPPORTED, "\"%.*s\" of fractions", (int)n->value.size, n->value.text);
    double x = real(a), y = real(b);
    *out = (value){.kind = VL_JINJA_FLOAT, .real = op == '+' ? x + y : op == '-' ? x - y : op == '*' ? x * y : x / y};
    return VL_OK;
}

static vl_status add_lists(value *out, run *r, value a, value b)
{
    bool made = vl_jinja_list_new(out, r->arena);
    for (size_t i = 0; made && i < a.list->n; i++)
        made = vl_jinja_list_add(*out, r->arena, a.list->items[i]);
    for (size_t i = 0; made && i < b.list->n; i++)
        made = vl_jinja_list_add(*out, r->arena, b.list->items[i]);
    return made ? VL_OK : vl_jinja_nomem(r);
}

static vl_status evaluate_binary(value *out, run *r, const node *n)
{
    value a, b;
    VL_TRY(vl_jinja_evaluate(&a, r, n->a));
    bool is_and = vl_jinja_is(n->value, "and"), is_or = vl_jinja_is(n->value, "or");
    if ((is_and && !vl_jinja_is_true(a)) || (is_or && vl_jinja_is_true(a))) {
        *out = a;
        return VL_OK;
    }
    VL_TRY(vl_jinja_evaluate(&b, r, n->b));
    if (is_and || is_or) {
        *out = b;
        return VL_OK;
    }
    bool joins = vl_jinja_is(n->value, "~"), adds = vl_jinja_is(n->value, "+");
    if (joins || (adds && a.kind == VL_JINJA_TEXT && b.kind == VL_JINJA_TEXT)) {
        vl_str text = VL_STR_INIT;
        vl_status status = vl_jinja_show(&text, r, n, a);
        if (status == VL_OK)
            status = vl_jinja_show(&text, r, n, b);
        if (status == VL_OK)
            return vl_jinja_finish(out, r, &text);
        vl_str_clear(&text);
        return status;
    }
    if (is_number(a) && is_number(b))
        return calculate(out, r, n, a, b);
    if (adds && a.kind == VL_JINJA_LIST && b.kind == VL_JINJA_LIST)
        return add_lists(out, r, a, b);
    return vl_jinja_fail(r, n, VL_EFORMAT, "\"%.*s\" of %s and %s", (int)n->value.size, n->value.text,
                         vl_jinja_kind_name(a.kind), vl_jinja_kind_name(b.kind));
}

/* Less than 0, 0 or more, as strcmp. */
static vl_status order(int *out, run *r, const node *n, value a, value b)
{
    if (is_number(a) && is_number(b)) {
        *out = (real(a) > real(b)) - (real(a) < real(b));
    } else if (a.kind == VL_JINJA_TEXT && b.kind == VL_JINJA_TEXT) {
        size_t shorter = a.size < b.size ? a.size : b.size;
        *out = shorter ? memcmp(a.text, b.text, shorter) : 0;
        if (*out == 0)
            *out = (a.size > b.size) - (a.size < b.size);
    } else {
        return vl_jinja_fail(r, n, VL_EFORMAT, "\"%.*s\" of %s and %s", (int)n->value.size, n->value.text,
                             vl_jinja_kind_name(a.kind), vl_jinja_kind_name(b.kind));
    }
    return VL_OK;
}

static vl_status evaluate_comparison(value *out, run *r, const node *n)
{
    value a, b;
    bool holds;
    int sign = 0;
    VL_TRY(vl_jinja_evaluate(&a, r, n->a));
    VL_TRY(vl_jinja_evaluate(&b, r, n->b));
    if (vl_jinja_is(n->value, "==") || vl_jinja_is(n->value, "!=")) {
        holds = vl_jinja_equal(a, b) == vl_jinja_is(n->value, "==");
    } else if (vl_jinja_is(n->value, "in") || vl_jinja_is(n->value, "not in")) {
        VL_TRY(vl_jinja_contains(&holds, r, n, a, b));
        holds = holds == vl_jinja_is(n->value, "in");
    } else {
        VL_TRY(order(&sign, r, n, a, b));
        holds = (n->value.text[0] == '<' ? sign < 0 : sign > 0) || (n->value.size == 2 && sign == 0);
    }
    *out = vl_jinja_bool(holds);
    return VL_OK;
}

static vl_status evaluate_unary(value *out, run *r, const node *n)
{
    value a;
    VL_TRY(vl_jinja_evaluate(&a, r, n->a));
    if (vl_jinja_is(n->value, "not"))
        *out = vl_jinja_bool(!vl_jinja_is_true(a));
    else if (!is_number(a))
        return vl_jinja_fail(r, n, VL_EFORMAT, "a sign before %s", vl_jinja_kind_name(a.kind));
    else if (n->value.text[0] == '+')
        *out = a;
    else if (a.kind == VL_JINJA_INT)
        *out = vl_jinja_int((int64_t)(0 - (uint64_t)a.number));
    else
        *out = (value){.kind = VL_JINJA_FLOAT, .real = -a.real};
    return VL_OK;
}

static vl_status evaluate_condition(value *out, run *r, const node *n)
{
    value condition;
    VL_TRY(vl_jinja_evaluate(&condition, r, n->b));
    if (vl_jinja_is_true(condition))
        return vl_jinja_evaluate(out, r, n->a);
    *out = (value){.kind = VL_JINJA_UNDEFINED};
    return n->c ? vl_jinja_evaluate(out, r, n->c) : VL_OK;
}

static vl_status evaluate_slice(value *out, run *r, const node *n)
{
    value object, bounds[3] = {{.kind = VL_JINJA_NONE}, {.kind = VL_JINJA_NONE}, {.kind = VL_JINJA_NONE}};
    VL_TRY(vl_jinja_evaluate(&object, r, n->a));
    for (int i = 0; i < 3; i++)
        if (n->items[i])
            VL_TRY(vl_jinja_evaluate(&bounds[i], r, n->items[i]));
    return vl_jinja_slice(out, r, n, object, bounds);
}

static vl_status evaluate(value *out, run *r, const node *n)
{
    switch (n->kind) {
    case VL_JINJA_CONSTANT: *out = n->value; return VL_OK;
    case VL_JINJA_VARIABLE: *out = vl_jinja_find(r, n->value); return VL_OK;
    case VL_JINJA_ATTRIBUTE:
    case VL_JINJA_ITEM: return evaluate_item(out, r, n);
    case VL_JINJA_SLICE: return evaluate_slice(out, r, n);
    case VL_JINJA_CALL: return evaluate_call(out, r, n);
    case VL_JINJA_FILTER:
    case VL_JINJA_TEST: return evaluate_filter(out, r, n);
    case VL_JINJA_UNARY: return evaluate_unary(out, r, n);
    case VL_JINJA_BINARY: return evaluate_binary(out, r, n);
    case VL_JINJA_COMPARE: return evaluate_comparison(out, r, n);
    case VL_JINJA_CONDITION: return evaluate_condition(out, r, n);
    case VL_JINJA_MAKE_LIST: return make_list(out, r, n);
    case VL_JINJA_MAKE_DICT: return make_dict(out, r, n, n->items, n->n_items);
    default: break;
    }
    return vl_jinja_fail(r, n, VL_EINTERNAL, "a statement where an expression is expected");
}

vl_status vl_jinja_evaluate(value *out, run *r, const node *n)
{
    *out = (value){.kind = VL_JINJA_UNDEFINED};
    if (++r->steps > VL_JINJA_STEPS)
        return vl_jinja_fail(r, n, VL_EFORMAT, "rendering takes more than %d steps", VL_JINJA_STEPS);
    return evaluate(out, r, n);
}
