#include <vlens/tokenizer.h>

#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/hf/tokenizer_parts.h"

static const size_t max_file = (size_t)256 << 20;
static const size_t max_text = (size_t)512 << 20;
static const size_t max_piece = (size_t)1 << 20; /* of a token as it is shown */

struct vl_tokenizer {
    vl_vocab vocab;
    vl_normalizers normalizers;
    vl_added added;
    vl_splitters splitters;
    vl_bpe bpe;
    vl_template template;
    vl_decoders decoders;
    int32_t bos, eos;
    vl_str pieces;       /* what vl_tokenizer_piece shows, each with a NUL */
    size_t *piece_start; /* [vocab.size] */
};

/* ---- opening ---- */

static vl_status parse_parts(vl_tokenizer *t, const json_t *root, const char *path, vl_error *err)
{
    const json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    vl_status status = VL_OK;
    char *where[4] = {NULL};
    static const char *const member[] = {"normalizer", "pre_tokenizer", "post_processor", "decoder"};
    for (int i = 0; i < 4; i++) {
        vl_str text = VL_STR_INIT;
        vl_str_printf(&text, "%s: %s", path, member[i]);
        where[i] = text.data;
        if (text.failed) {
            status = vl_fail_nomem(err, path);
            goto done;
        }
    }
    if (!json_is_object(model)) {
        status = vl_fail(err, VL_EFORMAT, "%s: \"model\" is missing or no object", path);
        goto done;
    }
    VL_GOTO(vl_vocab_parse(&t->vocab, model, added, path, err));
    VL_GOTO(vl_bpe_parse(&t->bpe, model, &t->vocab, path, err));
    VL_GOTO(vl_normalizers_parse(&t->normalizers, json_object_get(root, "normalizer"), where[0], err));
    VL_GOTO(vl_splitters_parse(&t->splitters, json_object_get(root, "pre_tokenizer"), where[1], err));
    VL_GOTO(vl_template_parse(&t->template, json_object_get(root, "post_processor"), &t->vocab, where[2], err));
    VL_GOTO(vl_decoders_parse(&t->decoders, json_object_get(root, "decoder"), where[3], err));
    VL_GOTO(vl_added_parse(&t->added, added, &t->vocab, &t->normalizers, path, err));
done:
    for (int i = 0; i < 4; i++)
        vl_free(where[i]);
    return status;
}

static vl_status make_pieces(vl_tokenizer *t, vl_error *err)
{
    vl_scratch scratch;
    vl_status status = VL_OK;
    VL_TRY(vl_scratch_init(&scratch, max_piece, err));
    t->piece_start = vl_calloc((size_t)t->vocab.size, sizeof *t->piece_start);
    if (!t->piece_start) {
        status = vl_fail_nomem(err, "token texts");
        goto done;
    }
    for (int32_t id = 0; id < t->vocab.size; id++) {
        if (!t->vocab.flags[id])
            continue;
        const char *token = t->vocab.bytes + t->vocab.start[id];
        size_t size = t->vocab.length[id];
        t->piece_start[id] = t->pieces.size;
        if (t->vocab.flags[id] & VL_TOKEN_ADDED)
            vl_str_append(&t->pieces, token, size);
        else
            VL_GOTO(vl_decoders_show(&t->decoders, &t->pieces, token, size, &scratch, err));
        vl_str_putc(&t->pieces, 0);
        if (t->pieces.failed || t->pieces.size > max_text) {
            status = vl_fail_nomem(err, "token texts");
            goto done;
        }
    }
done:
    vl_scratch_free(&scratch);
    return status;
}

/* A name is a string, or in older files an object with the token's "content". */
static void read_name(int32_t *id, const vl_tokenizer *t, const json_t *root, const char *key)
{
    const json_t *name = json_object_get(root, key);
    if (json_is_object(name))
        name = json_object_get(name, "content");
    if (*id < 0 && json_is_string(name))
        *id = vl_vocab_find(&t->vocab, json_string_value(name), json_string_length(name));
}

/* These files hold no integer that matters here, but often a "model_max_length" of 1e30 written as one. */
static vl_status read_side_file(json_t **out, const char *path, vl_error *err)
{
    char *text;
    size_t size;
    json_error_t where;
    *out = NULL;
    if (!vl_path_exists(path))
        return VL_OK;
    VL_TRY(vl_file_read(&text, &size, path, max_file, err));
    *out = json_loadb(text, size, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &where);
    vl_free(text);
    if (!*out)
        return vl_fail(err, VL_EFORMAT, "%s: line %d, column %d: %s", path, where.line, where.column, where.text);
    return VL_OK;
}

static vl_status read_names(vl_tokenizer *t, const char *model_dir, vl_error *err)
{
    static const char *const files[] = {"tokenizer_config.json", "special_tokens_map.json"};
    for (int i = 0; i < 2; i++) {
        char *path = vl_path_join(model_dir, files[i]);
        if (!path)
            return vl_fail_nomem(err, model_dir);
        json_t *root;
        vl_status status = read_side_file(&root, path, err);
        vl_free(path);
        if (status != VL_OK)
            return status;
        read_name(&t->bos, t, root, "bos_token");
        read_name(&t->eos, t, root, "eos_token");
        json_decref(root);
    }
    return VL_OK;
}

vl_status vl_tokenizer_open(vl_tokenizer **out, const char *model_dir, vl_error *err)
{
    vl_status status = VL_OK;
    json_t *root = NULL;
    char *path = vl_path_join(model_dir, "tokenizer.json");
    vl_tokenizer *t = vl_calloc(1, sizeof *t);
    *out = NULL;
    if (!path || !t) {
        status = vl_fail_nomem(err, model_dir);
        goto done;
    }
    t->bos = t->eos = -1;
    VL_GOTO(vl_json_read(&root, path, max_file, err));
    VL_GOTO(parse_parts(t, root, path, err));
    json_decref(root); /* before the texts are made: the tree is the largest thing here */
    root = NULL;
    VL_GOTO(make_pieces(t, err));
    VL_GOTO(read_names(t, model_dir, err));
    *out = t;
    t = NULL;
done:
    json_decref(root);
    vl_free(path);
    vl_tokenizer_close(t);
    return status;
}

void vl_tokenizer_close(vl_tokenizer *t)
{
    if (!t)
        return;
    vl_vocab_free(&t->vocab);
    vl_normalizers_free(&t->normalizers);
    vl_added_free(&t->added);
    vl_splitters_free(&t->splitters);
    vl_bpe_free(&t->bpe);
    vl_template_free(&t->template);
    vl_decoders_free(&t->decoders);
    vl_str_clear(&t->pieces);
    vl_free(t->piece_start);
    vl_free(t);
}

/* ---- asking ---- */

static bool has_token(const vl_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab.size && t->vocab.flags[id];
}

int32_t vl_tokenizer_size(const vl_tokenizer *t)
{
    return t->vocab.size;
}

int32_t vl_tokenizer_id(const vl_tokenizer *t, const char *raw_token)
{
    return vl_vocab_find(&t->vocab, raw_token, strlen(raw_token));
}

int32_t vl_tokenizer_bos(const vl_tokenizer *t)
{
    return t->bos;
}

int32_t vl_tokenizer_eos(const vl_tokenizer *t)
{
    return t->eos;
}

bool vl_tokenizer_is_special(const vl_tokenizer *t, int32_t id)
{
    return has_token(t, id) && (t->vocab.flags[id] & VL_TOKEN_SPECIAL);
}

const char *vl_tokenizer_piece(const vl_tokenizer *t, int32_t id)
{
    return has_token(t, id) ? t->pieces.data + t->piece_start[id] : NULL;
}

/* ---- encoding ---- */

static bool add_ids(vl_ids *out, const vl_ids *ids)
{
    for (size_t i = 0; i < ids->n; i++)
        if (!vl_ids_add(out, ids->items[i]))
            return false;
    return true;
}

static vl_status encode_pieces(const vl_tokenizer *t, vl_ids *ids, vl_pieces *pieces, vl_pieces *spare,
                               vl_scratch *scratch, vl_error *err)
{
    VL_TRY(vl_pieces_check(pieces, err));
    VL_TRY(vl_added_extract(&t->added, &t->added.raw, pieces, spare, scratch, err));
    VL_TRY(vl_normalizers_apply(&t->normalizers, pieces, spare, scratch, err));
    VL_TRY(vl_added_extract(&t->added, &t->added.normalized, pieces, spare, scratch, err));
    VL_TRY(vl_splitters_apply(&t->splitters, pieces, spare, scratch, err));
    return vl_bpe_encode(&t->bpe, ids, pieces, err);
}

vl_status vl_tokenizer_encode(vl_token_ids *out, const vl_tokenizer *t, const char *text, size_t n_bytes,
                              bool add_special, vl_error *err)
{
    *out = (vl_token_ids){NULL, 0};
    if (n_bytes > max_text)
        return vl_fail(err, VL_EINVAL, "text of %zu bytes, more than the limit of %zu", n_bytes, max_text);
    size_t valid = vl_utf8_check(text, n_bytes);
    if (valid < n_bytes)
        return vl_fail(err, VL_EINVAL, "text is not valid UTF-8 at byte %zu (0x%02X)", valid,
                       (unsigned)(uint8_t)text[valid]);
    vl_pieces pieces = {.limit = vl_text_limit(n_bytes)}, spare = pieces;
    vl_ids ids = {NULL, 0, 0};
    vl_scratch scratch;
    vl_status status = VL_OK;
    VL_TRY(vl_scratch_init(&scratch, pieces.limit, err));
    bool room = vl_grow(&ids.items, &ids.capacity, 0, sizeof *ids.items) &&
                (!add_special || add_ids(&ids, &t->template.before));
    if (room) {
        vl_pieces_add(&pieces, text, n_bytes, (vl_piece){.id = -1, .first = true});
        VL_GOTO(encode_pieces(t, &ids, &pieces, &spare, &scratch, err));
        room = !add_special || add_ids(&ids, &t->template.after);
    }
    if (!room) {
        status = vl_fail_nomem(err, "token ids");
        goto done;
    }
    *out = (vl_token_ids){ids.items, (int64_t)ids.n};
    ids.items = NULL;
done:
    vl_free(ids.items);
    vl_pieces_free(&pieces);
    vl_pieces_free(&spare);
    vl_scratch_free(&scratch);
    return status;
}

/* ---- decoding ---- */

static void token_texts(const vl_tokenizer *t, vl_pieces *pieces, const int32_t *ids, int64_t n, bool skip_special)
{
    bool any = false;
    for (int64_t i = 0; i < n && !pieces->failed && !pieces->text.failed; i++) {
        if (!has_token(t, ids[i]) || (skip_special && (t->vocab.flags[ids[i]] & VL_TOKEN_SPECIAL)))
            continue;
        vl_pieces_open(pieces, (vl_piece){.id = -1});
        if (any && !t->decoders.present)
            vl_str_putc(&pieces->text, ' ');
        vl_str_append(&pieces->text, t->vocab.bytes + t->vocab.start[ids[i]], t->vocab.length[ids[i]]);
        vl_pieces_close(pieces);
        any = true;
    }
}

vl_status vl_tokenizer_decode(vl_decoded *out, const vl_tokenizer *t, const int32_t *ids, int64_t n, bool skip_special,
                              vl_error *err)
{
    *out = (vl_decoded){NULL, 0};
    if (n < 0)
        return vl_fail(err, VL_EINVAL, "%lld ids to decode", (long long)n);
    vl_pieces pieces = {.keep_empty = true, .limit = SIZE_MAX}, spare = pieces;
    vl_scratch scratch;
    vl_status status = VL_OK;
    VL_TRY(vl_scratch_init(&scratch, 0, err));
    token_texts(t, &pieces, ids, n, skip_special);
    VL_GOTO(vl_pieces_check(&pieces, err));
    pieces.limit = spare.limit = scratch.limit = vl_text_limit(pieces.text.size);
    VL_GOTO(vl_decoders_apply(&t->decoders, &pieces, &spare, &scratch, err));
    out->text = vl_strndup(pieces.text.data ? pieces.text.data : "", pieces.text.size);
    if (!out->text)
        status = vl_fail_nomem(err, "decoded text");
    else
        out->n_bytes = pieces.text.size;
done:
    vl_pieces_free(&pieces);
    vl_pieces_free(&spare);
    vl_scratch_free(&scratch);
    return status;
}
