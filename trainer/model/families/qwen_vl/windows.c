#include <math.h>

#include "trainer/image/pixels.h"
#include "trainer/model/families/qwen_vl/tower.h"

int64_t vl_qwen_windows(int32_t *order, int64_t *ends, vl_size blocks, int window)
{
    int64_t n = 0, n_windows = 0;
    for (int top = 0; top < blocks.height; top += window) {
        for (int left = 0; left < blocks.width; left += window) {
            for (int y = top; y < top + window && y < blocks.height; y++)
                for (int x = left; x < left + window && x < blocks.width; x++)
                    order[n++] = y * blocks.width + x;
            ends[n_windows++] = n;
        }
    }
    return n_windows;
}

/* theta = 10000 over half of the head: E / 4 frequencies for the row, as many for the column; every step in fp32. */
void vl_qwen_angles(float *cosines, float *sines, const int32_t *order, vl_size grid, const int sizes[2])
{
    const int head_dim = sizes[0], merge = sizes[1], quarter = head_dim / 4, half = head_dim / 2, area = merge * merge;
    const int64_t n = (int64_t)grid.height * grid.width;
    for (int64_t t = 0; t < n; t++) {
        const vl_size at = vl_merge_block_patch((int64_t)order[t / area] * area + t % area, grid.width, merge);
        for (int i = 0; i < half; i++) {
            const int k = i % quarter;
            const float power = (float)pow(10000.0, (double)((float)(2 * k) / (float)half));
            const float angle = (float)(i < quarter ? at.height : at.width) * (1.0F / power);
            cosines[t * half + i] = (float)cos((double)angle);
            sines[t * half + i] = (float)sin((double)angle);
        }
    }
}

/* Two rows (or columns) of the table on either side of patch i of n, and how far it is from the first. */
static void tap(int out[2], float *far, int i, int n, int side)
{
    const float at = (float)i * (float)(side - 1) / (float)(n > 1 ? n - 1 : 1);
    out[0] = (int)floorf(at);
    out[1] = out[0] + 1 < side ? out[0] + 1 : side - 1;
    *far = at - (float)out[0];
}

void vl_qwen_positions(int32_t *rows, float *weights, vl_size grid, int merge, int side)
{
    const int64_t n = (int64_t)grid.height * grid.width;
    for (int64_t t = 0; t < n; t++, rows += 4, weights += 4) {
        const vl_size patch = vl_merge_block_patch(t, grid.width, merge);
        int y[2], x[2];
        float down, right;
        tap(y, &down, patch.height, grid.height, side);
        tap(x, &right, patch.width, grid.width, side);
        for (int k = 0; k < 4; k++) {
            rows[k] = y[k / 2] * side + x[k % 2];
            weights[k] = (k / 2 ? down : 1 - down) * (k % 2 ? right : 1 - right);
        }
    }
}
