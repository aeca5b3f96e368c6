#include "trainer/view/json_text.h"

#include <utf8proc.h>

#include "trainer/base/str.h"

json_t *vl_json_text(const char *text)
{
    json_t *json = json_string(text);
    if (json)
        return json;
    vl_str clean = VL_STR_INIT;
    for (const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)text; *at;) {
        utf8proc_int32_t point;
        utf8proc_ssize_t n = utf8proc_iterate(at, -1, &point);
        if (n > 0)
            vl_str_append(&clean, (const char *)at, (size_t)n);
        else
            vl_str_puts(&clean, "\xef\xbf\xbd");
        at += n > 0 ? n : 1;
    }
    json = clean.failed ? NULL : json_string(clean.data ? clean.data : "");
    vl_str_clear(&clean);
    return json;
}
