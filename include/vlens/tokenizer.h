/* vlens/tokenizer.h - text to token ids and back, as a Hugging Face tokenizer.json says.
 *
 * What the file says is done, nothing is assumed: model BPE with its normalizer, pre_tokenizer, added tokens,
 * post_processor and decoder. A component that vlens does not have is refused when the file is opened.
 * A vl_tokenizer never changes after it was opened: any number of threads may use one at the same time. */
#ifndef VLENS_TOKENIZER_H
#define VLENS_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vlens/error.h>
#include <vlens/memory.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_tokenizer vl_tokenizer;

/* Reads tokenizer.json of a model directory, and the names of bos and eos from tokenizer_config.json or, where
 * that lacks them, special_tokens_map.json (both may be missing). The caller closes *out.
 * Errors: VL_EIO (no tokenizer.json), VL_EFORMAT (malformed, or above 256 MiB), VL_EUNSUPPORTED (a component or
 * an option that vlens does not have; the message lists what it has), VL_ENOMEM. */
VL_API vl_status vl_tokenizer_open(vl_tokenizer **out, const char *model_dir, vl_error *err);
VL_API void vl_tokenizer_close(vl_tokenizer *tokenizer);

/* The largest id + 1. A model's vocabulary may be larger (padded). */
VL_API int32_t vl_tokenizer_size(const vl_tokenizer *tokenizer);
/* The id of a token spelled as in tokenizer.json ("<image>", "\u2581the"), added tokens included; -1 if none. */
VL_API int32_t vl_tokenizer_id(const vl_tokenizer *tokenizer, const char *raw_token);
/* The ids of the tokens that begin and end a text; -1 where the model names none. */
VL_API int32_t vl_tokenizer_bos(const vl_tokenizer *tokenizer);
VL_API int32_t vl_tokenizer_eos(const vl_tokenizer *tokenizer);
/* Is this an added token marked special (a control token)? False for an id that no token has. */
VL_API bool vl_tokenizer_is_special(const vl_tokenizer *tokenizer, int32_t id);

/* One token as people want to see it in a table: UTF-8, with a word's leading space as a space. Bytes that are
 * no UTF-8 by themselves, and NUL, are written <0xAB>. Borrowed; NULL if no token has this id. */
VL_API const char *vl_tokenizer_piece(const vl_tokenizer *tokenizer, int32_t id);

typedef struct vl_token_ids {
    int32_t *ids; /* [n] int32; freed by the caller with vl_release; never NULL after success */
    int64_t n;
} vl_token_ids;

/* Encodes n_bytes of UTF-8 (at most 512 MiB; NULs are text like any other). add_special puts the tokens of the
 * post_processor (for most models: bos) around the text. Special tokens that are spelled out in the text become
 * their ids either way. Errors: VL_EINVAL (invalid UTF-8: the message holds the byte offset; too long),
 * VL_EFORMAT (the file's regex gives up on this text; unk_token is needed and missing), VL_ENOMEM. */
VL_API vl_status vl_tokenizer_encode(vl_token_ids *out, const vl_tokenizer *tokenizer, const char *text, size_t n_bytes,
                                     bool add_special, vl_error *err);

typedef struct vl_decoded {
    char *text;     /* UTF-8 and a NUL; freed by the caller with vl_release; never NULL after success */
    size_t n_bytes; /* without the NUL; more than strlen(text) where the tokens hold U+0000 */
} vl_decoded;

/* ids: [n] int32. Ids that no token has are skipped, as Hugging Face does; with skip_special so are special tokens.
 * Bytes that form no UTF-8 become U+FFFD. Errors: VL_EINVAL (n < 0), VL_EFORMAT (as above), VL_ENOMEM. */
VL_API vl_status vl_tokenizer_decode(vl_decoded *out, const vl_tokenizer *tokenizer, const int32_t *ids, int64_t n,
                                     bool skip_special, vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
