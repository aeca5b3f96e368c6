#include "trainer/image/image.h"

#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/image/exif.h"
#include "trainer/image/image_decode.h"

typedef vl_status (*decoder)(vl_pixels *out, const vl_image_bytes *bytes, vl_error *err);

/* The command that makes a PNG of a file that is not read. */
typedef enum converter { NO_CONVERTER = 0, IMAGE_MAGICK, HEIF_CONVERT } converter;

/* First bytes of a file. Those with no decoder are known so that they can be refused by name. */
static const struct magic {
    size_t offset, size;
    const char *bytes;
    const char *name;
    decoder decode;
    converter converter;
} MAGICS[] = {
    {0, 8, "\x89PNG\r\n\x1a\n", "PNG", vl_decode_png, NO_CONVERTER},
    {0, 3, "\xff\xd8\xff", "JPEG", vl_decode_jpeg, NO_CONVERTER},
    {0, 2, "BM", "BMP", vl_decode_bmp, NO_CONVERTER},
    {8, 4, "WEBP", "WebP", vl_decode_webp, NO_CONVERTER},
    {0, 4, "GIF8", "GIF", NULL, IMAGE_MAGICK},
    {0, 4, "II*\0", "TIFF", NULL, IMAGE_MAGICK},
    {0, 4, "MM\0*", "TIFF", NULL, IMAGE_MAGICK},
    {0, 4, "II+\0", "BigTIFF", NULL, IMAGE_MAGICK},
    {4, 8, "ftypavif", "AVIF", NULL, HEIF_CONVERT},
    {4, 7, "ftyphei", "HEIC", NULL, HEIF_CONVERT},
    {4, 7, "ftyphev", "HEIC", NULL, HEIF_CONVERT},
    {4, 8, "ftypmif1", "HEIF", NULL, HEIF_CONVERT},
    {0, 8, "\0\0\0\x0cjP  ", "JPEG 2000", NULL, NO_CONVERTER},
    {0, 4, "\xff\x4f\xff\x51", "JPEG 2000", NULL, NO_CONVERTER},
    {0, 2, "\xff\x0a", "JPEG XL", NULL, NO_CONVERTER},
    {4, 4, "JXL ", "JPEG XL", NULL, NO_CONVERTER},
    {0, 4, "8BPS", "Photoshop", NULL, NO_CONVERTER},
    {0, 4, "\0\0\1\0", "ICO", NULL, NO_CONVERTER},
    {0, 4, "qoif", "QOI", NULL, NO_CONVERTER},
    {0, 4, "%PDF", "PDF", NULL, NO_CONVERTER},
    {0, 4, "<svg", "SVG", NULL, NO_CONVERTER},
    {0, 5, "<?xml", "XML or SVG", NULL, NO_CONVERTER},
    {0, 2, "P2", "PGM", NULL, NO_CONVERTER},
    {0, 2, "P5", "PGM", NULL, NO_CONVERTER},
    {0, 2, "P3", "PPM", NULL, NO_CONVERTER},
    {0, 2, "P6", "PPM", NULL, NO_CONVERTER},
};

vl_status vl_image_check_size(const vl_image_bytes *bytes, int64_t width, int64_t height, vl_error *err)
{
    enum { SIDE = 1 << 24 }; /* keeps every product below within 64 bits */
    if (width < 1 || height < 1)
        return vl_fail(err, VL_EFORMAT, "%s: a picture of %lld x %lld pixels", bytes->name, (long long)width,
                       (long long)height);
    if (width > SIDE || height > SIDE || width * height > bytes->max_pixels)
        return vl_fail(err, VL_EFORMAT, "%s: %lld x %lld pixels, more than the limit of %lld pixels (data.max_pixels)",
                       bytes->name, (long long)width, (long long)height, (long long)bytes->max_pixels);
    return VL_OK;
}

/* By name, with the command that converts it where one is common. */
static vl_status refuse_kind(const vl_image_bytes *bytes, const struct magic *m, vl_error *err)
{
    if (m->converter == IMAGE_MAGICK)
        return vl_fail(err, VL_EUNSUPPORTED,
                       "%s: %s is not supported (PNG, JPEG, WebP and BMP are): convert '%s[0]' X.png", bytes->name,
                       m->name, bytes->name);
    if (m->converter == HEIF_CONVERT)
        return vl_fail(err, VL_EUNSUPPORTED,
                       "%s: %s is not supported (PNG, JPEG, WebP and BMP are): heif-convert '%s' X.png", bytes->name,
                       m->name, bytes->name);
    return vl_fail(err, VL_EUNSUPPORTED, "%s: %s is not supported, expected a picture as PNG, JPEG, WebP or BMP",
                   bytes->name, m->name);
}

static vl_status find_decoder(decoder *out, const vl_image_bytes *bytes, vl_error *err)
{
    if (bytes->size == 0)
        return vl_fail(err, VL_EFORMAT, "%s: an empty file, expected a picture (PNG, JPEG, WebP or BMP)", bytes->name);
    for (size_t i = 0; i < sizeof MAGICS / sizeof *MAGICS; i++) {
        const struct magic *m = &MAGICS[i];
        if (bytes->size < m->offset + m->size || memcmp(bytes->data + m->offset, m->bytes, m->size) != 0)
            continue;
        if (!m->decode)
            return refuse_kind(bytes, m, err);
        *out = m->decode;
        return VL_OK;
    }
    return vl_fail(err, VL_EFORMAT, "%s: not a picture that vlens can read, expected PNG, JPEG, WebP or BMP",
                   bytes->name);
}

/* One channel of a pixel over opaque white, in the fixed point of Pillow's ImagingAlphaComposite
 * (libImaging/AlphaComposite.c): with an opaque background its two coefficients are alpha and 255 - alpha in 7
 * fractional bits, and the division by 255 is done by shifts. */
static uint8_t over_white(uint32_t value, uint32_t alpha)
{
    uint32_t sum = value * (alpha << 7) + 255 * ((255 - alpha) << 7) + (0x80 << 7);
    return (uint8_t)((((sum >> 8) + sum) >> 8) >> 7);
}

/* Takes over the pixels: *rgb is either the same block or a new one. */
static vl_status to_rgb(uint8_t **rgb, vl_pixels *pixels, vl_alpha alpha, const char *name, vl_error *err)
{
    const size_t n = (size_t)pixels->width * (size_t)pixels->height;
    const size_t channels = (size_t)pixels->channels;
    if (channels == 3) {
        *rgb = pixels->data;
        pixels->data = NULL;
        return VL_OK;
    }
    uint8_t *to = *rgb = vl_alloc(n, 3);
    if (!to)
        return vl_fail_nomem(err, name);
    const uint8_t *from = pixels->data;
    const bool gray = channels < 3, composite = channels % 2 == 0 && alpha == VL_ALPHA_ON_WHITE;
    for (size_t i = 0; i < n; i++, to += 3, from += channels) {
        for (size_t c = 0; c < 3; c++) {
            uint8_t value = from[gray ? 0 : c];
            to[c] = composite ? over_white(value, from[channels - 1]) : value;
        }
    }
    return VL_OK;
}

static vl_status hash_and_decode(vl_image *image, const vl_image_bytes *bytes, const vl_image_options *options,
                                 vl_error *err)
{
    vl_status status = VL_OK;
    vl_pixels pixels = {0};
    decoder decode = NULL;
    uint8_t digest[VL_SHA256_BYTES];
    vl_sha256 hash;
    VL_TRY(find_decoder(&decode, bytes, err));
    VL_GOTO(decode(&pixels, bytes, err));
    image->width = pixels.width;
    image->height = pixels.height;
    VL_GOTO(to_rgb(&image->rgb, &pixels, options->alpha, bytes->name, err));
    image->orientation = 1;
    if (options->apply_exif) {
        image->orientation = vl_exif_orientation(bytes->data, bytes->size);
        VL_GOTO(vl_exif_transpose(&image->rgb, &image->width, &image->height, image->orientation, err));
    }
    vl_sha256_init(&hash);
    vl_sha256_update(&hash, bytes->data, bytes->size);
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, image->sha256);
done:
    vl_free(pixels.data);
    return status;
}

vl_status vl_image_decode(vl_image *out, const void *data, size_t size, const char *name,
                          const vl_image_options *options, vl_error *err)
{
    const vl_image_options defaults = {0};
    *out = (vl_image){0};
    if (!options)
        options = &defaults;
    const size_t max_bytes = options->max_bytes ? options->max_bytes : VL_IMAGE_MAX_BYTES;
    if (size > max_bytes)
        return vl_fail(err, VL_EFORMAT, "%s: %zu bytes, more than the limit of %zu", name, size, max_bytes);
    vl_image_bytes bytes = {data, size, name, VL_IMAGE_MAX_PIXELS};
    if (options->max_pixels > 0 && options->max_pixels < VL_IMAGE_MAX_PIXELS)
        bytes.max_pixels = options->max_pixels;
    vl_status status = hash_and_decode(out, &bytes, options, err);
    if (status != VL_OK)
        vl_image_clear(out);
    return status;
}

vl_status vl_image_open(vl_image *out, const char *path, const vl_image_options *options, vl_error *err)
{
    char *data;
    size_t size, limit = options && options->max_bytes ? options->max_bytes : VL_IMAGE_MAX_BYTES;
    *out = (vl_image){0};
    VL_TRY(vl_file_read(&data, &size, path, limit, err));
    vl_status status = vl_image_decode(out, data, size, path, options, err);
    vl_free(data);
    return status;
}

void vl_image_clear(vl_image *image)
{
    if (!image)
        return;
    vl_free(image->rgb);
    *image = (vl_image){0};
}
