#include "trainer/hf/tokenizer_parts.h"

#include <string.h>

#include "trainer/base/json.h"
#include "trainer/base/mem.h"

enum kind { REPLACE, BYTE_FALLBACK, FUSE, STRIP, BYTE_LEVEL, METASPACE };

struct vl_decoder {
    enum kind kind;
    vl_pattern pattern; /* REPLACE */
    char *content;      /* REPLACE: what comes in; STRIP: one character */
    size_t size;
    int64_t start, stop; /* STRIP: at most so many characters */
    vl_metaspace metaspace;
};

/* ---- parsing ---- */

static vl_status parse_content(vl_decoder *d, const json_t *component, const char *where, vl_error *err)
{
    const char *text;
    VL_TRY(vl_need_text(&text, &d->size, component, "content", where, err));
    d->content = vl_strndup(text, d->size);
    return d->content ? VL_OK : vl_fail_nomem(err, where);
}

static vl_status parse_strip(vl_decoder *d, const json_t *component, const char *where, vl_error *err)
{
    uint32_t code;
    VL_TRY(parse_content(d, component, where, err));
    if (d->size == 0 || vl_utf8_next(&code, d->content, d->size) != (int)d->size)
        return vl_fail(err, VL_EFORMAT, "%s: Strip: \"content\" is not one character", where);
    VL_TRY(vl_json_int(&d->start, component, "start", 0, INT32_MAX, where, err));
    return vl_json_int(&d->stop, component, "stop", 0, INT32_MAX, where, err);
}

static vl_status parse_kind(vl_decoder *d, const json_t *component, const char *type, const char *where, vl_error *err)
{
    if (strcmp(type, "Replace") == 0) {
        d->kind = REPLACE;
        VL_TRY(vl_pattern_parse(&d->pattern, component, "pattern", where, err));
        return parse_content(d, component, where, err);
    }
    if (strcmp(type, "Strip") == 0) {
        d->kind = STRIP;
        return parse_strip(d, component, where, err);
    }
    if (strcmp(type, "Metaspace") == 0) {
        d->kind = METASPACE;
        return vl_metaspace_parse(&d->metaspace, component, where, err);
    }
    static const struct {
        const char *name;
        enum kind kind;
    } plain[] = {{"ByteFallback", BYTE_FALLBACK}, {"Fuse", FUSE}, {"ByteLevel", BYTE_LEVEL}};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(type, plain[i].name) == 0) {
            d->kind = plain[i].kind;
            return VL_OK;
        }
    return vl_fail(err, VL_EUNSUPPORTED,
                   "%s: type \"%.60s\" (supported: Sequence, Replace, ByteFallback, Fuse, Strip, ByteLevel, Metaspace)",
                   where, type);
}

static vl_status add(void *owner, const json_t *component, const char *type, const char *where, vl_error *err)
{
    vl_decoders *all = owner;
    if (!vl_grow(&all->items, &all->capacity, all->n, sizeof *all->items))
        return vl_fail_nomem(err, where);
    vl_decoder *d = &all->items[all->n++];
    *d = (vl_decoder){0};
    return parse_kind(d, component, type, where, err);
}

vl_status vl_decoders_parse(vl_decoders *out, const json_t *root, const char *where, vl_error *err)
{
    out->present = root && !json_is_null(root);
    return vl_each_component(root, "decoders", add, out, where, err);
}

void vl_decoders_free(vl_decoders *decoders)
{
    for (size_t i = 0; i < decoders->n; i++) {
        vl_pattern_free(&decoders->items[i].pattern);
        vl_free(decoders->items[i].content);
    }
    vl_free(decoders->items);
    *decoders = (vl_decoders){NULL, 0, 0, false};
}

/* ---- decoding ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of a token "<0xAB>"; -1 for any other token. */
static int byte_of_token(const char *text, size_t size)
{
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static void flush_bytes(vl_pieces *out, vl_str *bytes)
{
    bool valid = bytes->size > 0 && vl_utf8_check(bytes->data, bytes->size) == bytes->size;
    if (valid)
        vl_pieces_add(out, bytes->data, bytes->size, (vl_piece){.id = -1});
    else
        for (size_t i = 0; i < bytes->size; i++) /* one for each byte, not for each broken character */
            vl_pieces_add(out, "\xef\xbf\xbd", 3, (vl_piece){.id = -1});
    bytes->size = 0;
}

/* A run of byte tokens becomes text where the whole run is valid UTF-8. */
static void byte_fallback(vl_pieces *out, const vl_pieces *in)
{
    vl_str bytes = VL_STR_INIT;
    for (size_t i = 0; i < in->n; i++) {
        const char *text = vl_piece_text(in, &in->items[i]);
        int byte = byte_of_token(text, in->items[i].size);
        if (byte >= 0) {
            vl_str_putc(&bytes, (char)byte);
            continue;
        }
        flush_bytes(out, &bytes);
        vl_pieces_add(out, text, in->items[i].size, in->items[i]);
    }
    flush_bytes(out, &bytes);
    out->failed = out->failed || bytes.failed;
    vl_str_clear(&bytes);
}

/* The bytes that a byte-level token stands for; a token with any other character (an added one) is itself. */
static void put_bytes(vl_str *out, const char *text, size_t size)
{
    size_t before = out->size;
    for (size_t at = 0; at < size;) {
        uint32_t code = 0;
        int length = vl_utf8_next(&code, text + at, size - at);
        int byte = length > 0 ? vl_char_to_byte(code) : -1;
        if (byte < 0) {
            out->size = before;
            vl_str_append(out, text, size);
            return;
        }
        vl_str_putc(out, (char)byte);
        at += (size_t)length;
    }
}

static void byte_level(vl_pieces *out, const vl_pieces *in)
{
    vl_str bytes = VL_STR_INIT;
    for (size_t i = 0; i < in->n; i++)
        put_bytes(&bytes, vl_piece_text(in, &in->items[i]), in->items[i].size);
    vl_pieces_open(out, (vl_piece){.id = -1});
    vl_utf8_put_lossy(&out->text, bytes.data, bytes.size);
    vl_pieces_close(out);
    out->failed = out->failed || bytes.failed;
    vl_str_clear(&bytes);
}

static void strip(vl_pieces *out, const vl_decoder *d, const char *text, const vl_piece *piece)
{
    size_t start = 0, end = piece->size;
    for (int64_t i = 0; i < d->start && end - start >= d->size && memcmp(text + start, d->content, d->size) == 0; i++)
        start += d->size;
    for (int64_t i = 0; i < d->stop && end - start >= d->size && memcmp(text + end - d->size, d->content, d->size) == 0;
         i++)
        end -= d->size;
    vl_pieces_add(out, text + start, end - start, *piece);
}

static void put_metaspace(vl_str *out, const vl_metaspace *m, const char *text, size_t size, bool begins)
{
    size_t n = strlen(m->replacement);
    for (size_t at = 0; at < size;) {
        if (size - at < n || memcmp(text + at, m->replacement, n) != 0) {
            vl_str_putc(out, text[at++]);
            continue;
        }
        at += n;
        if (!begins) /* the first token loses what encoding put in front of the text */
            vl_str_putc(out, ' ');
    }
}

static vl_status decode_piece(const vl_decoder *d, vl_pieces *out, const vl_pieces *in, size_t i, vl_scratch *scratch,
                              vl_error *err)
{
    const char *text = vl_piece_text(in, &in->items[i]);
    size_t size = in->items[i].size;
    vl_matches matches;
    switch (d->kind) {
    case STRIP: strip(out, d, text, &in->items[i]); return VL_OK;
    case FUSE: vl_str_append(&out->text, text, size); return VL_OK;
    default: break;
    }
    vl_pieces_open(out, in->items[i]);
    if (d->kind == METASPACE) {
        put_metaspace(&out->text, &d->metaspace, text, size, i == 0 && d->metaspace.prepend != VL_PREPEND_NEVER);
    } else {
        vl_matches_begin(&matches, &d->pattern, text, size);
        VL_TRY(vl_pattern_replace(&out->text, matches, d->content, d->size, scratch, err));
    }
    vl_pieces_close(out);
    return vl_pieces_check(out, err);
}

static vl_status apply_one(const vl_decoder *d, vl_pieces *out, const vl_pieces *in, vl_scratch *scratch, vl_error *err)
{
    if (d->kind == BYTE_FALLBACK) {
        byte_fallback(out, in);
    } else if (d->kind == BYTE_LEVEL) {
        byte_level(out, in);
    } else {
        if (d->kind == FUSE)
            vl_pieces_open(out, (vl_piece){.id = -1});
        for (size_t i = 0; i < in->n; i++)
            VL_TRY(decode_piece(d, out, in, i, scratch, err));
        if (d->kind == FUSE)
            vl_pieces_close(out);
    }
    return vl_pieces_check(out, err);
}

vl_status vl_decoders_apply(const vl_decoders *decoders, vl_pieces *pieces, vl_pieces *spare, vl_scratch *scratch,
                            vl_error *err)
{
    for (size_t k = 0; k < decoders->n; k++) {
        vl_pieces_clear(spare);
        VL_TRY(apply_one(&decoders->items[k], spare, pieces, scratch, err));
        vl_pieces swap = *pieces;
        *pieces = *spare;
        *spare = swap;
    }
    return VL_OK;
}

/* ---- one token for people ---- */

/* Bytes as UTF-8 where they are, as <0xAB> where not. NUL would end a C string. */
static void show_bytes(vl_str *out, const char *bytes, size_t size)
{
    for (size_t at = 0; at < size;) {
        uint32_t code;
        int length = vl_utf8_next(&code, bytes + at, size - at);
        if (length > 0 && code != 0) {
            vl_str_append(out, bytes + at, (size_t)length);
            at += (size_t)length;
        } else {
            vl_str_printf(out, "<0x%02X>", (unsigned)(uint8_t)bytes[at++]);
        }
    }
}

/* Only the steps that spell: Fuse and Strip are about a token's place in a text. */
vl_status vl_decoders_show(const vl_decoders *decoders, vl_str *out, const char *token, size_t size,
                           vl_scratch *scratch, vl_error *err)
{
    vl_str text = VL_STR_INIT, next = VL_STR_INIT;
    vl_status status = VL_OK;
    vl_str_append(&text, token, size);
    for (size_t k = 0; k < decoders->n; k++) {
        const vl_decoder *d = &decoders->items[k];
        int byte = d->kind == BYTE_FALLBACK ? byte_of_token(text.data, text.size) : -1;
        vl_matches matches;
        next.size = 0;
        if (d->kind == BYTE_LEVEL)
            put_bytes(&next, text.data, text.size);
        else if (d->kind == METASPACE)
            put_metaspace(&next, &d->metaspace, text.data, text.size, false);
        else if (d->kind == REPLACE) {
            vl_matches_begin(&matches, &d->pattern, text.data, text.size);
            VL_GOTO(vl_pattern_replace(&next, matches, d->content, d->size, scratch, err));
        } else if (byte >= 0)
            vl_str_putc(&next, (char)byte);
        else
            continue;
        vl_str swap = text;
        text = next;
        next = swap;
        /* Bytes that are no text end the chain: a pattern must never see them. */
        if (text.size == 0 || text.failed || vl_utf8_check(text.data, text.size) < text.size)
            break;
    }
    show_bytes(out, text.data, text.size);
    if (text.failed || next.failed || out->failed)
        status = vl_fail_nomem(err, "token texts");
done:
    vl_str_clear(&text);
    vl_str_clear(&next);
    return status;
}
