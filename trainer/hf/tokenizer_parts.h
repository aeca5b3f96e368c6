/* hf/tokenizer_parts.h - the parts of a tokenizer, in the order in which a text meets them:
 *
 *   text -> added tokens cut out -> normalizers -> added tokens (normalized ones) -> splitters -> BPE -> template
 *   ids  -> token texts -> decoders -> text
 *
 * Each part is parsed once (vl_*_parse) from its member of tokenizer.json and is constant afterwards; what one
 * call of encode or decode needs in addition lives in a vl_scratch. Between parts the text travels as vl_pieces. */
#ifndef VL_HF_TOKENIZER_PARTS_H
#define VL_HF_TOKENIZER_PARTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vlens/tokenizer.h>

#include "trainer/base/status.h"
#include "trainer/base/str.h"

/* ---- UTF-8 (tokenizer_utf8.c) ---- */

/* Decodes one character of s[0..n), n > 0: its length in bytes, or minus the length of the longest prefix that
 * could have begun one (at least 1), which is what one U+FFFD stands for. */
int vl_utf8_next(uint32_t *code, const char *s, size_t n);
/* Offset of the first byte that is not valid UTF-8; n if there is none. */
size_t vl_utf8_check(const char *s, size_t n);
void vl_utf8_put(vl_str *out, uint32_t code);
/* Appends s with each invalid part replaced by U+FFFD. */
void vl_utf8_put_lossy(vl_str *out, const char *s, size_t n);
/* Length of the character that ends at s + n, n > 0; s is valid. */
size_t vl_utf8_last(const char *s, size_t n);
/* Unicode White_Space. */
bool vl_utf8_is_space(uint32_t code);
/* GPT-2's map of bytes to printable characters, and back (-1: stands for no byte). */
uint32_t vl_byte_to_char(uint8_t byte);
int vl_char_to_byte(uint32_t code);

/* ---- pieces: a text cut into parts (tokenizer_pieces.c) ---- */

typedef struct vl_piece {
    size_t start, size; /* bytes of vl_pieces.text */
    int32_t id;         /* an added token, whose text no later part touches; -1: ordinary text */
    bool first;         /* begins where the whole input begins (Metaspace "first" asks) */
    bool lost_start;    /* while normalizers work: what the piece began with was removed */
} vl_piece;

typedef struct vl_pieces {
    vl_str text;
    vl_piece *items; /* [n] */
    size_t n, capacity;
    bool failed;     /* an allocation failed: checked once, by vl_pieces_check */
    size_t limit;    /* bytes of text, as in vl_scratch */
    bool keep_empty; /* decoders count tokens, so there an empty one stays */
} vl_pieces;

/* Appends a piece with a copy of its text; an empty one is left out (unless keep_empty). */
void vl_pieces_add(vl_pieces *pieces, const char *text, size_t size, vl_piece like);
/* Opens a piece whose text the caller then appends to pieces->text; close leaves it out where it stayed empty. */
void vl_pieces_open(vl_pieces *pieces, vl_piece like);
void vl_pieces_close(vl_pieces *pieces);
void vl_pieces_clear(vl_pieces *pieces); /* empties, keeps the memory */
void vl_pieces_free(vl_pieces *pieces);
/* VL_ENOMEM after a failed append; VL_EFORMAT where a part has blown the text up beyond the limit. */
vl_status vl_pieces_check(const vl_pieces *pieces, vl_error *err);
/* A limit for an input of n bytes: no sane tokenizer comes near it, a hostile one must not eat the memory. */
size_t vl_text_limit(size_t n);
/* The failure of a text that is beyond its limit or memory. */
vl_status vl_fail_too_large(const vl_str *text, size_t limit, vl_error *err);
static inline const char *vl_piece_text(const vl_pieces *pieces, const vl_piece *piece)
{
    return pieces->text.data ? pieces->text.data + piece->start : "";
}

/* ---- parsing helpers (tokenizer_pieces.c) ---- */

/* Called for each component; `type` is its "type", `where` names file and member for messages. */
typedef vl_status (*vl_component_fn)(void *owner, const json_t *component, const char *type, const char *where,
                                     vl_error *err);
/* Walks `root` (missing or null: nothing), flattening {"type": "Sequence", list_key: [...]}. */
vl_status vl_each_component(const json_t *root, const char *list_key, vl_component_fn add, void *owner,
                            const char *where, vl_error *err);
/* Makes room for one more element: *items is an array of `size`-byte elements, n of them used. */
bool vl_grow(void *items, size_t *capacity, size_t n, size_t size);
/* A string member that must be there, with its length (it may hold NULs). Borrowed. */
vl_status vl_need_text(const char **text, size_t *size, const json_t *object, const char *key, const char *where,
                       vl_error *err);

/* ---- patterns (tokenizer_regex.c, tokenizer_regex_rewrite.c) ---- */

typedef struct vl_pattern {
    char *literal; /* of `size` bytes, or NULL for a regex */
    size_t size;
    void *code; /* pcre2_code */
} vl_pattern;

typedef struct vl_scratch {
    void *match;   /* pcre2_match_data */
    void *context; /* pcre2_match_context */
    void *stack;   /* pcre2_jit_stack */
    size_t limit;  /* bytes that a text may grow to in this call: see vl_text_limit */
} vl_scratch;

/* One pass over the matches in a text, the way Hugging Face's regex engine iterates. */
typedef struct vl_matches {
    const vl_pattern *pattern;
    const char *text;
    size_t size;
    size_t next;     /* where the search goes on */
    size_t last_end; /* SIZE_MAX before the first match */
    size_t start, end;
} vl_matches;

vl_status vl_scratch_init(vl_scratch *scratch, size_t limit, vl_error *err);
void vl_scratch_free(vl_scratch *scratch);

vl_status vl_pattern_compile(vl_pattern *out, const char *regex, size_t size, const char *where, vl_error *err);
vl_status vl_pattern_literal(vl_pattern *out, const char *text, size_t size, const char *where, vl_error *err);
/* {"String": "..."} or {"Regex": "..."} under `key`. */
vl_status vl_pattern_parse(vl_pattern *out, const json_t *object, const char *key, const char *where, vl_error *err);
void vl_pattern_free(vl_pattern *pattern);
/* Appends a regex of Oniguruma's Ruby syntax in PCRE2's syntax; VL_EUNSUPPORTED where it has no equal. */
vl_status vl_regex_rewrite(vl_str *out, const char *regex, size_t size, const char *where, vl_error *err);

void vl_matches_begin(vl_matches *matches, const vl_pattern *pattern, const char *text, size_t size);
/* Fills start and end and sets *found; VL_EFORMAT where the regex gives up (match limits). */
vl_status vl_matches_next(vl_matches *matches, bool *found, vl_scratch *scratch, vl_error *err);
/* Appends the text with every match replaced by `content`. */
vl_status vl_pattern_replace(vl_str *out, vl_matches matches, const char *content, size_t size, vl_scratch *scratch,
                             vl_error *err);

/* ---- normalizers (tokenizer_normalize.c) ---- */

typedef struct vl_normalizer vl_normalizer;
typedef struct vl_normalizers {
    vl_normalizer *items; /* [n] */
    size_t n, capacity;
} vl_normalizers;

vl_status vl_normalizers_parse(vl_normalizers *out, const json_t *root, const char *where, vl_error *err);
void vl_normalizers_free(vl_normalizers *normalizers);
/* Normalizes every ordinary piece of *pieces in place (`spare` is a second buffer). */
vl_status vl_normalizers_apply(const vl_normalizers *normalizers, vl_pieces *pieces, vl_pieces *spare,
                               vl_scratch *scratch, vl_error *err);

/* ---- splitters: "pre_tokenizer" (tokenizer_split.c, tokenizer_split_parse.c) ---- */

typedef enum vl_split_kind { VL_SPLIT_PATTERN, VL_SPLIT_BYTE_LEVEL, VL_SPLIT_DIGITS, VL_SPLIT_METASPACE } vl_split_kind;
typedef enum vl_split_behavior {
    VL_ISOLATED,
    VL_REMOVED,
    VL_MERGED_WITH_PREVIOUS,
    VL_MERGED_WITH_NEXT,
    VL_CONTIGUOUS
} vl_split_behavior;
typedef enum vl_prepend_scheme { VL_PREPEND_ALWAYS, VL_PREPEND_FIRST, VL_PREPEND_NEVER } vl_prepend_scheme;

/* What the Metaspace splitter and the Metaspace decoder share. */
typedef struct vl_metaspace {
    char replacement[8]; /* one character */
    vl_prepend_scheme prepend;
    bool split;
} vl_metaspace;

typedef struct vl_splitter {
    vl_split_kind kind;
    vl_split_behavior behavior; /* PATTERN, and DIGITS: isolated or contiguous */
    bool invert;                /* PATTERN */
    vl_pattern pattern;         /* PATTERN; BYTE_LEVEL: GPT-2's regex, where use_regex */
    bool add_prefix_space;      /* BYTE_LEVEL */
    bool use_regex;             /* BYTE_LEVEL */
    vl_metaspace metaspace;     /* METASPACE */
} vl_splitter;

typedef struct vl_splitters {
    vl_splitter *items; /* [n] */
    size_t n, capacity;
} vl_splitters;

vl_status vl_splitters_parse(vl_splitters *out, const json_t *root, const char *where, vl_error *err);
void vl_splitters_free(vl_splitters *splitters);
vl_status vl_splitters_apply(const vl_splitters *splitters, vl_pieces *pieces, vl_pieces *spare, vl_scratch *scratch,
                             vl_error *err);
vl_status vl_metaspace_parse(vl_metaspace *out, const json_t *component, const char *where, vl_error *err);

/* ---- vocabulary and merges (tokenizer_vocab.c) ---- */

enum { VL_TOKEN_MODEL = 1, VL_TOKEN_ADDED = 2, VL_TOKEN_SPECIAL = 4 };
/* Ids index arrays, so a file must not name arbitrary ones. */
enum { VL_TOKEN_ID_LIMIT = 1 << 24 };

typedef struct vl_merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: an empty slot */
    uint32_t rank;
    int32_t id; /* of the merged token */
} vl_merge;

typedef struct vl_vocab {
    char *bytes;      /* the texts of all tokens, each with a NUL */
    uint32_t *start;  /* [size] offset in bytes */
    uint32_t *length; /* [size] */
    uint8_t *flags;   /* [size] VL_TOKEN_*; 0: no such token */
    int32_t size;
    size_t used, capacity; /* of bytes */
    uint32_t *slots;       /* [slot_mask + 1] hash table of id + 1; 0: empty */
    size_t slot_mask;
    vl_merge *merges; /* [merge_mask + 1] hash table */
    size_t merge_mask;
} vl_vocab;

/* Reads model.vocab, added_tokens and model.merges. */
vl_status vl_vocab_parse(vl_vocab *out, const json_t *model, const json_t *added, const char *where, vl_error *err);
void vl_vocab_free(vl_vocab *vocab);
int32_t vl_vocab_find(const vl_vocab *vocab, const char *text, size_t size);        /* any token; -1 */
int32_t vl_vocab_find_model(const vl_vocab *vocab, const char *text, size_t size);  /* tokens of the model only */
const vl_merge *vl_vocab_merge(const vl_vocab *vocab, int32_t left, int32_t right); /* NULL: they do not merge */
uint64_t vl_hash_bytes(const char *text, size_t size);

/* ---- BPE (tokenizer_bpe.c) ---- */

typedef struct vl_bpe {
    const vl_vocab *vocab;
    bool byte_fallback, fuse_unk, ignore_merges;
    char *unk_token; /* NULL: unknown characters vanish */
    int32_t unk_id;  /* -1: unk_token is not in the vocabulary */
    int32_t byte_id[256];
    int32_t ascii_id[128]; /* the token of each ASCII character, -1 */
    uint64_t *joined;      /* a bit set of the character pairs that stand side by side in a merged token */
} vl_bpe;

typedef struct vl_ids {
    int32_t *items; /* [n] */
    size_t n, capacity;
} vl_ids;

vl_status vl_bpe_parse(vl_bpe *out, const json_t *model, const vl_vocab *vocab, const char *where, vl_error *err);
void vl_bpe_free(vl_bpe *bpe);
/* Appends the ids of all pieces. */
vl_status vl_bpe_encode(const vl_bpe *bpe, vl_ids *out, const vl_pieces *pieces, vl_error *err);
bool vl_ids_add(vl_ids *ids, int32_t id);

/* ---- added tokens (tokenizer_added.c) ---- */

typedef struct vl_added_token {
    int32_t id;
    bool single_word, lstrip, rstrip, normalized;
    size_t start, size; /* of vl_added.text: what is searched for */
} vl_added_token;

/* One set of tokens, sorted by text so that a binary search narrows byte by byte to the longest match. */
typedef struct vl_added_set {
    vl_added_token *items; /* [n] */
    size_t n, capacity;
    vl_str text;
    bool begins[256]; /* some token begins with this byte */
} vl_added_set;

typedef struct vl_added {
    vl_added_set raw, normalized;
    vl_pattern word; /* one character that counts as a part of a word */
} vl_added;

vl_status vl_added_parse(vl_added *out, const json_t *added, const vl_vocab *vocab, const vl_normalizers *normalizers,
                         const char *where, vl_error *err);
void vl_added_free(vl_added *added);
/* Cuts the set's tokens out of every ordinary piece. */
vl_status vl_added_extract(const vl_added *added, const vl_added_set *set, vl_pieces *pieces, vl_pieces *spare,
                           vl_scratch *scratch, vl_error *err);

/* ---- template: "post_processor" (tokenizer_template.c) ---- */

typedef struct vl_template {
    vl_ids before, after;
} vl_template;

vl_status vl_template_parse(vl_template *out, const json_t *root, const vl_vocab *vocab, const char *where,
                            vl_error *err);
void vl_template_free(vl_template *template);

/* ---- decoders (tokenizer_decode.c) ---- */

typedef struct vl_decoder vl_decoder;
typedef struct vl_decoders {
    vl_decoder *items; /* [n] */
    size_t n, capacity;
    bool present; /* without a decoder, tokens are joined by spaces */
} vl_decoders;

vl_status vl_decoders_parse(vl_decoders *out, const json_t *root, const char *where, vl_error *err);
void vl_decoders_free(vl_decoders *decoders);
/* pieces holds the token texts (id unused); the decoded text is all pieces side by side. */
vl_status vl_decoders_apply(const vl_decoders *decoders, vl_pieces *pieces, vl_pieces *spare, vl_scratch *scratch,
                            vl_error *err);
/* Appends one model token (not an added one) as people want to see it. */
vl_status vl_decoders_show(const vl_decoders *decoders, vl_str *out, const char *token, size_t size,
                           vl_scratch *scratch, vl_error *err);

#endif
