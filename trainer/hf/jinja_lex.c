/* From the source of a template to tokens: where tags begin and end, and which white space around them goes. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "trainer/hf/jinja.h"

typedef struct lexer {
    const char *name, *text;
    size_t size, at;
    int line;
    bool line_starts; /* what was read last ended its line */
    vl_jinja_arena *arena;
    vl_jinja_token *tokens;
    size_t n, capacity;
    vl_error *err;
} lexer;

static vl_status fail(const lexer *x, const char *what)
{
    return vl_fail(x->err, VL_EFORMAT, "%s:%d: %s", x->name, x->line, what);
}

static vl_status emit(lexer *x, vl_jinja_token_kind kind, size_t first, size_t end)
{
    if (x->n == x->capacity) {
        size_t capacity = x->capacity ? 2 * x->capacity : 256;
        vl_jinja_token *tokens = vl_jinja_alloc(x->arena, capacity, sizeof *tokens);
        if (!tokens)
            return vl_fail(x->err, VL_ENOMEM, "%s: out of memory", x->name);
        if (x->n > 0)
            memcpy(tokens, x->tokens, x->n * sizeof *tokens);
        x->tokens = tokens;
        x->capacity = capacity;
    }
    x->tokens[x->n++] = (vl_jinja_token){kind, x->text + first, end - first, x->line};
    return VL_OK;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Moves on to `end` and counts its lines. */
static void advance(lexer *x, size_t end)
{
    for (; x->at < end; x->at++)
        x->line += x->text[x->at] == '\n';
    x->line_starts = end > 0 && x->text[end - 1] == '\n';
}

static bool at_text(const lexer *x, size_t at, const char *text)
{
    size_t n = strlen(text);
    return at + n <= x->size && memcmp(x->text + at, text, n) == 0;
}

/* Where text before a tag ends: "-" takes all white space, a block or comment what its line starts with. */
static size_t trim_before(const lexer *x, size_t first, size_t tag)
{
    char sign = tag + 2 < x->size ? x->text[tag + 2] : 0;
    size_t end = tag;
    while (end > first && is_space(x->text[end - 1]) && (sign == '-' || x->text[end - 1] != '\n'))
        end--;
    if (sign == '-')
        return end;
    bool whole_line = end == first ? x->line_starts : x->text[end - 1] == '\n';
    return sign != '+' && x->text[tag + 1] != '{' && whole_line ? end : tag;
}

/* Behind a tag that closes at x->at with `close` ("%}"), after its sign: "-" takes all white space, else the end of
 * the line goes where it follows at once (not behind a variable). */
static void skip_close(lexer *x, char sign, const char *close)
{
    size_t end = x->at + (sign ? 1 : 0) + 2;
    if (sign == '-')
        while (end < x->size && is_space(x->text[end]))
            end++;
    else if (!sign && close[0] != '}' && end < x->size && x->text[end] == '\n')
        end++;
    advance(x, end);
}

/* The sign with which a tag closes here; 0 where there is none, -1 where it does not close here. */
static int closes(const lexer *x, size_t at, const char *close)
{
    char sign = at < x->size ? x->text[at] : 0;
    if (at_text(x, at, close))
        return 0;
    return (sign == '-' || (sign == '+' && close[0] != '}')) && at_text(x, at + 1, close) ? sign : -1;
}

static vl_status skip_comment(lexer *x)
{
    size_t at = x->at + 2;
    int sign = -1;
    while (at < x->size && (sign = closes(x, at, "#}")) < 0)
        at++;
    if (sign < 0)
        return fail(x, "a comment is not closed");
    advance(x, at);
    skip_close(x, (char)sign, "#}");
    return VL_OK;
}

static vl_status read_string(lexer *x)
{
    char quote = x->text[x->at];
    size_t end = x->at + 1;
    while (end < x->size && x->text[end] != quote)
        end += x->text[end] == '\\' ? 2 : 1;
    if (end >= x->size)
        return fail(x, "a text is not closed");
    VL_TRY(emit(x, VL_JINJA_STRING, x->at + 1, end));
    advance(x, end + 1);
    return VL_OK;
}

static vl_status read_operator(lexer *x, int *open)
{
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    size_t n = 1;
    char c = x->text[x->at];
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        n = at_text(x, x->at, two[i]) ? 2 : n;
    if (!strchr("+-*/%~[](){}><=.:|,;!", c) || (c == '!' && n == 1))
        return vl_fail(x->err, VL_EFORMAT, "%s:%d: unexpected character \"%c\"", x->name, x->line,
                       isprint((unsigned char)c) ? c : '?');
    *open += n == 1 && strchr("[({", c) ? 1 : n == 1 && strchr("])}", c) ? -1 : 0;
    VL_TRY(emit(x, VL_JINJA_OPERATOR, x->at, x->at + n));
    advance(x, x->at + n);
    return VL_OK;
}

static vl_status read_word(lexer *x)
{
    size_t end = x->at;
    bool number = isdigit((unsigned char)x->text[x->at]);
    while (end < x->size &&
           (isalnum((unsigned char)x->text[end]) || x->text[end] == '_' ||
            (number && x->text[end] == '.' && end + 1 < x->size && isdigit((unsigned char)x->text[end + 1]))))
        end++;
    VL_TRY(emit(x, number ? VL_JINJA_NUMBER : VL_JINJA_NAME, x->at, end));
    advance(x, end);
    return VL_OK;
}

/* A tag from behind its opening to behind its closing. Braces that are open hide a closing. */
static vl_status read_tag(lexer *x, const char *close, vl_jinja_token_kind end)
{
    int open = 0;
    while (x->at < x->size) {
        int sign = open > 0 ? -1 : closes(x, x->at, close);
        char c = x->text[x->at];
        if (sign >= 0) {
            VL_TRY(emit(x, end, x->at, x->at));
            skip_close(x, (char)sign, close);
            return VL_OK;
        }
        if (is_space(c))
            advance(x, x->at + 1);
        else if (c == '"' || c == '\'')
            VL_TRY(read_string(x));
        else if (isalnum((unsigned char)c) || c == '_')
            VL_TRY(read_word(x));
        else
            VL_TRY(read_operator(x, &open));
    }
    return fail(x, "a tag is not closed");
}

static size_t find_tag(const lexer *x)
{
    for (size_t at = x->at; at + 1 < x->size; at++)
        if (x->text[at] == '{' && strchr("{%#", x->text[at + 1]) && x->text[at + 1])
            return at;
    return x->size;
}

static vl_status read_all(lexer *x)
{
    while (x->at < x->size) {
        size_t tag = find_tag(x), end = tag < x->size ? trim_before(x, x->at, tag) : tag;
        if (end > x->at)
            VL_TRY(emit(x, VL_JINJA_DATA, x->at, end));
        advance(x, tag);
        if (tag == x->size)
            break;
        char kind = x->text[tag + 1];
        if (kind == '#') {
            VL_TRY(skip_comment(x));
            continue;
        }
        char sign = tag + 2 < x->size ? x->text[tag + 2] : 0;
        VL_TRY(emit(x, kind == '{' ? VL_JINJA_VARIABLE_BEGIN : VL_JINJA_BLOCK_BEGIN, tag, tag + 2));
        advance(x, tag + (sign == '-' || (sign == '+' && kind == '%') ? 3 : 2));
        VL_TRY(kind == '{' ? read_tag(x, "}}", VL_JINJA_VARIABLE_END) : read_tag(x, "%}", VL_JINJA_BLOCK_END));
    }
    return emit(x, VL_JINJA_END, x->size, x->size);
}

vl_status vl_jinja_lex(const vl_jinja_token **out, vl_jinja_arena *arena, const char *name, const char *source,
                       size_t size, vl_error *err)
{
    lexer x = {.name = name, .line = 1, .line_starts = true, .arena = arena, .err = err};
    if (size > VL_JINJA_SOURCE_BYTES)
        return vl_fail(err, VL_EFORMAT, "%s: a template of %zu bytes, at most %d are read", name, size,
                       VL_JINJA_SOURCE_BYTES);
    /* Line ends become "\n", and the last one goes. */
    char *text = vl_jinja_alloc(arena, size + 1, 1);
    if (!text)
        return vl_fail(err, VL_ENOMEM, "%s: out of memory", name);
    for (size_t i = 0; i < size; i++) {
        bool carriage = source[i] == '\r';
        text[x.size++] = carriage ? '\n' : source[i];
        i += carriage && i + 1 < size && source[i + 1] == '\n';
    }
    x.size -= x.size > 0 && text[x.size - 1] == '\n';
    x.text = text;
    VL_TRY(read_all(&x));
    *out = x.tokens;
    return VL_OK;
}
