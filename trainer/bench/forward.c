/* Speed of the forward on random prompts of a given length, beside what this machine's matrix products reach. */
#include "trainer/bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/peak.h"
#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/model/family.h"
#include "trainer/model/work.h"

enum { MAX_ROUNDS = 16, PEAK_PRODUCTS = 3, FIRST_TEXT_ID = 3 };

typedef struct bench {
    vl_model *model;
    vl_bench_forward_options options;
    vl_sequence **sequences; /* [samples] */
    vl_peak *peak;
    double peak_flops;                                                          /* of one product */
    double first, peak_seconds[MAX_ROUNDS], batch[MAX_ROUNDS], one[MAX_ROUNDS]; /* seconds */
} bench;

/* ---- prompts ----------------------------------------------------------------------------------------------- */

static uint32_t next_random(uint32_t *state)
{
    return *state = *state * 1664525u + 1013904223u;
}

/* A random square picture that fills the model's usual grid. */
static vl_status add_picture(vl_sequence *sequence, const vl_model_spec *spec, uint32_t *random, vl_error *err)
{
    int side = spec->vision.sample_side;
    size_t bytes = 3 * (size_t)side * (size_t)side;
    vl_image image = {.width = side, .height = side, .rgb = vl_alloc(bytes, 1), .orientation = 1};
    sequence->images = vl_calloc(1, sizeof *sequence->images);
    if (!image.rgb || !sequence->images) {
        vl_free(image.rgb);
        return vl_fail_nomem(err, "benchmark");
    }
    sequence->n_images = 1;
    for (size_t i = 0; i < bytes; i++)
        image.rgb[i] = (uint8_t)(next_random(random) >> 24);
    struct vl_sequence_image *out = &sequence->images[0];
    out->width = out->height = side;
    vl_status status = spec->family->measure(out, spec, side, side, err);
    if (status == VL_OK)
        status = spec->family->pixels(out, spec, &image, err);
    vl_free(image.rgb);
    return status;
}

/* A token, the rows of a picture where the model sees them, and text up to `tokens`. */
static vl_status make_prompt(vl_sequence **out, const bench *b, uint32_t *random, vl_error *err)
{
    const vl_model_spec *spec = &b->model->spec;
    int64_t n = b->options.tokens;
    int32_t token = spec->vision.image_token;
    VL_TRY(vl_sequence_new(out, n, err));
    for (int64_t t = 0; t < n; t++)
        (*out)->ids[t] = (int32_t)(FIRST_TEXT_ID + next_random(random) % (uint32_t)(spec->decoder.vocab_size / 2));
    if (spec->vision.path == VL_VISION_NONE)
        return VL_OK;
    VL_TRY(add_picture(*out, spec, random, err));
    int64_t rows = spec->vision.path == VL_VISION_IN_STREAM ? (*out)->images[0].n_rows : 1;
    for (int64_t t = 0; t < n; t++)
        if ((*out)->ids[t] == token)
            (*out)->ids[t] = FIRST_TEXT_ID;
    if (n < rows + 2) { /* no room for it */
        vl_image_release(&(*out)->images[0]);
        (*out)->n_images = 0;
        return VL_OK;
    }
    for (int64_t t = 1; t <= rows; t++)
        (*out)->ids[t] = token;
    return spec->family->place(*out, spec, err);
}

/* ---- rounds ------------------------------------------------------------------------------------------------ */

static double now(const bench *b)
{
    struct timespec t;
    if (!b->options.cpu_time)
        return vl_clock();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return ((double)t.tv_sec + 1e-9 * (double)t.tv_nsec) / vl_device_threads(b->model->device);
}

static vl_status run(double *seconds, const bench *b, int n, vl_error *err)
{
    vl_forward args = {
        .sequences = (const vl_sequence *const *)b->sequences, .n_sequences = n, .stop_state = b->options.blocks};
    double began = now(b);
    VL_TRY(vl_model_forward(b->model, &args, err));
    *seconds = now(b) - began;
    return VL_OK;
}

/* The reference before and after what it is compared with: a neighbour's noise meets both. */
static vl_status run_peak(double *seconds, const bench *b, vl_error *err)
{
    double began = now(b);
    for (int i = 0; i < PEAK_PRODUCTS; i++)
        VL_TRY(vl_peak_run(b->peak, err));
    *seconds = (now(b) - began) / PEAK_PRODUCTS;
    return VL_OK;
}

static vl_status run_round(bench *b, int round, vl_error *err)
{
    double before, after;
    VL_TRY(run_peak(&before, b, err));
    VL_TRY(run(&b->batch[round], b, (int)b->options.samples, err));
    VL_TRY(run_peak(&after, b, err));
    b->peak_seconds[round] = before < after ? before : after;
    return run(&b->one[round], b, 1, err);
}

static vl_status prepare(bench *b, vl_error *err)
{
    const vl_decoder_spec *text = &b->model->spec.decoder;
    uint32_t random = 1;
    b->sequences = vl_calloc((size_t)b->options.samples, sizeof *b->sequences);
    if (!b->sequences)
        return vl_fail_nomem(err, "benchmark");
    for (int64_t i = 0; i < b->options.samples; i++)
        VL_TRY(make_prompt(&b->sequences[i], b, &random, err));
    vl_peak_args peak = {VL_BF16, b->options.samples * b->options.tokens, text->intermediate_size, text->hidden_size};
    b->peak_flops = 2.0 * (double)peak.m * (double)peak.n * (double)peak.k;
    vl_status status = vl_peak_new(&b->peak, b->model->device, &peak, err);
    if (status != VL_EUNSUPPORTED)
        return status;
    peak.dtype = VL_F32;
    return vl_peak_new(&b->peak, b->model->device, &peak, err);
}

/* ---- results ----------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void put(vl_bench_result *out, const char *name, double *seconds, int rounds, double work, const char *unit)
{
    vl_bench_line *line = &out->line[out->n++];
    qsort(seconds, (size_t)rounds, sizeof *seconds, by_value);
    *line =
        (vl_bench_line){.median = seconds[rounds / 2], .best = seconds[0], .work = work, .unit = unit, .share = NAN};
    snprintf(line->name, sizeof line->name, "%s", name);
    const vl_bench_line *first = &out->line[0];
    if (unit == first->unit)
        line->share = line->work / line->median / (first->work / first->median);
}

static void fill(vl_bench_result *out, bench *b)
{
    static const char flops[] = "GFLOP/s", tokens[] = "tokens/s";
    int rounds = b->options.rounds, samples = (int)b->options.samples;
    const vl_sequence *const *all = (const vl_sequence *const *)b->sequences;
    double n = (double)b->options.tokens;
    char name[64];
    *out = (vl_bench_result){.n = 0};
    snprintf(out->title, sizeof out->title, "forward of %s, %d blocks, %.1f million weights in %s",
             b->model->info.model_type, b->options.blocks, (double)b->model->info.n_parameters * 1e-6,
             b->model->info.weight_dtype);
    put(out, "library's product, packed", b->peak_seconds, rounds, b->peak_flops / 1e9, flops);
    snprintf(name, sizeof name, "%d x %.0f tokens", samples, n);
    put(out, name, b->batch, rounds, vl_model_work(b->model, all, samples, b->options.blocks) / 1e9, flops);
    put(out, name, b->batch, rounds, n * samples, tokens);
    snprintf(name, sizeof name, "1 x %.0f tokens", n);
    put(out, name, b->one, rounds, vl_model_work(b->model, all, 1, b->options.blocks) / 1e9, flops);
    put(out, name, b->one, rounds, n, tokens);
    put(out, "first pass: weights paged in", &b->first, 1, n * samples, tokens);
}

vl_status vl_bench_forward(vl_bench_result *out, vl_model *model, const vl_bench_forward_options *options,
                           vl_error *err)
{
    bench b = {.model = model, .options = *options};
    vl_status status = VL_OK;
    b.options.samples = options->samples > 0 ? options->samples : 4;
    b.options.tokens = options->tokens > 0 ? options->tokens : 600;
    b.options.rounds = options->rounds > 0 ? options->rounds : 3;
    if (b.options.rounds > MAX_ROUNDS || b.options.samples > 256 || b.options.tokens > 1 << 17)
        return vl_fail(err, VL_EINVAL, "benchmark: %d rounds, %lld samples of %lld tokens, at most %d, 256 and 131072",
                       b.options.rounds, (long long)b.options.samples, (long long)b.options.tokens, MAX_ROUNDS);
    if (options->blocks > model->info.n_layers)
        return vl_fail(err, VL_EINVAL, "benchmark: %d blocks, the model has %lld", options->blocks,
                       (long long)model->info.n_layers);
    b.options.blocks = options->blocks > 0 ? options->blocks : (int)model->info.n_layers;
    VL_GOTO(prepare(&b, err));
    VL_GOTO(run(&b.first, &b, (int)b.options.samples, err));
    for (int round = 0; round < b.options.rounds; round++)
        VL_GOTO(run_round(&b, round, err));
    fill(out, &b);
done:
    for (int64_t i = 0; b.sequences && i < b.options.samples; i++)
        vl_sequence_free(b.sequences[i]);
    vl_free(b.sequences);
    vl_peak_free(b.peak);
    return status;
}
