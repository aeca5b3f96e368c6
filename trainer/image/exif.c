#include "trainer/image/exif.h"

#include <stdbool.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/load.h"
#include "trainer/image/png_chunks.h"
#include "trainer/image/stb_config.h"

enum { TAG_ORIENTATION = 0x0112, BYTE = 1, SHORT = 3, LONG = 4 };

/* Pillow gives up on text chunks that inflate to more than this (PngImagePlugin.MAX_TEXT_CHUNK). */
enum { MAX_TEXT = 1 << 20 };

/* Value of an IFD entry of 12 bytes: 1 where it is no single small number. */
static int entry_orientation(const uint8_t *entry, uint32_t (*load16)(const uint8_t *),
                             uint32_t (*load32)(const uint8_t *))
{
    const uint32_t type = load16(entry + 2), count = load32(entry + 4);
    const uint32_t value = type == BYTE    ? entry[8]
                           : type == SHORT ? load16(entry + 8)
                           : type == LONG  ? load32(entry + 8)
                                           : 0;
    return count == 1 && value >= 1 && value <= 8 ? (int)value : 1;
}

/* The first directory of a TIFF structure (EXIF 2.32, 4.6): no link in it is followed, so there is nothing that
 * could form a loop. */
static int tiff_orientation(const uint8_t *data, size_t size)
{
    while (size >= 6 && memcmp(data, "Exif\0\0", 6) == 0) { /* written twice by some cameras */
        data += 6;
        size -= 6;
    }
    if (size < 8)
        return 1;
    const bool little = memcmp(data, "II*\0", 4) == 0;
    if (!little && memcmp(data, "MM\0*", 4) != 0)
        return 1;
    uint32_t (*const load16)(const uint8_t *) = little ? vl_load_le16 : vl_load_be16;
    uint32_t (*const load32)(const uint8_t *) = little ? vl_load_le32 : vl_load_be32;
    const size_t at = load32(data + 4);
    if (at > size - 2)
        return 1;
    const size_t room = (size - at - 2) / 12;
    size_t count = load16(data + at);
    if (count > room)
        count = room;
    int orientation = 1;
    for (size_t i = 0; i < count; i++) { /* of a repeated tag the last one counts */
        const uint8_t *entry = data + at + 2 + 12 * i;
        if (load16(entry) == TAG_ORIENTATION)
            orientation = entry_orientation(entry, load16, load32);
    }
    return orientation;
}

/* Segments up to the first scan. */
static int jpeg_orientation(const uint8_t *data, size_t size)
{
    size_t at = 2;
    while (at + 4 <= size) {
        if (data[at] != 0xff)
            return 1;
        const uint8_t marker = data[at + 1];
        if (marker == 0xff) { /* fill byte */
            at++;
            continue;
        }
        if (marker == 0xda || marker == 0xd9)
            return 1;
        if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8)) { /* no length follows */
            at += 2;
            continue;
        }
        const size_t length = vl_load_be16(data + at + 2);
        if (length < 2 || length > size - at - 2)
            return 1;
        const uint8_t *payload = data + at + 4;
        if (marker == 0xe1 && length >= 8 && memcmp(payload, "Exif\0\0", 6) == 0)
            return tiff_orientation(payload, length - 2);
        at += 2 + length;
    }
    return 1;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    const int letter = (c | 32) - 'a';
    return letter >= 0 && letter < 6 ? 10 + letter : -1;
}

/* ImageMagick's text form: an empty line, a name, a length, then hex digits in lines. Decoded in place. */
static int raw_profile_orientation(uint8_t *text, size_t size)
{
    size_t at = 0, n = 0;
    for (int line = 0; line < 3; line++) {
        const uint8_t *end = at < size ? memchr(text + at, '\n', size - at) : NULL;
        if (!end)
            return 1;
        at = (size_t)(end - text) + 1;
    }
    for (int high = -1; at < size; at++) {
        const int digit = hex_digit(text[at]);
        if (digit < 0)
            continue;
        if (high < 0) {
            high = digit;
        } else {
            text[n++] = (uint8_t)(high << 4 | digit);
            high = -1;
        }
    }
    return tiff_orientation(text, n);
}

/* A tEXt or zTXt chunk with that keyword. */
static int text_chunk_orientation(const vl_png_chunk *chunk)
{
    static const char keyword[] = "Raw profile type exif"; /* its NUL is part of the chunk */
    if (chunk->size < sizeof keyword + 1 || memcmp(chunk->data, keyword, sizeof keyword) != 0)
        return 1;
    const uint8_t *data = chunk->data + sizeof keyword;
    const size_t size = chunk->size - sizeof keyword;
    const bool deflated = chunk->type[0] == 'z';
    if (size > MAX_TEXT || (deflated && data[0] != 0))
        return 1;
    uint8_t *text = vl_alloc(MAX_TEXT, 1);
    if (!text)
        return 1;
    int n = (int)size;
    if (deflated)
        n = stbi_zlib_decode_buffer((char *)text, MAX_TEXT, (const char *)data + 1, (int)size - 1);
    else
        memcpy(text, data, size);
    const int orientation = n > 0 ? raw_profile_orientation(text, (size_t)n) : 1;
    vl_free(text);
    return orientation;
}

static int png_orientation(const uint8_t *data, size_t size)
{
    vl_png_chunk chunk;
    size_t at = VL_PNG_FIRST_CHUNK;
    int orientation = 1;
    while (vl_png_next(&chunk, data, size, &at)) {
        if (strcmp(chunk.type, "eXIf") == 0)
            return tiff_orientation(chunk.data, chunk.size); /* wins over text */
        if (strcmp(chunk.type, "tEXt") == 0 || strcmp(chunk.type, "zTXt") == 0) {
            const int found = text_chunk_orientation(&chunk);
            orientation = found != 1 ? found : orientation;
        }
    }
    return orientation;
}

/* The EXIF chunk of a RIFF file (WebP container, "Extended File Format"). */
static int webp_orientation(const uint8_t *data, size_t size)
{
    for (size_t at = 12; size >= 8 && at <= size - 8;) {
        const size_t length = vl_load_le32(data + at + 4), room = size - at - 8;
        if (memcmp(data + at, "EXIF", 4) == 0)
            return tiff_orientation(data + at + 8, length < room ? length : room);
        if (length >= room)
            break;
        at += 8 + length + length % 2;
    }
    return 1;
}

int vl_exif_orientation(const uint8_t *data, size_t size)
{
    if (size >= 4 && data[0] == 0xff && data[1] == 0xd8)
        return jpeg_orientation(data, size);
    if (size >= 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0)
        return png_orientation(data, size);
    if (size >= 12 && memcmp(data, "RIFF", 4) == 0 && memcmp(data + 8, "WEBP", 4) == 0)
        return webp_orientation(data, size);
    return 1;
}

/* The eight orientations are: mirror in x, mirror in y, then swap the axes (EXIF 2.32, figure 18). With the pixel
 * (x, y) of the upright picture taken from (u, v) of the stored one:
 *   2: u from the right    3: both from the end    4: v from the bottom
 *   5: swapped             6: swapped, v from the bottom    7: swapped, both    8: swapped, u from the right */
vl_status vl_exif_transpose(uint8_t **rgb, int *width, int *height, int orientation, vl_error *err)
{
    if (orientation < 2 || orientation > 8)
        return VL_OK;
    const bool swap = orientation >= 5;
    const bool right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const ptrdiff_t w = *width, h = *height, new_w = swap ? h : w, new_h = swap ? w : h;
    uint8_t *turned = vl_alloc((size_t)w * (size_t)h, 3);
    if (!turned)
        return vl_fail_nomem(err, "turning a picture upright");
    const ptrdiff_t step_u = right ? -3 : 3, step_v = bottom ? -3 * w : 3 * w;
    const uint8_t *origin = *rgb + (right ? 3 * (w - 1) : 0) + (bottom ? 3 * w * (h - 1) : 0);
    uint8_t *to = turned;
    for (ptrdiff_t y = 0; y < new_h; y++) {
        const uint8_t *row = origin + y * (swap ? step_u : step_v);
        for (ptrdiff_t x = 0; x < new_w; x++, to += 3)
            memcpy(to, row + x * (swap ? step_v : step_u), 3);
    }
    vl_free(*rgb);
    *rgb = turned;
    *width = (int)new_w;
    *height = (int)new_h;
    return VL_OK;
}
