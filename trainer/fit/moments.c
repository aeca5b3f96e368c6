/* moments.c - sums over all rows of a part: fp32 products of at most 4096 rows, added up in fp64. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/fit/ridge.h"

enum { PRODUCT_ROWS = 4096, SAMPLE_ROWS = 4096, COLUMNS = 64 };
static const double SINK_RATIO = 50.0;

/* A pass in progress. */
typedef struct collector {
    vl_moments *m;
    vl_readout *readout;
    vl_loader *loader;                 /* of the readout: its tile is the walk's */
    int64_t states[2];                 /* the final state and the one that is read, in the order of the walk */
    void (*note)(struct collector *c); /* what a pass does with a tile that stays on the host; or NULL: sums */
    double mean_weight;
    bool matrix;
    int threads;
    float *x, *y;                  /* [capacity, D] the tile's states, and what is missing of the final state */
    uint8_t *sound;                /* [capacity] of state and final state together */
    double *root;                  /* [capacity] of each row's weight; 0: it does not count */
    double *x_squares, *y_squares; /* [D] */
    double *norms;                 /* [2, SAMPLE_ROWS + capacity] of the sample: state, final state */
    int64_t n_norms, norms_capacity;
    double limit_state, limit_final;      /* rows above are left out */
    vl_tensor x_device, y_device, xx, yx; /* [capacity, D] twice, [D, D] twice */
    float *product;                       /* [D, D] on its way from the device */
    int64_t pending;                      /* rows in xx, yx on the device */
} collector;

/* Every row belongs to one thread. */
static void widen_rows(float *out, const void *stored, const collector *c)
{
    int64_t d = c->m->d;
    size_t bytes = (size_t)d * vl_dtype_size(c->loader->dtype);
#pragma omp parallel for schedule(static) num_threads(c->threads)
    for (int64_t r = 0; r < c->loader->rows; r++)
        vl_widen(out + r * d, (const char *)stored + (size_t)r * bytes, c->loader->dtype, (size_t)d);
}

static void row_norms(double *state, double *final_state, const collector *c, int64_t row)
{
    int64_t d = c->m->d;
    const float *x = c->x + row * d, *y = c->y + row * d;
    double a = 0, b = 0;
    for (int64_t j = 0; j < d; j++) {
        double end = (double)x[j] + (double)y[j];
        a += (double)x[j] * (double)x[j];
        b += end * end;
    }
    *state = sqrt(a);
    *final_state = sqrt(b);
}

/* Whether a row counts. Comparisons are so written that NaN does not. */
static bool counts(const collector *c, int64_t row)
{
    double a, b;
    if (!c->sound[row] ||
        vl_cache_get_tokens(c->loader->source.cache)->position[vl_loader_cache_row(c->loader, row)] == 0)
        return false;
    row_norms(&a, &b, c, row);
    return a <= c->limit_state && b <= c->limit_final;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int64_t n)
{
    qsort(values, (size_t)n, sizeof *values, by_value);
    return n ? values[n / 2] : 0;
}

/* Norms of the sample's rows; those that are no number are not among them. */
static void note_norms(collector *c)
{
    for (int64_t r = 0; r < c->loader->rows && c->n_norms < c->norms_capacity; r++) {
        double a, b;
        row_norms(&a, &b, c, r);
        if (!c->sound[r] || !isfinite(a) || !isfinite(b))
            continue;
        c->norms[c->n_norms] = a;
        c->norms[c->norms_capacity + c->n_norms++] = b;
    }
}

/* Sums of the rows that count, into the shifts. */
static void note_means(collector *c)
{
    vl_moments *m = c->m;
    for (int64_t r = 0; r < c->loader->rows; r++) {
        if (!counts(c, r))
            continue;
        double w = (double)c->loader->weight[r];
        c->mean_weight += w;
        for (int64_t j = 0; j < m->d; j++) {
            m->h0[j] += w * (double)c->x[r * m->d + j];
            m->y0[j] += w * (double)c->y[r * m->d + j];
        }
    }
}

/* Every k-th run, so that about SAMPLE_ROWS rows stand for all. */
static vl_status choose_sample(vl_rows *sample, const vl_rows *rows, vl_error *err)
{
    int64_t stride = rows->n_rows / SAMPLE_ROWS + 1;
    *sample = *rows;
    sample->n_runs = 0;
    sample->runs = vl_alloc((size_t)rows->n_runs, sizeof *sample->runs);
    if (!sample->runs)
        return vl_fail_nomem(err, "closed-form start");
    for (int64_t i = 0; i < rows->n_runs; i += stride)
        sample->runs[sample->n_runs++] = rows->runs[i];
    return VL_OK;
}

static vl_status on_cell(void *user, const vl_readout_cell *cell, vl_error *err);

/* One pass over `rows`: x = state, y = final state - state of every tile. */
static vl_status pass(collector *c, const vl_rows *rows, vl_error *err)
{
    vl_sampler sampler = vl_sampler_in_order(rows);
    vl_walk walk = {.sampler = &sampler,
                    .n_rows = rows->n_rows,
                    .scale = 1.0,
                    .states = c->states,
                    .n_states = 2,
                    .on_host = true,
                    .cell = on_cell,
                    .user = c};
    return vl_readout_walk(c->readout, &walk, err);
}

/* First the limits, then rough means of what is within them. */
static vl_status look_at_sample(collector *c, const vl_rows *rows, vl_error *err)
{
    vl_rows sample;
    VL_TRY(choose_sample(&sample, rows, err));
    vl_status status = VL_OK;
    c->note = note_norms;
    VL_GOTO(pass(c, &sample, err));
    c->limit_state = SINK_RATIO * median(c->norms, c->n_norms);
    c->limit_final = SINK_RATIO * median(c->norms + c->norms_capacity, c->n_norms);
    c->note = note_means;
    VL_GOTO(pass(c, &sample, err));
    for (int64_t j = 0; j < c->m->d; j++) {
        c->m->h0[j] = c->mean_weight > 0 ? c->m->h0[j] / c->mean_weight : 0;
        c->m->y0[j] = c->mean_weight > 0 ? c->m->y0[j] / c->mean_weight : 0;
    }
done:
    vl_free(sample.runs);
    return status;
}

/* Shifts the rows that count and multiplies them by the root of their weight, in c->root; the others become zeros.
 * Every row belongs to one thread. */
static void scale_rows(collector *c)
{
    const vl_moments *m = c->m;
    int64_t d = m->d;
#pragma omp parallel for schedule(static) num_threads(c->threads)
    for (int64_t r = 0; r < c->loader->rows; r++) {
        double root = counts(c, r) ? sqrt((double)c->loader->weight[r]) : 0;
        float *x = c->x + r * d, *y = c->y + r * d;
        c->root[r] = root;
        for (int64_t j = 0; j < d; j++) {
            x[j] = root > 0 ? (float)(root * ((double)x[j] - m->h0[j])) : 0;
            y[j] = root > 0 ? (float)(root * ((double)y[j] - m->y0[j])) : 0;
        }
    }
}

/* Sums over the scaled rows. Every column belongs to one thread: the order does not depend on their number. */
static void add_columns(collector *c)
{
    vl_moments *m = c->m;
    int64_t d = m->d, blocks = (d + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for schedule(static) num_threads(c->threads)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t first = b * COLUMNS, n = d - first < COLUMNS ? d - first : COLUMNS;
        for (int64_t r = 0; r < c->loader->rows; r++) {
            const float *x = c->x + r * d + first, *y = c->y + r * d + first;
            for (int64_t j = 0; j < n; j++) {
                double u = (double)x[j], v = (double)y[j];
                m->x[first + j] += c->root[r] * u;
                m->y[first + j] += c->root[r] * v;
                c->x_squares[first + j] += u * u;
                c->y_squares[first + j] += v * v;
            }
        }
    }
}

/* Scales the tile and counts it. Returns how many rows count. */
static int64_t pack(collector *c)
{
    vl_moments *m = c->m;
    int64_t n = 0;
    scale_rows(c);
    add_columns(c);
    for (int64_t r = 0; r < c->loader->rows; r++) {
        n += c->root[r] > 0;
        m->weight += c->root[r] > 0 ? (double)c->loader->weight[r] : 0;
    }
    m->rows += n;
    m->left_out += c->loader->rows - n;
    for (int64_t r = 0; r < c->loader->rows; r++)
        m->unsound += !c->sound[r];
    return n;
}

/* Adds what the device has summed to the fp64 totals. */
static vl_status flush(collector *c, vl_error *err)
{
    int64_t n = c->m->d * c->m->d;
    for (int k = 0; k < 2 && c->pending > 0; k++) {
        double *total = k == 0 ? c->m->xx : c->m->yx;
        VL_TRY(vl_device_read(c->loader->device, c->product, k == 0 ? &c->xx : &c->yx, err));
#pragma omp parallel for schedule(static) num_threads(c->threads)
        for (int64_t i = 0; i < n; i++)
            total[i] += (double)c->product[i];
    }
    c->pending = 0;
    return VL_OK;
}

/* Rows [first, first + n) of the tile. */
static vl_status add_products(collector *c, int64_t first, int64_t n, vl_error *err)
{
    vl_device *device = c->loader->device;
    int64_t d = c->m->d;
    if (c->pending + n > PRODUCT_ROWS)
        VL_TRY(flush(c, err));
    vl_tensor x = vl_tensor_rows(c->x_device, 0, n), y = vl_tensor_rows(c->y_device, 0, n);
    float beta = c->pending > 0 ? 1.0f : 0.0f;
    VL_TRY(vl_device_write(device, &x, c->x + first * d, err));
    VL_TRY(vl_device_write(device, &y, c->y + first * d, err));
    VL_TRY(vl_op_gemm(
        device, &(vl_gemm_args){.out = c->xx, .a = x, .b = x, .transpose_a = true, .alpha = 1.0f, .beta = beta}, err));
    VL_TRY(vl_op_gemm(
        device, &(vl_gemm_args){.out = c->yx, .a = y, .b = x, .transpose_a = true, .alpha = 1.0f, .beta = beta}, err));
    c->pending += n;
    return VL_OK;
}

static vl_status add_tile(collector *c, vl_error *err)
{
    int64_t rows = c->loader->rows;
    if (pack(c) == 0 || !c->matrix)
        return VL_OK;
    for (int64_t first = 0; first < rows; first += PRODUCT_ROWS)
        VL_TRY(add_products(c, first, rows - first < PRODUCT_ROWS ? rows - first : PRODUCT_ROWS, err));
    return VL_OK;
}

static vl_status on_cell(void *user, const vl_readout_cell *cell, vl_error *err)
{
    collector *c = user;
    int64_t n = cell->rows * c->m->d;
    if (cell->index == 0) {
        memcpy(c->sound, cell->sound, (size_t)cell->rows);
        widen_rows(c->y, cell->stored, c);
        return VL_OK;
    }
    for (int64_t r = 0; r < cell->rows; r++)
        c->sound[r] &= cell->sound[r];
    widen_rows(c->x, cell->stored, c);
#pragma omp parallel for schedule(static) num_threads(c->threads)
    for (int64_t i = 0; i < n; i++)
        c->y[i] -= c->x[i];
    if (!c->note)
        return add_tile(c, err);
    c->note(c);
    return VL_OK;
}

static vl_status allocate(collector *c, vl_error *err)
{
    vl_moments *m = c->m;
    size_t d = (size_t)m->d, rows = (size_t)c->loader->capacity;
    c->norms_capacity = 2 * SAMPLE_ROWS;
    m->x = vl_calloc(d, sizeof(double));
    m->y = vl_calloc(d, sizeof(double));
    m->h0 = vl_calloc(d, sizeof(double));
    m->y0 = vl_calloc(d, sizeof(double));
    c->x = vl_alloc_aligned(rows * d, sizeof(float));
    c->y = vl_alloc_aligned(rows * d, sizeof(float));
    c->norms = vl_alloc(2 * (size_t)c->norms_capacity, sizeof(double));
    c->root = vl_alloc(rows, sizeof(double));
    c->sound = vl_alloc(rows, 1);
    c->x_squares = vl_calloc(d, sizeof(double));
    c->y_squares = vl_calloc(d, sizeof(double));
    if (!m->x || !m->y || !m->h0 || !m->y0 || !c->x || !c->y || !c->norms || !c->root || !c->sound || !c->x_squares ||
        !c->y_squares)
        return vl_fail_nomem(err, "closed-form start");
    if (!c->matrix)
        return VL_OK;
    m->xx = vl_calloc(d * d, sizeof(double));
    m->yx = vl_calloc(d * d, sizeof(double));
    c->product = vl_alloc_aligned(d * d, sizeof(float));
    if (!m->xx || !m->yx || !c->product)
        return vl_fail_nomem(err, "closed-form start");
    vl_device *device = c->loader->device;
    VL_TRY(vl_tensor_new(&c->x_device, device, VL_F32, c->loader->capacity, m->d, err));
    VL_TRY(vl_tensor_new(&c->y_device, device, VL_F32, c->loader->capacity, m->d, err));
    VL_TRY(vl_tensor_new(&c->xx, device, VL_F32, m->d, m->d, err));
    return vl_tensor_new(&c->yx, device, VL_F32, m->d, m->d, err);
}

vl_status vl_moments_collect(vl_moments *out, vl_readout *readout, const vl_rows *rows, const vl_moments_args *args,
                             vl_error *err)
{
    vl_status status = VL_OK;
    vl_loader *loader = &readout->loader;
    *out = (vl_moments){.d = loader->d_model};
    collector c = {.m = out,
                   .readout = readout,
                   .loader = loader,
                   .states = {args->final_state, args->state},
                   .threads = vl_device_threads(loader->device),
                   .matrix = args->matrix};
    VL_GOTO(allocate(&c, err));
    VL_GOTO(look_at_sample(&c, rows, err));
    c.note = NULL;
    VL_GOTO(pass(&c, rows, err));
    if (args->matrix)
        VL_GOTO(flush(&c, err));
    for (int64_t j = 0; j < out->d; j++) {
        out->x_squares += c.x_squares[j];
        out->y_squares += c.y_squares[j];
    }
done:
    vl_device_free(loader->device, c.x_device.data);
    vl_device_free(loader->device, c.y_device.data);
    vl_device_free(loader->device, c.xx.data);
    vl_device_free(loader->device, c.yx.data);
    vl_free(c.x);
    vl_free(c.y);
    vl_free(c.norms);
    vl_free(c.root);
    vl_free(c.sound);
    vl_free(c.x_squares);
    vl_free(c.y_squares);
    vl_free(c.product);
    if (status != VL_OK)
        vl_moments_clear(out);
    return status;
}

void vl_moments_clear(vl_moments *m)
{
    vl_free(m->xx);
    vl_free(m->yx);
    vl_free(m->x);
    vl_free(m->y);
    vl_free(m->h0);
    vl_free(m->y0);
    *m = (vl_moments){.d = 0};
}
