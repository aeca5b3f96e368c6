/* The expressions of a template, by rising strength: if-else, or, and, not, comparison, + -, ~, * / // %, sign, and
 * what follows an operand: .name, [index], (call), |filter, is test. */
#include <stdlib.h>
#include <string.h>

#include "trainer/hf/jinja.h"

typedef vl_jinja_parser parser;
typedef vl_jinja_node node;

static vl_status parse_unary(node **out, parser *p, bool with_filters);

static bool take_operator(parser *p, const char *text)
{
    return vl_jinja_take(p, VL_JINJA_OPERATOR, text);
}

static bool take_name(parser *p, const char *text)
{
    return vl_jinja_take(p, VL_JINJA_NAME, text);
}

/* *out = (*out operator b). */
static vl_status join(node **out, parser *p, vl_jinja_node_kind kind, const char *name, node *b)
{
    node *joined;
    VL_TRY(vl_jinja_node_new(&joined, p, kind));
    joined->a = *out;
    joined->b = b;
    joined->value = vl_jinja_string(name);
    *out = joined;
    return VL_OK;
}

/* ---- operands ---------------------------------------------------------------------------------------------- */

static void put_utf8(vl_str *out, unsigned long code)
{
    if (code < 0x80) {
        vl_str_putc(out, (char)code);
    } else if (code < 0x800) {
        vl_str_putc(out, (char)(0xc0 | code >> 6));
        vl_str_putc(out, (char)(0x80 | (code & 0x3f)));
    } else {
        vl_str_putc(out, (char)(0xe0 | code >> 12));
        vl_str_putc(out, (char)(0x80 | (code >> 6 & 0x3f)));
        vl_str_putc(out, (char)(0x80 | (code & 0x3f)));
    }
}

/* The escapes of a Python text; those that are not known stay as they are written. */
static void unescape(vl_str *out, const char *text, size_t size)
{
    static const char from[] = "ntrfvab\\'\"", to[] = "\n\t\r\f\v\a\b\\'\"";
    for (size_t i = 0; i < size; i++) {
        const char *at = text[i] == '\\' && i + 1 < size ? strchr(from, text[i + 1]) : NULL;
        size_t digits = text[i] == '\\' && i + 1 < size ? (text[i + 1] == 'x' ? 2 : text[i + 1] == 'u' ? 4 : 0) : 0;
        if (at && *at) {
            vl_str_putc(out, to[at - from]);
            i++;
        } else if (digits > 0 && i + 1 + digits < size) {
            char hex[5] = {0};
            memcpy(hex, text + i + 2, digits);
            put_utf8(out, strtoul(hex, NULL, 16));
            i += 1 + digits;
        } else {
            vl_str_putc(out, text[i]);
        }
    }
}

/* Texts that stand side by side are one. */
static vl_status parse_string(node **out, parser *p)
{
    vl_str text = VL_STR_INIT;
    VL_TRY(vl_jinja_node_new(out, p, VL_JINJA_CONSTANT));
    while (vl_jinja_peek(p, VL_JINJA_STRING, NULL)) {
        const vl_jinja_token *t = &p->tokens[p->at++];
        unescape(&text, t->text, t->size);
    }
    char *copy = text.failed ? NULL : vl_jinja_alloc(p->arena, text.size + 1, 1);
    if (copy && text.size > 0)
        memcpy(copy, text.data, text.size);
    if (copy)
        (*out)->value = vl_jinja_text(copy, text.size);
    vl_str_clear(&text);
    return copy ? VL_OK : vl_fail(p->err, VL_ENOMEM, "%s: out of memory", p->name);
}

static vl_status parse_number(node **out, parser *p)
{
    char digits[40] = {0};
    const vl_jinja_token *t = &p->tokens[p->at++];
    VL_TRY(vl_jinja_node_new(out, p, VL_JINJA_CONSTANT));
    size_t n = 0;
    for (size_t i = 0; i < t->size && n + 1 < sizeof digits; i++)
        if (t->text[i] != '_')
            digits[n++] = t->text[i];
    char *end;
    if (memchr(t->text, '.', t->size))
        (*out)->value = (vl_jinja_value){.kind = VL_JINJA_FLOAT, .real = strtod(digits, &end)};
    else
        (*out)->value = vl_jinja_int(strtoll(digits, &end, 10));
    return *end ? vl_fail(p->err, VL_EFORMAT, "%s:%d: \"%s\" is no number", p->name, t->line, digits) : VL_OK;
}

static vl_status parse_word(node **out, parser *p)
{
    const vl_jinja_token *t = &p->tokens[p->at++];
    vl_jinja_value name = vl_jinja_text(t->text, t->size);
    bool yes = vl_jinja_is(name, "true") || vl_jinja_is(name, "True");
    bool no = vl_jinja_is(name, "false") || vl_jinja_is(name, "False");
    bool none = vl_jinja_is(name, "none") || vl_jinja_is(name, "None");
    VL_TRY(vl_jinja_node_new(out, p, yes || no || none ? VL_JINJA_CONSTANT : VL_JINJA_VARIABLE));
    (*out)->value = yes || no ? vl_jinja_bool(yes) : none ? vl_jinja_none() : name;
    return VL_OK;
}

/* Expressions up to `close`, between commas. */
static vl_status parse_list(node *list, parser *p, const char *close)
{
    while (!take_operator(p, close)) {
        node *item;
        VL_TRY(vl_jinja_parse_expression(&item, p));
        VL_TRY(vl_jinja_node_add(&list->items, &list->n_items, p, item));
        if (!take_operator(p, ",")) {
            VL_TRY(vl_jinja_expect(p, VL_JINJA_OPERATOR, close));
            break;
        }
    }
    return VL_OK;
}

/* "(x)" is x, "(x, y)" a tuple. */
static vl_status parse_parentheses(node **out, parser *p)
{
    node *list;
    VL_TRY(vl_jinja_node_new(&list, p, VL_JINJA_MAKE_LIST));
    VL_TRY(parse_list(list, p, ")"));
    const vl_jinja_token *before = &p->tokens[p->at - 2];
    bool comma = before->kind == VL_JINJA_OPERATOR && before->size == 1 && before->text[0] == ',';
    *out = list->n_items == 1 && !comma ? list->items[0] : list;
    return VL_OK;
}

static vl_status parse_dict(node *dict, parser *p)
{
    while (!take_operator(p, "}")) {
        node *key, *value;
        if (dict->n_items > 0) {
            VL_TRY(vl_jinja_expect(p, VL_JINJA_OPERATOR, ","));
            if (take_operator(p, "}"))
                break;
        }
        VL_TRY(vl_jinja_parse_expression(&key, p));
        VL_TRY(vl_jinja_expect(p, VL_JINJA_OPERATOR, ":"));
        VL_TRY(vl_jinja_parse_expression(&value, p));
        VL_TRY(vl_jinja_node_add(&dict->items, &dict->n_items, p, key));
        VL_TRY(vl_jinja_node_add(&dict->items, &dict->n_items, p, value));
    }
    return VL_OK;
}

static vl_status parse_primary(node **out, parser *p)
{
    if (vl_jinja_peek(p, VL_JINJA_STRING, NULL))
        return parse_string(out, p);
    if (vl_jinja_peek(p, VL_JINJA_NUMBER, NULL))
        return parse_number(out, p);
    if (vl_jinja_peek(p, VL_JINJA_NAME, NULL))
        return parse_word(out, p);
    if (take_operator(p, "("))
        return parse_parentheses(out, p);
    if (take_operator(p, "[")) {
        VL_TRY(vl_jinja_node_new(out, p, VL_JINJA_MAKE_LIST));
        return parse_list(*out, p, "]");
    }
    if (take_operator(p, "{")) {
        VL_TRY(vl_jinja_node_new(out, p, VL_JINJA_MAKE_DICT));
        return parse_dict(*out, p);
    }
    return vl_jinja_expect(p, VL_JINJA_NAME, NULL); /* fails, and says what stands here */
}

/* ---- what follows an operand ------------------------------------------------------------------------------- */

/* Behind "(": arguments, then "name=value". */
static vl_status parse_arguments(node *call, parser *p)
{
    while (!take_operator(p, ")")) {
        node *name, *value;
        if (call->n_items + call->n_named > 0)
            VL_TRY(vl_jinja_expect(p, VL_JINJA_OPERATOR, ","));
        if (take_operator(p, ")"))
            break;
        const vl_jinja_token *after = &p->tokens[p->at];
        bool named = after->kind == VL_JINJA_NAME && after[1].kind == VL_JINJA_OPERATOR && after[1].size == 1 &&
                     after[1].text[0] == '=';
        if (named) {
            VL_TRY(vl_jinja_node_new(&name, p, VL_JINJA_CONSTANT));
            name->value = vl_jinja_text(after->text, after->size);
            p->at += 2;
        }
        VL_TRY(vl_jinja_parse_expression(&value, p));
        if (named) {
            VL_TRY(vl_jinja_node_add(&call->named, &call->n_named, p, name));
            VL_TRY(vl_jinja_node_add(&call->named, &call->n_named, p, value));
        } else {
            VL_TRY(vl_jinja_node_add(&call->items, &call->n_items, p, value));
        }
    }
    return VL_OK;
}

/* Behind "[": an index, or first:end:step with any of them left out. */
static vl_status parse_index(node **out, parser *p)
{
    node *parts[3] = {NULL, NULL, NULL}, *index;
    int n = 0;
    bool slice = false;
    for (;;) {
        if (!vl_jinja_peek(p, VL_JINJA_OPERATOR, ":") && !vl_jinja_peek(p, VL_JINJA_OPERATOR, "]"))
            VL_TRY(vl_jinja_parse_expression(&parts[n], p));
        if (n == 2 || !take_operator(p, ":"))
            break;
        slice = true;
        n++;
    }
    VL_TRY(vl_jinja_expect(p, VL_JINJA_OPERATOR, "]"));
    VL_TRY(vl_jinja_node_new(&index, p, slice ? VL_JINJA_SLICE : VL_JINJA_ITEM));
    index->a = *out;
    index->b = parts[0];
    for (int i = 0; i < 3 && slice; i++)
        VL_TRY(vl_jinja_node_add(&index->items, &index->n_items, p, parts[i]));
    *out = index;
    return slice || parts[0] ? VL_OK : vl_fail(p->err, VL_EFORMAT, "%s:%d: an empty index", p->name, index->line);
}

static vl_status parse_call(node **out, parser *p)
{
    VL_TRY(join(out, p, VL_JINJA_CALL, "", NULL));
    return parse_arguments(*out, p);
}

/* Names may hold dots. */
static vl_status parse_filter(node **out, parser *p)
{
    const vl_jinja_token *t = &p->tokens[p->at];
    VL_TRY(vl_jinja_expect(p, VL_JINJA_NAME, NULL));
    VL_TRY(join(out, p, VL_JINJA_FILTER, "", NULL));
    (*out)->value = vl_jinja_text(t->text, t->size);
    return take_operator(p, "(") ? parse_arguments(*out, p) : VL_OK;
}

/* Behind "is": not, the name, and its argument with or without parentheses. */
static vl_status parse_test(node **out, parser *p)
{
    bool negated = take_name(p, "not");
    const vl_jinja_token *t = &p->tokens[p->at];
    VL_TRY(vl_jinja_expect(p, VL_JINJA_NAME, NULL));
    VL_TRY(join(out, p, VL_JINJA_TEST, "", NULL));
    node *test = *out;
    test->value = vl_jinja_text(t->text, t->size);
    if (take_operator(p, "(")) {
        VL_TRY(parse_arguments(test, p));
    } else {
        const vl_jinja_token *next = &p->tokens[p->at];
        static const char *const words[] = {"else", "or", "and", "if", "is", "not", "in"};
        bool operand = next->kind == VL_JINJA_NAME || next->kind == VL_JINJA_STRING || next->kind == VL_JINJA_NUMBER ||
                       (next->kind == VL_JINJA_OPERATOR && next->size == 1 && strchr("[{", next->text[0]));
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            operand = operand && !vl_jinja_peek(p, VL_JINJA_NAME, words[i]);
        if (operand) {
            node *argument;
            VL_TRY(parse_unary(&argument, p, false));
            VL_TRY(vl_jinja_node_add(&test->items, &test->n_items, p, argument));
        }
    }
    return negated ? join(out, p, VL_JINJA_UNARY, "not", NULL) : VL_OK;
}

static vl_status parse_unary(node **out, parser *p, bool with_filters)
{
    const char *sign = take_operator(p, "-") ? "-" : take_operator(p, "+") ? "+" : NULL;
    if (++p->depth > VL_JINJA_DEPTH)
        return vl_fail(p->err, VL_EFORMAT, "%s:%d: nested deeper than %d levels", p->name, p->tokens[p->at].line,
                       VL_JINJA_DEPTH);
    VL_TRY(sign ? parse_unary(out, p, false) : parse_primary(out, p));
    if (sign)
        VL_TRY(join(out, p, VL_JINJA_UNARY, sign, NULL));
    for (;;) {
        if (take_operator(p, ".")) {
            const vl_jinja_token *t = &p->tokens[p->at];
            if (!vl_jinja_take(p, VL_JINJA_NUMBER, NULL))
                VL_TRY(vl_jinja_expect(p, VL_JINJA_NAME, NULL));
            VL_TRY(join(out, p, VL_JINJA_ATTRIBUTE, "", NULL));
            (*out)->value = vl_jinja_text(t->text, t->size);
        } else if (take_operator(p, "[")) {
            VL_TRY(parse_index(out, p));
        } else if (take_operator(p, "(")) {
            VL_TRY(parse_call(out, p));
        } else if (with_filters && take_operator(p, "|")) {
            VL_TRY(parse_filter(out, p));
        } else if (with_filters && take_name(p, "is")) {
            VL_TRY(parse_test(out, p));
        } else {
            break;
        }
    }
    p->depth--;
    return VL_OK;
}

/* ---- operators --------------------------------------------------------------------------------------------- */

/* Operators of one strength, from left to right; levels: 0 "+ -", 1 "~", 2 "* / // %". */
static vl_status parse_arithmetic(node **out, parser *p, int level)
{
    static const char *const operators[3][5] = {{"+", "-"}, {"~"}, {"*", "/", "//", "%"}};
    VL_TRY(level == 2 ? parse_unary(out, p, true) : parse_arithmetic(out, p, level + 1));
    for (;;) {
        const char *found = NULL;
        node *b;
        for (int i = 0; operators[level][i] && !found; i++)
            found = take_operator(p, operators[level][i]) ? operators[level][i] : NULL;
        if (!found)
            return VL_OK;
        VL_TRY(level == 2 ? parse_unary(&b, p, true) : parse_arithmetic(&b, p, level + 1));
        VL_TRY(join(out, p, VL_JINJA_BINARY, found, b));
    }
}

static const char *take_comparison(parser *p)
{
    static const char *const operators[] = {"==", "!=", "<=", ">=", "<", ">"};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (take_operator(p, operators[i]))
            return operators[i];
    if (take_name(p, "in"))
        return "in";
    if (vl_jinja_peek(p, VL_JINJA_NAME, "not") && p->tokens[p->at + 1].kind == VL_JINJA_NAME &&
        p->tokens[p->at + 1].size == 2 && memcmp(p->tokens[p->at + 1].text, "in", 2) == 0) {
        p->at += 2;
        return "not in";
    }
    return NULL;
}

/* a < b < c is a < b and b < c. */
static vl_status parse_comparison(node **out, parser *p)
{
    node *left, *whole = NULL;
    VL_TRY(parse_arithmetic(out, p, 0));
    left = *out;
    for (const char *name; (name = take_comparison(p));) {
        node *right, *one = left;
        VL_TRY(parse_arithmetic(&right, p, 0));
        VL_TRY(join(&one, p, VL_JINJA_COMPARE, name, right));
        if (whole)
            VL_TRY(join(&whole, p, VL_JINJA_BINARY, "and", one));
        else
            whole = one;
        left = right;
    }
    if (whole)
        *out = whole;
    return VL_OK;
}

static vl_status parse_not(node **out, parser *p)
{
    if (!take_name(p, "not"))
        return parse_comparison(out, p);
    if (++p->depth > VL_JINJA_DEPTH)
        return vl_fail(p->err, VL_EFORMAT, "%s: nested deeper than %d levels", p->name, VL_JINJA_DEPTH);
    VL_TRY(parse_not(out, p));
    p->depth--;
    return join(out, p, VL_JINJA_UNARY, "not", NULL);
}

static vl_status parse_and(node **out, parser *p)
{
    VL_TRY(parse_not(out, p));
    for (node *b; take_name(p, "and");) {
        VL_TRY(parse_not(&b, p));
        VL_TRY(join(out, p, VL_JINJA_BINARY, "and", b));
    }
    return VL_OK;
}

static vl_status parse_or(node **out, parser *p)
{
    VL_TRY(parse_and(out, p));
    for (node *b; take_name(p, "or");) {
        VL_TRY(parse_and(&b, p));
        VL_TRY(join(out, p, VL_JINJA_BINARY, "or", b));
    }
    return VL_OK;
}

vl_status vl_jinja_parse_expression(node **out, parser *p)
{
    if (++p->depth > VL_JINJA_DEPTH)
        return vl_fail(p->err, VL_EFORMAT, "%s: nested deeper than %d levels", p->name, VL_JINJA_DEPTH);
    VL_TRY(parse_or(out, p));
    while (take_name(p, "if")) {
        node *condition;
        VL_TRY(parse_or(&condition, p));
        VL_TRY(join(out, p, VL_JINJA_CONDITION, "", condition));
        if (take_name(p, "else"))
            VL_TRY(vl_jinja_parse_expression(&(*out)->c, p));
    }
    p->depth--;
    return VL_OK;
}
