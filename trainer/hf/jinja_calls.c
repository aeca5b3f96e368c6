/* Methods of texts and mappings, and the functions that transformers adds. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "trainer/hf/jinja.h"

typedef vl_jinja_run run;
typedef vl_jinja_call call;
typedef vl_jinja_value value;

/* ---- texts ------------------------------------------------------------------------------------------------- */

/* The text of argument i; an error where it is no text, empty where it is not given. */
static vl_status text_argument(value *out, run *r, const call *c, int i)
{
    const value *given = vl_jinja_argument(c, i, NULL);
    *out = given ? *given : vl_jinja_string("");
    return out->kind == VL_JINJA_TEXT ? VL_OK
                                      : vl_jinja_fail(r, c->node, VL_EFORMAT, "%.*s with %s", (int)c->name_size,
                                                      c->name, vl_jinja_kind_name(out->kind));
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1c' && c <= '\x1f');
}

/* The letters beyond ASCII that Python's str.strip() takes for white space. */
static const char *const WIDE_SPACES[] = {"\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003",
                                          "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009",
                                          "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};

/* Bytes at the start (or end) of a text that are to be stripped; 0 where none are. */
static size_t stripped(value text, value letters, bool at_end)
{
    char c = text.size > 0 ? text.text[at_end ? text.size - 1 : 0] : 0;
    if (text.size == 0)
        return 0;
    if (letters.size > 0)
        return memchr(letters.text, c, letters.size) ? 1 : 0;
    for (size_t i = 0; i < sizeof WIDE_SPACES / sizeof *WIDE_SPACES; i++) {
        size_t n = strlen(WIDE_SPACES[i]);
        if (n <= text.size && memcmp(text.text + (at_end ? text.size - n : 0), WIDE_SPACES[i], n) == 0)
            return n;
    }
    return is_space(c) ? 1 : 0;
}

static vl_status method_strip(value *out, run *r, const call *c)
{
    value letters, text = c->self;
    VL_TRY(text_argument(&letters, r, c, 0));
    bool left = !vl_jinja_named(c, "rstrip"), right = !vl_jinja_named(c, "lstrip");
    for (size_t n; left && (n = stripped(text, letters, false)) > 0;) {
        text.text += n;
        text.size -= n;
    }
    for (size_t n; right && (n = stripped(text, letters, true)) > 0;)
        text.size -= n;
    *out = text;
    return VL_OK;
}

/* Where `part` next begins in the text; its size where it does not. */
static size_t find(value text, size_t from, value part)
{
    for (size_t at = from; part.size > 0 && at + part.size <= text.size; at++)
        if (memcmp(text.text + at, part.text, part.size) == 0)
            return at;
    return text.size;
}

/* Without a separator: at runs of white space, none of which gives an empty part. */
static vl_status split_words(value *out, run *r, const call *c)
{
    for (size_t at = 0; at < c->self.size;) {
        while (at < c->self.size && is_space(c->self.text[at]))
            at++;
        size_t first = at;
        while (at < c->self.size && !is_space(c->self.text[at]))
            at++;
        if (at > first && !vl_jinja_list_add(*out, r->arena, vl_jinja_text(c->self.text + first, at - first)))
            return vl_jinja_nomem(r);
    }
    return VL_OK;
}

static vl_status method_split(value *out, run *r, const call *c)
{
    value separator;
    const value *given = vl_jinja_argument(c, 1, "maxsplit");
    int64_t most = given && given->kind == VL_JINJA_INT ? given->number : -1;
    VL_TRY(text_argument(&separator, r, c, 0));
    if (!vl_jinja_list_new(out, r->arena))
        return vl_jinja_nomem(r);
    if (c->n == 0)
        return split_words(out, r, c);
    if (separator.size == 0)
        return vl_jinja_fail(r, c->node, VL_EFORMAT, "split at an empty text");
    for (size_t at = 0;;) {
        size_t end = most == 0 ? c->self.size : find(c->self, at, separator);
        if (!vl_jinja_list_add(*out, r->arena, vl_jinja_text(c->self.text + at, end - at)))
            return vl_jinja_nomem(r);
        if (end == c->self.size)
            return VL_OK;
        at = end + separator.size;
        most--;
    }
}

static vl_status method_replace(value *out, run *r, const call *c)
{
    value from, to;
    vl_str text = VL_STR_INIT;
    VL_TRY(text_argument(&from, r, c, 0));
    VL_TRY(text_argument(&to, r, c, 1));
    if (from.size == 0 || c->n > 2)
        return vl_jinja_fail(r, c->node, VL_EUNSUPPORTED, "replace of nothing, or a number of times");
    for (size_t at = 0;;) {
        size_t end = find(c->self, at, from);
        vl_str_append(&text, c->self.text + at, end - at);
        if (end == c->self.size)
            return vl_jinja_finish(out, r, &text);
        vl_str_append(&text, to.text, to.size);
        at = end + from.size;
    }
}

static vl_status method_ends(value *out, run *r, const call *c)
{
    value part;
    VL_TRY(text_argument(&part, r, c, 0));
    bool fits = part.size <= c->self.size;
    size_t at = fits && vl_jinja_named(c, "endswith") ? c->self.size - part.size : 0;
    *out = vl_jinja_bool(fits && memcmp(c->self.text + at, part.text, part.size) == 0);
    return VL_OK;
}

/* Letters of ASCII only: another one is refused rather than left as it is. */
static vl_status method_case(value *out, run *r, const call *c)
{
    vl_str text = VL_STR_INIT;
    bool inside = false, title = vl_jinja_named(c, "title"), capital = vl_jinja_named(c, "capitalize");
    for (size_t i = 0; i < c->self.size; i++) {
        unsigned char letter = (unsigned char)c->self.text[i];
        if (letter >= 0x80) {
            vl_str_clear(&text);
            return vl_jinja_fail(r, c->node, VL_EUNSUPPORTED, "%.*s of letters beyond ASCII", (int)c->name_size,
                                 c->name);
        }
        bool up = vl_jinja_named(c, "upper") || ((title || capital) && !inside);
        vl_str_putc(&text, (char)(up ? toupper(letter) : tolower(letter)));
        inside = capital || isalpha(letter);
    }
    return vl_jinja_finish(out, r, &text);
}

/* ---- mappings ---------------------------------------------------------------------------------------------- */

static vl_status method_items(value *out, run *r, const call *c)
{
    bool keys = vl_jinja_named(c, "keys"), values = vl_jinja_named(c, "values");
    bool made = vl_jinja_list_new(out, r->arena);
    for (size_t i = 0; made && i < c->self.dict->n; i++) {
        value pair = keys ? c->self.dict->keys[i] : c->self.dict->values[i];
        if (!keys && !values)
            made = vl_jinja_list_new(&pair, r->arena) && vl_jinja_list_add(pair, r->arena, c->self.dict->keys[i]) &&
                   vl_jinja_list_add(pair, r->arena, c->self.dict->values[i]);
        made = made && vl_jinja_list_add(*out, r->arena, pair);
    }
    return made ? VL_OK : vl_jinja_nomem(r);
}

static vl_status method_get(value *out, run *r, const call *c)
{
    const value *key = vl_jinja_argument(c, 0, NULL), *other = vl_jinja_argument(c, 1, NULL), *found = NULL;
    if (!key)
        return vl_jinja_fail(r, c->node, VL_EFORMAT, "get without a key");
    if (key->kind == VL_JINJA_TEXT)
        found = vl_jinja_dict_get(c->self, key->text, key->size);
    *out = found ? *found : other ? *other : vl_jinja_none();
    return VL_OK;
}

/* ---- functions --------------------------------------------------------------------------------------------- */

static vl_status function_namespace(value *out, run *r, const call *c)
{
    (void)r;
    *out = c->keywords;
    out->dict->is_namespace = true;
    return VL_OK;
}

static vl_status function_raise(value *out, run *r, const call *c)
{
    value text;
    (void)out;
    VL_TRY(text_argument(&text, r, c, 0));
    return vl_jinja_fail(r, c->node, VL_EFORMAT, "the chat template refuses this: %.*s",
                         (int)(text.size < 200 ? text.size : 200), text.text);
}

/* A part of a date as strftime writes it in English; false where the letter is not one of those. */
static bool put_date(vl_str *out, const struct tm *date, char letter)
{
    static const char *const months[] = {"January", "February", "March",     "April",   "May",      "June",
                                         "July",    "August",   "September", "October", "November", "December"};
    static const char *const days[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
    switch (letter) {
    case 'd': vl_str_printf(out, "%02d", date->tm_mday); return true;
    case 'm': vl_str_printf(out, "%02d", date->tm_mon + 1); return true;
    case 'Y': vl_str_printf(out, "%d", date->tm_year + 1900); return true;
    case 'y': vl_str_printf(out, "%02d", date->tm_year % 100); return true;
    case 'b': vl_str_append(out, months[date->tm_mon], 3); return true;
    case 'B': vl_str_puts(out, months[date->tm_mon]); return true;
    case 'a': vl_str_append(out, days[date->tm_wday], 3); return true;
    case 'A': vl_str_puts(out, days[date->tm_wday]); return true;
    case '%': vl_str_putc(out, '%'); return true;
    default: return false;
    }
}

/* Never today: what is cached tomorrow must be what is cached today. */
static vl_status function_strftime(value *out, run *r, const call *c)
{
    value format;
    struct tm date = {0};
    vl_str text = VL_STR_INIT;
    VL_TRY(text_argument(&format, r, c, 0));
    if (!r->date || !r->date[0])
        return vl_jinja_fail(r, c->node, VL_EINVAL,
                             "the chat template tells the model today's date: set data.template_date "
                             "(YYYY-MM-DD), so that every run tells the same");
    if (sscanf(r->date, "%d-%d-%d", &date.tm_year, &date.tm_mon, &date.tm_mday) != 3)
        return vl_jinja_fail(r, c->node, VL_EINVAL, "data.template_date is \"%.40s\", expected YYYY-MM-DD", r->date);
    date.tm_year -= 1900;
    date.tm_mon -= 1;
    time_t seconds = timegm(&date);
    gmtime_r(&seconds, &date); /* the day of the week, and every part in its range */
    for (size_t i = 0; i < format.size; i++) {
        if (format.text[i] != '%') {
            vl_str_putc(&text, format.text[i]);
        } else if (i + 1 == format.size || !put_date(&text, &date, format.text[++i])) {
            vl_str_clear(&text);
            return vl_jinja_fail(r, c->node, VL_EUNSUPPORTED, "strftime_now(\"%.*s\")", (int)format.size, format.text);
        }
    }
    return vl_jinja_finish(out, r, &text);
}

static vl_status function_range(value *out, run *r, const call *c)
{
    int64_t bounds[3] = {0, 0, 1};
    for (int i = 0; i < c->n && i < 3; i++) {
        if (c->arguments[i].kind != VL_JINJA_INT)
            return vl_jinja_fail(r, c->node, VL_EFORMAT, "range of %s", vl_jinja_kind_name(c->arguments[i].kind));
        bounds[c->n == 1 ? 1 : i] = c->arguments[i].number;
    }
    if (c->n < 1 || bounds[2] == 0)
        return vl_jinja_fail(r, c->node, VL_EFORMAT, "range without an end, or with step 0");
    bool made = vl_jinja_list_new(out, r->arena);
    for (int64_t i = bounds[0]; made && (bounds[2] > 0 ? i < bounds[1] : i > bounds[1]); i += bounds[2])
        made = ++r->steps < VL_JINJA_STEPS && vl_jinja_list_add(*out, r->arena, vl_jinja_int(i));
    return made ? VL_OK : vl_jinja_nomem(r);
}

vl_status vl_jinja_invoke(value *out, run *r, const call *c)
{
    static const struct {
        const char *name;
        vl_jinja_kind self;
        vl_status (*apply)(value *out, run *r, const call *c);
    } callables[] = {
        {"strip", VL_JINJA_TEXT, method_strip},
        {"lstrip", VL_JINJA_TEXT, method_strip},
        {"rstrip", VL_JINJA_TEXT, method_strip},
        {"split", VL_JINJA_TEXT, method_split},
        {"replace", VL_JINJA_TEXT, method_replace},
        {"startswith", VL_JINJA_TEXT, method_ends},
        {"endswith", VL_JINJA_TEXT, method_ends},
        {"upper", VL_JINJA_TEXT, method_case},
        {"lower", VL_JINJA_TEXT, method_case},
        {"title", VL_JINJA_TEXT, method_case},
        {"capitalize", VL_JINJA_TEXT, method_case},
        {"items", VL_JINJA_DICT, method_items},
        {"keys", VL_JINJA_DICT, method_items},
        {"values", VL_JINJA_DICT, method_items},
        {"get", VL_JINJA_DICT, method_get},
        {"namespace", VL_JINJA_UNDEFINED, function_namespace},
        {"raise_exception", VL_JINJA_UNDEFINED, function_raise},
        {"strftime_now", VL_JINJA_UNDEFINED, function_strftime},
        {"range", VL_JINJA_UNDEFINED, function_range},
    };
    for (size_t i = 0; i < sizeof callables / sizeof *callables; i++)
        if (c->self.kind == callables[i].self && vl_jinja_named(c, callables[i].name))
            return callables[i].apply(out, r, c);
    if (c->self.kind == VL_JINJA_UNDEFINED)
        return vl_jinja_fail(r, c->node, VL_EUNSUPPORTED, "the function \"%.*s\"", (int)c->name_size, c->name);
    return vl_jinja_fail(r, c->node, VL_EUNSUPPORTED, "the method \"%.*s\" of %s", (int)c->name_size, c->name,
                         vl_jinja_kind_name(c->self.kind));
}
