#include "trainer/hf/tokenizer_parts.h"

#include <string.h>

#include "trainer/base/json.h"
#include "trainer/base/mem.h"

/* What the reference's regex \w matches: letters, marks, digits, connectors and the two joiners. */
#define WORD_REGEX "[\\w\\x{200c}\\x{200d}]"

/* ---- parsing ---- */

static int compare(const char *a, size_t a_size, const char *b, size_t b_size)
{
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

/* By text; of tokens that normalize to the same text the one that was added first comes first, and is found. */
static bool before(const vl_added_set *set, size_t a, const vl_added_token *b)
{
    const vl_added_token *t = &set->items[a];
    int order = compare(set->text.data + t->start, t->size, set->text.data + b->start, b->size);
    return order ? order < 0 : t->start < b->start;
}

/* Heapsort: it needs the set's text, which qsort cannot pass on. */
static void sift(vl_added_set *set, size_t at, size_t n)
{
    size_t child;
    while ((child = 2 * at + 1) < n) {
        if (child + 1 < n && before(set, child, &set->items[child + 1]))
            child++;
        if (!before(set, at, &set->items[child]))
            break;
        vl_added_token item = set->items[at];
        set->items[at] = set->items[child];
        set->items[child] = item;
        at = child;
    }
}

static void sort(vl_added_set *set)
{
    for (size_t i = set->n / 2; i-- > 0;)
        sift(set, i, set->n);
    for (size_t n = set->n; n-- > 1;) {
        vl_added_token last = set->items[n];
        set->items[n] = set->items[0];
        set->items[0] = last;
        sift(set, 0, n);
    }
}

static vl_status add_to_set(vl_added_set *set, vl_added_token token, const char *text, size_t size, const char *where,
                            vl_error *err)
{
    if (size == 0)
        return VL_OK;
    token.start = set->text.size;
    token.size = size;
    vl_str_append(&set->text, text, size);
    if (set->text.failed || !vl_grow(&set->items, &set->capacity, set->n, sizeof *set->items))
        return vl_fail_nomem(err, where);
    set->items[set->n++] = token;
    set->begins[(uint8_t)text[0]] = true;
    return VL_OK;
}

struct build {
    vl_added *out;
    const vl_normalizers *normalizers;
    vl_pieces pieces, spare;
    vl_scratch scratch;
};

/* A normalized token is searched for in normalized text, so what is searched for is normalized too. */
static vl_status add_token(struct build *b, const json_t *json, const vl_vocab *vocab, const char *where, vl_error *err)
{
    vl_added_token token = {0};
    const char *text;
    size_t size;
    VL_TRY(vl_need_text(&text, &size, json, "content", where, err));
    VL_TRY(vl_json_bool(&token.single_word, json, "single_word", where, err));
    VL_TRY(vl_json_bool(&token.lstrip, json, "lstrip", where, err));
    VL_TRY(vl_json_bool(&token.rstrip, json, "rstrip", where, err));
    VL_TRY(vl_json_bool(&token.normalized, json, "normalized", where, err));
    token.id = vl_vocab_find(vocab, text, size);
    if (!token.normalized)
        return add_to_set(&b->out->raw, token, text, size, where, err);
    vl_pieces_clear(&b->pieces);
    vl_pieces_add(&b->pieces, text, size, (vl_piece){.id = -1, .first = true});
    VL_TRY(vl_normalizers_apply(b->normalizers, &b->pieces, &b->spare, &b->scratch, err));
    VL_TRY(vl_pieces_check(&b->pieces, err));
    if (b->pieces.n == 0 && size > 0) /* the reference would find nothing everywhere */
        return vl_fail(err, VL_EUNSUPPORTED, "%s: added token \"%.80s\" (id %d) is empty after normalization", where,
                       text, token.id);
    if (b->pieces.n == 0)
        return VL_OK;
    return add_to_set(&b->out->normalized, token, vl_piece_text(&b->pieces, &b->pieces.items[0]),
                      b->pieces.items[0].size, where, err);
}

vl_status vl_added_parse(vl_added *out, const json_t *added, const vl_vocab *vocab, const vl_normalizers *normalizers,
                         const char *where, vl_error *err)
{
    size_t limit = vl_text_limit(0);
    struct build build = {.out = out, .normalizers = normalizers, .pieces.limit = limit, .spare.limit = limit};
    vl_status status = VL_OK;
    size_t i;
    const json_t *token;
    VL_GOTO(vl_scratch_init(&build.scratch, limit, err));
    VL_GOTO(vl_pattern_compile(&out->word, WORD_REGEX, strlen(WORD_REGEX), where, err));
    /* Special tokens first: the reference adds them in this order. */
    for (int special = 1; special >= 0; special--) {
        json_array_foreach(added, i, token)
        {
            if (json_is_true(json_object_get(token, "special")) == special)
                VL_GOTO(add_token(&build, token, vocab, where, err));
        }
    }
    sort(&out->raw);
    sort(&out->normalized);
done:
    vl_pieces_free(&build.pieces);
    vl_pieces_free(&build.spare);
    vl_scratch_free(&build.scratch);
    return status;
}

void vl_added_free(vl_added *added)
{
    vl_added_set *sets[] = {&added->raw, &added->normalized};
    for (int i = 0; i < 2; i++) {
        vl_free(sets[i]->items);
        vl_str_clear(&sets[i]->text);
        *sets[i] = (vl_added_set){0};
    }
    vl_pattern_free(&added->word);
}

/* ---- searching ---- */

/* The byte at `depth` of a token; -1 at its end, so that shorter tokens sort first. */
static int byte_at(const vl_added_set *set, size_t i, size_t depth)
{
    const vl_added_token *token = &set->items[i];
    return depth < token->size ? (uint8_t)set->text.data[token->start + depth] : -1;
}

/* First token in [low, high) whose byte at `depth` is not below `byte`. */
static size_t lower_bound(const vl_added_set *set, size_t low, size_t high, size_t depth, int byte)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (byte_at(set, middle, depth) < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest token that the text begins with; NULL if none. */
static const vl_added_token *longest_at(const vl_added_set *set, const char *text, size_t size)
{
    const vl_added_token *best = NULL;
    size_t low = 0, high = set->n;
    for (size_t depth = 0; low < high; depth++) {
        if (set->items[low].size == depth)
            best = &set->items[low];
        if (depth == size)
            break;
        int byte = (uint8_t)text[depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1);
    }
    return best;
}

static vl_status is_word(bool *out, const vl_added *added, const char *text, size_t size, vl_scratch *scratch,
                         vl_error *err)
{
    vl_matches matches;
    vl_matches_begin(&matches, &added->word, text, size);
    return vl_matches_next(&matches, out, scratch, err);
}

/* Does a character of a word touch the token on either side? */
static vl_status touches_word(bool *out, const vl_added *added, const char *text, size_t size,
                              const vl_added_token *token, size_t start, vl_scratch *scratch, vl_error *err)
{
    size_t end = start + token->size;
    *out = false;
    if (start > 0) {
        size_t length = vl_utf8_last(text, start);
        VL_TRY(is_word(out, added, text + start - length, length, scratch, err));
    }
    if (!*out && end < size) {
        uint32_t code;
        int length = vl_utf8_next(&code, text + end, size - end);
        VL_TRY(is_word(out, added, text + end, length > 0 ? (size_t)length : 1, scratch, err));
    }
    return VL_OK;
}

static size_t spaces_before(const char *text, size_t end, size_t limit)
{
    uint32_t code;
    while (end > limit) {
        size_t length = vl_utf8_last(text, end);
        if (vl_utf8_next(&code, text + end - length, length) < 0 || !vl_utf8_is_space(code))
            break;
        end -= length;
    }
    return end > limit ? end : limit; /* above `end` where that token has taken this one too */
}

static size_t spaces_after(const char *text, size_t start, size_t size)
{
    uint32_t code;
    while (start < size) {
        int length = vl_utf8_next(&code, text + start, size - start);
        if (length < 0 || !vl_utf8_is_space(code))
            break;
        start += (size_t)length;
    }
    return start;
}

static void add_slice(vl_pieces *out, const char *text, size_t start, size_t end, const vl_piece *whole, int32_t id)
{
    if (end > start)
        vl_pieces_add(out, text + start, end - start, (vl_piece){.id = id, .first = whole->first && start == 0});
}

static vl_status extract_piece(const vl_added *added, const vl_added_set *set, vl_pieces *out, const char *text,
                               const vl_piece *piece, vl_scratch *scratch, vl_error *err)
{
    size_t done = 0, size = piece->size;
    for (size_t at = 0; at < size;) {
        const vl_added_token *token = set->begins[(uint8_t)text[at]] ? longest_at(set, text + at, size - at) : NULL;
        if (!token) {
            at++;
            continue;
        }
        size_t start = at, end = at + token->size;
        at = end; /* a match is used up, also where it is not taken */
        if (token->single_word) {
            bool touches;
            VL_TRY(touches_word(&touches, added, text, size, token, start, scratch, err));
            if (touches)
                continue;
        }
        if (token->lstrip)
            start = spaces_before(text, start, done); /* not those that the token before has taken */
        if (token->rstrip)
            end = spaces_after(text, end, size);
        add_slice(out, text, done, start, piece, -1);
        add_slice(out, text, start, end, piece, token->id);
        done = end;
    }
    add_slice(out, text, done, size, piece, -1);
    return VL_OK;
}

vl_status vl_added_extract(const vl_added *added, const vl_added_set *set, vl_pieces *pieces, vl_pieces *spare,
                           vl_scratch *scratch, vl_error *err)
{
    if (set->n == 0)
        return VL_OK;
    vl_pieces_clear(spare);
    for (size_t i = 0; i < pieces->n; i++) {
        const vl_piece *piece = &pieces->items[i];
        const char *text = vl_piece_text(pieces, piece);
        if (piece->id >= 0)
            vl_pieces_add(spare, text, piece->size, *piece);
        else
            VL_TRY(extract_piece(added, set, spare, text, piece, scratch, err));
    }
    VL_TRY(vl_pieces_check(spare, err));
    vl_pieces swap = *pieces;
    *pieces = *spare;
    *spare = swap;
    return VL_OK;
}
