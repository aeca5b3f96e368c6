/* hf/resize.c - the method is that of Pillow's libImaging/Resample.c: weights in double, normalised, rounded to 22
 * fractional bits; sums in 32-bit integers; clipped to 8 bits after each pass. */
#include "trainer/image/resize.h"

#include <math.h>
#include <string.h>

#include "trainer/base/mem.h"

/* 32 bits, less 8 for the pixel and 2 for the overshoot of the cubic and Lanczos weights. */
enum { FRACTION_BITS = 32 - 8 - 2, HALF = 1 << (FRACTION_BITS - 1) };

static const double PI = 3.14159265358979323846;

static double box(double x)
{
    return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
}

static double bilinear(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static double hamming(double x)
{
    x = fabs(x);
    if (x == 0.0)
        return 1.0;
    if (x >= 1.0)
        return 0.0;
    x *= PI;
    return sin(x) / x * (0.54 + 0.46 * cos(x));
}

/* Keys' cubic with a = -0.5, in the order of operations that Pillow has: it decides the last bit. */
static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

static double sinc(double x)
{
    return x == 0.0 ? 1.0 : sin(x * PI) / (x * PI);
}

static double lanczos(double x)
{
    return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

struct filter {
    double (*weight)(double x);
    double support;
};

static const struct filter FILTERS[] = {
    [VL_RESAMPLE_LANCZOS] = {lanczos, 3.0}, [VL_RESAMPLE_BILINEAR] = {bilinear, 1.0},
    [VL_RESAMPLE_BICUBIC] = {bicubic, 2.0}, [VL_RESAMPLE_BOX] = {box, 0.5},
    [VL_RESAMPLE_HAMMING] = {hamming, 1.0},
};

/* What one axis needs: output i sums inputs first[i] .. first[i] + count[i] - 1 with the weights from i * stride. */
struct taps {
    int *first, *count; /* [n] */
    int32_t *weights;   /* [n, stride] */
    size_t stride;
};

static void clear_taps(struct taps *taps)
{
    vl_free(taps->first);
    vl_free(taps->count);
    vl_free(taps->weights);
}

static int32_t to_fixed(double weight)
{
    return (int32_t)((weight < 0 ? -0.5 : 0.5) + weight * (1 << FRACTION_BITS));
}

/* Outputs start .. start + n - 1 of an axis that goes from `from` to `to` pixels. */
static vl_status make_taps(struct taps *out, const struct filter *filter, int from, int to, const int part[2],
                           vl_error *err)
{
    const int start = part[0], n = part[1];
    const double scale = (double)from / to, stretch = scale < 1.0 ? 1.0 : scale;
    const double support = filter->support * stretch, inverse = 1.0 / stretch;
    size_t total;
    out->stride = (size_t)ceil(support) * 2 + 1;
    out->first = vl_alloc((size_t)n, sizeof *out->first);
    out->count = vl_alloc((size_t)n, sizeof *out->count);
    out->weights = vl_mul_size(&total, (size_t)n, out->stride) ? vl_alloc(total, sizeof *out->weights) : NULL;
    double *exact = vl_alloc(out->stride, sizeof *exact);
    if (!out->first || !out->count || !out->weights || !exact) {
        vl_free(exact);
        return vl_fail_nomem(err, "weights for resizing a picture");
    }
    for (int i = 0; i < n; i++) {
        const double center = (start + i + 0.5) * scale;
        int low = (int)(center - support + 0.5), high = (int)(center + support + 0.5);
        low = low < 0 ? 0 : low;
        high = high > from ? from : high;
        double sum = 0;
        for (int k = 0; k < high - low; k++) {
            exact[k] = filter->weight((k + low - center + 0.5) * inverse);
            sum += exact[k];
        }
        int32_t *weights = out->weights + (size_t)i * out->stride;
        for (int k = 0; k < high - low; k++)
            weights[k] = to_fixed(sum != 0.0 ? exact[k] / sum : exact[k]);
        out->first[i] = low;
        out->count[i] = high - low;
    }
    vl_free(exact);
    return VL_OK;
}

static uint8_t to_byte(int32_t sum)
{
    const int32_t value = sum >> FRACTION_BITS; /* arithmetic, as gcc and clang define it */
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* One row of the horizontal pass. */
static void sum_columns(uint8_t *to, const uint8_t *from, const struct taps *taps, int n)
{
    for (int i = 0; i < n; i++, to += 3) {
        const uint8_t *p = from + 3 * (size_t)taps->first[i];
        const int32_t *weights = taps->weights + (size_t)i * taps->stride;
        int32_t r = HALF, g = HALF, b = HALF;
        for (int k = 0; k < taps->count[i]; k++, p += 3) {
            r += p[0] * weights[k];
            g += p[1] * weights[k];
            b += p[2] * weights[k];
        }
        to[0] = to_byte(r);
        to[1] = to_byte(g);
        to[2] = to_byte(b);
    }
}

/* One row of the vertical pass: a stretch of columns at a time, so that the sums stay in the nearest cache. */
static void sum_rows(uint8_t *to, const uint8_t *from, size_t row, const int32_t *weights, int count)
{
    enum { STRETCH = 1024 };
    int32_t sums[STRETCH];
    for (size_t start = 0; start < row; start += STRETCH) {
        const size_t n = row - start < STRETCH ? row - start : STRETCH;
        for (size_t i = 0; i < n; i++)
            sums[i] = HALF;
        for (int k = 0; k < count; k++) {
            const uint8_t *p = from + (size_t)k * row + start;
            for (size_t i = 0; i < n; i++)
                sums[i] += p[i] * weights[k];
        }
        for (size_t i = 0; i < n; i++)
            to[start + i] = to_byte(sums[i]);
    }
}

/* Rows low .. low + n - 1 of the input, columns of the output. A width that does not change is only copied. */
static void horizontal_pass(uint8_t *out, const vl_resize_args *args, const struct taps *taps, int low, int n)
{
    const size_t from_row = 3 * (size_t)args->width, to_row = 3 * (size_t)args->w;
    const uint8_t *from = args->rgb + (size_t)low * from_row;
#pragma omp parallel for schedule(static)
    for (int y = 0; y < n; y++) {
        if (taps->first)
            sum_columns(out + (size_t)y * to_row, from + (size_t)y * from_row, taps, args->w);
        else
            memcpy(out + (size_t)y * to_row, from + (size_t)y * from_row + 3 * (size_t)args->x, to_row);
    }
}

static void vertical_pass(uint8_t *out, const uint8_t *from, const vl_resize_args *args, const struct taps *taps)
{
    const size_t row = 3 * (size_t)args->w;
    const int low = taps->first[0];
#pragma omp parallel for schedule(static)
    for (int y = 0; y < args->h; y++) {
        sum_rows(out + (size_t)y * row, from + (size_t)(taps->first[y] - low) * row, row,
                 taps->weights + (size_t)y * taps->stride, taps->count[y]);
    }
}

static vl_status check_args(const vl_resize_args *a, vl_error *err)
{
    if (a->filter < VL_RESAMPLE_LANCZOS || a->filter > VL_RESAMPLE_HAMMING)
        return vl_fail(err, VL_EUNSUPPORTED, "resampling filter %d, expected 1 to 5 (2 bilinear, 3 bicubic)",
                       (int)a->filter);
    /* Sides below 2^24 keep every position and its neighbours within an int. */
    const int side = 1 << 24;
    if (a->width < 1 || a->height < 1 || a->new_width < 1 || a->new_height < 1 || a->x < 0 || a->y < 0 || a->w < 1 ||
        a->h < 1 || a->x > a->new_width - a->w || a->y > a->new_height - a->h || a->width > side || a->height > side)
        return vl_fail(err, VL_EINVAL, "cannot resize %d x %d to %d x %d and take %d x %d at %d, %d of it", a->width,
                       a->height, a->new_width, a->new_height, a->w, a->h, a->x, a->y);
    return VL_OK;
}

vl_status vl_resize(uint8_t *out, const vl_resize_args *args, vl_error *err)
{
    vl_status status = VL_OK;
    struct taps across = {0}, down = {0};
    uint8_t *middle = NULL;
    VL_TRY(check_args(args, err));
    const struct filter *filter = &FILTERS[args->filter];
    if (args->new_width != args->width)
        VL_GOTO(make_taps(&across, filter, args->width, args->new_width, (const int[2]){args->x, args->w}, err));
    if (args->new_height == args->height) {
        horizontal_pass(out, args, &across, args->y, args->h);
        goto done;
    }
    VL_GOTO(make_taps(&down, filter, args->height, args->new_height, (const int[2]){args->y, args->h}, err));
    const int low = down.first[0], rows = down.first[args->h - 1] + down.count[args->h - 1] - low;
    size_t pixels;
    middle = vl_mul_size(&pixels, (size_t)rows, (size_t)args->w) ? vl_alloc(pixels, 3) : NULL;
    if (!middle) {
        status = vl_fail_nomem(err, "resizing a picture");
        goto done;
    }
    horizontal_pass(middle, args, &across, low, rows);
    vertical_pass(out, middle, args, &down);
done:
    clear_taps(&across);
    clear_taps(&down);
    vl_free(middle);
    return status;
}
