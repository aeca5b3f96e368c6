/* vlens/conversation.h - what a model is asked and what it is said to have answered: turns of texts and pictures. */
#ifndef VLENS_CONVERSATION_H
#define VLENS_CONVERSATION_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_turn_part {
    const char *text; /* UTF-8; NULL: here stands a picture, the next one of the conversation */
} vl_turn_part;

typedef struct vl_turn {
    const char *role; /* "system", "user" or "assistant" */
    const vl_turn_part *parts;
    int n_parts;
} vl_turn;

#ifdef __cplusplus
}
#endif
#endif
