/* view/base64.h - bytes as text. */
#ifndef VL_VIEW_BASE64_H
#define VL_VIEW_BASE64_H

#include <stdint.h>

#include "trainer/base/str.h"

void vl_base64_put(vl_str *out, const uint8_t *data, size_t n);

#endif
