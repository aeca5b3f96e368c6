#include "trainer/image/png.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "trainer/base/mem.h"

/* PNG, second edition (W3C, 2003): the signature, then chunks of length, type, data and the CRC of type and data. */
enum { CHANNELS = 3, FILTERS = 5, BEFORE_DATA = 8, AFTER_DATA = 4, HEADER_SIZE = 13 };
static const uint8_t signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

static void put_u32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* Length, type and CRC around n bytes that are in place already. Returns where the next chunk begins. */
static uint8_t *close_chunk(uint8_t *chunk, const char *type, size_t n)
{
    put_u32(chunk, (uint32_t)n);
    memcpy(chunk + 4, type, 4);
    put_u32(chunk + BEFORE_DATA + n, (uint32_t)crc32(0, chunk + 4, (uInt)(n + 4)));
    return chunk + BEFORE_DATA + n + AFTER_DATA;
}

/* Section 9.4: of the bytes to the left, above, and above to the left, the one nearest to left + above - corner. */
static int paeth(int left, int above, int corner)
{
    int to_left = abs(above - corner), to_above = abs(left - corner), to_corner = abs(left + above - 2 * corner);
    if (to_left <= to_above && to_left <= to_corner)
        return left;
    return to_above <= to_corner ? above : corner;
}

/* One row through filter 0..4 (none, left, above, mean, Paeth). above: NULL for the first row, which counts as zeros.
 * Returns the sum of the bytes taken as signed: the filter with the least is the one to choose (section 12.8). */
static long filter_row(uint8_t *out, int filter, const uint8_t *row, const uint8_t *above, size_t n)
{
    long sum = 0;
    for (size_t i = 0; i < n; i++) {
        int a = i < CHANNELS ? 0 : row[i - CHANNELS], b = above ? above[i] : 0;
        int c = above && i >= CHANNELS ? above[i - CHANNELS] : 0;
        int predicted = filter == 0   ? 0
                        : filter == 1 ? a
                        : filter == 2 ? b
                        : filter == 3 ? (a + b) / 2
                                      : paeth(a, b, c);
        out[i] = (uint8_t)(row[i] - predicted);
        sum += abs((int8_t)out[i]);
    }
    return sum;
}

/* [height, 1 + stride]: for each row the filter's number and its bytes. `spare` has room for a row. */
static void filter_rows(uint8_t *out, uint8_t *spare, const uint8_t *rgb, int height, size_t stride)
{
    for (int y = 0; y < height; y++, out += 1 + stride) {
        const uint8_t *row = rgb + (size_t)y * stride, *above = y > 0 ? row - stride : NULL;
        long least = LONG_MAX;
        for (int filter = 0; filter < FILTERS; filter++) {
            long sum = filter_row(spare, filter, row, above, stride);
            if (sum >= least)
                continue;
            least = sum;
            out[0] = (uint8_t)filter;
            memcpy(out + 1, spare, stride);
        }
    }
}

/* The file around the compressed rows. */
static vl_status write_file(uint8_t **out, size_t *size, const uint8_t *rows, size_t n, const int side[2],
                            vl_error *err)
{
    uLongf packed = compressBound((uLong)n);
    size_t around = sizeof signature + 3 * (BEFORE_DATA + AFTER_DATA) + HEADER_SIZE;
    uint8_t *file = vl_alloc(packed + around, 1), *at = file;
    if (!file)
        return vl_fail_nomem(err, "PNG");
    memcpy(at, signature, sizeof signature);
    at += sizeof signature;
    put_u32(at + BEFORE_DATA, (uint32_t)side[0]);
    put_u32(at + BEFORE_DATA + 4, (uint32_t)side[1]);
    /* 8 bits, RGB, deflate, the five filters, not interlaced */
    memcpy(at + BEFORE_DATA + 8, (const uint8_t[]){8, 2, 0, 0, 0}, 5);
    at = close_chunk(at, "IHDR", HEADER_SIZE);
    if (compress2(at + BEFORE_DATA, &packed, rows, (uLong)n, Z_DEFAULT_COMPRESSION) != Z_OK) {
        vl_free(file);
        return vl_fail_nomem(err, "PNG");
    }
    at = close_chunk(at, "IDAT", packed);
    at = close_chunk(at, "IEND", 0);
    *out = file;
    *size = (size_t)(at - file);
    return VL_OK;
}

vl_status vl_png_encode(uint8_t **out, size_t *size, const uint8_t *rgb, int width, int height, vl_error *err)
{
    *out = NULL;
    *size = 0;
    size_t stride, n;
    if (width < 1 || height < 1 || !vl_mul_size(&stride, (size_t)width, CHANNELS) ||
        !vl_mul_size(&n, stride + 1, (size_t)height) || n > VL_PNG_MAX_BYTES)
        return vl_fail(err, VL_EINVAL, "PNG: a picture of %d x %d", width, height);
    uint8_t *rows = vl_alloc(n + stride, 1);
    if (!rows)
        return vl_fail_nomem(err, "PNG");
    filter_rows(rows, rows + n, rgb, height, stride);
    vl_status status = write_file(out, size, rows, n, (const int[2]){width, height}, err);
    vl_free(rows);
    return status;
}
