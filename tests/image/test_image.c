/* Decoding: every kind of file against Pillow's result, hostile files, and (with VLENS_SHARED_DATA) real pictures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/image/exif.h"
#include "trainer/image/image.h"
#include "tests/image/image_samples.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const vl_image_options DROP = {.alpha = VL_ALPHA_DROP};
static const vl_image_options ON_WHITE = {.alpha = VL_ALPHA_ON_WHITE};
static const vl_image_options UPRIGHT = {.apply_exif = true};

static void assert_decodes(const struct sample *s, const vl_image_options *options, int width, int height,
                           const char *expected)
{
    vl_image image;
    vl_error err = VL_ERROR_INIT;
    char hex[VL_SHA256_HEX];
    uint8_t digest[VL_SHA256_BYTES];
    vl_sha256 hash;
    if (vl_image_decode(&image, s->data, s->size, s->name, options, &err) != VL_OK)
        fail_msg("%s", err.message);
    assert_int_equal(image.width, width);
    assert_int_equal(image.height, height);
    vl_sha256_init(&hash);
    vl_sha256_update(&hash, image.rgb, 3 * (size_t)image.width * (size_t)image.height);
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, hex);
    if (strcmp(hex, expected) != 0)
        fail_msg("%s: other pixels than Pillow's (exif %d, alpha %d)", s->name, options->apply_exif, options->alpha);
    vl_image_clear(&image);
}

static void samples_equal_pillow(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(SAMPLES); i++) {
        const struct sample *s = &SAMPLES[i];
#ifndef VLENS_WEBP
        vl_image none;
        vl_error err = VL_ERROR_INIT;
        if (strncmp(s->name, "webp", 4) == 0) {
            assert_int_equal(vl_image_decode(&none, s->data, s->size, s->name, &DROP, &err), VL_EUNSUPPORTED);
            assert_non_null(strstr(err.message, "built without WebP"));
            continue;
        }
#endif
        assert_decodes(s, &DROP, s->width, s->height, s->dropped);
        assert_decodes(s, &ON_WHITE, s->width, s->height, s->on_white);
        assert_decodes(s, &UPRIGHT, s->upright_width, s->upright_height, s->upright);
    }
}

static const struct sample *find(const char *name)
{
    for (size_t i = 0; i < COUNT(SAMPLES); i++) {
        if (strcmp(SAMPLES[i].name, name) == 0)
            return &SAMPLES[i];
    }
    fail_msg("no sample %s", name);
    return NULL;
}

static void assert_refused(const void *data, size_t size, const vl_image_options *options, vl_status status,
                           const char *part)
{
    vl_image image;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_image_decode(&image, data, size, "folder/x.img", options, &err), status);
    assert_null(image.rgb);
    if (!strstr(err.message, part) || !strstr(err.message, "folder/x.img"))
        fail_msg("expected \"%s\" in \"%s\"", part, err.message);
}

static void other_formats_are_named(void **state)
{
    (void)state;
    assert_refused("RIFF\x10\0\0\0WEBPVP8 ", 16, NULL, VL_EFORMAT, "damaged WebP");
    assert_refused("GIF89a\1\0\1\0", 10, NULL, VL_EUNSUPPORTED, "convert 'folder/x.img[0]' X.png");
    assert_refused("II*\0\10\0\0\0", 8, NULL, VL_EUNSUPPORTED, "TIFF is not supported (PNG, JPEG, WebP and BMP are)");
    assert_refused("\0\0\0\x20"
                   "ftypheic\0\0\0\0",
                   16, NULL, VL_EUNSUPPORTED, "heif-convert 'folder/x.img' X.png");
    assert_refused("\0\0\0\x20"
                   "ftypavif\0\0\0\0",
                   16, NULL, VL_EUNSUPPORTED, "AVIF");
    assert_refused("<svg/>", 6, NULL, VL_EUNSUPPORTED, "expected a picture as PNG, JPEG, WebP or BMP");
    assert_refused("hello", 5, NULL, VL_EFORMAT, "not a picture");
    assert_refused("", 0, NULL, VL_EFORMAT, "empty file");
    assert_refused("\xff\xd8\xff", 3, NULL, VL_EFORMAT, "damaged JPEG");
}

static void files_are_opened_and_hashed(void **state)
{
    (void)state;
    vl_image image;
    vl_error err = VL_ERROR_INIT;
    char hex[VL_SHA256_HEX], *path = vl_path_join(VLENS_SOURCE_DIR, "tests/golden/fixtures/images/scene.png");
    assert_int_equal(vl_image_open(&image, path, NULL, &err), VL_OK);
    assert_int_equal(vl_sha256_file(path, hex, NULL), VL_OK);
    assert_string_equal(image.sha256, hex);
    vl_image_clear(&image);
    assert_int_equal(vl_image_open(&image, path, &(vl_image_options){.max_bytes = 10}, &err), VL_EFORMAT);
    vl_free(path);
    assert_int_equal(vl_image_open(&image, VLENS_SOURCE_DIR "/no-such.png", NULL, &err), VL_EIO);
    assert_int_equal(vl_image_open(&image, VLENS_SOURCE_DIR, NULL, &err), VL_EIO);
    vl_image_clear(NULL);
}

/* ---- hostile files ---- */

static uint32_t crc32_of(const uint8_t *p, size_t n)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

/* Gives every chunk that lies within the file the right checksum, so that a change gets past that check. */
static void repair_png(uint8_t *data, size_t size)
{
    size_t at = 8;
    while (at + 12 <= size) {
        size_t n = (size_t)data[at] << 24 | (size_t)data[at + 1] << 16 | (size_t)data[at + 2] << 8 | data[at + 3];
        if (n > size - at - 12)
            return;
        uint32_t crc = crc32_of(data + at + 4, n + 4);
        for (size_t i = 0; i < 4; i++)
            data[at + 8 + n + i] = (uint8_t)(crc >> (24 - 8 * i));
        at += n + 12;
    }
}

static void set_be32(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void sizes_are_bounded_before_decoding(void **state)
{
    (void)state;
    uint8_t data[2048];
    const struct sample *png = find("png_rgb"), *jpeg = find("jpeg_gray"), *bmp = find("bmp_24");
    memcpy(data, png->data, png->size);
    set_be32(data + 16, 100000);
    set_be32(data + 20, 100000);
    assert_refused(data, png->size, NULL, VL_EFORMAT, "no whole header"); /* the checksum is wrong */
    repair_png(data, png->size);
    assert_refused(data, png->size, NULL, VL_EFORMAT, "100000 x 100000 pixels, more than the limit of 178956970");
    set_be32(data + 20, 0);
    repair_png(data, png->size);
    assert_refused(data, png->size, NULL, VL_EFORMAT, "100000 x 0 pixels");
    set_be32(data + 20, 0xffffffff);
    repair_png(data, png->size);
    assert_refused(data, png->size, NULL, VL_EFORMAT, "100000 x 4294967295 pixels");

    memcpy(data, jpeg->data, jpeg->size);
    for (size_t i = 0; i + 9 < jpeg->size; i++) {
        if (data[i] == 0xff && data[i + 1] == 0xc0)
            memset(data + i + 5, 0xfe, 4);
    }
    assert_refused(data, jpeg->size, NULL, VL_EFORMAT, "65278 x 65278 pixels, more than the limit");

    memcpy(data, bmp->data, bmp->size);
    memset(data + 18, 0x7f, 8);
    assert_refused(data, bmp->size, NULL, VL_EFORMAT, "more than the limit");
    memcpy(data + 22, "\0\0\0\x80", 4); /* the most negative height */
    assert_refused(data, bmp->size, NULL, VL_EFORMAT, "x 2147483648 pixels");

    assert_refused(png->data, png->size, &(vl_image_options){.max_pixels = 34}, VL_EFORMAT, "limit of 34 pixels");
    assert_refused(png->data, png->size, &(vl_image_options){.max_bytes = 50}, VL_EFORMAT, "limit of 50");
}

/* Decodes a copy in a block of exactly that size, so that AddressSanitizer sees one byte too far. */
static vl_status decode_copy(const uint8_t *data, size_t size)
{
    vl_image image;
    vl_error err = VL_ERROR_INIT;
    uint8_t *copy = vl_alloc(size, 1);
    if (size)
        memcpy(copy, data, size);
    const vl_image_options options = {.apply_exif = true, .alpha = VL_ALPHA_ON_WHITE, .max_pixels = 1 << 20};
    vl_status status = vl_image_decode(&image, copy, size, "x", &options, &err);
    assert_true(status == VL_OK || (err.message[0] && !strchr(err.message, '\n')));
    vl_image_clear(&image);
    vl_free(copy);
    return status;
}

static void cut_files_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(SAMPLES); i++) {
        /* As in Pillow, a JPEG may lack its end marker, and a BMP the padding of its last row. */
        const size_t spare = SAMPLES[i].data[0] == 0xff ? 2 : SAMPLES[i].data[0] == 'B' ? 3 : 0;
        for (size_t n = 0; n < SAMPLES[i].size - spare; n++) {
            if (decode_copy(SAMPLES[i].data, n) == VL_OK)
                fail_msg("%s is accepted when cut to %zu of %zu bytes", SAMPLES[i].name, n, SAMPLES[i].size);
        }
    }
}

static void changed_files_do_no_harm(void **state)
{
    (void)state;
    static const uint8_t changes[] = {0x01, 0x80, 0xff, 0x10};
    uint8_t data[2048];
    for (size_t i = 0; i < COUNT(SAMPLES); i++) {
        const struct sample *s = &SAMPLES[i];
        for (size_t at = 0; at < s->size; at++) {
            for (size_t k = 0; k < COUNT(changes); k++) {
                memcpy(data, s->data, s->size);
                data[at] ^= changes[k];
                decode_copy(data, s->size);
                if (s->data[0] == 0x89) {
                    repair_png(data, s->size);
                    decode_copy(data, s->size);
                }
            }
        }
    }
}

static void hostile_exif_is_upright(void **state)
{
    (void)state;
    uint8_t data[64] = "\xff\xd8\xff\xe1\0\x2a"
                       "Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
    uint8_t *tiff = data + 12;
    assert_int_equal(vl_exif_orientation(data, sizeof data), 6);
    tiff[18] = 9; /* out of range */
    assert_int_equal(vl_exif_orientation(data, sizeof data), 1);
    tiff[18] = 6;
    tiff[14] = 2; /* two values */
    assert_int_equal(vl_exif_orientation(data, sizeof data), 1);
    tiff[14] = 1;
    memset(tiff + 8, 0xff, 2); /* 65535 entries: those within the segment are read */
    assert_int_equal(vl_exif_orientation(data, sizeof data), 6);
    tiff[4] = 0; /* the directory is the header itself */
    assert_int_equal(vl_exif_orientation(data, sizeof data), 1);
    memset(tiff + 4, 0xff, 4); /* a directory far outside */
    assert_int_equal(vl_exif_orientation(data, sizeof data), 1);
    memcpy(data + 4, "\0\0", 2); /* a segment of no length */
    assert_int_equal(vl_exif_orientation(data, sizeof data), 1);
    memset(data + 2, 0xff, sizeof data - 2); /* nothing but fill bytes */
    assert_int_equal(vl_exif_orientation(data, sizeof data), 1);
    for (size_t n = 0; n < 8; n++)
        assert_int_equal(vl_exif_orientation(data, n), 1);
}

/* ---- real pictures ---- */

/* Largest and mean difference of the picture from a PPM file; -1 when the sizes differ. */
static int compare_with_ppm(const vl_image *image, const char *path, double *mean)
{
    char *ppm;
    size_t size;
    int width, height, start = 0, largest = 0;
    assert_int_equal(vl_file_read(&ppm, &size, path, (size_t)1 << 28, NULL), VL_OK);
    assert_int_equal(sscanf(ppm, "P6 %d %d 255%n", &width, &height, &start), 2);
    const uint8_t *expected = (const uint8_t *)ppm + start + 1;
    const size_t n = 3 * (size_t)width * (size_t)height;
    assert_int_equal(size, (size_t)start + 1 + n);
    double sum = 0;
    for (size_t i = 0; i < n && width == image->width && height == image->height; i++) {
        int difference = abs(image->rgb[i] - expected[i]);
        sum += difference;
        largest = difference > largest ? difference : largest;
    }
    *mean = sum / (double)n;
    vl_free(ppm);
    return width == image->width && height == image->height ? largest : -1;
}

/* One file against decoded_rgb; returns whether all is equal. */
static bool check_shared(const char *folder, const char *name, const json_t *entry, const vl_image_options *options)
{
    char path[1024], ppm[1024];
    vl_image image;
    vl_error err = VL_ERROR_INIT;
    double mean;
    const bool white = options->alpha == VL_ALPHA_ON_WHITE;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(ppm, sizeof ppm, "%s/decoded_rgb/%s.mllama.ppm", folder, name);
    if (!white || !vl_path_exists(ppm))
        snprintf(ppm, sizeof ppm, "%s/decoded_rgb/%s.ppm", folder, name);
    if (vl_image_open(&image, path, options, &err) != VL_OK)
        fail_msg("%s", err.message);
    int largest = compare_with_ppm(&image, ppm, &mean);
    if (largest != 0 || !white)
        print_message("  %-38s %-8s max %3d  mean %.4f\n", name, white ? "on white" : "dropped", largest, mean);
    assert_string_equal(image.sha256, json_string_value(json_object_get(entry, "sha256_file")));
    vl_image_clear(&image);
    assert_int_equal(vl_image_open(&image, path, &UPRIGHT, &err), VL_OK);
    const json_t *orientation = json_object_get(entry, "exif_orientation");
    assert_int_equal(image.orientation, json_is_integer(orientation) ? json_integer_value(orientation) : 1);
    vl_image_clear(&image);
    return largest == 0;
}

static void shared_pictures_equal_pillow(void **state)
{
    (void)state;
    const char *shared = getenv("VLENS_SHARED_DATA");
    if (!shared) {
        print_message("VLENS_SHARED_DATA is not set: no comparison with the shared pictures\n");
        skip();
    }
    char folder[512], path[600];
    json_t *manifest;
    const char *name;
    json_t *entry;
    int different = 0, total = 0;
    snprintf(folder, sizeof folder, "%s/images", shared);
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    assert_int_equal(vl_json_read(&manifest, path, 1 << 24, NULL), VL_OK);
    json_object_foreach(manifest, name, entry)
    {
        if (strcmp(json_string_value(json_object_get(entry, "format")), "WEBP") == 0) {
            vl_image image;
            snprintf(path, sizeof path, "%s/%s", folder, name);
            assert_int_equal(vl_image_open(&image, path, NULL, NULL), VL_EUNSUPPORTED);
            continue;
        }
        total++;
        bool drop = check_shared(folder, name, entry, &DROP), on_white = check_shared(folder, name, entry, &ON_WHITE);
        different += !drop || !on_white;
    }
    json_decref(manifest);
    print_message("  %d of %d pictures equal Pillow's in every byte\n", total - different, total);
    assert_int_equal(different, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_equal_pillow),        cmocka_unit_test(other_formats_are_named),
        cmocka_unit_test(files_are_opened_and_hashed), cmocka_unit_test(sizes_are_bounded_before_decoding),
        cmocka_unit_test(cut_files_are_refused),       cmocka_unit_test(changed_files_do_no_harm),
        cmocka_unit_test(hostile_exif_is_upright),     cmocka_unit_test(shared_pictures_equal_pillow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
