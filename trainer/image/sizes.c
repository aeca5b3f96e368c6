#include "trainer/image/sizes.h"

#include <math.h>
#include <stdbool.h>

static int at_least_one(int value)
{
    return value > 1 ? value : 1;
}

/* ---- Qwen2-VL (models/qwen2_vl/image_processing_qwen2_vl.py) ---- */

vl_status vl_smart_resize(vl_size *out, vl_size picture, int factor, int64_t min_pixels, int64_t max_pixels,
                          vl_error *err)
{
    const double h = picture.height, w = picture.width, f = factor, longer = h > w ? h : w, shorter = h > w ? w : h;
    if (longer / shorter > 200)
        return vl_fail(err, VL_EINVAL, "a picture of %d x %d pixels: one side is more than 200 times the other",
                       picture.width, picture.height);
    /* nearbyint: halves to even, as Python's round */
    double high = nearbyint(h / f) * f, wide = nearbyint(w / f) * f;
    if (high * wide > (double)max_pixels) {
        const double beta = sqrt(h * w / (double)max_pixels);
        high = fmax(f, floor(h / beta / f) * f);
        wide = fmax(f, floor(w / beta / f) * f);
    } else if (high * wide < (double)min_pixels) {
        const double beta = sqrt((double)min_pixels / (h * w));
        high = ceil(h * beta / f) * f;
        wide = ceil(w * beta / f) * f;
    }
    *out = (vl_size){(int)high, (int)wide};
    return VL_OK;
}

/* ---- LLaVA-NeXT and OneVision (image_processing_utils.py, models/llava_next/modeling_llava_next.py) ---- */

int vl_best_resolution(vl_size picture, const vl_size *canvases, int n)
{
    const int64_t area = (int64_t)picture.height * picture.width;
    int64_t most = 0, least_waste = INT64_MAX;
    int best = 0;
    for (int i = 0; i < n; i++) {
        const double across = (double)canvases[i].width / picture.width;
        const double down = (double)canvases[i].height / picture.height, scale = across < down ? across : down;
        int64_t kept = (int64_t)(picture.width * scale) * (int64_t)(picture.height * scale);
        kept = kept < area ? kept : area;
        const int64_t waste = (int64_t)canvases[i].height * canvases[i].width - kept;
        if (kept > most || (kept == most && waste < least_waste)) {
            best = i;
            most = kept;
            least_waste = waste;
        }
    }
    return best;
}

vl_size vl_fit_inside(vl_size picture, vl_size canvas)
{
    const double across = (double)canvas.width / picture.width, down = (double)canvas.height / picture.height;
    if (across < down) {
        const int h = (int)ceil(picture.height * across);
        return (vl_size){h < canvas.height ? h : canvas.height, canvas.width};
    }
    const int w = (int)ceil(picture.width * down);
    return (vl_size){canvas.height, w < canvas.width ? w : canvas.width};
}

/* int(round(x, 7)) of a positive x: what lies within half of 1e-7 below a whole number counts as that number. Python
 * rounds the exact decimal value of x; a long double holds the sum without rounding it. */
static int truncate_rounded(double x)
{
    const double next = floor(x) + 1;
    return (long double)next - (long double)x < 0.5e-7L ? (int)next : (int)floor(x);
}

vl_size vl_unpad_cut(vl_size picture, vl_size map)
{
    const double w = picture.width, h = picture.height;
    if (w / h > (double)map.width / map.height)
        return (vl_size){(map.height - truncate_rounded(h * (map.width / w))) / 2, 0};
    return (vl_size){0, (map.width - truncate_rounded(w * (map.height / h))) / 2};
}

/* ---- InternVL (models/got_ocr2/image_processing_got_ocr2.py) ---- */

vl_size vl_tiled_grid(vl_size picture, int tile, int min_tiles, int max_tiles)
{
    const double aspect = (double)picture.width / picture.height, area = (double)picture.height * picture.width;
    double best_difference = INFINITY;
    vl_size best = {1, 1};
    /* The list is ordered by the number of tiles; of equal numbers, the one with fewer columns comes first. */
    for (int n = min_tiles; n <= max_tiles; n++) {
        for (int columns = 1; columns <= n; columns++) {
            if (n % columns != 0)
                continue;
            const int rows = n / columns;
            const double difference = fabs(aspect - (double)columns / rows);
            const bool enough = area > 0.5 * tile * tile * n;
            if (difference < best_difference || (difference == best_difference && enough)) {
                best = (vl_size){rows, columns};
                best_difference = difference;
            }
        }
    }
    return best;
}

/* ---- Idefics3 (models/idefics3/image_processing_idefics3.py) ---- */

enum { IDEFICS3_MAX_SIDE = 4096 };

vl_size vl_idefics3_resize(vl_size picture, int longest)
{
    double aspect = (double)picture.width / picture.height;
    int h = longest, w = longest;
    if (picture.width >= picture.height) {
        h = (int)(w / aspect);
        h += h % 2;
    } else {
        w = (int)(h * aspect);
        w += w % 2;
    }
    h = at_least_one(h);
    w = at_least_one(w);
    aspect = (double)w / h;
    if (w >= h && w > IDEFICS3_MAX_SIDE) {
        w = IDEFICS3_MAX_SIDE;
        h = (int)(w / aspect);
    } else if (h > w && h > IDEFICS3_MAX_SIDE) {
        h = IDEFICS3_MAX_SIDE;
        w = (int)(h * aspect);
    }
    return (vl_size){at_least_one(h), at_least_one(w)};
}

static int round_up(int value, int tile)
{
    return (value + tile - 1) / tile * tile;
}

vl_size vl_idefics3_tiled(vl_size resized, int tile)
{
    const double aspect = (double)resized.width / resized.height;
    if (resized.width >= resized.height) {
        const int w = round_up(resized.width, tile);
        return (vl_size){round_up((int)(w / aspect), tile), w};
    }
    const int h = round_up(resized.height, tile);
    return (vl_size){h, round_up((int)(h * aspect), tile)};
}

/* ---- Gemma 3 (models/gemma3/image_processing_gemma3.py) ---- */

vl_size vl_pan_and_scan_grid(vl_size picture, const vl_pan_and_scan *settings)
{
    const int h = picture.height, w = picture.width, longer = h > w ? h : w, shorter = h > w ? w : h;
    if ((double)longer / shorter < settings->min_ratio)
        return (vl_size){0, 0};
    int n = (int)floor((double)longer / shorter + 0.5);
    const int most = longer / settings->min_crop_size;
    n = n < most ? n : most;
    n = n > 2 ? n : 2;
    n = n < settings->max_num_crops ? n : settings->max_num_crops;
    const vl_size grid = w >= h ? (vl_size){1, n} : (vl_size){n, 1};
    const int crop_h = (h + grid.height - 1) / grid.height, crop_w = (w + grid.width - 1) / grid.width;
    return (crop_h < crop_w ? crop_h : crop_w) < settings->min_crop_size ? (vl_size){0, 0} : grid;
}
