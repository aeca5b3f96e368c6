/* hf/stb.c - the one translation unit that holds stb_image. */
#include <stddef.h>
#include <stdint.h>

#include "trainer/base/mem.h"

/* A few KiB of zlib data can ask for gigabytes, whatever the picture's size says, and stb's inflate grows its
 * output without a bound. The largest block that a picture within VL_IMAGE_MAX_PIXELS can need is 8 bytes a pixel. */
enum { LARGEST_BLOCK = 3 << 29 };

static void *bounded_alloc(size_t size)
{
    return size > LARGEST_BLOCK ? NULL : vl_alloc(size, 1);
}

static void *bounded_realloc(void *block, size_t size)
{
    return size > LARGEST_BLOCK ? NULL : vl_realloc(block, size, 1);
}

#define STBI_MALLOC(size)         bounded_alloc(size)
#define STBI_REALLOC(block, size) bounded_realloc(block, size)
#define STBI_FREE(block)          vl_free(block)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wpedantic"
#define STB_IMAGE_IMPLEMENTATION
#include "trainer/image/stb_config.h"
#pragma GCC diagnostic pop
