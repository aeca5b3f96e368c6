#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/fidelity/causal_basis.h"
#include "trainer/fidelity/fidelity_data.h"
#include "trainer/fidelity/fidelity_numbers.h"
#include "trainer/fidelity/fidelity_result.h"
#include "trainer/eval/tally.h"
#include "trainer/fidelity/transfer.h"

const char *vl_fidelity_lens_name(vl_fidelity_lens lens)
{
    static const char *const names[] = {"tuned", "logit", "random", "control"};
    return lens < VL_FIDELITY_LENS_COUNT ? names[lens] : "";
}

const char *vl_patch_set_name(vl_patch_set set)
{
    static const char *const names[] = {"object", "ring", "both"};
    return set < VL_PATCH_SET_COUNT ? names[set] : "";
}

const char *vl_patch_value_name(vl_patch_value value)
{
    static const char *const names[] = {"mean", "zero"};
    return value < VL_PATCH_VALUE_COUNT ? names[value] : "";
}

/* ---- work areas -------------------------------------------------------------------------------------------- */

typedef struct fidelity_run {
    const vl_fidelity_inputs *in;
    const vl_observer *observer;
    vl_fidelity *out;
    vl_fidelity_data data;
    vl_device_lens *lens, *control; /* control may be NULL */
    vl_rng rng;
    int n_directions;
    double *basis;              /* [n_directions, D] */
    double *row_kl;             /* [n_counted] */
    double *lens_kl, *model_kl; /* [n_directions, n_samples] means over a sample's rows */
    double *displacement;       /* the same shape */
    double *alignment;          /* [n_samples] sums of cosines */
    int64_t *rows;              /* [n_samples] measured rows */
    float *h, *target;          /* [n_counted, D] of the state under way */
    uint16_t *draws;            /* [resamples, n_samples] */
    int64_t resamples;
    int64_t done, total;
} fidelity_run;

static void run_clear(fidelity_run *run)
{
    vl_device_lens_free(run->lens);
    vl_device_lens_free(run->control);
    vl_fidelity_data_clear(&run->data);
    vl_free(run->basis);
    vl_free(run->row_kl);
    vl_free(run->lens_kl);
    vl_free(run->model_kl);
    vl_free(run->displacement);
    vl_free(run->alignment);
    vl_free(run->rows);
    vl_free(run->h);
    vl_free(run->target);
    vl_free(run->draws);
}

static vl_status run_alloc(fidelity_run *run, vl_error *err)
{
    const vl_fidelity_data *data = &run->data;
    size_t d = (size_t)data->d, k = (size_t)run->n_directions, s = (size_t)data->n_samples;
    size_t counted = (size_t)data->n_counted;
    run->basis = vl_alloc(k, d * sizeof(double));
    run->row_kl = vl_alloc(counted, sizeof(double));
    run->lens_kl = vl_calloc(k, s * sizeof(double));
    run->model_kl = vl_calloc(k, s * sizeof(double));
    run->displacement = vl_calloc(k, s * sizeof(double));
    run->alignment = vl_calloc(s, sizeof(double));
    run->rows = vl_calloc(s, sizeof(int64_t));
    run->h = vl_alloc(counted, d * sizeof(float));
    run->target = vl_alloc(counted, d * sizeof(float));
    if (!run->basis || !run->row_kl || !run->lens_kl || !run->model_kl || !run->displacement || !run->alignment ||
        !run->rows || !run->h || !run->target)
        return vl_fail_nomem(err, "fidelity");
    for (int64_t i = 0; i < data->n_counted; i++)
        run->rows[data->sample_of[i]]++;
    vl_bootstrap bootstrap = {run->in->config->eval.bootstrap, run->in->config->eval.seed};
    run->resamples = bootstrap.resamples;
    return vl_bootstrap_draw(&run->draws, &bootstrap, data->n_samples, err);
}

/* Means over the rows of each sample. */
static void by_sample(double *out, const fidelity_run *run, const double *row)
{
    memset(out, 0, (size_t)run->data.n_samples * sizeof *out);
    for (int64_t i = 0; i < run->data.n_counted; i++)
        out[run->data.sample_of[i]] += row[i] / (double)run->rows[run->data.sample_of[i]];
}

static vl_status step(fidelity_run *run, vl_error *err)
{
    vl_progress progress = {"fidelity", "directions", run->done, run->total, (double)NAN};
    if (run->observer && run->observer->progress && run->observer->progress(run->observer->user, &progress))
        return vl_fail(err, VL_ECANCELLED, "interrupted");
    run->done++;
    return VL_OK;
}

/* ---- one lens at one state --------------------------------------------------------------------------------- */

static vl_status measure(fidelity_run *run, int index, vl_causal_block *block, vl_error *err)
{
    for (int k = 0; k < run->n_directions; k++) {
        const double *v = run->basis + (int64_t)k * run->data.d;
        int64_t at = (int64_t)k * run->data.n_samples;
        double mean;
        VL_TRY(step(run, err));
        VL_TRY(vl_causal_block_energy(&mean, NULL, block, v, err));
        for (int64_t i = 0; i < run->data.n_counted; i++)
            run->row_kl[i] = (double)block->objective.host_loss[i];
        by_sample(run->lens_kl + at, run, run->row_kl);
        VL_TRY(vl_fidelity_change(run->row_kl, &run->data, index, v, 1, err));
        by_sample(run->model_kl + at, run, run->row_kl);
        vl_fidelity_displacement(run->row_kl, run->h, run->target, &run->data, v);
        by_sample(run->displacement + at, run, run->row_kl);
    }
    return VL_OK;
}

/* Cosine of two changes of log-probabilities, in the geometry of Aitchison weighted by p (log_p [V]). */
static double aitchison(const float *log_p, const float *lens, const float *lens_changed, const float *changed,
                        int64_t v)
{
    double s = 0, r = 0, sr = 0, ss = 0, rr = 0, sum = 0;
    for (int64_t j = 0; j < v; j++) {
        double p = exp((double)log_p[j]), stimulus = (double)lens_changed[j] - (double)lens[j];
        double response = (double)changed[j] - (double)log_p[j];
        sum += p;
        s += p * stimulus;
        r += p * response;
        sr += p * stimulus * response;
        ss += p * stimulus * stimulus;
        rr += p * response * response;
    }
    s /= sum;
    r /= sum;
    double cover = sr / sum - s * r, a = ss / sum - s * s, b = rr / sum - r * r;
    return a > 0 && b > 0 ? cover / sqrt(a * b) : 0;
}

/* States of the walk below, and whose logarithms of probabilities they become. */
enum { AS_LENS, AS_LENS_CHANGED, AS_MODEL, AS_MODEL_CHANGED, ALIGNED };

typedef struct alignment {
    fidelity_run *run;
    const vl_adapter *lens;
    float *log[ALIGNED]; /* [VL_FIDELITY_TILE, V] */
} alignment;

static vl_status choose_adapter(vl_adapter *out, void *user, const vl_readout_cell *cell, vl_error *err)
{
    (void)err;
    if (cell->state < AS_MODEL)
        *out = *((alignment *)user)->lens;
    return VL_OK;
}

static vl_status align_cell(void *user, const vl_readout_cell *cell, vl_error *err)
{
    alignment *a = user;
    vl_fidelity_data *data = &a->run->data;
    int64_t v = data->vocab_size;
    float lse[VL_FIDELITY_TILE], *out = a->log[cell->state];
    VL_TRY(vl_readout_distribution(&data->lens, &data->readout, cell, data->u, false, err));
    vl_distribution d = vl_distribution_rows(&data->lens, cell->rows);
    VL_TRY(vl_device_read(data->device, out, &d.logits, err));
    VL_TRY(vl_device_read(data->device, lse, &d.lse, err));
    for (int64_t i = 0; i < cell->rows; i++)
        for (int64_t j = 0; j < v; j++)
            out[i * v + j] -= lse[i];
    for (int64_t i = 0; cell->state == AS_MODEL_CHANGED && i < cell->rows; i++)
        a->run->alignment[data->sample_of[cell->first + i]] += aitchison(
            a->log[AS_MODEL] + i * v, a->log[AS_LENS] + i * v, a->log[AS_LENS_CHANGED] + i * v, out + i * v, v);
    return VL_OK;
}

/* With the whole basis ablated: does the model answer in the direction in which the lens moves? */
static vl_status align(fidelity_run *run, int index, vl_causal_block *block, vl_error *err)
{
    vl_fidelity_data *data = &run->data;
    int64_t d = data->d;
    alignment a = {.run = run, .lens = &block->adapter};
    float *ablated = vl_alloc((size_t)data->n_counted, (size_t)d * sizeof *ablated);
    vl_status status = ablated ? VL_OK : vl_fail_nomem(err, "fidelity");
    for (int i = 0; i < ALIGNED && status == VL_OK; i++) {
        a.log[i] = vl_alloc(VL_FIDELITY_TILE, (size_t)data->vocab_size * sizeof(float));
        status = a.log[i] ? VL_OK : vl_fail_nomem(err, "fidelity");
    }
    if (status != VL_OK)
        goto done;
    VL_GOTO(vl_fidelity_change(run->row_kl, data, index, run->basis, run->n_directions, err));
    for (int64_t at = 0; at < data->n_counted * d; at += d)
        vl_fidelity_ablate(ablated + at, run->h + at, run->target + at, d, run->basis, run->n_directions);
    memset(run->alignment, 0, (size_t)data->n_samples * sizeof *run->alignment);
    const float *states[ALIGNED] = {run->h, ablated, data->final_counted, data->changed_final};
    vl_walk walk = {.n_states = ALIGNED, .adapter = choose_adapter, .cell = align_cell, .user = &a};
    VL_GOTO(vl_fidelity_walk(data, states, &walk, err));
done:
    for (int i = 0; i < ALIGNED; i++)
        vl_free(a.log[i]);
    vl_free(ablated);
    return status;
}

static vl_status keep(fidelity_run *run, int index, vl_fidelity_lens lens, vl_error *err)
{
    int64_t k = run->n_directions, s = run->data.n_samples;
    size_t cell = (size_t)index * VL_FIDELITY_LENS_COUNT + (size_t)lens;
    double *kl = run->out->kl + cell * 3 * (size_t)k;
    double *scratch = vl_alloc((size_t)run->resamples + 1, sizeof *scratch);
    if (!scratch)
        return vl_fail_nomem(err, "fidelity");
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < s; j++) {
            kl[i] += run->lens_kl[i * s + j] / (double)s;
            kl[k + i] += run->model_kl[i * s + j] / (double)s;
            kl[2 * k + i] += run->displacement[i * s + j] / (double)s;
        }
    vl_fidelity_cell *out = &run->out->cell[cell];
    *out = (vl_fidelity_cell){.measured = true, .lens_kl = kl, .model_kl = kl + k, .displacement = kl + 2 * k};
    out->alignment = vl_bootstrap_estimate(run->alignment, NULL, run->rows, s, run->draws, run->resamples, scratch);
    vl_free(scratch);
    vl_direction_effects effects = {k, s, run->lens_kl, run->model_kl, run->displacement, run->draws, run->resamples};
    return vl_fidelity_rank(&out->correlation, &out->partial, &effects, &run->rng, err);
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

/* Every column of every state draws from a stream of its own: another column, or another state, changes no number here.
 * Column 0 is the rows that stand in for others. */
static void start_stream(fidelity_run *run, int index, int column)
{
    uint64_t seed = (uint64_t)run->in->config->eval.seed, state = (uint64_t)run->out->state[index];
    vl_rng_seed(&run->rng, seed * 0x9e3779b97f4a7c15u + state * 0x100000001b3u + (uint64_t)column);
}

static vl_status run_lens(fidelity_run *run, int index, vl_fidelity_lens lens, vl_causal_block *block, vl_error *err)
{
    vl_device_lens *source = lens == VL_FIDELITY_CONTROL ? run->control : run->lens;
    int64_t d = run->data.d, state = run->out->state[index];
    vl_adapter adapter = {.weight = {.data = NULL}};
    start_stream(run, index, 1 + (int)lens);
    if (lens != VL_FIDELITY_LOGIT)
        VL_TRY(vl_device_lens_adapter(&adapter, source, state, err));
    VL_TRY(vl_causal_block_lens(block, &adapter, err));
    if (lens == VL_FIDELITY_RANDOM)
        vl_random_basis(run->basis, run->n_directions, d, &run->rng);
    else
        VL_TRY(vl_causal_block_basis(run->basis, run->n_directions, block, &run->rng, err));
    VL_TRY(measure(run, index, block, err));
    VL_TRY(align(run, index, block, err));
    return keep(run, index, lens, err);
}

static vl_status run_state(fidelity_run *run, int index, vl_error *err)
{
    vl_causal_block block = {.device = NULL};
    bool resample = run->in->config->fidelity.ablation == VL_ABLATION_RESAMPLE;
    vl_status status = VL_OK;
    start_stream(run, index, 0);
    vl_fidelity_target(&run->data, index, resample, &run->rng);
    vl_fidelity_gather(run->h, &run->data, vl_fidelity_rows(&run->data, index));
    vl_fidelity_gather(run->target, &run->data, run->data.target);
    VL_GOTO(vl_causal_block_new(&block, run->data.head, run->h, run->target, run->data.n_counted, err));
    for (vl_fidelity_lens lens = 0; lens < VL_FIDELITY_LENS_COUNT; lens++)
        if (lens != VL_FIDELITY_CONTROL || run->in->control)
            VL_GOTO(run_lens(run, index, lens, &block, err));
done:
    vl_causal_block_clear(&block);
    return status;
}

/* At most fidelity.layers states, evenly spaced from 0 to L - 1. */
static vl_status choose_states(vl_fidelity *f, int64_t wanted, int64_t n_layers, vl_error *err)
{
    f->info.n_layers = (int)(wanted == 0 || wanted > n_layers ? n_layers : wanted);
    f->state = vl_alloc((size_t)f->info.n_layers, sizeof *f->state);
    size_t cells = (size_t)f->info.n_layers * VL_FIDELITY_LENS_COUNT;
    f->cell = vl_calloc(cells, sizeof *f->cell);
    f->kl = vl_calloc(cells, 3 * (size_t)f->info.n_directions * sizeof *f->kl);
    if (!f->state || !f->cell || !f->kl)
        return vl_fail_nomem(err, "fidelity");
    for (int i = 0; i < f->info.n_layers; i++)
        f->state[i] = f->info.n_layers == 1 ? n_layers / 2 : i * (n_layers - 1) / (f->info.n_layers - 1);
    return VL_OK;
}

static vl_status start(fidelity_run *run, vl_error *err)
{
    const vl_fidelity_inputs *in = run->in;
    const vl_model_info *model = vl_model_get_info(in->model);
    vl_fidelity *f = run->out;
    if (in->config->fidelity.directions >= model->d_model)
        return vl_fail(err, VL_EINVAL, "fidelity.directions is %lld, expected less than the model's width %lld",
                       (long long)in->config->fidelity.directions, (long long)model->d_model);
    run->n_directions = f->info.n_directions = (int)in->config->fidelity.directions;
    f->info.ablation = in->config->fidelity.ablation == VL_ABLATION_RESAMPLE ? "resample" : "mean";
    f->n_model_layers = model->n_layers;
    snprintf(f->lens, sizeof f->lens, "%s", vl_lens_get_info(in->lens)->path);
    snprintf(f->control, sizeof f->control, "%s", in->control ? vl_lens_get_info(in->control)->path : "");
    snprintf(f->model, sizeof f->model, "%s", model->path);
    f->info.lens = f->lens;
    f->info.control = f->control;
    f->info.model = f->model;
    vl_rng_seed(&run->rng, (uint64_t)in->config->eval.seed);
    VL_TRY(choose_states(f, in->config->fidelity.layers, model->n_layers, err));
    VL_TRY(vl_cache_split(in->cache, in->config, err));
    VL_TRY(vl_lens_check_seen(&f->info.seen, in->lens, in->cache, in->allow_seen, err));
    VL_TRY(vl_fidelity_data_new(&run->data, in, f->state, f->info.n_layers, err));
    const vl_head_info *head = vl_head_get_info(run->data.head);
    bool warned = false;
    VL_TRY(vl_lens_check(in->lens, head, in->allow_other_model, &warned, err));
    f->info.other_model = warned;
    const vl_cache_info *cached = vl_cache_get_info(in->cache);
    VL_TRY(vl_lens_check_model(in->lens, cached->model_digest, cached->model_manifest, in->allow_other_model, &warned,
                               err));
    f->info.other_model |= warned;
    if (in->control)
        VL_TRY(vl_lens_check(in->control, head, in->allow_other_model, &warned, err));
    VL_TRY(vl_device_lens_new(&run->lens, in->lens, in->device, err));
    if (in->control)
        VL_TRY(vl_device_lens_new(&run->control, in->control, in->device, err));
    f->info.n_samples = run->data.n_samples;
    f->info.n_rows = run->data.n_counted;
    run->total = (int64_t)f->info.n_layers * (in->control ? 4 : 3) * run->n_directions;
    return run_alloc(run, err);
}

vl_status vl_fidelity_run(vl_fidelity **out, const vl_fidelity_inputs *inputs, const vl_observer *observer,
                          vl_error *err)
{
    fidelity_run run = {.in = inputs, .observer = observer};
    vl_status status = VL_OK;
    *out = NULL;
    run.out = vl_calloc(1, sizeof *run.out);
    if (!run.out)
        return vl_fail_nomem(err, "fidelity");
    VL_GOTO(start(&run, err));
    for (int i = 0; i < run.out->info.n_layers; i++)
        VL_GOTO(run_state(&run, i, err));
    if (inputs->config->fidelity.transfer_rows > 0)
        VL_GOTO(vl_transfer_matrix(&run.out->transfer, inputs, run.out->n_model_layers, observer, err));
    if (inputs->config->fidelity.objects && inputs->config->fidelity.objects[0]) {
        VL_GOTO(vl_patch_ablation_run(&run.out->patches, inputs, observer, err));
        run.out->info.n_pictures = run.out->patches->n;
        run.out->info.probability = run.out->patches->probability;
    }
done:
    run_clear(&run);
    if (status == VL_OK)
        *out = run.out;
    else
        vl_fidelity_free(run.out);
    return status;
}

void vl_fidelity_free(vl_fidelity *f)
{
    if (!f)
        return;
    vl_free(f->state);
    vl_free(f->cell);
    vl_free(f->kl);
    vl_free(f->transfer);
    vl_patch_ablation_free(f->patches);
    vl_free(f);
}

vl_fidelity_info vl_fidelity_get_info(const vl_fidelity *f)
{
    return f->info;
}

int64_t vl_fidelity_state(const vl_fidelity *f, int index)
{
    return f->state[index];
}

vl_fidelity_cell vl_fidelity_get_cell(const vl_fidelity *f, int index, vl_fidelity_lens lens)
{
    return f->cell[(size_t)index * VL_FIDELITY_LENS_COUNT + (size_t)lens];
}

const vl_patch_effect *vl_fidelity_patches(const vl_fidelity *f, vl_patch_set set, vl_patch_value value)
{
    return f->patches ? &f->patches->effect[set][value] : NULL;
}

const double *vl_fidelity_transfer(const vl_fidelity *f, int64_t *n_layers)
{
    *n_layers = f->n_model_layers;
    return f->transfer;
}
