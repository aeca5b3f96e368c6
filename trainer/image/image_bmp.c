/* hf/image_bmp.c - uncompressed BMP, as Pillow's BmpImagePlugin.py reads it. stb_image's reader is not used: it takes
 * what a file lacks as zeros, refuses a gap before the pixels, and scales 16-bit pixels in another way. */
#include <stdbool.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/image/image_decode.h"
#include "trainer/base/load.h"

enum { FILE_HEADER = 14, CORE_HEADER = 12, RAW = 0, BITFIELDS = 3 };

struct header {
    int64_t width, height;
    bool top_down;
    uint64_t palette_at, pixels_at;
    uint32_t bits, compression, colors, entry_size; /* entry_size: bytes of a palette entry */
    uint32_t green, alpha;                          /* masks */
    uint32_t red_blue;                              /* masks of red and blue, together */
};

/* The masks stand behind the first 40 bytes of the header; alpha only in headers that are at least 56 long. */
static void read_masks(struct header *out, const uint8_t *masks, bool with_alpha)
{
    out->green = vl_load_le32(masks + 4);
    out->red_blue = vl_load_le32(masks) > out->green ? vl_load_le32(masks) | vl_load_le32(masks + 8) : 0;
    out->alpha = with_alpha ? vl_load_le32(masks + 12) : 0;
}

static vl_status read_header(struct header *out, const vl_image_bytes *bytes, vl_error *err)
{
    const uint8_t *p = bytes->data;
    const size_t size = bytes->size;
    const uint32_t length = size < FILE_HEADER + CORE_HEADER ? 0 : vl_load_le32(p + 14);
    if (length == 0 || size - FILE_HEADER < length)
        return vl_fail(err, VL_EFORMAT, "%s: damaged BMP: the file ends within its header", bytes->name);
    *out = (struct header){0};
    out->pixels_at = vl_load_le32(p + 10);
    out->palette_at = FILE_HEADER + length;
    if (length == CORE_HEADER) {
        out->width = vl_load_le16(p + 18);
        out->height = vl_load_le16(p + 20);
        out->bits = vl_load_le16(p + 24);
        out->entry_size = 3;
        return VL_OK;
    }
    if (length != 40 && length != 52 && length != 56 && length != 64 && length != 108 && length != 124)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: a BMP header of %u bytes, expected 12, 40, 52, 56, 64, 108 or 124",
                       bytes->name, length);
    const int32_t height = (int32_t)vl_load_le32(p + 22);
    out->width = (int32_t)vl_load_le32(p + 18);
    out->height = height < 0 ? -(int64_t)height : height;
    out->top_down = height < 0;
    out->bits = vl_load_le16(p + 28);
    out->compression = vl_load_le32(p + 30);
    out->colors = vl_load_le32(p + 46);
    out->entry_size = 4;
    if (out->compression == BITFIELDS && size >= FILE_HEADER + 40 + 16)
        read_masks(out, p + FILE_HEADER + 40, length >= 56);
    return VL_OK;
}

static bool is_supported(const struct header *header)
{
    const uint32_t bits = header->bits, green = header->green, red_blue = header->red_blue;
    if (header->compression == RAW)
        return bits == 1 || bits == 4 || bits == 8 || bits == 16 || bits == 24 || bits == 32;
    if (header->compression != BITFIELDS)
        return false;
    if (bits == 16)
        return (green == 0x7e0 && red_blue == 0xf81f) || (green == 0x3e0 && red_blue == 0x7c1f);
    return bits == 32 && green == 0xff00 && red_blue == 0xff00ff && (header->alpha == 0 || header->alpha == 0xff000000);
}

static vl_status check_header(const struct header *header, const vl_image_bytes *bytes, vl_error *err)
{
    VL_TRY(vl_image_check_size(bytes, header->width, header->height, err));
    if (!is_supported(header))
        return vl_fail(err, VL_EUNSUPPORTED,
                       "%s: a BMP of %u bits a pixel with compression %u, expected no compression and 1, 4, 8, 16, 24 "
                       "or 32 bits in the usual order",
                       bytes->name, header->bits, header->compression);
    const uint64_t row = ((uint64_t)header->width * header->bits + 31) / 32 * 4;
    /* The padding of the last row may be missing. */
    const uint64_t last = ((uint64_t)header->width * header->bits + 7) / 8;
    const uint64_t need = header->pixels_at + row * (uint64_t)(header->height - 1) + last;
    if (need > bytes->size || header->pixels_at < header->palette_at)
        return vl_fail(err, VL_EFORMAT, "%s: damaged BMP: %zu bytes, expected %llu for %lld x %lld pixels", bytes->name,
                       bytes->size, (unsigned long long)need, (long long)header->width, (long long)header->height);
    return VL_OK;
}

/* Entries that the file does not have stay black. */
static void read_palette(uint8_t rgb[256][3], const struct header *header, const uint8_t *data)
{
    memset(rgb, 0, 256 * 3);
    const uint64_t room = (header->pixels_at - header->palette_at) / header->entry_size;
    uint64_t n = header->colors ? header->colors : (uint64_t)1 << header->bits;
    if (n > room)
        n = room;
    const uint8_t *entry = data + header->palette_at;
    for (uint64_t i = 0; i < n && i < 256; i++, entry += header->entry_size) {
        for (int c = 0; c < 3; c++)
            rgb[i][c] = entry[2 - c];
    }
}

static void copy_palette_row(uint8_t *to, const uint8_t *from, const struct header *header, uint8_t palette[256][3])
{
    const size_t bits = header->bits, per_byte = 8 / bits, mask = (1u << bits) - 1;
    for (size_t x = 0; x < (size_t)header->width; x++) {
        const size_t shift = 8 - bits - x % per_byte * bits;
        memcpy(to + 3 * x, palette[from[x / per_byte] >> shift & mask], 3);
    }
}

/* Pillow's "BGR;15" and "BGR;16" (libImaging/Unpack.c). */
static void copy_16_bit_row(uint8_t *to, const uint8_t *from, const struct header *header)
{
    const uint32_t green_bits = header->green == 0x7e0 ? 6 : 5, green_max = (1u << green_bits) - 1;
    for (int64_t x = 0; x < header->width; x++, to += 3, from += 2) {
        const uint32_t v = vl_load_le16(from);
        to[0] = (uint8_t)((v >> (5 + green_bits) & 31) * 255 / 31);
        to[1] = (uint8_t)((v >> 5 & green_max) * 255 / green_max);
        to[2] = (uint8_t)((v & 31) * 255 / 31);
    }
}

static void copy_bgr_row(uint8_t *to, const uint8_t *from, const struct header *header)
{
    const size_t step = header->bits / 8, channels = header->alpha ? 4 : 3;
    for (int64_t x = 0; x < header->width; x++, to += channels, from += step) {
        to[0] = from[2];
        to[1] = from[1];
        to[2] = from[0];
        if (channels == 4)
            to[3] = from[3];
    }
}

vl_status vl_decode_bmp(vl_pixels *out, const vl_image_bytes *bytes, vl_error *err)
{
    struct header header;
    uint8_t palette[256][3];
    VL_TRY(read_header(&header, bytes, err));
    VL_TRY(check_header(&header, bytes, err));
    if (header.bits <= 8)
        read_palette(palette, &header, bytes->data);
    out->width = (int)header.width;
    out->height = (int)header.height;
    out->channels = header.alpha ? 4 : 3;
    const size_t to_row = (size_t)out->width * (size_t)out->channels;
    const size_t from_row = ((size_t)header.width * header.bits + 31) / 32 * 4;
    out->data = vl_alloc((size_t)out->height, to_row);
    if (!out->data)
        return vl_fail_nomem(err, bytes->name);
    for (size_t y = 0; y < (size_t)out->height; y++) {
        const uint8_t *from =
            bytes->data + header.pixels_at + from_row * (header.top_down ? y : (size_t)out->height - 1 - y);
        uint8_t *to = out->data + y * to_row;
        if (header.bits <= 8)
            copy_palette_row(to, from, &header, palette);
        else if (header.bits == 16)
            copy_16_bit_row(to, from, &header);
        else
            copy_bgr_row(to, from, &header);
    }
    return VL_OK;
}
