/* The method is that of Pillow's libImaging/Resample.c: weights in double, normalised, rounded to 22 fractional bits;
 * sums in 32-bit integers; clipped to 8 bits after each pass. torchvision's differs in the number of fractional bits
 * (ATen/native/cpu/UpSampleKernel.cpp, compute_index_ranges_int16_weights). */
#include "trainer/image/resize.h"

#include <math.h>
#include <string.h>

#include "trainer/base/mem.h"

/* 32 bits, less 8 for the pixel and 2 for the overshoot of the cubic and Lanczos weights. */
enum { MAX_BITS = 32 - 8 - 2 };

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
    int bits; /* fractional ones of a weight */
};

/* An axis that goes from `from` to `to` pixels; outputs start .. start + n - 1 are wanted. */
struct axis {
    const struct filter *filter;
    int from, to, start, n;
    vl_resize_kernel kernel;
};

static void clear_taps(struct taps *taps)
{
    vl_free(taps->first);
    vl_free(taps->count);
    vl_free(taps->weights);
}

static int32_t to_fixed(double weight, int bits)
{
    return (int32_t)((weight < 0 ? -0.5 : 0.5) + weight * (1 << bits));
}

/* The normalised weights of output i: sets its first input and returns how many there are. */
static int weigh(double *weights, int *first, const struct axis *axis, int i)
{
    const double scale = (double)axis->from / axis->to, stretch = scale < 1.0 ? 1.0 : scale;
    const double support = axis->filter->support * stretch, inverse = 1.0 / stretch, center = (i + 0.5) * scale;
    int low = (int)(center - support + 0.5), high = (int)(center + support + 0.5);
    low = low < 0 ? 0 : low;
    high = high > axis->from ? axis->from : high;
    double sum = 0;
    for (int k = 0; k < high - low; k++) {
        weights[k] = axis->filter->weight((k + low - center + 0.5) * inverse);
        sum += weights[k];
    }
    for (int k = 0; k < high - low && sum != 0.0; k++)
        weights[k] /= sum;
    *first = low;
    return high - low;
}

/* Of the whole axis, whatever part of it is wanted. */
static int fraction_bits(double *weights, const struct axis *axis)
{
    double largest = 0;
    int first, bits = 0;
    if (axis->kernel == VL_RESIZE_PILLOW)
        return MAX_BITS;
    for (int i = 0; i < axis->to; i++) {
        const int n = weigh(weights, &first, axis, i);
        for (int k = 0; k < n; k++)
            largest = weights[k] > largest ? weights[k] : largest;
    }
    while (bits < MAX_BITS && (int)(0.5 + largest * (1 << (bits + 1))) < 1 << 15)
        bits++;
    return bits;
}

static vl_status make_taps(struct taps *out, const struct axis *axis, vl_error *err)
{
    const double scale = (double)axis->from / axis->to;
    const size_t n = (size_t)axis->n;
    size_t total;
    out->stride = (size_t)ceil(axis->filter->support * (scale < 1.0 ? 1.0 : scale)) * 2 + 1;
    out->first = vl_alloc(n, sizeof *out->first);
    out->count = vl_alloc(n, sizeof *out->count);
    out->weights = vl_mul_size(&total, n, out->stride) ? vl_alloc(total, sizeof *out->weights) : NULL;
    double *exact = vl_alloc(out->stride, sizeof *exact);
    if (!out->first || !out->count || !out->weights || !exact) {
        vl_free(exact);
        return vl_fail_nomem(err, "weights for resizing a picture");
    }
    out->bits = fraction_bits(exact, axis);
    for (size_t i = 0; i < n; i++) {
        out->count[i] = weigh(exact, &out->first[i], axis, axis->start + (int)i);
        for (int k = 0; k < out->count[i]; k++)
            out->weights[i * out->stride + (size_t)k] = to_fixed(exact[k], out->bits);
    }
    vl_free(exact);
    return VL_OK;
}

/* What a sum starts with, so that to_byte rounds. */
static int32_t half(int bits)
{
    return bits > 0 ? 1 << (bits - 1) : 0;
}

static uint8_t to_byte(int32_t sum, int bits)
{
    const int32_t value = sum >> bits; /* arithmetic, as gcc and clang define it */
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* One row of the horizontal pass. */
static void sum_columns(uint8_t *to, const uint8_t *from, const struct taps *taps, int n)
{
    const int bits = taps->bits;
    for (int i = 0; i < n; i++, to += 3) {
        const uint8_t *p = from + 3 * (size_t)taps->first[i];
        const int32_t *weights = taps->weights + (size_t)i * taps->stride;
        int32_t r = half(bits), g = r, b = r;
        for (int k = 0; k < taps->count[i]; k++, p += 3) {
            r += p[0] * weights[k];
            g += p[1] * weights[k];
            b += p[2] * weights[k];
        }
        to[0] = to_byte(r, bits);
        to[1] = to_byte(g, bits);
        to[2] = to_byte(b, bits);
    }
}

/* One row of the vertical pass: a stretch of columns at a time, so that the sums stay in the nearest cache. */
static void sum_rows(uint8_t *to, const uint8_t *from, size_t row, const struct taps *taps, int y)
{
    const int32_t *weights = taps->weights + (size_t)y * taps->stride;
    enum { STRETCH = 1024 };
    int32_t sums[STRETCH];
    for (size_t start = 0; start < row; start += STRETCH) {
        const size_t n = row - start < STRETCH ? row - start : STRETCH;
        for (size_t i = 0; i < n; i++)
            sums[i] = half(taps->bits);
        for (int k = 0; k < taps->count[y]; k++) {
            const uint8_t *p = from + (size_t)k * row + start;
            for (size_t i = 0; i < n; i++)
                sums[i] += p[i] * weights[k];
        }
        for (size_t i = 0; i < n; i++)
            to[start + i] = to_byte(sums[i], taps->bits);
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
        sum_rows(out + (size_t)y * row, from + (size_t)(taps->first[y] - low) * row, row, taps, y);
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

static vl_status resize(uint8_t *out, const vl_resize_args *args, vl_resize_kernel kernel, vl_error *err)
{
    vl_status status = VL_OK;
    struct taps across = {0}, down = {0};
    uint8_t *middle = NULL;
    VL_TRY(check_args(args, err));
    const struct filter *filter = &FILTERS[args->filter];
    if (args->new_width != args->width)
        VL_GOTO(
            make_taps(&across, &(struct axis){filter, args->width, args->new_width, args->x, args->w, kernel}, err));
    if (args->new_height == args->height) {
        horizontal_pass(out, args, &across, args->y, args->h);
        goto done;
    }
    VL_GOTO(make_taps(&down, &(struct axis){filter, args->height, args->new_height, args->y, args->h, kernel}, err));
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

vl_status vl_resize(uint8_t *out, const vl_resize_args *args, vl_error *err)
{
    return resize(out, args, VL_RESIZE_PILLOW, err);
}

vl_status vl_resize_torch(uint8_t *out, const vl_resize_args *args, vl_error *err)
{
    return resize(out, args, VL_RESIZE_TORCH, err);
}
