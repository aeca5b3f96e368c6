/* Patterns of tokenizer.json: compiled once, matched with limits on time and memory. */
#include "trainer/hf/tokenizer_parts.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "trainer/base/mem.h"

enum {
    MAX_PATTERN = 1 << 16,
    JIT_STACK_START = 32 << 10,
    JIT_STACK_MAX = 8 << 20,
    MATCH_LIMIT = 20 * 1000 * 1000,
    HEAP_LIMIT_KIB = 64 << 10
};

/* ---- compiling ---- */

vl_status vl_pattern_compile(vl_pattern *out, const char *regex, size_t size, const char *where, vl_error *err)
{
    *out = (vl_pattern){NULL, 0, NULL};
    if (size > MAX_PATTERN)
        return vl_fail(err, VL_EFORMAT, "%s: regex of %zu bytes, more than the limit of %d", where, size, MAX_PATTERN);
    vl_str text = VL_STR_INIT;
    vl_status status = VL_OK;
    VL_GOTO(vl_regex_rewrite(&text, regex, size, where, err));
    int code;
    PCRE2_SIZE offset;
    /* Ruby's ^ and $ are those of lines; properties are Unicode's in both. */
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)(text.data ? text.data : ""), text.size,
                                         PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &offset, NULL);
    if (!compiled) {
        PCRE2_UCHAR message[128];
        pcre2_get_error_message(code, message, sizeof message);
        status = vl_fail(err, VL_EFORMAT, "%s: regex does not compile: %s at byte %zu of %.200s", where,
                         (const char *)message, (size_t)offset, text.data ? text.data : "");
        goto done;
    }
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); /* where it fails the interpreter does the same */
    out->code = compiled;
done:
    vl_str_clear(&text);
    return status;
}

vl_status vl_pattern_literal(vl_pattern *out, const char *text, size_t size, const char *where, vl_error *err)
{
    *out = (vl_pattern){NULL, size, NULL};
    if (size == 0)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: an empty \"String\" pattern", where);
    out->literal = vl_strndup(text, size);
    return out->literal ? VL_OK : vl_fail_nomem(err, where);
}

vl_status vl_pattern_parse(vl_pattern *out, const json_t *object, const char *key, const char *where, vl_error *err)
{
    const json_t *pattern = json_object_get(object, key);
    const json_t *literal = json_object_get(pattern, "String"), *regex = json_object_get(pattern, "Regex");
    if (json_is_string(literal) && !regex)
        return vl_pattern_literal(out, json_string_value(literal), json_string_length(literal), where, err);
    if (json_is_string(regex) && !literal)
        return vl_pattern_compile(out, json_string_value(regex), json_string_length(regex), where, err);
    return vl_fail(err, VL_EFORMAT, "%s: \"%s\" is neither {\"String\": ...} nor {\"Regex\": ...}", where, key);
}

void vl_pattern_free(vl_pattern *pattern)
{
    vl_free(pattern->literal);
    pcre2_code_free(pattern->code);
    *pattern = (vl_pattern){NULL, 0, NULL};
}

/* ---- matching ---- */

vl_status vl_scratch_init(vl_scratch *scratch, size_t limit, vl_error *err)
{
    *scratch = (vl_scratch){pcre2_match_data_create(1, NULL), pcre2_match_context_create(NULL),
                            pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, NULL), limit};
    if (!scratch->match || !scratch->context) {
        vl_scratch_free(scratch);
        return vl_fail_nomem(err, "regex matching");
    }
    if (scratch->stack)
        pcre2_jit_stack_assign(scratch->context, NULL, scratch->stack);
    pcre2_set_match_limit(scratch->context, MATCH_LIMIT);
    pcre2_set_heap_limit(scratch->context, HEAP_LIMIT_KIB);
    return VL_OK;
}

void vl_scratch_free(vl_scratch *scratch)
{
    pcre2_match_data_free(scratch->match);
    pcre2_match_context_free(scratch->context);
    pcre2_jit_stack_free(scratch->stack);
    *scratch = (vl_scratch){0};
}

void vl_matches_begin(vl_matches *matches, const vl_pattern *pattern, const char *text, size_t size)
{
    *matches = (vl_matches){pattern, text, size, 0, SIZE_MAX, 0, 0};
}

static const char *find_literal(const char *text, size_t size, const vl_pattern *pattern)
{
    const char *end = text + size, *hit;
    while ((size_t)(end - text) >= pattern->size) {
        hit = memchr(text, pattern->literal[0], (size_t)(end - text) - pattern->size + 1);
        if (!hit || memcmp(hit, pattern->literal, pattern->size) == 0)
            return hit;
        text = hit + 1;
    }
    return NULL;
}

static vl_status search(vl_matches *m, bool *found, vl_scratch *scratch, vl_error *err)
{
    const vl_pattern *pattern = m->pattern;
    if (pattern->literal) {
        const char *hit = find_literal(m->text + m->next, m->size - m->next, pattern);
        *found = hit != NULL;
        if (hit) {
            m->start = (size_t)(hit - m->text);
            m->end = m->start + pattern->size;
        }
        return VL_OK;
    }
    PCRE2_SPTR subject = (PCRE2_SPTR)m->text;
    uint32_t options = PCRE2_NO_UTF_CHECK; /* the text was checked once, and cuts are at characters */
    int rc = pcre2_match(pattern->code, subject, m->size, m->next, options, scratch->match, scratch->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its backtracking points on the heap */
        rc = pcre2_match(pattern->code, subject, m->size, m->next, options | PCRE2_NO_JIT, scratch->match,
                         scratch->context);
    *found = rc >= 0;
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
        PCRE2_UCHAR message[128];
        pcre2_get_error_message(rc, message, sizeof message);
        return vl_fail(err, VL_EFORMAT, "tokenizer.json: a regex gives up on this text at byte %zu of a piece: %s",
                       m->next, (const char *)message);
    }
    if (*found) {
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(scratch->match);
        m->start = range[0];
        m->end = range[1];
        if (m->start > m->end) /* \K in a lookahead */
            m->start = m->end;
    }
    return VL_OK;
}

vl_status vl_matches_next(vl_matches *m, bool *found, vl_scratch *scratch, vl_error *err)
{
    for (;;) {
        *found = false;
        if (m->size == 0 || m->next > m->size)
            return VL_OK;
        VL_TRY(search(m, found, scratch, err));
        if (!*found)
            return VL_OK;
        if (m->start != m->end || m->end != m->last_end) {
            m->next = m->end;
            m->last_end = m->end;
            return VL_OK;
        }
        /* An empty match where the last one ended: go on one character later. */
        uint32_t code;
        int step = m->next < m->size ? vl_utf8_next(&code, m->text + m->next, m->size - m->next) : 1;
        m->next += step > 0 ? (size_t)step : 1;
    }
}

vl_status vl_pattern_replace(vl_str *out, vl_matches matches, const char *content, size_t size, vl_scratch *scratch,
                             vl_error *err)
{
    size_t copied = 0;
    for (;;) {
        bool found;
        VL_TRY(vl_matches_next(&matches, &found, scratch, err));
        if (!found)
            break;
        vl_str_append(out, matches.text + copied, matches.start - copied);
        vl_str_append(out, content, size);
        copied = matches.end;
        if (out->size > scratch->limit || out->failed)
            return vl_fail_too_large(out, scratch->limit, err);
    }
    vl_str_append(out, matches.text + copied, matches.size - copied);
    return VL_OK;
}
