/* model/chat_prompt.h - one question about pictures in the words of a directory's chat template. */
#ifndef VL_MODEL_CHAT_PROMPT_H
#define VL_MODEL_CHAT_PROMPT_H

#include <stdbool.h>

#include "trainer/base/status.h"
#include "trainer/base/str.h"

/* Appends one turn of the user, n_images pictures and then the text, and the start of an answer. *found is false, and
 * nothing is appended, where the directory has no template. Errors: those of vl_chat_render. */
vl_status vl_chat_prompt(vl_str *out, bool *found, const char *directory, const char *text, int n_images,
                         vl_error *err);

#endif
