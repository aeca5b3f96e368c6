/* hf/chat_template.h - how a model directory writes a conversation as one text.
 *
 * Where transformers looks, and in that order: chat_template.jinja, chat_template.json, "chat_template" of
 * tokenizer_config.json (a text, or a list of {"name", "template"} of which the one named "default" is meant). */
#ifndef VL_HF_CHAT_TEMPLATE_H
#define VL_HF_CHAT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>

#include <vlens/conversation.h>

#include "trainer/base/status.h"
#include "trainer/base/str.h"

typedef struct vl_chat_template vl_chat_template;

/* *out is NULL where the directory has none. A template that cannot be parsed is no error here: rendering gives it.
 * The caller closes. */
vl_status vl_chat_template_open(vl_chat_template **out, const char *directory, vl_error *err);
/* A template from its source; messages call it `name`. It knows no special tokens. */
vl_status vl_chat_template_new(vl_chat_template **out, const char *name, const char *source, vl_error *err);
void vl_chat_template_close(vl_chat_template *chat_template);
/* Its file, or the name it was given. */
const char *vl_chat_template_name(const vl_chat_template *chat_template);

typedef struct vl_chat {
    const vl_turn *turns;
    int n_turns;
    bool as_parts;    /* contents are lists of texts and pictures, as processors take them; else texts */
    const char *date; /* "YYYY-MM-DD" for templates that tell the date; NULL: they are refused */
} vl_chat;

/* Where a turn stands in the rendered text, in bytes. */
typedef struct vl_chat_place {
    size_t end;                      /* of the turn with its frame; 0 where it cannot be told from the next one's */
    size_t answer_first, answer_end; /* of an assistant's turn */
} vl_chat_place;

/* Renders the turns, and the start of an answer where the last turn is not the assistant's. places [n_turns] says where
 * each is, and what the model was to say in it if it is the assistant's: from where its prompt ends to the end token,
 * without white space that the template puts behind that.
 * Errors: VL_EUNSUPPORTED (something that jinja.h has not; the message has its name and line), VL_EFORMAT (the
 * template refuses this conversation). */
vl_status vl_chat_render(vl_str *out, vl_chat_place *places, const vl_chat_template *chat_template, const vl_chat *chat,
                         vl_error *err);

#endif
