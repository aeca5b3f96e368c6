/* The statements of a template. */
#include <string.h>

#include "trainer/hf/jinja.h"

typedef vl_jinja_parser parser;
typedef vl_jinja_node node;

static const vl_jinja_token *token(const parser *p)
{
    return &p->tokens[p->at];
}

static bool is_text(const vl_jinja_token *t, const char *text)
{
    return t->size == strlen(text) && memcmp(t->text, text, t->size) == 0;
}

bool vl_jinja_peek(const parser *p, vl_jinja_token_kind kind, const char *text)
{
    return token(p)->kind == kind && (!text || is_text(token(p), text));
}

bool vl_jinja_take(parser *p, vl_jinja_token_kind kind, const char *text)
{
    bool found = vl_jinja_peek(p, kind, text);
    p->at += found && kind != VL_JINJA_END;
    return found;
}

vl_status vl_jinja_expect(parser *p, vl_jinja_token_kind kind, const char *text)
{
    const vl_jinja_token *t = token(p);
    if (vl_jinja_take(p, kind, text))
        return VL_OK;
    if (!text)
        text = kind == VL_JINJA_BLOCK_END ? "%}" : kind == VL_JINJA_VARIABLE_END ? "}}" : "a name";
    bool end = t->kind == VL_JINJA_BLOCK_END || t->kind == VL_JINJA_VARIABLE_END || t->kind == VL_JINJA_END;
    return vl_fail(p->err, VL_EFORMAT, "%s:%d: \"%.*s\", expected %s", p->name, t->line,
                   end ? 10 : (int)(t->size < 60 ? t->size : 60), end ? "end of tag" : t->text, text);
}

vl_status vl_jinja_node_new(node **out, parser *p, vl_jinja_node_kind kind)
{
    *out = vl_jinja_alloc(p->arena, 1, sizeof **out);
    if (!*out)
        return vl_fail(p->err, VL_ENOMEM, "%s: out of memory", p->name);
    (*out)->kind = kind;
    (*out)->line = token(p)->line;
    return VL_OK;
}

vl_status vl_jinja_node_add(node ***items, int *n, parser *p, node *item)
{
    if (*n == 0 || (*n >= 4 && (*n & (*n - 1)) == 0)) { /* full: 0, 4, 8, 16 ... */
        node **larger = vl_jinja_alloc(p->arena, *n ? 2 * (size_t)*n : 4, sizeof *larger);
        if (!larger)
            return vl_fail(p->err, VL_ENOMEM, "%s: out of memory", p->name);
        if (*n > 0)
            memcpy(larger, *items, (size_t)*n * sizeof *larger);
        *items = larger;
    }
    (*items)[(*n)++] = item;
    return VL_OK;
}

static vl_status parse_body(node **out, parser *p, const char *const *ends);

static vl_status parse_name(vl_jinja_value *out, parser *p)
{
    const vl_jinja_token *t = token(p);
    VL_TRY(vl_jinja_expect(p, VL_JINJA_NAME, NULL));
    *out = vl_jinja_text(t->text, t->size);
    return VL_OK;
}

/* "a", "a, b", "(a, b)" or, of set, "a.b". */
static vl_status parse_targets(node *statement, parser *p, bool attributes)
{
    bool enclosed = vl_jinja_take(p, VL_JINJA_OPERATOR, "(");
    do {
        node *target;
        VL_TRY(vl_jinja_node_new(&target, p, VL_JINJA_VARIABLE));
        VL_TRY(parse_name(&target->value, p));
        if (attributes && vl_jinja_take(p, VL_JINJA_OPERATOR, ".")) {
            node *object = target;
            VL_TRY(vl_jinja_node_new(&target, p, VL_JINJA_ATTRIBUTE));
            target->a = object;
            VL_TRY(parse_name(&target->value, p));
        }
        VL_TRY(vl_jinja_node_add(&statement->items, &statement->n_items, p, target));
    } while (vl_jinja_take(p, VL_JINJA_OPERATOR, ","));
    return enclosed ? vl_jinja_expect(p, VL_JINJA_OPERATOR, ")") : VL_OK;
}

/* The name of the tag that ended a body is the next token: "else", "endif" ... */
static vl_status close_block(parser *p, const char *name)
{
    VL_TRY(vl_jinja_expect(p, VL_JINJA_NAME, name));
    return vl_jinja_expect(p, VL_JINJA_BLOCK_END, NULL);
}

static vl_status parse_if(node *statement, parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const last[] = {"endif", NULL};
    VL_TRY(vl_jinja_parse_expression(&statement->a, p));
    VL_TRY(vl_jinja_expect(p, VL_JINJA_BLOCK_END, NULL));
    VL_TRY(parse_body(&statement->body, p, ends));
    if (vl_jinja_take(p, VL_JINJA_NAME, "elif")) {
        VL_TRY(vl_jinja_node_new(&statement->otherwise, p, VL_JINJA_IF));
        return parse_if(statement->otherwise, p);
    }
    if (vl_jinja_take(p, VL_JINJA_NAME, "else")) {
        VL_TRY(vl_jinja_expect(p, VL_JINJA_BLOCK_END, NULL));
        VL_TRY(parse_body(&statement->otherwise, p, last));
    }
    return close_block(p, "endif");
}

static vl_status parse_for(node *statement, parser *p)
{
    static const char *const ends[] = {"else", "endfor", NULL}, *const last[] = {"endfor", NULL};
    VL_TRY(parse_targets(statement, p, false));
    VL_TRY(vl_jinja_expect(p, VL_JINJA_NAME, "in"));
    VL_TRY(vl_jinja_parse_expression(&statement->a, p)); /* takes "x if y" too: told apart here */
    if (statement->a->kind == VL_JINJA_CONDITION && !statement->a->c) {
        statement->b = statement->a->b;
        statement->a = statement->a->a;
    }
    VL_TRY(vl_jinja_expect(p, VL_JINJA_BLOCK_END, NULL));
    VL_TRY(parse_body(&statement->body, p, ends));
    if (vl_jinja_take(p, VL_JINJA_NAME, "else")) {
        VL_TRY(vl_jinja_expect(p, VL_JINJA_BLOCK_END, NULL));
        VL_TRY(parse_body(&statement->otherwise, p, last));
    }
    return close_block(p, "endfor");
}

static vl_status parse_set(node *statement, parser *p)
{
    static const char *const ends[] = {"endset", NULL};
    VL_TRY(parse_targets(statement, p, true));
    if (vl_jinja_take(p, VL_JINJA_OPERATOR, "=")) {
        VL_TRY(vl_jinja_parse_expression(&statement->a, p));
        return vl_jinja_expect(p, VL_JINJA_BLOCK_END, NULL);
    }
    VL_TRY(vl_jinja_expect(p, VL_JINJA_BLOCK_END, NULL));
    VL_TRY(parse_body(&statement->body, p, ends));
    return close_block(p, "endset");
}

static vl_status parse_macro(node *statement, parser *p)
{
    static const char *const ends[] = {"endmacro", NULL};
    VL_TRY(parse_name(&statement->value, p));
    VL_TRY(vl_jinja_node_new(&statement->c, p, VL_JINJA_MAKE_LIST)); /* of the defaults */
    VL_TRY(vl_jinja_expect(p, VL_JINJA_OPERATOR, "("));
    while (!vl_jinja_take(p, VL_JINJA_OPERATOR, ")")) {
        node *parameter, *initial = NULL;
        if (statement->n_items > 0)
            VL_TRY(vl_jinja_expect(p, VL_JINJA_OPERATOR, ","));
        VL_TRY(vl_jinja_node_new(&parameter, p, VL_JINJA_VARIABLE));
        VL_TRY(parse_name(&parameter->value, p));
        if (vl_jinja_take(p, VL_JINJA_OPERATOR, "="))
            VL_TRY(vl_jinja_parse_expression(&initial, p));
        VL_TRY(vl_jinja_node_add(&statement->items, &statement->n_items, p, parameter));
        VL_TRY(vl_jinja_node_add(&statement->c->items, &statement->c->n_items, p, initial));
    }
    VL_TRY(vl_jinja_expect(p, VL_JINJA_BLOCK_END, NULL));
    VL_TRY(parse_body(&statement->body, p, ends));
    VL_TRY(vl_jinja_expect(p, VL_JINJA_NAME, "endmacro"));
    vl_jinja_take(p, VL_JINJA_NAME, NULL); /* its name may stand here again */
    return vl_jinja_expect(p, VL_JINJA_BLOCK_END, NULL);
}

static vl_status parse_generation(node *statement, parser *p)
{
    static const char *const ends[] = {"endgeneration", NULL};
    VL_TRY(vl_jinja_expect(p, VL_JINJA_BLOCK_END, NULL));
    VL_TRY(parse_body(&statement->body, p, ends));
    return close_block(p, "endgeneration");
}

static vl_status parse_leave(node *statement, parser *p)
{
    (void)statement;
    return vl_jinja_expect(p, VL_JINJA_BLOCK_END, NULL);
}

/* Behind "{%". */
static vl_status parse_block(node **out, parser *p)
{
    static const struct {
        const char *name;
        vl_jinja_node_kind kind;
        vl_status (*parse)(node *statement, parser *p);
    } blocks[] = {
        {"if", VL_JINJA_IF, parse_if},
        {"for", VL_JINJA_FOR, parse_for},
        {"set", VL_JINJA_SET, parse_set},
        {"macro", VL_JINJA_DEFINE, parse_macro},
        {"generation", VL_JINJA_GENERATION, parse_generation},
        {"break", VL_JINJA_BREAK, parse_leave},
        {"continue", VL_JINJA_CONTINUE, parse_leave},
    };
    const vl_jinja_token *t = token(p);
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (vl_jinja_take(p, VL_JINJA_NAME, blocks[i].name)) {
            VL_TRY(vl_jinja_node_new(out, p, blocks[i].kind));
            return blocks[i].parse(*out, p);
        }
    return vl_fail(p->err, VL_EUNSUPPORTED,
                   "%s:%d: the statement \"%.*s\" (supported: if, for, set, macro, generation, break, continue)",
                   p->name, t->line, (int)(t->size < 60 ? t->size : 60), t->text);
}

static bool at_end(const parser *p, const char *const *ends)
{
    for (; *ends; ends++)
        if (is_text(token(p), *ends))
            return true;
    return false;
}

static vl_status parse_statement(node **out, parser *p)
{
    const vl_jinja_token *t = token(p);
    if (vl_jinja_take(p, VL_JINJA_DATA, NULL)) {
        VL_TRY(vl_jinja_node_new(out, p, VL_JINJA_RAW));
        (*out)->value = vl_jinja_text(t->text, t->size);
        return VL_OK;
    }
    if (vl_jinja_take(p, VL_JINJA_VARIABLE_BEGIN, NULL)) {
        VL_TRY(vl_jinja_node_new(out, p, VL_JINJA_PRINT));
        VL_TRY(vl_jinja_parse_expression(&(*out)->a, p));
        return vl_jinja_expect(p, VL_JINJA_VARIABLE_END, NULL);
    }
    return parse_block(out, p);
}

/* Statements up to a tag named in `ends` (whose "{%" is taken), or with NULL to the end of the source. */
static vl_status parse_body(node **out, parser *p, const char *const *ends)
{
    *out = NULL;
    if (++p->depth > VL_JINJA_DEPTH)
        return vl_fail(p->err, VL_EFORMAT, "%s:%d: nested deeper than %d levels", p->name, token(p)->line,
                       VL_JINJA_DEPTH);
    for (;;) {
        if (vl_jinja_peek(p, VL_JINJA_END, NULL)) {
            p->depth--;
            return ends ? vl_fail(p->err, VL_EFORMAT, "%s:%d: the template ends, expected {%% %s %%}", p->name,
                                  token(p)->line, *ends)
                        : VL_OK;
        }
        if (vl_jinja_take(p, VL_JINJA_BLOCK_BEGIN, NULL) && ends && at_end(p, ends)) {
            p->depth--;
            return VL_OK;
        }
        VL_TRY(parse_statement(out, p));
        out = &(*out)->next;
    }
}

vl_status vl_jinja_parse(node **out, vl_jinja_arena *arena, const char *name, const vl_jinja_token *tokens,
                         vl_error *err)
{
    parser p = {.name = name, .tokens = tokens, .arena = arena, .err = err};
    return parse_body(out, &p, NULL);
}
