#include "trainer/hf/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "trainer/base/json.h"
#include "trainer/base/mem.h"

enum kind { PREPEND, REPLACE, UNICODE_FORM, LOWERCASE, STRIP };

struct vl_normalizer {
    enum kind kind;
    char *content; /* PREPEND, REPLACE: `size` bytes */
    size_t size;
    vl_pattern pattern; /* REPLACE */
    int form;           /* UNICODE_FORM: utf8proc options */
    bool left, right;   /* STRIP */
};

/* ---- parsing ---- */

static vl_status parse_content(vl_normalizer *n, const json_t *component, const char *key, const char *where,
                               vl_error *err)
{
    const char *text;
    VL_TRY(vl_need_text(&text, &n->size, component, key, where, err));
    n->content = vl_strndup(text, n->size);
    return n->content ? VL_OK : vl_fail_nomem(err, where);
}

static vl_status parse_kind(vl_normalizer *n, const json_t *component, const char *type, const char *where,
                            vl_error *err)
{
    static const struct {
        const char *name;
        int form;
    } forms[] = {{"NFC", UTF8PROC_COMPOSE},
                 {"NFD", UTF8PROC_DECOMPOSE},
                 {"NFKC", UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                 {"NFKD", UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strcmp(type, forms[i].name) == 0) {
            n->kind = UNICODE_FORM;
            n->form = forms[i].form | UTF8PROC_STABLE;
            return VL_OK;
        }
    if (strcmp(type, "Prepend") == 0) {
        n->kind = PREPEND;
        return parse_content(n, component, "prepend", where, err);
    }
    if (strcmp(type, "Replace") == 0) {
        n->kind = REPLACE;
        VL_TRY(vl_pattern_parse(&n->pattern, component, "pattern", where, err));
        return parse_content(n, component, "content", where, err);
    }
    if (strcmp(type, "Lowercase") == 0) {
        n->kind = LOWERCASE;
        return VL_OK;
    }
    if (strcmp(type, "Strip") == 0) {
        n->kind = STRIP;
        n->left = n->right = true;
        VL_TRY(vl_json_bool(&n->left, component, "strip_left", where, err));
        return vl_json_bool(&n->right, component, "strip_right", where, err);
    }
    return vl_fail(err, VL_EUNSUPPORTED,
                   "%s: type \"%.60s\" (supported: Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, Strip)",
                   where, type);
}

static vl_status add(void *owner, const json_t *component, const char *type, const char *where, vl_error *err)
{
    vl_normalizers *all = owner;
    if (!vl_grow(&all->items, &all->capacity, all->n, sizeof *all->items))
        return vl_fail_nomem(err, where);
    vl_normalizer *n = &all->items[all->n++]; /* counted at once: vl_normalizers_free then frees it half-read too */
    *n = (vl_normalizer){0};
    return parse_kind(n, component, type, where, err);
}

vl_status vl_normalizers_parse(vl_normalizers *out, const json_t *root, const char *where, vl_error *err)
{
    return vl_each_component(root, "normalizers", add, out, where, err);
}

void vl_normalizers_free(vl_normalizers *normalizers)
{
    for (size_t i = 0; i < normalizers->n; i++) {
        vl_free(normalizers->items[i].content);
        vl_pattern_free(&normalizers->items[i].pattern);
    }
    vl_free(normalizers->items);
    *normalizers = (vl_normalizers){NULL, 0, 0};
}

/* ---- applying ---- */

static vl_status put_unicode_form(vl_str *out, const char *text, size_t size, int form, vl_error *err)
{
    size_t ascii = 0;
    while (ascii < size && (uint8_t)text[ascii] < 0x80)
        ascii++;
    if (ascii == size) { /* every form leaves ASCII alone */
        vl_str_append(out, text, size);
        return VL_OK;
    }
    utf8proc_uint8_t *result = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &result, (utf8proc_option_t)form);
    if (n < 0)
        return vl_fail(err, n == UTF8PROC_ERROR_NOMEM ? VL_ENOMEM : VL_EINTERNAL, "Unicode normalization: %s",
                       utf8proc_errmsg(n));
    vl_str_append(out, (const char *)result, (size_t)n);
    free(result);
    return VL_OK;
}

static void put_lowercase(vl_str *out, const char *text, size_t size)
{
    size_t at = 0;
    while (at < size) {
        uint32_t code = 0;
        int length = vl_utf8_next(&code, text + at, size - at);
        at += length > 0 ? (size_t)length : 1;
        if (code == 0x130) /* the one character with a longer lower case, in every locale */
            vl_str_puts(out, "i\xcc\x87");
        else
            vl_utf8_put(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)code));
    }
}

static void put_stripped(vl_pieces *out, const vl_normalizer *n, const char *text, size_t size)
{
    uint32_t code;
    size_t start = 0;
    while (n->left && start < size) {
        int length = vl_utf8_next(&code, text + start, size - start);
        if (length < 0 || !vl_utf8_is_space(code))
            break;
        start += (size_t)length;
    }
    while (n->right && size > start) {
        size_t length = vl_utf8_last(text, size);
        if (vl_utf8_next(&code, text + size - length, length) < 0 || !vl_utf8_is_space(code))
            break;
        size -= length;
    }
    vl_str_append(&out->text, text + start, size - start);
    if (start > 0)
        out->items[out->n - 1].lost_start = true;
}

static vl_status put_replaced(vl_pieces *out, const vl_normalizer *n, const char *text, size_t size,
                              vl_scratch *scratch, vl_error *err)
{
    vl_matches matches, first;
    bool found;
    vl_matches_begin(&matches, &n->pattern, text, size);
    first = matches;
    VL_TRY(vl_matches_next(&first, &found, scratch, err));
    /* In the reference new text stands where the last character that it replaces stood. */
    if (found && first.start == 0) {
        uint32_t code;
        bool one = first.end > 0 && vl_utf8_next(&code, text, size) == (int)first.end;
        if (first.end > 0 && (n->size == 0 || !one))
            out->items[out->n - 1].lost_start = true;
        else if (first.end == 0 && n->size > 0)
            out->items[out->n - 1].lost_start = false;
    }
    return vl_pattern_replace(&out->text, matches, n->content, n->size, scratch, err);
}

static vl_status apply_one(const vl_normalizer *n, vl_pieces *out, const char *text, size_t size, vl_scratch *scratch,
                           vl_error *err)
{
    switch (n->kind) {
    case PREPEND:
        if (n->size > 0) /* new text in front counts as standing at the start */
            out->items[out->n - 1].lost_start = false;
        vl_str_append(&out->text, n->content, n->size);
        vl_str_append(&out->text, text, size);
        return VL_OK;
    case REPLACE: return put_replaced(out, n, text, size, scratch, err);
    case UNICODE_FORM: return put_unicode_form(&out->text, text, size, n->form, err);
    case LOWERCASE: put_lowercase(&out->text, text, size); return VL_OK;
    case STRIP: put_stripped(out, n, text, size); return VL_OK;
    }
    return vl_fail(err, VL_EINTERNAL, "normalizer %d", (int)n->kind);
}

vl_status vl_normalizers_apply(const vl_normalizers *normalizers, vl_pieces *pieces, vl_pieces *spare,
                               vl_scratch *scratch, vl_error *err)
{
    for (size_t k = 0; k < normalizers->n; k++) {
        vl_pieces_clear(spare);
        for (size_t i = 0; i < pieces->n; i++) {
            const vl_piece *piece = &pieces->items[i];
            const char *text = vl_piece_text(pieces, piece);
            vl_pieces_open(spare, *piece);
            VL_TRY(vl_pieces_check(spare, err));
            if (piece->id >= 0)
                vl_str_append(&spare->text, text, piece->size);
            else
                VL_TRY(apply_one(&normalizers->items[k], spare, text, piece->size, scratch, err));
            vl_pieces_close(spare);
        }
        VL_TRY(vl_pieces_check(spare, err));
        vl_pieces swap = *pieces;
        *pieces = *spare;
        *spare = swap;
    }
    /* As in the reference, a piece whose first characters are gone begins later in the input. */
    for (size_t i = 0; i < pieces->n; i++) {
        pieces->items[i].first = pieces->items[i].first && !pieces->items[i].lost_start;
        pieces->items[i].lost_start = false;
    }
    return VL_OK;
}
