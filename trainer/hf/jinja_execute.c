/* Rendering: statements, names and macros. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/hf/jinja.h"

typedef vl_jinja_run run;
typedef vl_jinja_node node;
typedef vl_jinja_value value;

vl_status vl_jinja_fail(const run *r, const node *n, vl_status status, const char *format, ...)
{
    char what[400];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return vl_fail(r->err, status, "%s:%d: %s", r->name, n->line, what);
}

vl_status vl_jinja_nomem(const run *r)
{
    return vl_fail(r->err, VL_ENOMEM, "%s: rendering takes more than %d MiB", r->name, VL_JINJA_MEMORY >> 20);
}

vl_status vl_jinja_finish(value *out, run *r, vl_str *text)
{
    char *copy = text->failed ? NULL : vl_jinja_alloc(r->arena, text->size + 1, 1);
    if (copy && text->size > 0)
        memcpy(copy, text->data, text->size);
    if (copy)
        *out = vl_jinja_text(copy, text->size);
    vl_str_clear(text);
    return copy ? VL_OK : vl_jinja_nomem(r);
}

/* ---- names ------------------------------------------------------------------------------------------------- */

value vl_jinja_find(const run *r, value name)
{
    for (const vl_jinja_scope *scope = r->scope; scope; scope = scope->outer) {
        const value *found = vl_jinja_dict_get(scope->names, name.text, name.size);
        if (found)
            return *found;
    }
    return (value){.kind = VL_JINJA_UNDEFINED};
}

static vl_status set(run *r, value name, value to)
{
    return vl_jinja_dict_set(r->scope->names, r->arena, name, to) ? VL_OK : vl_jinja_nomem(r);
}

/* A scope of its own, from now on the one that names are set in. */
static vl_status open_scope(run *r, vl_jinja_scope *outer)
{
    vl_jinja_scope *scope = vl_jinja_alloc(r->arena, 1, sizeof *scope);
    if (!scope || !vl_jinja_dict_new(&scope->names, r->arena))
        return vl_jinja_nomem(r);
    scope->outer = outer;
    r->scope = scope;
    return VL_OK;
}

/* Target i takes the value; several targets take the items of a list. */
static vl_status assign(run *r, const node *statement, value from)
{
    value items = from;
    if (statement->n_items > 1 && (from.kind != VL_JINJA_LIST || (int)from.list->n != statement->n_items))
        return vl_jinja_fail(r, statement, VL_EFORMAT, "%d names for %s", statement->n_items,
                             vl_jinja_kind_name(from.kind));
    for (int i = 0; i < statement->n_items; i++) {
        const node *target = statement->items[i];
        value to = statement->n_items > 1 ? items.list->items[i] : from;
        if (target->kind == VL_JINJA_VARIABLE) {
            VL_TRY(set(r, target->value, to));
            continue;
        }
        value object = vl_jinja_find(r, target->a->value);
        if (object.kind != VL_JINJA_DICT || !object.dict->is_namespace)
            return vl_jinja_fail(r, statement, VL_EFORMAT, "\"%.*s\" is no namespace", (int)target->a->value.size,
                                 target->a->value.text);
        if (!vl_jinja_dict_set(object, r->arena, target->value, to))
            return vl_jinja_nomem(r);
    }
    return VL_OK;
}

/* ---- statements -------------------------------------------------------------------------------------------- */

static vl_status make_loop(run *r, const value *items, size_t i, size_t n)
{
    value loop, none = {.kind = VL_JINJA_UNDEFINED};
    if (!vl_jinja_dict_new(&loop, r->arena))
        return vl_jinja_nomem(r);
    const struct {
        const char *name;
        value value;
    } members[] = {
        {"index", vl_jinja_int((int64_t)i + 1)},
        {"index0", vl_jinja_int((int64_t)i)},
        {"revindex", vl_jinja_int((int64_t)(n - i))},
        {"revindex0", vl_jinja_int((int64_t)(n - i) - 1)},
        {"first", vl_jinja_bool(i == 0)},
        {"last", vl_jinja_bool(i + 1 == n)},
        {"length", vl_jinja_int((int64_t)n)},
        {"previtem", i > 0 ? items[i - 1] : none},
        {"nextitem", i + 1 < n ? items[i + 1] : none},
    };
    for (size_t k = 0; k < sizeof members / sizeof *members; k++)
        if (!vl_jinja_dict_set(loop, r->arena, vl_jinja_string(members[k].name), members[k].value))
            return vl_jinja_nomem(r);
    return set(r, vl_jinja_string("loop"), loop);
}

/* The items that a loop goes through: those for which its condition holds. */
static vl_status select_items(value *out, run *r, const node *statement, vl_jinja_scope *outer)
{
    value all, from;
    VL_TRY(vl_jinja_evaluate(&from, r, statement->a));
    VL_TRY(vl_jinja_items(&all, r, statement, from));
    *out = all;
    if (!statement->b)
        return VL_OK;
    if (!vl_jinja_list_new(out, r->arena))
        return vl_jinja_nomem(r);
    for (size_t i = 0; i < all.list->n; i++) {
        value wanted;
        VL_TRY(open_scope(r, outer));
        VL_TRY(assign(r, statement, all.list->items[i]));
        VL_TRY(vl_jinja_evaluate(&wanted, r, statement->b));
        r->scope = outer;
        if (vl_jinja_is_true(wanted) && !vl_jinja_list_add(*out, r->arena, all.list->items[i]))
            return vl_jinja_nomem(r);
    }
    return VL_OK;
}

/* What is set inside of a turn of the loop ends with it. */
static vl_status run_for(run *r, const node *statement)
{
    vl_jinja_scope *outer = r->scope;
    value items;
    VL_TRY(select_items(&items, r, statement, outer));
    for (size_t i = 0; i < items.list->n && r->flow != VL_JINJA_LEAVE; i++) {
        VL_TRY(open_scope(r, outer));
        VL_TRY(assign(r, statement, items.list->items[i]));
        VL_TRY(make_loop(r, items.list->items, i, items.list->n));
        VL_TRY(vl_jinja_execute(r, statement->body));
        r->scope = outer;
        if (r->flow == VL_JINJA_NEXT)
            r->flow = VL_JINJA_GO_ON;
    }
    r->flow = VL_JINJA_GO_ON;
    return items.list->n == 0 ? vl_jinja_execute(r, statement->otherwise) : VL_OK;
}

/* Statements whose output is a value. */
static vl_status capture(value *out, run *r, const node *body)
{
    vl_str text = VL_STR_INIT, *before = r->out;
    r->out = &text;
    vl_status status = vl_jinja_execute(r, body);
    r->out = before;
    if (status == VL_OK)
        return vl_jinja_finish(out, r, &text);
    vl_str_clear(&text);
    return status;
}

static vl_status run_set(run *r, const node *statement)
{
    value to;
    VL_TRY(statement->a ? vl_jinja_evaluate(&to, r, statement->a) : capture(&to, r, statement->body));
    return assign(r, statement, to);
}

static vl_status run_generation(run *r, const node *statement)
{
    size_t first = r->out->size;
    VL_TRY(vl_jinja_execute(r, statement->body));
    if ((r->n_spans & (r->n_spans - 1)) == 0) { /* full: 0, 1, 2, 4 ... */
        vl_jinja_span *spans = vl_jinja_alloc(r->arena, r->n_spans ? 2 * r->n_spans : 1, sizeof *spans);
        if (!spans)
            return vl_jinja_nomem(r);
        if (r->n_spans > 0)
            memcpy(spans, r->spans, r->n_spans * sizeof *spans);
        r->spans = spans;
    }
    r->spans[r->n_spans++] = (vl_jinja_span){first, r->out->size};
    return VL_OK;
}

static vl_status run_print(run *r, const node *statement)
{
    value shown;
    VL_TRY(vl_jinja_evaluate(&shown, r, statement->a));
    return vl_jinja_show(r->out, r, statement, shown);
}

static vl_status run_if(run *r, const node *statement)
{
    value condition;
    VL_TRY(vl_jinja_evaluate(&condition, r, statement->a));
    return vl_jinja_execute(r, vl_jinja_is_true(condition) ? statement->body : statement->otherwise);
}

static vl_status run_one(run *r, const node *n)
{
    switch (n->kind) {
    case VL_JINJA_RAW: vl_str_append(r->out, n->value.text, n->value.size); break;
    case VL_JINJA_PRINT: return run_print(r, n);
    case VL_JINJA_IF: return run_if(r, n);
    case VL_JINJA_FOR: return run_for(r, n);
    case VL_JINJA_SET: return run_set(r, n);
    case VL_JINJA_DEFINE: return set(r, n->value, (value){.kind = VL_JINJA_MACRO, .macro = n});
    case VL_JINJA_GENERATION: return run_generation(r, n);
    case VL_JINJA_BREAK: r->flow = VL_JINJA_LEAVE; break;
    case VL_JINJA_CONTINUE: r->flow = VL_JINJA_NEXT; break;
    default: return vl_jinja_fail(r, n, VL_EINTERNAL, "an expression where a statement is expected");
    }
    return VL_OK;
}

vl_status vl_jinja_execute(run *r, const node *n)
{
    if (++r->depth > VL_JINJA_DEPTH)
        return vl_jinja_fail(r, n, VL_EFORMAT, "calls are nested deeper than %d levels", VL_JINJA_DEPTH);
    for (; n && r->flow == VL_JINJA_GO_ON; n = n->next) {
        if (++r->steps > VL_JINJA_STEPS)
            return vl_jinja_fail(r, n, VL_EFORMAT, "rendering takes more than %d steps", VL_JINJA_STEPS);
        VL_TRY(run_one(r, n));
        if (r->out->failed || r->out->size > VL_JINJA_MEMORY)
            return vl_jinja_nomem(r);
    }
    r->depth--;
    return VL_OK;
}

/* A macro sees what is set outside of all loops, and its own parameters. */
vl_status vl_jinja_call_macro(value *out, run *r, const node *macro, const vl_jinja_call *call)
{
    vl_jinja_scope *before = r->scope;
    VL_TRY(open_scope(r, r->globals));
    for (int i = 0; i < macro->n_items; i++) {
        value name = macro->items[i]->value, given = {.kind = VL_JINJA_UNDEFINED};
        const value *keyword = vl_jinja_dict_get(call->keywords, name.text, name.size);
        if (i < call->n)
            given = call->arguments[i];
        else if (keyword)
            given = *keyword;
        else if (macro->c->items[i])
            VL_TRY(vl_jinja_evaluate(&given, r, macro->c->items[i]));
        VL_TRY(set(r, name, given));
    }
    VL_TRY(capture(out, r, macro->body));
    r->scope = before;
    return VL_OK;
}
