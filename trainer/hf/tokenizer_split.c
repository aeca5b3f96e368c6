#include "trainer/hf/tokenizer_parts.h"

#include <string.h>
#include <utf8proc.h>

#include "trainer/base/mem.h"

/* The alternating parts of one piece, matches and what lies between them, as they are joined by a behavior.
 * One part is held back until it is known whether the next one joins it. */
struct joiner {
    vl_pieces *out;
    const char *text;
    vl_piece like;
    vl_split_behavior behavior;
    bool held, held_match;
    size_t start, end; /* of the part held back */
};

static void emit(struct joiner *j)
{
    if (j->held && !(j->behavior == VL_REMOVED && j->held_match)) {
        vl_piece like = j->like;
        like.first = like.first && j->start == 0;
        vl_pieces_add(j->out, j->text + j->start, j->end - j->start, like);
    }
    j->held = false;
}

static void take(struct joiner *j, size_t start, size_t end, bool match)
{
    bool joins = false;
    switch (j->behavior) {
    case VL_ISOLATED:
    case VL_REMOVED: break;
    case VL_CONTIGUOUS: joins = match == j->held_match; break;
    /* The second of two adjacent matches stands alone: it is merged with no other match. */
    case VL_MERGED_WITH_PREVIOUS: joins = match && !j->held_match; break;
    case VL_MERGED_WITH_NEXT: joins = !match && j->held_match; break;
    }
    if (j->held && joins) {
        j->end = end;
    } else {
        emit(j);
        j->start = start;
        j->end = end;
        j->held = true;
    }
    j->held_match = match;
}

static vl_status split_by_pattern(struct joiner *j, const vl_splitter *s, size_t size, vl_scratch *scratch,
                                  vl_error *err)
{
    vl_matches matches;
    size_t done = 0;
    vl_matches_begin(&matches, &s->pattern, j->text, size);
    for (;;) {
        bool found;
        VL_TRY(vl_matches_next(&matches, &found, scratch, err));
        if (!found)
            break;
        if (matches.start > done)
            take(j, done, matches.start, s->invert);
        take(j, matches.start, matches.end, !s->invert);
        done = matches.end;
    }
    if (done < size)
        take(j, done, size, s->invert);
    emit(j);
    return VL_OK;
}

static void split_by_digits(struct joiner *j, size_t size)
{
    size_t start = 0, at = 0;
    while (at < size) {
        uint32_t code = 0;
        int length = vl_utf8_next(&code, j->text + at, size - at);
        size_t end = at + (length > 0 ? (size_t)length : 1);
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
        if (category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO) {
            if (at > start)
                take(j, start, at, false);
            take(j, at, end, true);
            start = end;
        }
        at = end;
    }
    if (size > start)
        take(j, start, size, false);
    emit(j);
}

/* Every byte becomes the printable character that stands for it in a byte-level vocabulary. */
static void to_byte_level(vl_pieces *out, const vl_pieces *in)
{
    char map[256][2];
    uint8_t width[256];
    for (int b = 0; b < 256; b++) {
        uint32_t code = vl_byte_to_char((uint8_t)b);
        width[b] = code < 0x80 ? 1 : 2;
        map[b][0] = (char)(code < 0x80 ? code : 0xc0 | code >> 6);
        map[b][1] = (char)(0x80 | (code & 0x3f));
    }
    for (size_t i = 0; i < in->n; i++) {
        const char *text = vl_piece_text(in, &in->items[i]);
        vl_pieces_open(out, in->items[i]);
        if (in->items[i].id >= 0)
            vl_str_append(&out->text, text, in->items[i].size);
        else
            for (size_t k = 0; k < in->items[i].size; k++)
                vl_str_append(&out->text, map[(uint8_t)text[k]], width[(uint8_t)text[k]]);
        vl_pieces_close(out);
    }
}

/* The text of a piece with what its splitter puts in front of it and in the place of its spaces. */
static void rewrite(vl_str *out, const vl_splitter *s, const char *text, const vl_piece *piece)
{
    if (s->kind == VL_SPLIT_BYTE_LEVEL) {
        if (text[0] != ' ')
            vl_str_putc(out, ' ');
        vl_str_append(out, text, piece->size);
        return;
    }
    const vl_metaspace *m = &s->metaspace;
    size_t n = strlen(m->replacement);
    bool begins = text[0] == ' ' || (piece->size >= n && memcmp(text, m->replacement, n) == 0);
    if (!begins && (m->prepend == VL_PREPEND_ALWAYS || (m->prepend == VL_PREPEND_FIRST && piece->first)))
        vl_str_append(out, m->replacement, n);
    for (size_t i = 0; i < piece->size; i++)
        if (text[i] == ' ')
            vl_str_append(out, m->replacement, n);
        else
            vl_str_putc(out, text[i]);
}

static vl_status apply_piece(const vl_splitter *s, vl_pieces *out, const char *text, const vl_piece *piece,
                             vl_scratch *scratch, vl_error *err)
{
    struct joiner joiner = {out, text, *piece, s->behavior, false, false, 0, 0};
    bool rewrites = s->kind == VL_SPLIT_METASPACE || (s->kind == VL_SPLIT_BYTE_LEVEL && s->add_prefix_space);
    bool cuts = s->kind == VL_SPLIT_PATTERN || (s->kind == VL_SPLIT_BYTE_LEVEL && s->use_regex) ||
                (s->kind == VL_SPLIT_METASPACE && s->metaspace.split);
    vl_str rewritten = VL_STR_INIT;
    vl_status status = VL_OK;
    size_t size = piece->size;
    if (rewrites) {
        rewrite(&rewritten, s, text, piece);
        if (rewritten.failed) {
            status = vl_fail_nomem(err, "the text of a tokenizer");
            goto done;
        }
        joiner.text = rewritten.data;
        size = rewritten.size;
    }
    if (s->kind == VL_SPLIT_DIGITS)
        split_by_digits(&joiner, size);
    else if (cuts)
        status = split_by_pattern(&joiner, s, size, scratch, err);
    else
        vl_pieces_add(out, joiner.text, size, *piece);
done:
    vl_str_clear(&rewritten);
    return status;
}

static void swap_pieces(vl_pieces *a, vl_pieces *b)
{
    vl_pieces t = *a;
    *a = *b;
    *b = t;
}

vl_status vl_splitters_apply(const vl_splitters *splitters, vl_pieces *pieces, vl_pieces *spare, vl_scratch *scratch,
                             vl_error *err)
{
    for (size_t k = 0; k < splitters->n; k++) {
        const vl_splitter *s = &splitters->items[k];
        vl_pieces_clear(spare);
        for (size_t i = 0; i < pieces->n; i++) {
            const vl_piece *piece = &pieces->items[i];
            const char *text = vl_piece_text(pieces, piece);
            if (piece->id >= 0)
                vl_pieces_add(spare, text, piece->size, *piece);
            else
                VL_TRY(apply_piece(s, spare, text, piece, scratch, err));
            VL_TRY(vl_pieces_check(spare, err));
        }
        swap_pieces(pieces, spare);
        if (s->kind == VL_SPLIT_BYTE_LEVEL) {
            vl_pieces_clear(spare);
            to_byte_level(spare, pieces);
            VL_TRY(vl_pieces_check(spare, err));
            swap_pieces(pieces, spare);
        }
    }
    return VL_OK;
}
