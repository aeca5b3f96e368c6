/* Patterns of tokenizer.json. Hugging Face runs them in Oniguruma with Ruby's syntax, we in PCRE2: where the two
 * read the same text differently the regex is rewritten, and where that cannot be done it is refused. */
#include "trainer/hf/tokenizer_parts.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"

struct rewrite {
    const char *at, *end;
    vl_str *out;
    bool in_class;
    const char *where;
};

/* Unicode's White_Space and Oniguruma's word characters; PCRE2's \s has U+180E too, its \w has no marks. Outside of
 * a class Oniguruma looks the first 256 characters up in a table where the Latin-1 numbers are a part of words. */
#define SPACE_ITEMS   "\\t-\\r\\x{85}\\p{Z}"
#define WORD_ITEMS    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define LATIN_NUMBERS "\\xb2\\xb3\\xb9\\xbc-\\xbe"
#define WORD          "[" WORD_ITEMS LATIN_NUMBERS "]"
#define HEX_ITEMS     "0-9a-fA-F"

static vl_status refuse(const struct rewrite *r, const char *what, vl_error *err)
{
    return vl_fail(err, VL_EUNSUPPORTED,
                   "%s: regex with %s (supported: groups, lookaround, quantifiers, plain character classes, \\p{..} "
                   "\\s \\S \\w \\W \\d \\D \\h \\b \\x \\u)",
                   r->where, what);
}

static vl_status put_set(struct rewrite *r, const char *items, bool negated, const char *escape, vl_error *err)
{
    if (r->in_class && negated)
        return refuse(r, escape, err);
    if (!r->in_class)
        vl_str_puts(r->out, negated ? "[^" : "[");
    vl_str_puts(r->out, items);
    if (!r->in_class)
        vl_str_putc(r->out, ']');
    return VL_OK;
}

/* Copies up to and with the next `stop`, so that its inside is not read as regex. */
static vl_status copy_through(struct rewrite *r, char stop, const char *what, vl_error *err)
{
    const char *close = memchr(r->at, stop, (size_t)(r->end - r->at));
    if (!close)
        return vl_fail(err, VL_EFORMAT, "%s: regex with an open %s", r->where, what);
    vl_str_append(r->out, r->at, (size_t)(close + 1 - r->at));
    r->at = close + 1;
    return VL_OK;
}

/* In PCRE2 \p{Han} takes in the characters that Han shares with other scripts, in Oniguruma it does not: where the
 * name is one of a script, "sc:" says the latter. */
static void put_script_prefix(struct rewrite *r)
{
    char test[64];
    const char *name = r->at, *close = memchr(name, '}', (size_t)(r->end - name));
    size_t size = close ? (size_t)(close - name) : 0;
    if (size > 0 && *name == '^') {
        vl_str_putc(r->out, *r->at++);
        name++;
        size--;
    }
    if (size < 3 || size > 40 || memchr(name, ':', size) || memchr(name, '=', size))
        return;
    int code, n = snprintf(test, sizeof test, "\\p{sc:%.*s}", (int)size, name);
    PCRE2_SIZE offset;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)test, (PCRE2_SIZE)n, PCRE2_UTF, &code, &offset, NULL);
    if (compiled)
        vl_str_puts(r->out, "sc:");
    pcre2_code_free(compiled);
}

static vl_status rewrite_escape(struct rewrite *r, vl_error *err)
{
    if (r->at == r->end)
        return vl_fail(err, VL_EFORMAT, "%s: regex that ends in a backslash", r->where);
    char c = *r->at++;
    switch (c) {
    case 's': return put_set(r, SPACE_ITEMS, false, "\\s", err);
    case 'w': return put_set(r, r->in_class ? WORD_ITEMS : WORD_ITEMS LATIN_NUMBERS, false, "\\w", err);
    case 'h': return put_set(r, HEX_ITEMS, false, "\\h", err);
    case 'W': return put_set(r, WORD_ITEMS LATIN_NUMBERS, true, "\\W in a character class", err);
    case 'H': return put_set(r, HEX_ITEMS, true, "\\H in a character class", err);
    case 'S':
        if (!r->in_class)
            return put_set(r, SPACE_ITEMS, true, "\\S", err);
        vl_str_puts(r->out, "\\S\\x{180e}"); /* PCRE2's \S plus the one character that it calls a space */
        return VL_OK;
    case 'b': /* a backspace in a class; elsewhere a border by the same notion of a word as \w */
        vl_str_puts(r->out, r->in_class ? "\\b" : "(?:(?<=" WORD ")(?!" WORD ")|(?<!" WORD ")(?=" WORD "))");
        return VL_OK;
    case 'B': vl_str_puts(r->out, "(?:(?<=" WORD ")(?=" WORD ")|(?<!" WORD ")(?!" WORD "))"); return VL_OK;
    case 'v': vl_str_puts(r->out, "\\x0b"); return VL_OK;
    case 'u':
        if (r->end - r->at < 4)
            return vl_fail(err, VL_EFORMAT, "%s: regex with a short \\u", r->where);
        vl_str_printf(r->out, "\\x{%.4s}", r->at);
        r->at += 4;
        return VL_OK;
    default: break;
    }
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (letter && !strchr("dDpPrntfaeAzZGx", c)) {
        char what[] = "the escape \\?";
        what[sizeof what - 2] = c;
        return refuse(r, what, err);
    }
    vl_str_putc(r->out, '\\');
    vl_str_putc(r->out, c);
    if (r->at == r->end || *r->at != '{' || !strchr("pPx", c))
        return VL_OK;
    if (c != 'x') {
        vl_str_putc(r->out, *r->at++);
        put_script_prefix(r);
    }
    return copy_through(r, '}', "brace", err);
}

/* "(?flags": Ruby's m is the dot that matches newlines, which PCRE2 calls s. */
static vl_status rewrite_group(struct rewrite *r, vl_error *err)
{
    vl_str_putc(r->out, '(');
    if (r->at == r->end || *r->at != '?')
        return r->at < r->end && *r->at == '*' ? refuse(r, "(*verb)", err) : VL_OK;
    const char *p = r->at + 1;
    while (p < r->end && strchr("imx-", *p) && *p)
        p++;
    if (p == r->end || (*p != ':' && *p != ')'))
        return VL_OK;
    for (; r->at < p; r->at++)
        vl_str_putc(r->out, *r->at == 'm' ? 's' : *r->at);
    return VL_OK;
}

static vl_status rewrite_quantifier(struct rewrite *r, vl_error *err)
{
    const char *start = r->at;
    VL_TRY(copy_through(r, '}', "brace", err));
    if (*start == ',')
        return refuse(r, "{,n} (write {0,n})", err);
    if (r->at < r->end && *r->at == '+')
        return refuse(r, "{n,m}+ (possessive in some engines, not in others)", err);
    return VL_OK;
}

/* [:name:] by what Oniguruma means with it; `at` stands behind the first bracket. */
static vl_status rewrite_posix(struct rewrite *r, vl_error *err)
{
    static const struct {
        const char *name, *items;
    } classes[] = {{":alpha:]", "\\p{Alphabetic}"}, {":alnum:]", "\\p{Alphabetic}\\p{Nd}"},
                   {":digit:]", "\\p{Nd}"},         {":punct:]", "\\p{P}"},
                   {":space:]", SPACE_ITEMS},       {":word:]", WORD_ITEMS},
                   {":upper:]", "\\p{Uppercase}"},  {":lower:]", "\\p{Lowercase}"}};
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        size_t size = strlen(classes[i].name);
        if ((size_t)(r->end - r->at) >= size && memcmp(r->at, classes[i].name, size) == 0) {
            vl_str_puts(r->out, classes[i].items);
            r->at += size;
            return VL_OK;
        }
    }
    return refuse(r, "another [:class:] than alpha, alnum, digit, punct, space, word, upper, lower", err);
}

static vl_status rewrite_in_class(struct rewrite *r, char c, vl_error *err)
{
    if (c == '[' && r->at < r->end && *r->at == ':')
        return rewrite_posix(r, err);
    if (c == '[')
        return refuse(r, "a class inside a class", err);
    if (c == '&' && r->at < r->end && *r->at == '&')
        return refuse(r, "&& in a class", err);
    vl_str_putc(r->out, c);
    r->in_class = c != ']';
    return VL_OK;
}

static vl_status rewrite_next(struct rewrite *r, vl_error *err)
{
    char c = *r->at++;
    if (c == '\\')
        return rewrite_escape(r, err);
    if (r->in_class)
        return rewrite_in_class(r, c, err);
    if (c == '(')
        return rewrite_group(r, err);
    vl_str_putc(r->out, c);
    if (c == '{')
        return rewrite_quantifier(r, err);
    if (c == '[') {
        r->in_class = true;
        if (r->at < r->end && *r->at == '^')
            vl_str_putc(r->out, *r->at++);
        if (r->at < r->end && *r->at == ']')
            vl_str_putc(r->out, *r->at++);
    }
    return VL_OK;
}

vl_status vl_regex_rewrite(vl_str *out, const char *regex, size_t size, const char *where, vl_error *err)
{
    struct rewrite r = {regex, regex + size, out, false, where};
    while (r.at < r.end)
        VL_TRY(rewrite_next(&r, err));
    return out->failed ? vl_fail_nomem(err, where) : VL_OK;
}
