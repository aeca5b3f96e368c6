/* view/png.c - the one translation unit that holds stb_image_write. */
#include "trainer/view/png.h"

#include <zlib.h>

#include "trainer/base/mem.h"

/* stb's own compression does not look whether its memory was given; this one is called in its place. *size bytes, or
 * NULL when out of memory. */
static unsigned char *compress_bytes(unsigned char *data, int n, int *size, int quality)
{
    uLongf room = compressBound((uLong)n);
    unsigned char *out = vl_alloc(room, 1);
    if (out && compress2(out, &room, data, (uLong)n, quality) != Z_OK) {
        vl_free(out);
        return NULL;
    }
    *size = (int)room;
    return out;
}

#define STBIW_ZLIB_COMPRESS        compress_bytes
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
