/* view/png.h - pictures as PNG in memory. */
#ifndef VL_VIEW_PNG_H
#define VL_VIEW_PNG_H

#include <stddef.h>
#include <stdint.h>

#include "trainer/base/status.h"

/* rgb is [height, width, 3]. The caller frees *out with vl_free. */
vl_status vl_png_encode(uint8_t **out, size_t *size, const uint8_t *rgb, int width, int height, vl_error *err);

#endif
