/* vlens/model.h - a frozen model: prompts in, residual stream out.
 *
 * State 0 is the embeddings after the image features are merged in; state i (1..L) is the output of block i, before
 * any final norm. One forward serves caching, tests, live viewing and ablation: a tap sees every state of every
 * sequence and may change it in place before the next block reads it. */
#ifndef VLENS_MODEL_H
#define VLENS_MODEL_H

#include <stdbool.h>

#include <vlens/conversation.h>
#include <vlens/device.h>
#include <vlens/hub.h>
#include <vlens/progress.h>
#include <vlens/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_model vl_model;

/* last: the token before an answer; answer: of a given answer, its end token included; generated: what the model said
 * itself. */
typedef enum vl_token_class { VL_TEXT = 0, VL_IMAGE, VL_LAST, VL_GENERATED, VL_ANSWER, VL_CLASS_COUNT } vl_token_class;
/* "text", "image", "last", "generated", "answer". */
VL_API const char *vl_token_class_name(vl_token_class token_class);

typedef struct vl_model_info {
    const char *path;       /* the directory that was read */
    const char *model_type; /* of config.json: "llama", "llava", "qwen2" ... */
    int64_t d_model;        /* D */
    int64_t n_layers;       /* L: blocks; there are L + 1 states */
    int64_t vocab_size;     /* V: rows of the unembedding */
    int64_t n_heads, n_kv_heads, head_dim, d_ff;
    bool sees_images;
    bool patches_in_stream;        /* image patches are rows of the residual stream; else cross-attention reads them */
    int image_size;                /* pixels of a side that the vision tower reads (of one tile); 0 without one */
    int patch_rows, patch_columns; /* that the decoder sees of a tile; 0 where they differ from picture to picture */
    int32_t image_token;           /* -1 without images */
    const char *weight_dtype;      /* "bfloat16", ... of most weights */
    int64_t n_parameters;
} vl_model_info;

typedef struct vl_model_options {
    const char *path;  /* directory or hub id */
    vl_hub_paths hub;  /* where the local Hugging Face cache is */
    vl_device *device; /* borrowed: must outlive the model */
    vl_precision precision;
} vl_model_options;

/* Maps the weights, checks every tensor, prepares the device. Errors: VL_EIO, VL_EFORMAT, VL_ESHAPE,
 * VL_EUNSUPPORTED (names the feature and what works), VL_ENOMEM. The caller closes *out. */
VL_API vl_status vl_model_open(vl_model **out, const vl_model_options *options, vl_error *err);
VL_API void vl_model_close(vl_model *model);
VL_API const vl_model_info *vl_model_get_info(const vl_model *model);
VL_API const vl_tokenizer *vl_model_tokenizer(const vl_model *model);
/* The identity of the frozen forward as 32 hexadecimal digits: every tensor that it reads, the configuration that it
 * obeys, preprocessing, tokenizer and rules (docs/reference/provenance.md). Reads all weights once. Errors: VL_ENOMEM.
 */
VL_API vl_status vl_model_digest(char out[33], vl_model *model, vl_error *err);
/* What the digest is of: a line "key=value" for each tensor and key. "" before vl_model_digest. Borrowed. */
VL_API const char *vl_model_manifest(const vl_model *model);
/* Conventions that no file of a model states, as they stand in its digest. */
VL_API const char *vl_model_rules(void);
/* Tensors of the checkpoint that nothing reads, by number; NULL behind the last. Buffers that every file of the family
 * carries, and vision layers behind the state that is read, are not among them. Borrowed from the model. */
VL_API const char *vl_model_unread_tensor(const vl_model *model, size_t i);

/* ---- prompts ----------------------------------------------------------------------------------------------- */

/* A picture of so many pixels is decoded in less than 1 GiB, whatever kind of PNG it is. */
#define VL_PROMPT_MAX_PIXELS 64000000

typedef struct vl_prompt {
    const char *text;     /* UTF-8; with turns: unused */
    const vl_turn *turns; /* a conversation in the place of a text; NULL */
    int n_turns;
    bool unplaced; /* the pictures of the turns stand where they do because nobody said where: a text that spells image
                    * tokens or turns itself is taken as it is */
    const char *date; /* "YYYY-MM-DD" for chat templates that tell the model the date; NULL: they are refused */
    const char *const *image_paths;
    int n_images;
    bool raw;           /* template none: the text is taken as it is (it must hold the image tokens itself) */
    bool ignore_exif;   /* do not turn pictures by their EXIF orientation */
    int64_t max_pixels; /* refuse larger pictures, before they are decoded; 0: VL_PROMPT_MAX_PIXELS */
    int64_t max_tokens; /* refuse longer sequences (VL_ELENGTH); 0: the model's own limit */
    bool truncate;      /* cut them instead, but never a picture */
} vl_prompt;

/* Rows of a picture that lie as a grid over a part of it. Cell (row, column) covers an equal share of the box. */
typedef struct vl_image_grid {
    int rows, columns;
    double x0, y0, x1, y1; /* of the whole grid, in pixels of the picture; beyond it where the model saw padding */
    bool newlines;         /* behind each row of cells comes a row of the stream that no cell covers (LLaVA-NeXT) */
} vl_image_grid;

/* A picture of a sequence. What it becomes (tiles, rows, grids) may differ from picture to picture. */
struct vl_sequence_image {
    char *path;
    char sha256[65];   /* of the file */
    int width, height; /* after EXIF orientation */
    float *pixels;     /* [n_pixels] normalised, as the family's tower reads them; NULL while only measured */
    int64_t n_pixels;
    int n_tiles;                 /* used tiles; 1 where the tower reads the picture at once */
    int tile_rows, tile_columns; /* how the tiles beside the whole picture lie; 0 where there are none */
    bool alone;                  /* the only picture of its prompt: some families cut tiles then only */
    int aspect_ratio_id;         /* of models that number the arrangements of tiles */
    int64_t n_rows;              /* rows of the decoder's width that it becomes */
    vl_image_grid *grids;        /* [n_grids] what the decoder sees, in the order of its rows */
    int n_grids;
    uint8_t *seen; /* [seen_height, seen_width, 3] the picture as the model sees it, in bytes; NULL while measured */
    int seen_width, seen_height;
};

/* A prompt turned into rows of the residual stream. Arrays have n_tokens entries. Owned by vl_sequence_free. */
typedef struct vl_sequence {
    int64_t n_tokens;       /* T */
    int64_t n_prompt;       /* rows that came from the prompt; the rest was generated */
    int32_t *ids;           /* [T] token ids; image rows hold the image token */
    uint8_t *token_class;   /* [T] vl_token_class */
    int16_t *turn;          /* [T] the turn that the token stands in, its frame included; -1 where there are no turns */
    int32_t *image;         /* [T] which image of this sequence, -1 for text */
    int16_t (*patch)[3];    /* [T] grid, row, column; -1 for text and for picture rows that no cell covers */
    int32_t (*position)[3]; /* [T] time, row, column: where attention stands the row; equal where there is one axis */
    uint64_t *visible; /* [T] or NULL; cross-attention: bit (image * tiles + tile) where the token sees that tile */
    bool answered;     /* it ends with an answer that was given, or was cut: nothing is left to say */
    int n_images;
    struct vl_sequence_image *images; /* [n_images] */
} vl_sequence;

/* Writes turns (and prompts of models that see pictures) in the model's chat template unless raw, tokenises, expands
 * image tokens, reads and prepares pictures. */
VL_API vl_status vl_model_encode(vl_sequence **out, const vl_model *model, const vl_prompt *prompt, vl_error *err);
/* A sequence of given ids, text only (windows of a corpus): all VL_TEXT, the last one VL_TEXT too. */
VL_API vl_status vl_sequence_from_ids(vl_sequence **out, const vl_model *model, const int32_t *ids, int64_t n,
                                      vl_error *err);
VL_API void vl_sequence_free(vl_sequence *sequence);
/* Appends generated tokens (class VL_GENERATED). */
VL_API vl_status vl_sequence_append(vl_sequence *sequence, const int32_t *ids, int64_t n, vl_error *err);

/* ---- forward ----------------------------------------------------------------------------------------------- */

typedef struct vl_tap {
    int state;    /* 0..L */
    int sequence; /* index into the batch */
    vl_tensor x;  /* [T, D] f32 on the device: the residual stream; what is written here is what block i+1 reads */
} vl_tap;
/* Non-zero stops the forward: VL_ECANCELLED. */
typedef int (*vl_tap_fn)(void *user, const vl_tap *tap);

/* Stages inside a block or the vision tower, for parity tests and viewers: f32 rows on the device. Names follow
 * Hugging Face: "vision.hidden.03", "vision.out", "attention.12" ... */
typedef int (*vl_stage_fn)(void *user, const char *name, int sequence, const vl_tensor *x);

typedef struct vl_forward {
    const vl_sequence *const *sequences; /* all share one pass over each layer's weights */
    int n_sequences;
    /* Start at state `start_state` from these device tensors ([T, D] f32, one per sequence) in the place of the
     * embeddings; 0 with start == NULL runs everything. */
    int start_state;
    const vl_tensor *start;
    int stop_state; /* do not run blocks after this state; 0: all */
    vl_tap_fn tap;
    vl_stage_fn stage;
    void *user;
} vl_forward;

VL_API vl_status vl_model_forward(vl_model *model, const vl_forward *forward, vl_error *err);

/* Greedy continuation with a KV cache; stops at an end token or after max_new. *out_ids is freed by vl_release. */
VL_API vl_status vl_model_generate(vl_model *model, const vl_sequence *sequence, int64_t max_new, int32_t **out_ids,
                                   int64_t *n_out, vl_error *err);

/* ---- the head ---------------------------------------------------------------------------------------------- */

typedef struct vl_head vl_head;

typedef struct vl_head_info {
    int64_t d_model, vocab_size, n_layers;
    int norm_is_layer; /* 0: RMS norm, 1: layer norm */
    double eps;
    char fingerprint[65]; /* docs/ARCHITECTURE.md: the identity of norm + unembedding */
} vl_head_info;

/* The final norm and unembedding of a model; borrows the model. The caller closes. */
VL_API vl_status vl_head_from_model(vl_head **out, vl_model *model, vl_error *err);
VL_API void vl_head_close(vl_head *head);
VL_API const vl_head_info *vl_head_get_info(const vl_head *head);
/* logits[M, V] = unembed(final_norm(states[M, D])), all f32 on the device. */
VL_API vl_status vl_head_logits(vl_head *head, vl_tensor logits, vl_tensor states, vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
