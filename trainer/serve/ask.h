/* serve/ask.h - a question as it comes over the wire: JSON, of which nothing is believed. */
#ifndef VL_SERVE_ASK_H
#define VL_SERVE_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trainer/base/status.h"

enum { VL_ASK_PICTURES = 8, VL_ASK_WORDS = 16, VL_ASK_MAX_BYTES = 1 << 20, VL_ASK_MAX_PROMPT = 256 << 10 };
enum { VL_ASK_MAX_K = 50, VL_ASK_MAX_GENERATE = 512 };

typedef struct vl_ask {
    char *prompt;                      /* owned */
    int64_t pictures[VL_ASK_PICTURES]; /* numbers that uploads were given */
    int n_pictures;
    char *words[VL_ASK_WORDS]; /* owned; tokens to follow everywhere */
    int n_words;
    int lens; /* index, -1: the logit lens alone */
    int k, generate;
    bool raw; /* without the chat template */
} vl_ask;

/* {"prompt": "...", "pictures": [1], "lens": 0, "k": 5, "generate": 16, "track": ["red"], "raw": false}; all but the
 * prompt may be absent. Errors: VL_EFORMAT (no JSON, an unknown key, a value of another kind or out of range),
 * VL_ENOMEM. */
vl_status vl_ask_parse(vl_ask *out, const char *text, size_t n, int n_lenses, vl_error *err);
void vl_ask_clear(vl_ask *ask);

#endif
