#include "trainer/fidelity/fidelity_data.h"

#include <math.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/data/samples.h"
#include "trainer/model/head.h"

/* ---- samples ----------------------------------------------------------------------------------------------- */

/* The k-th of n evenly spaced entries of `total`. */
static int64_t spaced(int64_t k, int64_t n, int64_t total)
{
    return n > 0 ? k * total / n : 0;
}

static vl_status encode_all(vl_fidelity_data *data, const vl_fidelity_inputs *in, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(in->cache);
    const vl_cache_samples *cached = vl_cache_get_samples(in->cache);
    vl_sample_list list = {0};
    vl_status status = VL_OK;
    int64_t *heldout = vl_alloc((size_t)info->n_samples, sizeof *heldout), n = 0;
    if (!heldout)
        return vl_fail_nomem(err, "fidelity");
    for (int64_t i = 0; i < info->n_samples; i++)
        if (cached->heldout[i] == VL_SAMPLE_HELDOUT)
            heldout[n++] = cached->id[i];
    int64_t wanted = in->config->fidelity.samples < n ? in->config->fidelity.samples : n;
    VL_GOTO(vl_samples_read(&list, in->config, vl_model_tokenizer(in->model), err));
    data->sequences = vl_calloc((size_t)wanted + 1, sizeof *data->sequences);
    data->first = vl_calloc((size_t)wanted + 2, sizeof *data->first);
    if (!data->sequences || !data->first)
        VL_GOTO(vl_fail_nomem(err, "fidelity"));
    for (int64_t k = 0; k < wanted; k++) {
        const vl_sample *sample = vl_samples_find(&list, heldout[spaced(k, wanted, n)]);
        if (!sample)
            VL_GOTO(vl_fail(err, VL_EMISMATCH, "%s: sample %lld of the cache is not in the data", info->path,
                            (long long)heldout[spaced(k, wanted, n)]));
        vl_sample shortened = *sample;
        if (shortened.n_ids > in->config->fidelity.max_tokens)
            shortened.n_ids = in->config->fidelity.max_tokens;
        VL_GOTO(vl_sample_encode(&data->sequences[k], in->model, in->config, &shortened, err));
        data->n_samples++;
        data->first[k + 1] = data->first[k] + data->sequences[k]->n_tokens;
    }
    data->n_rows = data->first[data->n_samples];
done:
    vl_free(heldout);
    vl_samples_clear(&list);
    return status;
}

static bool is_patch(const vl_fidelity_data *data, int sample, int64_t t)
{
    return data->sequences[sample]->token_class[t] == VL_IMAGE;
}

/* At most max_rows / n_samples of each sample, evenly spaced among those that can be measured. */
static vl_status count_rows(vl_fidelity_data *data, int64_t max_rows, vl_error *err)
{
    int64_t share = data->n_samples ? max_rows / data->n_samples : 0;
    data->counted = vl_alloc((size_t)data->n_rows + 1, sizeof *data->counted);
    data->sample_of = vl_alloc((size_t)data->n_rows + 1, sizeof *data->sample_of);
    if (!data->counted || !data->sample_of)
        return vl_fail_nomem(err, "fidelity");
    for (int s = 0; s < data->n_samples; s++) {
        int64_t able = 0, seen = 0, taken = 0;
        for (int64_t t = 1; t < data->sequences[s]->n_tokens; t++)
            able += !is_patch(data, s, t);
        int64_t wanted = able < share ? able : share;
        for (int64_t t = 1; t < data->sequences[s]->n_tokens && taken < wanted; t++) {
            if (is_patch(data, s, t))
                continue;
            if (seen++ == spaced(taken, wanted, able)) {
                data->counted[data->n_counted] = data->first[s] + t;
                data->sample_of[data->n_counted++] = s;
                taken++;
            }
        }
    }
    return data->n_counted >= 2 ? VL_OK
                                : vl_fail(err, VL_EINVAL,
                                          "no held-out sample with at least two text rows (data.heldout, "
                                          "fidelity.samples, fidelity.max_rows)");
}

/* ---- states ------------------------------------------------------------------------------------------------ */

/* Which states a forward leaves where, in host memory. */
typedef struct tap_target {
    vl_fidelity_data *data;
    float *final_rows; /* [n_rows, D] */
    bool keep;         /* the kept states too */
    vl_error error;
    vl_status status;
} tap_target;

static int tap(void *user, const vl_tap *t)
{
    tap_target *to = user;
    vl_fidelity_data *data = to->data;
    size_t at = (size_t)data->first[t->sequence] * (size_t)data->d, block = (size_t)data->n_rows * (size_t)data->d;
    for (int i = 0; to->keep && i < data->n_states && to->status == VL_OK; i++)
        if (data->state[i] == t->state)
            to->status = vl_device_read(data->device, data->states + (size_t)i * block + at, &t->x, &to->error);
    if (t->state == data->n_model_layers && to->status == VL_OK)
        to->status = vl_device_read(data->device, to->final_rows + at, &t->x, &to->error);
    return to->status != VL_OK;
}

static vl_status forward(vl_fidelity_data *data, const vl_tensor *start, int state, float *final_rows, vl_error *err)
{
    tap_target to = {.data = data, .final_rows = final_rows, .keep = !start, .error = VL_ERROR_INIT};
    vl_forward pass = {.sequences = (const vl_sequence *const *)data->sequences,
                       .n_sequences = data->n_samples,
                       .start = start,
                       .start_state = state,
                       .tap = tap,
                       .user = &to};
    vl_status status = vl_model_forward(data->model, &pass, err);
    if (to.status != VL_OK && err)
        *err = to.error;
    return to.status != VL_OK ? to.status : status;
}

void vl_fidelity_gather(float *out, const vl_fidelity_data *data, const float *rows)
{
    for (int64_t i = 0; i < data->n_counted; i++)
        memcpy(out + i * data->d, rows + data->counted[i] * data->d, (size_t)data->d * sizeof *out);
}

static vl_status allocate(vl_fidelity_data *data, vl_error *err)
{
    size_t row = (size_t)data->d * sizeof(float), n = (size_t)data->n_rows, counted = (size_t)data->n_counted;
    data->states = vl_alloc((size_t)data->n_states * n, row);
    data->target = vl_alloc(n, row);
    data->changed = vl_alloc(n, row);
    data->final_counted = vl_alloc(counted, row);
    data->changed_final = vl_alloc(counted, row);
    data->host_metrics = vl_alloc(VL_FIDELITY_TILE, VL_METRIC_COUNT * sizeof(float));
    if (!data->states || !data->target || !data->changed || !data->final_counted || !data->changed_final ||
        !data->host_metrics)
        return vl_fail_nomem(err, "states of the held-out samples");
    vl_loader_source source = {.d_model = data->d, .capacity = VL_FIDELITY_TILE};
    VL_TRY(vl_readout_new(&data->readout, data->head, data->device, &source, err));
    VL_TRY(vl_rows_of_memory(&data->measured, data->n_counted, err));
    VL_TRY(vl_distribution_new(&data->lens, data->head, VL_FIDELITY_TILE, err));
    VL_TRY(vl_distribution_new(&data->clean, data->head, VL_FIDELITY_TILE, err));
    VL_TRY(vl_tensor_new(&data->u, data->device, VL_F32, VL_FIDELITY_TILE, data->d, err));
    return vl_tensor_new(&data->metrics, data->device, VL_F32, VL_FIDELITY_TILE, VL_METRIC_COUNT, err);
}

vl_status vl_fidelity_data_new(vl_fidelity_data *out, const vl_fidelity_inputs *inputs, const int64_t *states,
                               int n_states, vl_error *err)
{
    const vl_model_info *info = vl_model_get_info(inputs->model);
    *out = (vl_fidelity_data){.model = inputs->model,
                              .device = inputs->device,
                              .d = info->d_model,
                              .vocab_size = info->vocab_size,
                              .n_model_layers = (int)info->n_layers,
                              .n_states = n_states,
                              .state = states};
    VL_TRY(vl_head_from_model(&out->head, inputs->model, err));
    VL_TRY(encode_all(out, inputs, err));
    VL_TRY(count_rows(out, inputs->config->fidelity.max_rows, err));
    VL_TRY(allocate(out, err));
    VL_TRY(forward(out, NULL, 0, out->changed, err));
    vl_fidelity_gather(out->final_counted, out, out->changed);
    return VL_OK;
}

void vl_fidelity_data_clear(vl_fidelity_data *data)
{
    if (data->device) {
        vl_distribution_clear(&data->lens, data->device);
        vl_distribution_clear(&data->clean, data->device);
        vl_device_free(data->device, data->u.data);
        vl_device_free(data->device, data->metrics.data);
    }
    vl_readout_clear(&data->readout);
    vl_rows_clear(&data->measured);
    for (int i = 0; i < data->n_samples; i++)
        vl_sequence_free(data->sequences[i]);
    vl_free(data->sequences);
    vl_free(data->first);
    vl_free(data->counted);
    vl_free(data->sample_of);
    vl_free(data->states);
    vl_free(data->target);
    vl_free(data->changed);
    vl_free(data->final_counted);
    vl_free(data->changed_final);
    vl_free(data->host_metrics);
    vl_head_close(data->head);
    *data = (vl_fidelity_data){.device = NULL};
}

const float *vl_fidelity_rows(const vl_fidelity_data *data, int index)
{
    return data->states + (size_t)index * (size_t)data->n_rows * (size_t)data->d;
}

/* ---- ablation ---------------------------------------------------------------------------------------------- */

/* Mean of the rows of one kind, first positions left out: they are attention sinks in many models. */
static int64_t mean_of_kind(float *mean, const vl_fidelity_data *data, const float *h, bool patch, int64_t *members)
{
    int64_t n = 0;
    memset(mean, 0, (size_t)data->d * sizeof *mean);
    for (int s = 0; s < data->n_samples; s++)
        for (int64_t t = 1; t < data->sequences[s]->n_tokens; t++)
            if (is_patch(data, s, t) == patch)
                members[n++] = data->first[s] + t;
    for (int64_t j = 0; j < data->d; j++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += (double)h[members[i] * data->d + j];
        mean[j] = n ? (float)(sum / (double)n) : 0;
    }
    return n;
}

void vl_fidelity_target(vl_fidelity_data *data, int index, bool resample, vl_rng *rng)
{
    const float *h = vl_fidelity_rows(data, index);
    const size_t row = (size_t)data->d * sizeof(float);
    float *mean = data->changed_final;           /* [D], free until the next change */
    int64_t *members = (int64_t *)data->changed; /* [n_rows]: rows are at least two floats wide */
    memcpy(data->target, h, (size_t)data->n_rows * row);
    for (int patch = 0; patch < 2; patch++) {
        int64_t n = mean_of_kind(mean, data, h, patch, members);
        for (int64_t i = 0; i < n; i++) {
            int64_t other = n > 1 ? (i + 1 + (int64_t)vl_rng_below(rng, (uint64_t)(n - 1))) % n : i;
            const float *from = resample ? h + members[other] * data->d : mean;
            memcpy(data->target + members[i] * data->d, from, row);
        }
    }
}

void vl_fidelity_ablate(float *out, const float *h, const float *target, int64_t d, const double *basis, int n)
{
    memcpy(out, h, (size_t)d * sizeof *h);
    for (int k = 0; k < n; k++) {
        double share = 0;
        for (int64_t j = 0; j < d; j++)
            share += ((double)target[j] - (double)h[j]) * basis[k * d + j];
        for (int64_t j = 0; j < d; j++)
            out[j] += (float)(share * basis[k * d + j]);
    }
}

void vl_fidelity_displacement(double *out, const float *h, const float *target, const vl_fidelity_data *data,
                              const double *v)
{
    for (int64_t i = 0; i < data->n_counted; i++) {
        const float *from = h + i * data->d, *to = target + i * data->d;
        double share = 0;
        for (int64_t j = 0; j < data->d; j++)
            share += ((double)to[j] - (double)from[j]) * v[j];
        out[i] = share * share;
    }
}

vl_status vl_fidelity_walk(vl_fidelity_data *data, const float *const *states, vl_walk *walk, vl_error *err)
{
    static const int64_t numbers[] = {0, 1, 2, 3};
    vl_sampler sampler = vl_sampler_in_order(&data->measured);
    data->readout.loader.source.memory = states;
    walk->sampler = &sampler;
    walk->n_rows = data->n_counted;
    walk->scale = 1;
    walk->states = numbers;
    return vl_readout_walk(&data->readout, walk, err);
}

typedef struct change {
    vl_fidelity_data *data;
    double *kl; /* [n_counted] */
} change;

static vl_status compare(void *user, const vl_readout_cell *cell, vl_error *err)
{
    change *to = user;
    vl_fidelity_data *data = to->data;
    VL_TRY(vl_readout_distribution(&data->lens, &data->readout, cell, data->u, false, err));
    vl_comparison args = {&data->clean, &data->lens, data->metrics, {.data = NULL}, cell->rows};
    VL_TRY(vl_distribution_compare(data->host_metrics, data->device, &args, err));
    for (int64_t i = 0; i < cell->rows; i++)
        to->kl[cell->first + i] = (double)data->host_metrics[i * VL_METRIC_COUNT + VL_METRIC_KL];
    return VL_OK;
}

/* KL(clean || changed) of the measured rows. */
static vl_status measure_change(double *kl, vl_fidelity_data *data, vl_error *err)
{
    const float *states[] = {data->changed_final, data->final_counted};
    vl_walk walk = {
        .n_states = 1, .teacher = &data->clean, .teacher_state = 1, .cell = compare, .user = &(change){data, kl}};
    return vl_fidelity_walk(data, states, &walk, err);
}

vl_status vl_fidelity_change(double *kl, vl_fidelity_data *data, int index, const double *basis, int n, vl_error *err)
{
    vl_tensor *start = vl_calloc((size_t)data->n_samples, sizeof *start);
    vl_status status = VL_OK;
    if (!start)
        return vl_fail_nomem(err, "fidelity");
    const float *h = vl_fidelity_rows(data, index);
    for (int64_t at = 0; at < data->n_rows * data->d; at += data->d)
        vl_fidelity_ablate(data->changed + at, h + at, data->target + at, data->d, basis, n);
    for (int s = 0; s < data->n_samples; s++) {
        VL_GOTO(vl_tensor_new(&start[s], data->device, VL_F32, data->sequences[s]->n_tokens, data->d, err));
        VL_GOTO(vl_device_write(data->device, &start[s], data->changed + data->first[s] * data->d, err));
    }
    VL_GOTO(forward(data, start, (int)data->state[index], data->changed, err));
    vl_fidelity_gather(data->changed_final, data, data->changed);
    VL_GOTO(measure_change(kl, data, err));
done:
    for (int s = 0; s < data->n_samples; s++)
        vl_device_free(data->device, start[s].data);
    vl_free(start);
    return status;
}
