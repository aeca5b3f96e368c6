#include "trainer/image/pixels.h"

void vl_value_table_make(vl_value_table table, const vl_normalise *settings)
{
    const bool fused = settings->order == VL_NORMALISE_FUSED && settings->do_rescale && settings->do_normalize;
    const float k = (float)(1.0 / settings->rescale_factor);
    for (int c = 0; c < 3; c++) {
        const float mean = (float)settings->mean[c], std = (float)settings->std[c];
        const float fused_mean = mean * k, fused_std = std * k;
        for (int byte = 0; byte < 256; byte++) {
            float value = settings->do_rescale ? (float)(byte * settings->rescale_factor) : (float)byte;
            if (settings->do_rescale && settings->order == VL_NORMALISE_FUSED)
                value = (float)byte * (float)settings->rescale_factor;
            if (fused)
                value = ((float)byte - fused_mean) / fused_std;
            else if (settings->do_normalize)
                value = (value - mean) / std;
            table[c][byte] = value;
        }
    }
}

/* One tile: `rgb` is its first pixel, `row` the pixels from row to row. */
static void put_tile(float *out, const uint8_t *rgb, size_t row, size_t tile, vl_value_table table)
{
    for (size_t c = 0; c < 3; c++)
        for (size_t y = 0; y < tile; y++)
            for (size_t x = 0; x < tile; x++)
                *out++ = table[c][rgb[3 * (y * row + x) + c]];
}

void vl_pixels_tiles(float *out, const vl_bitmap *bitmap, int tile, vl_value_table table)
{
    const int columns = bitmap->size.width / tile, n = bitmap->size.height / tile * columns;
    const size_t row = (size_t)bitmap->size.width, side = (size_t)tile;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < n; i++) {
        const size_t y = (size_t)(i / columns) * side, x = (size_t)(i % columns) * side;
        put_tile(out + (size_t)i * 3 * side * side, bitmap->rgb + 3 * (y * row + x), row, side, table);
    }
}

vl_size vl_merge_block_patch(int64_t n, int columns, int merge)
{
    const int area = merge * merge, inside = (int)(n % area);
    const int64_t block = n / area, blocks = columns / merge;
    return (vl_size){(int)(block / blocks) * merge + inside / merge, (int)(block % blocks) * merge + inside % merge};
}

void vl_pixels_patches(float *out, const vl_bitmap *bitmap, const vl_patchify *how, vl_value_table table)
{
    const int p = how->patch, columns = bitmap->size.width / p;
    const int64_t n = (int64_t)(bitmap->size.height / p) * columns;
    const size_t area = (size_t)p * (size_t)p, row = (size_t)bitmap->size.width;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const vl_size at = vl_merge_block_patch(i, columns, how->merge);
        const uint8_t *from = bitmap->rgb + 3 * ((size_t)(at.height * p) * row + (size_t)(at.width * p));
        float *to = out + (size_t)i * 3 * (size_t)how->frames * area;
        for (size_t c = 0; c < 3; c++) {
            for (int frame = 0; frame < how->frames; frame++, to += area) {
                for (size_t k = 0; k < area; k++)
                    to[k] = table[c][from[3 * (k / (size_t)p * row + k % (size_t)p) + c]];
            }
        }
    }
}
