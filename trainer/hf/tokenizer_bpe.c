/* Byte-pair encoding. Three things keep it fast without changing a result: a piece is cut where no merge can
 * reach across, equal words are encoded once per call, and merges are taken from a heap. */
#include "trainer/hf/tokenizer_parts.h"

#include <stdio.h>
#include <string.h>

#include "trainer/base/json.h"
#include "trainer/base/mem.h"

enum { JOINED_BITS = 20, CACHE_MAX = 1 << 14, MAX_WORD_IN_CACHE = 256 };

bool vl_ids_add(vl_ids *ids, int32_t id)
{
    if (!vl_grow(&ids->items, &ids->capacity, ids->n, sizeof *ids->items))
        return false;
    ids->items[ids->n++] = id;
    return true;
}

/* ---- parsing ---- */

static size_t joined_bit(uint32_t left, uint32_t right)
{
    uint64_t x = ((uint64_t)left << 21 ^ right) * 0x9e3779b97f4a7c15u;
    return (size_t)(x >> (64 - JOINED_BITS));
}

/* Notes each pair of neighbours in a token that comes out of a merge. Where two characters of a text are no such
 * pair, no merge ever spans them, so both sides can be encoded apart. (A set bit may stand for several pairs:
 * that only makes a longer word.) */
static void note_neighbours(vl_bpe *bpe, const char *text, size_t size)
{
    uint32_t left = 0, code = 0;
    for (size_t at = 0; at < size; left = code) {
        int length = vl_utf8_next(&code, text + at, size - at);
        if (length < 0)
            return;
        if (at > 0) {
            size_t bit = joined_bit(left, code);
            bpe->joined[bit / 64] |= (uint64_t)1 << bit % 64;
        }
        at += (size_t)length;
    }
}

static vl_status check_options(const json_t *model, const char *where, vl_error *err)
{
    const char *type = NULL;
    double dropout = 0;
    VL_TRY(vl_json_string(&type, model, "type", where, err));
    if (type && strcmp(type, "BPE") != 0)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: model type \"%.60s\" (supported: BPE)", where, type);
    VL_TRY(vl_json_double(&dropout, model, "dropout", where, err));
    if (dropout != 0)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: model \"dropout\" is %g (supported: null)", where, dropout);
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        const char *text = NULL;
        VL_TRY(vl_json_string(&text, model, affixes[i], where, err));
        if (text && text[0])
            return vl_fail(err, VL_EUNSUPPORTED, "%s: model \"%s\" is \"%.40s\" (supported: null)", where, affixes[i],
                           text);
    }
    return VL_OK;
}

vl_status vl_bpe_parse(vl_bpe *out, const json_t *model, const vl_vocab *vocab, const char *where, vl_error *err)
{
    const char *unk = NULL;
    *out = (vl_bpe){.vocab = vocab, .unk_id = -1};
    VL_TRY(check_options(model, where, err));
    VL_TRY(vl_json_bool(&out->byte_fallback, model, "byte_fallback", where, err));
    VL_TRY(vl_json_bool(&out->fuse_unk, model, "fuse_unk", where, err));
    VL_TRY(vl_json_bool(&out->ignore_merges, model, "ignore_merges", where, err));
    VL_TRY(vl_json_string(&unk, model, "unk_token", where, err));
    if (unk) {
        out->unk_token = vl_strdup(unk);
        out->unk_id = vl_vocab_find_model(vocab, unk, strlen(unk));
    }
    out->joined = vl_calloc((size_t)1 << JOINED_BITS >> 6, sizeof *out->joined);
    if (!out->joined || (unk && !out->unk_token))
        return vl_fail_nomem(err, where);
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        out->byte_id[b] = out->byte_fallback ? vl_vocab_find_model(vocab, name, 6) : -1;
    }
    for (int c = 0; c < 128; c++) {
        char text = (char)c;
        out->ascii_id[c] = vl_vocab_find_model(vocab, &text, 1);
    }
    for (size_t i = 0; i <= vocab->merge_mask; i++) {
        const vl_merge *merge = &vocab->merges[i];
        if (merge->pair != UINT64_MAX)
            note_neighbours(out, vocab->bytes + vocab->start[merge->id], vocab->length[merge->id]);
    }
    return VL_OK;
}

void vl_bpe_free(vl_bpe *bpe)
{
    vl_free(bpe->unk_token);
    vl_free(bpe->joined);
    *bpe = (vl_bpe){0};
}

/* ---- one word ---- */

struct symbol {
    int32_t id; /* -1: merged into its left neighbour */
    uint32_t previous, next;
};

struct candidate {
    uint64_t order; /* rank << 32 | position of the left symbol: lowest rank first, then leftmost */
    int32_t id;     /* of the merged token */
};

#define NONE UINT32_MAX

/* What one call of vl_bpe_encode works with. */
struct encoder {
    const vl_bpe *bpe;
    vl_ids *out;
    struct symbol *symbols;
    size_t n_symbols, symbol_capacity;
    struct candidate *heap;
    size_t n_heap, heap_capacity;
    struct cached {
        const char *text; /* of the pieces; NULL: empty */
        uint32_t size, n_ids;
        size_t first_id; /* in out: an equal word was encoded there */
    } * cache;
    size_t cache_mask;
    bool failed;
};

static void push_symbol(struct encoder *e, int32_t id)
{
    if (!vl_grow(&e->symbols, &e->symbol_capacity, e->n_symbols, sizeof *e->symbols)) {
        e->failed = true;
        return;
    }
    uint32_t at = (uint32_t)e->n_symbols++;
    e->symbols[at] = (struct symbol){id, at == 0 ? NONE : at - 1, at + 1};
}

static void push_candidate(struct encoder *e, uint32_t left)
{
    uint32_t right = left == NONE ? NONE : e->symbols[left].next;
    if (right == NONE)
        return;
    const vl_merge *merge = vl_vocab_merge(e->bpe->vocab, e->symbols[left].id, e->symbols[right].id);
    if (!merge)
        return;
    if (!vl_grow(&e->heap, &e->heap_capacity, e->n_heap, sizeof *e->heap)) {
        e->failed = true;
        return;
    }
    struct candidate item = {(uint64_t)merge->rank << 32 | left, merge->id};
    size_t at = e->n_heap++;
    for (; at > 0 && e->heap[(at - 1) / 2].order > item.order; at = (at - 1) / 2)
        e->heap[at] = e->heap[(at - 1) / 2];
    e->heap[at] = item;
}

static struct candidate pop_candidate(struct encoder *e)
{
    struct candidate top = e->heap[0], item = e->heap[--e->n_heap];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < e->n_heap) {
        if (child + 1 < e->n_heap && e->heap[child + 1].order < e->heap[child].order)
            child++;
        if (item.order <= e->heap[child].order)
            break;
        e->heap[at] = e->heap[child];
        at = child;
    }
    e->heap[at] = item;
    return top;
}

static int32_t character_id(const vl_bpe *bpe, const char *text, size_t size)
{
    if (size == 1 && (uint8_t)text[0] < 128)
        return bpe->ascii_id[(uint8_t)text[0]];
    return vl_vocab_find_model(bpe->vocab, text, size);
}

static bool has_byte_tokens(const vl_bpe *bpe, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (bpe->byte_id[(uint8_t)text[i]] < 0)
            return false;
    return bpe->byte_fallback;
}

/* The characters of a word as symbols. As in the reference, an unknown token waits for the next character that is
 * in the vocabulary (byte tokens overtake it), and with fuse_unk takes further unknown ones in. */
static vl_status start_word(struct encoder *e, const char *text, size_t size, vl_error *err)
{
    const vl_bpe *bpe = e->bpe;
    bool waiting = false;
    uint32_t code;
    e->n_symbols = 0;
    for (size_t at = 0, length; at < size; at += length) {
        int n = vl_utf8_next(&code, text + at, size - at);
        length = n > 0 ? (size_t)n : 1;
        int32_t id = character_id(bpe, text + at, length);
        if (id >= 0) {
            if (waiting)
                push_symbol(e, bpe->unk_id);
            waiting = false;
            push_symbol(e, id);
        } else if (has_byte_tokens(bpe, text + at, length)) {
            for (size_t i = 0; i < length; i++)
                push_symbol(e, bpe->byte_id[(uint8_t)text[at + i]]);
        } else if (bpe->unk_token) {
            if (bpe->unk_id < 0)
                return vl_fail(err, VL_EFORMAT, "tokenizer.json: \"unk_token\" \"%.80s\" is not in the vocabulary",
                               bpe->unk_token);
            if (waiting && !bpe->fuse_unk)
                push_symbol(e, bpe->unk_id);
            waiting = true;
        }
    }
    if (waiting)
        push_symbol(e, bpe->unk_id);
    if (e->n_symbols > 0)
        e->symbols[e->n_symbols - 1].next = NONE;
    return e->failed ? vl_fail_nomem(err, "byte-pair encoding") : VL_OK;
}

static void merge_symbols(struct encoder *e)
{
    e->n_heap = 0;
    for (uint32_t i = 0; i < e->n_symbols; i++)
        push_candidate(e, i);
    while (e->n_heap > 0) {
        struct candidate top = pop_candidate(e);
        uint32_t left = (uint32_t)top.order;
        struct symbol *symbol = &e->symbols[left];
        if (symbol->id < 0 || symbol->next == NONE)
            continue;
        /* An entry can be older than its symbols; like the reference it then counts if it makes the same token. */
        struct symbol *right = &e->symbols[symbol->next];
        const vl_merge *merge = vl_vocab_merge(e->bpe->vocab, symbol->id, right->id);
        if (!merge || merge->id != top.id)
            continue;
        symbol->id = top.id;
        symbol->next = right->next;
        right->id = -1;
        if (right->next != NONE)
            e->symbols[right->next].previous = left;
        push_candidate(e, symbol->previous);
        push_candidate(e, left);
    }
}

static vl_status encode_word(struct encoder *e, const char *text, size_t size, vl_error *err)
{
    struct cached *cached = NULL;
    vl_ids *out = e->out;
    if (size <= MAX_WORD_IN_CACHE) {
        cached = &e->cache[vl_hash_bytes(text, size) & e->cache_mask];
        if (cached->text && cached->size == size && memcmp(cached->text, text, size) == 0) {
            for (size_t i = 0; i < cached->n_ids; i++)
                if (!vl_ids_add(out, out->items[cached->first_id + i]))
                    return vl_fail_nomem(err, "token ids");
            return VL_OK;
        }
    }
    size_t first = out->n;
    VL_TRY(start_word(e, text, size, err));
    merge_symbols(e);
    for (uint32_t i = 0; i < e->n_symbols; i++)
        if (e->symbols[i].id >= 0 && !vl_ids_add(out, e->symbols[i].id))
            e->failed = true;
    if (e->failed)
        return vl_fail_nomem(err, "byte-pair encoding");
    if (cached)
        *cached = (struct cached){text, (uint32_t)size, (uint32_t)(out->n - first), first};
    return VL_OK;
}

/* ---- pieces ---- */

/* Encodes a piece word by word. Unknown characters are never cut off: what they become depends on their
 * neighbours, and byte tokens merge under other names than the characters that they spell. */
static vl_status encode_piece(struct encoder *e, const char *text, size_t size, vl_error *err)
{
    const vl_bpe *bpe = e->bpe;
    if (bpe->ignore_merges) {
        int32_t id = vl_vocab_find_model(bpe->vocab, text, size);
        if (id >= 0)
            return vl_ids_add(e->out, id) ? VL_OK : vl_fail_nomem(err, "token ids");
    }
    uint32_t left = 0, code = 0;
    bool left_known = false;
    size_t start = 0;
    for (size_t at = 0, length; at < size; at += length, left = code) {
        int n = vl_utf8_next(&code, text + at, size - at);
        length = n > 0 ? (size_t)n : 1;
        bool known = character_id(bpe, text + at, length) >= 0;
        size_t bit = joined_bit(left, code);
        if (left_known && known && !(bpe->joined[bit / 64] >> bit % 64 & 1)) {
            VL_TRY(encode_word(e, text + start, at - start, err));
            start = at;
        }
        left_known = known;
    }
    return encode_word(e, text + start, size - start, err);
}

vl_status vl_bpe_encode(const vl_bpe *bpe, vl_ids *out, const vl_pieces *pieces, vl_error *err)
{
    struct encoder e = {.bpe = bpe, .out = out};
    vl_status status = VL_OK;
    size_t cache_size = 16;
    while (cache_size < CACHE_MAX && cache_size < pieces->text.size / 4)
        cache_size *= 2;
    e.cache_mask = cache_size - 1;
    e.cache = vl_calloc(cache_size, sizeof *e.cache);
    if (!e.cache)
        return vl_fail_nomem(err, "byte-pair encoding");
    for (size_t i = 0; i < pieces->n; i++) {
        const vl_piece *piece = &pieces->items[i];
        if (piece->id < 0)
            VL_GOTO(encode_piece(&e, vl_piece_text(pieces, piece), piece->size, err));
        else if (!vl_ids_add(out, piece->id)) {
            status = vl_fail_nomem(err, "token ids");
            goto done;
        }
    }
done:
    vl_free(e.cache);
    vl_free(e.symbols);
    vl_free(e.heap);
    return status;
}
