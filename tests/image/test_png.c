/* PNGs that are written: stb_image reads the same pixels from them, and what it does not look at (the CRCs, the order
 * of chunks, one zlib stream of the right length) is checked here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zlib.h>

#include "trainer/base/mem.h"
#include "trainer/image/image.h"
#include "trainer/image/png.h"

static uint32_t u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Bit by bit, from the polynomial of the PNG specification (annex D). */
static uint32_t plain_crc(const uint8_t *data, size_t n)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
    }
    return ~crc;
}

/* The chunk at *at, which must be of this type; moves behind it. Returns its data. */
static const uint8_t *chunk(const uint8_t **at, const uint8_t *end, const char *type, size_t *n)
{
    assert_true(end - *at >= 12);
    *n = u32(*at);
    assert_true(*n <= (size_t)(end - *at) - 12);
    assert_memory_equal(*at + 4, type, 4);
    assert_int_equal(u32(*at + 8 + *n), plain_crc(*at + 4, *n + 4));
    const uint8_t *data = *at + 8;
    *at += 12 + *n;
    return data;
}

/* Checks the container; counts the filters that its rows use. */
static void check_file(const uint8_t *png, size_t size, int width, int height, int used[5])
{
    const uint8_t *at = png + 8, *end = png + size;
    size_t n;
    assert_memory_equal(png, "\x89PNG\r\n\x1a\n", 8);
    const uint8_t *header = chunk(&at, end, "IHDR", &n);
    assert_int_equal(n, 13);
    assert_int_equal(u32(header), width);
    assert_int_equal(u32(header + 4), height);
    assert_memory_equal(header + 8, "\x08\x02\0\0\0", 5);
    const uint8_t *packed = chunk(&at, end, "IDAT", &n);
    uLongf stride = 1 + 3 * (uLongf)width, length = stride * (uLongf)height;
    uint8_t *rows = malloc(length);
    assert_non_null(rows);
    assert_int_equal(uncompress(rows, &length, packed, n), Z_OK);
    assert_int_equal(length, stride * (uLongf)height);
    for (int y = 0; y < height; y++) {
        assert_true(rows[(uLongf)y * stride] < 5);
        used[rows[(uLongf)y * stride]]++;
    }
    free(rows);
    chunk(&at, end, "IEND", &n);
    assert_int_equal(n, 0);
    assert_ptr_equal(at, end);
}

/* Kinds of pictures: each of the five filters is the best one for some of their rows. */
static uint8_t pixel(int kind, int x, int y, int channel)
{
    static uint32_t noise = 1;
    switch (kind) {
    case 0: noise = noise * 1664525 + 1013904223; return (uint8_t)(noise >> 24);
    case 1: return (uint8_t)(7 * x + 50 * channel);  /* as above */
    case 2: return (uint8_t)(40 * y + 90 * channel); /* as on the left */
    case 3: return (uint8_t)(3 * x + 5 * y + channel);
    case 4:
        noise = noise * 1664525 + 1013904223;
        return (uint8_t)(2 * x + 2 * y + (noise >> 28)); /* a slope with grain */
    default: return 255;
    }
}

static void same_pixels(void **state)
{
    static const int sides[][2] = {{1, 1}, {1, 9}, {9, 1}, {2, 3}, {17, 5}, {224, 224}, {300, 7}};
    int used[5] = {0};
    (void)state;
    for (int kind = 0; kind < 6; kind++)
        for (size_t s = 0; s < sizeof sides / sizeof *sides; s++) {
            int width = sides[s][0], height = sides[s][1];
            size_t n = 3 * (size_t)width * (size_t)height, size = 0;
            uint8_t *rgb = malloc(n), *png = NULL;
            vl_image image;
            vl_error err = VL_ERROR_INIT;
            assert_non_null(rgb);
            for (size_t i = 0; i < n; i++)
                rgb[i] = pixel(kind, (int)(i / 3) % width, (int)(i / 3) / width, (int)(i % 3));
            assert_int_equal(vl_png_encode(&png, &size, rgb, width, height, &err), VL_OK);
            check_file(png, size, width, height, used);
            if (vl_image_decode(&image, png, size, "png", NULL, &err) != VL_OK)
                fail_msg("%s", err.message);
            assert_int_equal(image.width, width);
            assert_int_equal(image.height, height);
            assert_memory_equal(image.rgb, rgb, n);
            vl_image_clear(&image);
            vl_free(png);
            free(rgb);
        }
    printf("rows by filter: none %d, left %d, above %d, mean %d, Paeth %d\n", used[0], used[1], used[2], used[3],
           used[4]);
    for (int filter = 0; filter < 5; filter++)
        assert_true(used[filter] > 0);
}

static void refused_sizes(void **state)
{
    static const int sides[][2] = {{0, 1}, {1, 0}, {-1, 5}, {INT32_MAX, INT32_MAX}, {1 << 15, 1 << 14}};
    uint8_t one[3] = {0};
    (void)state;
    for (size_t s = 0; s < sizeof sides / sizeof *sides; s++) {
        uint8_t *png = one;
        size_t size = 1;
        vl_error err = VL_ERROR_INIT;
        assert_int_equal(vl_png_encode(&png, &size, one, sides[s][0], sides[s][1], &err), VL_EINVAL);
        assert_null(png);
        assert_int_equal(size, 0);
        assert_non_null(strstr(err.message, "PNG"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_pixels), cmocka_unit_test(refused_sizes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
