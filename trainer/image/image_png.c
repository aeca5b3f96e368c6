/* hf/image_png.c - PNG: the pixels by stb_image, the rest as Pillow's PngImagePlugin.py reads it. */
#include <stdbool.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/image/image_decode.h"
#include "trainer/base/load.h"
#include "trainer/image/png_chunks.h"
#include "trainer/image/stb_config.h"

/* PNG specification, table 11.1 */
enum { GRAY = 0, RGB = 2, PALETTE = 3, GRAY_ALPHA = 4 };

struct header {
    int64_t width, height;
    int depth, color;
    size_t packed;   /* bytes of all IDAT chunks */
    int transparent; /* low byte of the tRNS value of a gray picture; -1 where there is none */
};

bool vl_png_next(vl_png_chunk *out, const uint8_t *data, size_t size, size_t *at)
{
    if (size < 12 || *at > size - 12)
        return false;
    const size_t length = vl_load_be32(data + *at), left = size - *at - 12;
    if (length > left)
        return false;
    memcpy(out->type, data + *at + 4, 4);
    out->type[4] = 0;
    out->data = data + *at + 8;
    out->size = length;
    out->crc = vl_load_be32(out->data + length);
    *at += 12 + length;
    return true;
}

bool vl_png_chunk_is_whole(const vl_png_chunk *chunk)
{
    /* CRC-32 (ISO 3309, reflected polynomial edb88320), half a byte at a time. */
    static const uint32_t half[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                      0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                      0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    const uint8_t *p = chunk->data - 4; /* the type counts too, and stands in front of the data */
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < chunk->size + 4; i++) {
        crc = half[(crc ^ p[i]) & 15] ^ (crc >> 4);
        crc = half[(crc ^ (uint32_t)(p[i] >> 4)) & 15] ^ (crc >> 4);
    }
    return (crc ^ 0xffffffff) == chunk->crc;
}

static vl_status read_header(struct header *out, const vl_image_bytes *bytes, vl_error *err)
{
    vl_png_chunk chunk;
    size_t at = VL_PNG_FIRST_CHUNK;
    const bool any = vl_png_next(&chunk, bytes->data, bytes->size, &at);
    if (any && strcmp(chunk.type, "CgBI") == 0)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: an iPhone-optimised PNG (CgBI chunk), expected a standard PNG",
                       bytes->name);
    if (!any || strcmp(chunk.type, "IHDR") != 0 || chunk.size != 13 || !vl_png_chunk_is_whole(&chunk))
        return vl_fail(err, VL_EFORMAT, "%s: damaged PNG: no whole header", bytes->name);
    *out = (struct header){vl_load_be32(chunk.data), vl_load_be32(chunk.data + 4), chunk.data[8], chunk.data[9], 0, -1};
    return vl_image_check_size(bytes, out->width, out->height, err);
}

/* Every chunk up to IEND must be there and whole: stb checks no checksum and Pillow only those before the pixels. */
static vl_status check_chunks(struct header *header, const vl_image_bytes *bytes, vl_error *err)
{
    vl_png_chunk chunk;
    size_t at = VL_PNG_FIRST_CHUNK;
    while (vl_png_next(&chunk, bytes->data, bytes->size, &at)) {
        if (!vl_png_chunk_is_whole(&chunk))
            return vl_fail(err, VL_EFORMAT, "%s: damaged PNG: wrong checksum in the chunk that ends at byte %zu",
                           bytes->name, at);
        if (strcmp(chunk.type, "IDAT") == 0)
            header->packed += chunk.size;
        if (strcmp(chunk.type, "tRNS") == 0 && header->color == GRAY && chunk.size >= 2)
            header->transparent = chunk.data[1];
        if (strcmp(chunk.type, "IEND") == 0)
            return VL_OK;
    }
    return vl_fail(err, VL_EFORMAT, "%s: damaged PNG: the file ends after %zu bytes, before the picture does",
                   bytes->name, bytes->size);
}

/* Bytes that the rows of a picture unpack to, with room for interlacing and for a little more than is needed. */
static size_t most_unpacked(const struct header *header)
{
    enum { SLACK = 1 << 16 };
    const size_t channels = header->color == RGB          ? 3
                            : header->color == GRAY_ALPHA ? 2
                            : header->color <= PALETTE    ? 1
                                                          : 4;
    const size_t bits = (size_t)header->width * channels * (header->depth > 8 ? 16 : 8);
    return 2 * (size_t)header->height * (1 + bits / 8) + SLACK;
}

/* A megabyte of zlib data can unpack to a gigabyte whatever the picture's size, and stb gives it room without a bound:
 * here it gets what the picture needs. Small files, which cannot do harm, are spared. */
static vl_status check_unpacked(const struct header *header, const vl_image_bytes *bytes, vl_error *err)
{
    enum { HARMLESS = 1 << 16 };
    const size_t most = most_unpacked(header);
    if (header->packed <= HARMLESS || most > INT32_MAX || header->packed > INT32_MAX)
        return VL_OK;
    char *packed = vl_alloc(header->packed, 1), *unpacked = vl_alloc(most, 1);
    vl_status status = packed && unpacked ? VL_OK : vl_fail_nomem(err, bytes->name);
    vl_png_chunk chunk;
    size_t at = VL_PNG_FIRST_CHUNK, n = 0;
    while (status == VL_OK && n < header->packed && vl_png_next(&chunk, bytes->data, bytes->size, &at))
        if (strcmp(chunk.type, "IDAT") == 0) {
            memcpy(packed + n, chunk.data, chunk.size);
            n += chunk.size;
        }
    if (status == VL_OK && stbi_zlib_decode_buffer(unpacked, (int)most, packed, (int)n) < 0)
        status =
            vl_fail(err, VL_EFORMAT, "%s: damaged PNG, or one with far more data than its size needs", bytes->name);
    vl_free(packed);
    vl_free(unpacked);
    return status;
}

/* A gray picture of 16 bits has mode "I;16" in Pillow, and its conversion to 8 bits clips. (In all other kinds of
 * PNG Pillow takes the high byte of 16 bits, as stb does.) */
static void clip_16_bits(uint8_t *pixels, const uint16_t *wide, size_t n)
{
    for (size_t i = 0; i < n; i++)
        pixels[i] = wide[i] > 255 ? 255 : (uint8_t)wide[i];
}

/* stb gives every picture with a tRNS chunk an alpha channel. Pillow has one in fewer cases, because
 *  - it converts only what is not RGB already, so that the transparent colour of an RGB picture is not seen;
 *  - of a gray picture it compares the low byte of the tRNS value, as it is stored, with pixels that are already
 *    scaled to 8 bits (ImagingConvertTransparent in libImaging/Convert.c). */
static void set_alpha(vl_pixels *pixels, int stb_channels, const struct header *header)
{
    const size_t n = (size_t)pixels->width * (size_t)pixels->height;
    const size_t from = (size_t)stb_channels;
    uint8_t *p = pixels->data;
    if (header->color == RGB && from == 4) {
        for (size_t i = 0; i < n; i++)
            memmove(p + 3 * i, p + 4 * i, 3);
        pixels->channels = 3;
    } else if (header->color == GRAY && from == 2) {
        for (size_t i = 0; i < n; i++)
            p[2 * i + 1] = p[2 * i] == header->transparent ? 0 : 255;
    }
}

static vl_status decode_gray_16(vl_pixels *out, const vl_image_bytes *bytes, const struct header *header, vl_error *err)
{
    int channels;
    uint16_t *wide = stbi_load_16_from_memory(bytes->data, (int)bytes->size, &out->width, &out->height, &channels, 1);
    if (!wide)
        return vl_fail(err, VL_EFORMAT, "%s: damaged PNG, or out of memory", bytes->name);
    const size_t n = (size_t)out->width * (size_t)out->height;
    out->channels = header->transparent < 0 ? 1 : 2;
    out->data = vl_alloc(n, (size_t)out->channels);
    if (out->data)
        clip_16_bits(out->data, wide, n);
    stbi_image_free(wide);
    if (!out->data)
        return vl_fail_nomem(err, bytes->name);
    if (out->channels == 2) {
        for (size_t i = n; i-- > 0;) /* spread from the end: in place */
            memcpy(out->data + 2 * i, (uint8_t[2]){out->data[i], 0}, 2);
        set_alpha(out, 2, header);
    }
    return VL_OK;
}

vl_status vl_decode_png(vl_pixels *out, const vl_image_bytes *bytes, vl_error *err)
{
    struct header header;
    VL_TRY(read_header(&header, bytes, err));
    VL_TRY(check_chunks(&header, bytes, err));
    if (bytes->size > INT32_MAX)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: a PNG of more than 2 GiB", bytes->name);
    VL_TRY(check_unpacked(&header, bytes, err));
    if (header.depth == 16 && header.color == GRAY)
        return decode_gray_16(out, bytes, &header, err);
    out->data = stbi_load_from_memory(bytes->data, (int)bytes->size, &out->width, &out->height, &out->channels, 0);
    if (!out->data)
        return vl_fail(err, VL_EFORMAT, "%s: damaged PNG, or out of memory", bytes->name);
    set_alpha(out, out->channels, &header);
    return VL_OK;
}
