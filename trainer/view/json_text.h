/* view/json_text.h - token texts as JSON. */
#ifndef VL_VIEW_JSON_TEXT_H
#define VL_VIEW_JSON_TEXT_H

#include <jansson.h>

/* Text as JSON whatever its bytes are: what is no UTF-8 becomes U+FFFD. NULL when out of memory. */
json_t *vl_json_text(const char *text);

#endif
