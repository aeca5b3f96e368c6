#include "trainer/model/chat_prompt.h"

#include "trainer/base/mem.h"
#include "trainer/hf/chat_template.h"

vl_status vl_chat_prompt(vl_str *out, bool *found, const char *directory, const char *text, int n_images, vl_error *err)
{
    vl_chat_template *chat_template = NULL;
    vl_turn_part *parts = NULL;
    vl_chat_place place;
    vl_status status = VL_OK;
    VL_GOTO(vl_chat_template_open(&chat_template, directory, err));
    *found = chat_template != NULL;
    if (!chat_template)
        goto done;
    parts = vl_calloc((size_t)n_images + 1, sizeof *parts); /* text NULL: a picture */
    if (!parts) {
        status = vl_fail_nomem(err, "prompt");
        goto done;
    }
    parts[n_images].text = text;
    const vl_turn turn = {"user", parts, n_images + 1};
    const vl_chat chat = {.turns = &turn, .n_turns = 1, .as_parts = true};
    VL_GOTO(vl_chat_render(out, &place, chat_template, &chat, err));
done:
    vl_chat_template_close(chat_template);
    vl_free(parts);
    return status;
}
