/* view/png.h - pictures as PNG in memory. */
#ifndef VL_VIEW_PNG_H
#define VL_VIEW_PNG_H

#include <stddef.h>
#include <stdint.h>

#include "trainer/base/status.h"

/* Of a picture's rows. A PNG chunk holds up to 2^31 - 1 bytes, and these are one chunk however badly they compress. */
#define VL_PNG_MAX_BYTES ((size_t)1 << 30)

/* rgb is [height, width, 3]. The caller frees *out, of *size bytes, with vl_free; it is NULL on failure.
 * Errors: VL_EINVAL (no pixels, or more than VL_PNG_MAX_BYTES), VL_ENOMEM. */
vl_status vl_png_encode(uint8_t **out, size_t *size, const uint8_t *rgb, int width, int height, vl_error *err);

#endif
