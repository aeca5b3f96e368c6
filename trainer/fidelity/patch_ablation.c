#include "trainer/fidelity/patch_ablation.h"

#include <math.h>
#include <string.h>

#include "kernels/ops.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/data/samples.h"
#include "trainer/fidelity/objects.h"
#include "trainer/readout/distribution.h"

enum { BATCH = 16 };

typedef struct ablation_run {
    const vl_fidelity_inputs *in;
    const vl_observer *observer;
    vl_patch_ablation *out;
    vl_sample_list list;
    vl_object_list objects;
    const vl_sample **asked;  /* [n] */
    const vl_object **object; /* [n] */
    vl_sequence **sequences;  /* [n] */
    float **rows;             /* [n] of [T, D]: state 0 */
    float *last;              /* [n, D]: state L of the last row */
    float *mean;              /* [D] of all patches */
    float *changed;           /* [T, D] of the longest */
    vl_head *head;
    vl_tensor final_rows;    /* [BATCH, D] */
    vl_distribution answers; /* BATCH rows */
    float *host_logits;      /* [BATCH, V] */
    int64_t n, d, v;
    int n_layers, done, total;
} ablation_run;

static void clear(ablation_run *run)
{
    for (int64_t i = 0; i < run->n; i++) {
        if (run->sequences)
            vl_sequence_free(run->sequences[i]);
        if (run->rows)
            vl_free(run->rows[i]);
    }
    vl_device_free(run->in->device, run->final_rows.data);
    vl_distribution_clear(&run->answers, run->in->device);
    vl_head_close(run->head);
    vl_objects_clear(&run->objects);
    vl_samples_clear(&run->list);
    vl_free(run->asked);
    vl_free(run->object);
    vl_free(run->sequences);
    vl_free(run->rows);
    vl_free(run->last);
    vl_free(run->mean);
    vl_free(run->changed);
    vl_free(run->host_logits);
}

/* ---- which questions --------------------------------------------------------------------------------------- */

static bool picture_is_new(const ablation_run *run, const char *path, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (strcmp(run->asked[i]->images[0], path) == 0)
            return false;
    return true;
}

/* Held-out samples of one picture that ask about one object of it: the first of each picture, at most
 * fidelity.object_samples, evenly spaced. */
static vl_status choose(ablation_run *run, vl_error *err)
{
    const vl_cache_samples *cached = vl_cache_get_samples(run->in->cache);
    int64_t n = 0, most = run->in->config->fidelity.object_samples;
    run->asked = vl_alloc((size_t)run->list.n + 1, sizeof *run->asked);
    run->object = vl_alloc((size_t)run->list.n + 1, sizeof *run->object);
    if (!run->asked || !run->object)
        return vl_fail_nomem(err, "patch ablation");
    for (int64_t i = 0; i < vl_cache_get_info(run->in->cache)->n_samples; i++) {
        const vl_sample *sample =
            cached->heldout[i] == VL_SAMPLE_HELDOUT ? vl_samples_find(&run->list, cached->id[i]) : NULL;
        if (!sample || sample->n_images != 1 || !sample->prompt)
            continue;
        const vl_object *object = vl_object_asked(&run->objects, sample->images[0], sample->prompt);
        if (!object || !picture_is_new(run, sample->images[0], n))
            continue;
        run->asked[n] = sample;
        run->object[n++] = object;
    }
    run->n = n < most ? n : most;
    for (int64_t k = 0; k < run->n; k++) { /* k <= k * n / run->n: what is read is still there */
        run->asked[k] = run->asked[k * n / run->n];
        run->object[k] = run->object[k * n / run->n];
    }
    return run->n ? VL_OK
                  : vl_fail(err, VL_EINVAL, "%s: no held-out sample's prompt names one object of its picture",
                            run->in->config->fidelity.objects);
}

static vl_status encode(ablation_run *run, vl_rng *rng, vl_error *err)
{
    const vl_model_info *info = vl_model_get_info(run->in->model);
    const int grid[2] = {info->patch_rows, info->patch_columns};
    int64_t longest = 0;
    size_t n = (size_t)run->n, d = (size_t)run->d;
    run->sequences = vl_calloc(n, sizeof *run->sequences);
    run->rows = vl_calloc(n, sizeof *run->rows);
    run->last = vl_alloc(n, d * sizeof *run->last);
    run->mean = vl_alloc(d, sizeof *run->mean);
    run->out->samples = vl_calloc(n, sizeof *run->out->samples);
    if (!run->sequences || !run->rows || !run->last || !run->mean || !run->out->samples)
        return vl_fail_nomem(err, "patch ablation");
    run->out->n = run->n;
    for (int64_t i = 0; i < run->n; i++) {
        vl_patch_sample *sample = &run->out->samples[i];
        sample->number = run->asked[i]->number;
        VL_TRY(vl_patch_sets(sample, run->object[i]->patch, run->object[i]->n_patches, grid, rng, err));
        VL_TRY(vl_sample_ask(&run->sequences[i], run->in->model, run->in->config, run->asked[i], err));
        size_t tokens = (size_t)run->sequences[i]->n_tokens;
        longest = longest > (int64_t)tokens ? longest : (int64_t)tokens;
        run->rows[i] = vl_alloc(tokens, d * sizeof(float));
        if (!run->rows[i])
            return vl_fail_nomem(err, "patch ablation");
    }
    run->changed = vl_alloc((size_t)longest, d * sizeof *run->changed);
    return run->changed ? VL_OK : vl_fail_nomem(err, "patch ablation");
}

/* ---- the model --------------------------------------------------------------------------------------------- */

typedef struct tap_target {
    ablation_run *run;
    int64_t first; /* sample of sequence 0 */
    bool keep;     /* state 0 too */
    vl_status status;
    vl_error error;
} tap_target;

static int tap(void *user, const vl_tap *t)
{
    tap_target *to = user;
    ablation_run *run = to->run;
    int64_t sample = to->first + t->sequence;
    if (t->state == 0 && to->keep)
        to->status = vl_device_read(run->in->device, run->rows[sample], &t->x, &to->error);
    if (t->state == run->n_layers && to->status == VL_OK) {
        vl_tensor last = vl_tensor_rows(t->x, t->x.shape[0] - 1, 1);
        to->status = vl_device_read(run->in->device, run->last + sample * run->d, &last, &to->error);
    }
    return to->status != VL_OK;
}

/* State L of the last rows of samples [first, first + n); start NULL: of the whole picture, and keeps state 0. */
static vl_status forward(ablation_run *run, int64_t first, int n, const vl_tensor *start, vl_error *err)
{
    tap_target to = {.run = run, .first = first, .keep = !start, .error = VL_ERROR_INIT};
    vl_forward pass = {.sequences = (const vl_sequence *const *)run->sequences + first,
                       .n_sequences = n,
                       .start = start,
                       .tap = tap,
                       .user = &to};
    vl_status status = vl_model_forward(run->in->model, &pass, err);
    if (to.status != VL_OK && err)
        *err = to.error;
    return to.status != VL_OK ? to.status : status;
}

/* Logits [n, V] of the last rows of samples [first, first + n) into run->host_logits. */
static vl_status read_logits(ablation_run *run, int64_t first, int n, vl_error *err)
{
    vl_tensor rows = vl_tensor_rows(run->final_rows, 0, n);
    VL_TRY(vl_device_write(run->in->device, &rows, run->last + first * run->d, err));
    VL_TRY(vl_distribution_of(&run->answers, run->head, rows, err));
    vl_distribution answers = vl_distribution_rows(&run->answers, n);
    return vl_device_read(run->in->device, run->host_logits, &answers.logits, err);
}

static int32_t first_token(const float *logits, int64_t v)
{
    int64_t best = 0;
    for (int64_t j = 1; j < v; j++)
        if (logits[j] > logits[best])
            best = j;
    return (int32_t)best;
}

static double probability(const float *logits, int64_t v, int32_t token)
{
    double sum = 0;
    for (int64_t j = 0; j < v; j++)
        sum += exp((double)logits[j] - (double)logits[token]);
    return 1 / sum;
}

static vl_status progress(ablation_run *run, vl_error *err)
{
    vl_progress now = {"patches", "passes", run->done++, run->total, (double)NAN};
    if (run->observer && run->observer->progress && run->observer->progress(run->observer->user, &now))
        return vl_fail(err, VL_ECANCELLED, "interrupted");
    return VL_OK;
}

static vl_status run_clean(ablation_run *run, vl_error *err)
{
    for (int64_t first = 0; first < run->n; first += BATCH) {
        int n = (int)(run->n - first < BATCH ? run->n - first : BATCH);
        VL_TRY(progress(run, err));
        VL_TRY(forward(run, first, n, NULL, err));
        VL_TRY(read_logits(run, first, n, err));
        for (int i = 0; i < n; i++) {
            vl_patch_sample *sample = &run->out->samples[first + i];
            sample->token = first_token(run->host_logits + i * run->v, run->v);
            sample->probability = probability(run->host_logits + i * run->v, run->v, sample->token);
        }
    }
    return VL_OK;
}

/* ---- ablation ---------------------------------------------------------------------------------------------- */

static vl_status mean_patch(ablation_run *run, vl_error *err)
{
    double *sum = vl_calloc((size_t)run->d, sizeof *sum);
    int64_t n = 0;
    if (!sum)
        return vl_fail_nomem(err, "patch ablation");
    for (int64_t i = 0; i < run->n; i++)
        for (int64_t t = 0; t < run->sequences[i]->n_tokens; t++) {
            if (run->sequences[i]->token_class[t] != VL_IMAGE)
                continue;
            for (int64_t j = 0; j < run->d; j++)
                sum[j] += (double)run->rows[i][t * run->d + j];
            n++;
        }
    for (int64_t j = 0; j < run->d; j++)
        run->mean[j] = (float)(sum[j] / (double)n);
    vl_free(sum);
    return VL_OK;
}

typedef struct variant {
    vl_patch_set set;
    vl_patch_value value;
    int elsewhere; /* 1: as many patches elsewhere */
} variant;

/* run->changed = state 0 of sample i with the variant's patches replaced. */
static void replace_patches(ablation_run *run, int64_t i, variant how)
{
    const vl_patch_sample *sample = &run->out->samples[i];
    const vl_sequence *sequence = run->sequences[i];
    size_t row = (size_t)run->d * sizeof(float);
    memcpy(run->changed, run->rows[i], (size_t)sequence->n_tokens * row);
    for (int64_t t = 0; t < sequence->n_tokens; t++)
        for (int k = 0; sequence->token_class[t] == VL_IMAGE && k < sample->n[how.set][how.elsewhere]; k++) {
            const int16_t *patch = sample->patch[how.set][how.elsewhere][k];
            if (sequence->patch[t][1] != patch[0] || sequence->patch[t][2] != patch[1])
                continue;
            if (how.value == VL_PATCH_MEAN)
                memcpy(run->changed + t * run->d, run->mean, row);
            else
                memset(run->changed + t * run->d, 0, row);
        }
}

static vl_status run_batch(ablation_run *run, int64_t first, int n, variant how, vl_error *err)
{
    vl_tensor start[BATCH] = {{.data = NULL}};
    vl_status status = VL_OK;
    for (int i = 0; i < n; i++) {
        replace_patches(run, first + i, how);
        VL_GOTO(vl_tensor_new(&start[i], run->in->device, VL_F32, run->sequences[first + i]->n_tokens, run->d, err));
        VL_GOTO(vl_device_write(run->in->device, &start[i], run->changed, err));
    }
    VL_GOTO(forward(run, first, n, start, err));
    VL_GOTO(read_logits(run, first, n, err));
    for (int i = 0; i < n; i++) {
        vl_patch_sample *sample = &run->out->samples[first + i];
        const float *logits = run->host_logits + i * run->v;
        sample->changed[how.set][how.value][how.elsewhere] = probability(logits, run->v, sample->token);
        sample->kept[how.set][how.value][how.elsewhere] = first_token(logits, run->v) == sample->token;
    }
done:
    for (int i = 0; i < n; i++)
        vl_device_free(run->in->device, start[i].data);
    return status;
}

static vl_status run_variants(ablation_run *run, vl_error *err)
{
    for (int64_t first = 0; first < run->n; first += BATCH) {
        int n = (int)(run->n - first < BATCH ? run->n - first : BATCH);
        for (int k = 0; k < VL_PATCH_VARIANTS; k++) {
            variant how = {(vl_patch_set)(k / (2 * VL_PATCH_VALUE_COUNT)),
                           (vl_patch_value)(k / 2 % VL_PATCH_VALUE_COUNT), k % 2};
            VL_TRY(progress(run, err));
            VL_TRY(run_batch(run, first, n, how, err));
        }
    }
    return VL_OK;
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

static vl_status start(ablation_run *run, vl_error *err)
{
    const vl_model_info *info = vl_model_get_info(run->in->model);
    const int grid[2] = {info->patch_rows, info->patch_columns};
    vl_rng rng;
    if (!info->patches_in_stream)
        return vl_fail(err, VL_EINVAL, "fidelity.objects: the patches of %s are no rows of its residual stream",
                       info->path);
    run->d = info->d_model;
    run->v = info->vocab_size;
    run->n_layers = (int)info->n_layers;
    VL_TRY(vl_objects_read(&run->objects, run->in->config, grid, err));
    VL_TRY(vl_samples_read(&run->list, run->in->config, vl_model_tokenizer(run->in->model), err));
    VL_TRY(choose(run, err));
    vl_rng_seed(&rng, (uint64_t)run->in->config->eval.seed);
    VL_TRY(encode(run, &rng, err));
    run->total = (int)((run->n + BATCH - 1) / BATCH) * (1 + VL_PATCH_VARIANTS);
    VL_TRY(vl_head_from_model(&run->head, run->in->model, err));
    VL_TRY(vl_tensor_new(&run->final_rows, run->in->device, VL_F32, BATCH, run->d, err));
    VL_TRY(vl_distribution_new(&run->answers, run->head, BATCH, err));
    run->host_logits = vl_alloc(BATCH, (size_t)run->v * sizeof *run->host_logits);
    return run->host_logits ? VL_OK : vl_fail_nomem(err, "patch ablation");
}

vl_status vl_patch_ablation_run(vl_patch_ablation **out, const vl_fidelity_inputs *inputs, const vl_observer *observer,
                                vl_error *err)
{
    ablation_run run = {.in = inputs, .observer = observer};
    vl_status status = VL_OK;
    *out = NULL;
    run.out = vl_calloc(1, sizeof *run.out);
    if (!run.out)
        return vl_fail_nomem(err, "patch ablation");
    VL_GOTO(start(&run, err));
    VL_GOTO(run_clean(&run, err));
    VL_GOTO(mean_patch(&run, err));
    VL_GOTO(run_variants(&run, err));
    VL_GOTO(vl_patch_summarise(run.out, inputs->config, err));
done:
    clear(&run);
    if (status == VL_OK)
        *out = run.out;
    else
        vl_patch_ablation_free(run.out);
    return status;
}

void vl_patch_ablation_free(vl_patch_ablation *ablation)
{
    if (!ablation)
        return;
    for (int64_t i = 0; i < ablation->n; i++)
        for (vl_patch_set set = 0; set < VL_PATCH_SET_COUNT; set++)
            for (int elsewhere = 0; elsewhere < 2; elsewhere++)
                vl_free(ablation->samples[i].patch[set][elsewhere]);
    vl_free(ablation->samples);
    vl_free(ablation);
}
