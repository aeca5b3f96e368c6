/* view/png.c - the one translation unit that holds stb_image_write. */
#include "trainer/view/png.h"

#include "trainer/base/mem.h"

#define STBIW_MALLOC(size)         vl_alloc(size, 1)
#define STBIW_REALLOC(block, size) vl_realloc(block, size, 1)
#define STBIW_FREE(block)          vl_free(block)
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_STATIC

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wpedantic"
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb_image_write.h>
#pragma GCC diagnostic pop

vl_status vl_png_encode(uint8_t **out, size_t *size, const uint8_t *rgb, int width, int height, vl_error *err)
{
    int n = 0;
    *out = stbi_write_png_to_mem(rgb, 3 * width, width, height, 3, &n);
    *size = (size_t)n;
    return *out ? VL_OK : vl_fail_nomem(err, "PNG");
}
