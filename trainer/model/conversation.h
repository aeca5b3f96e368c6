/* model/conversation.h - turns as the one text that goes to the tokenizer, and which tokens of it are answers. */
#ifndef VL_MODEL_CONVERSATION_H
#define VL_MODEL_CONVERSATION_H

#include <vlens/model.h>

#include "trainer/base/str.h"
#include "trainer/hf/chat_template.h"

typedef struct vl_written {
    vl_str text;           /* image tokens once for each picture */
    bool add_special;      /* the tokenizer puts its tokens around it */
    bool open;             /* an answer of the model's may follow */
    vl_chat_place *places; /* [n_turns] bytes of text */
    int *images;           /* [n_turns] pictures up to the end of the turn */
    int n_turns;           /* 0: a text without turns */
} vl_written;

/* Writes a prompt: its turns (or text and pictures) in the model's chat template, or one behind the other where it is
 * raw, has none, or says itself where its pictures and turns are. Cleared by vl_written_clear, also after a failure. */
vl_status vl_conversation_write(vl_written *out, const vl_model *model, const vl_prompt *prompt, vl_error *err);
void vl_written_clear(vl_written *written);

/* Token ids of the first `bytes` of a written text, in which n_images pictures stand. */
typedef struct vl_ids_of_start {
    vl_status (*read)(vl_token_ids *out, void *user, const vl_written *written, size_t bytes, int n_images,
                      vl_error *err);
    void *user;
} vl_ids_of_start;

/* Marks turns, answers and what comes before them in a sequence made from `written`. A token belongs to the answer (or
 * turn) that its last byte stands in. */
vl_status vl_conversation_mark(vl_sequence *sequence, const vl_written *written, const vl_ids_of_start *ids,
                               vl_error *err);

#endif
