#include <math.h>
#include <string.h>

#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/cache/job.h"
#include "trainer/data/positions.h"
#include "trainer/model/model.h"

typedef struct entry {
    vl_sequence *sequence;
    int64_t sample; /* index into job->samples */
    int64_t *rows;  /* [n_rows] of the sequence that are kept, rising */
    int64_t n_rows;
    int64_t first; /* of its rows in the batch */
} entry;

struct vl_batch {
    vl_cache_job *job;
    entry *entries;
    int n, capacity;
    int64_t n_tokens, n_rows;
    vl_batch_faults faults;
    /* While the model runs. */
    vl_write_queue *queue;
    int64_t first_row;
    void **states;    /* [L + 1] rows of a state that not all sequences have given yet: [n_rows, D] */
    int *given;       /* [L + 1] sequences that have */
    float *scratch;   /* [longest span, D] */
    vl_status status; /* of the tap */
    vl_error error;
};

vl_status vl_batch_new(vl_batch **out, vl_cache_job *job, vl_error *err)
{
    size_t n = (size_t)job->info->n_layers + 1;
    *out = NULL;
    vl_batch *batch = vl_calloc(1, sizeof *batch);
    if (!batch)
        return vl_fail_nomem(err, "batch");
    batch->job = job;
    batch->states = vl_calloc(n, sizeof *batch->states);
    batch->given = vl_calloc(n, sizeof *batch->given);
    if (!batch->states || !batch->given) {
        vl_batch_free(batch);
        return vl_fail_nomem(err, "batch");
    }
    *out = batch;
    return VL_OK;
}

static void clear(vl_batch *batch)
{
    for (int i = 0; i < batch->n; i++) {
        vl_sequence_free(batch->entries[i].sequence);
        vl_free(batch->entries[i].rows);
    }
    for (int64_t i = 0; i <= batch->job->info->n_layers; i++) {
        vl_free(batch->states[i]);
        batch->states[i] = NULL;
        batch->given[i] = 0;
    }
    vl_free(batch->scratch);
    batch->scratch = NULL;
    batch->n = 0;
    batch->n_tokens = batch->n_rows = 0;
}

void vl_batch_free(vl_batch *batch)
{
    if (!batch)
        return;
    if (batch->states && batch->given)
        clear(batch);
    vl_free(batch->entries);
    vl_free(batch->states);
    vl_free(batch->given);
    vl_free(batch);
}

int64_t vl_batch_tokens(const vl_batch *batch)
{
    return batch->n_tokens;
}

int64_t vl_batch_rows(const vl_batch *batch)
{
    return batch->n_rows;
}

vl_batch_faults vl_batch_get_faults(const vl_batch *batch)
{
    return batch->faults;
}

/* ---- collecting -------------------------------------------------------------------------------------------- */

static vl_status generate(vl_sequence *sequence, const vl_cache_job *job, vl_error *err)
{
    int64_t most = job->config->cache.positions[VL_GENERATED], n = 0;
    int32_t *ids = NULL;
    if (most <= 0 || sequence->answered)
        return VL_OK;
    vl_status status = vl_model_generate(job->model, sequence, most, &ids, &n, err);
    if (status == VL_OK && n > 0)
        status = vl_sequence_append(sequence, ids, n, err);
    vl_release(ids);
    return status;
}

static vl_status add_entry(vl_batch *batch, int64_t index, vl_error *err)
{
    const vl_cache_job *job = batch->job;
    const vl_sample *sample = &job->samples.items[index];
    if (batch->n == batch->capacity) {
        int capacity = batch->capacity ? 2 * batch->capacity : 16;
        entry *entries = vl_realloc(batch->entries, (size_t)capacity, sizeof *entries);
        if (!entries)
            return vl_fail_nomem(err, "batch");
        batch->entries = entries;
        batch->capacity = capacity;
    }
    entry *e = &batch->entries[batch->n++];
    *e = (entry){.sample = index, .first = batch->n_rows};
    VL_TRY(vl_sample_encode(&e->sequence, job->model, job->config, sample, err));
    VL_TRY(generate(e->sequence, job, err));
    e->rows = vl_alloc((size_t)e->sequence->n_tokens, sizeof *e->rows);
    if (!e->rows)
        return vl_fail_nomem(err, "batch");
    VL_TRY(vl_positions_choose(e->rows, &e->n_rows, e->sequence, job->config->cache.positions, job->config->cache.seed,
                               job->keys[index], err));
    batch->n_tokens += e->sequence->n_tokens;
    batch->n_rows += e->n_rows;
    return VL_OK;
}

vl_status vl_batch_collect(vl_batch *batch, int64_t *next, int64_t end, vl_error *err)
{
    vl_cache_job *job = batch->job;
    const vl_config *config = job->config;
    while (*next < end && batch->n_tokens < config->cache.batch_tokens) {
        int64_t sample = job->missing[*next];
        vl_status status = add_entry(batch, sample, err);
        if (status != VL_OK)
            return vl_sample_prefix(err, status, &job->samples, &job->samples.items[sample]);
        (*next)++;
        VL_TRY(vl_job_progress(job, "cache", "tokens", job->done, job->total, err));
    }
    return VL_OK;
}

/* ---- states ------------------------------------------------------------------------------------------------ */

static int64_t count_not_finite(const float *x, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], 4);
        count += (bits & 0x7f800000u) == 0x7f800000u;
    }
    return count;
}

static int64_t count_infinite(const uint16_t *half, int64_t n, uint16_t infinity)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += (half[i] & 0x7fff) == infinity;
    return count;
}

static void convert(vl_batch *batch, void *out, const float *x, int64_t n)
{
    vl_dtype dtype = batch->job->meta.dtype;
    if (dtype == VL_F32)
        memcpy(out, x, (size_t)n * sizeof *x);
    else
        vl_narrow(out, x, dtype, (size_t)n);
}

/* Counts what a fit would stumble over, of one row. */
static void note_faults(vl_batch *batch, const vl_tap *tap, const void *out, const float *x, int64_t n)
{
    vl_batch_faults *faults = &batch->faults;
    vl_dtype dtype = batch->job->meta.dtype;
    int64_t bad = count_not_finite(x, n), infinite = 0;
    if (bad > 0 && faults->not_finite == 0) {
        faults->sample = batch->job->samples.items[batch->entries[tap->sequence].sample].number;
        faults->state = tap->state;
    }
    faults->not_finite += bad;
    if (dtype != VL_F32)
        infinite = count_infinite(out, n, dtype == VL_BF16 ? 0x7f80 : 0x7c00);
    if (infinite > 0) /* those that were infinite before are not counted again */
        for (int64_t i = 0; i < n; i++)
            infinite -= isinf(x[i]) != 0;
    faults->overflows += infinite;
}

/* The kept rows of one sequence at one state. They are read as one span: many small reads would each wait for the
 * device. */
static vl_status take_rows(vl_batch *batch, const vl_tap *tap, vl_error *err)
{
    const entry *e = &batch->entries[tap->sequence];
    int64_t d = batch->job->info->d_model, first = e->rows[0];
    size_t element = vl_dtype_size(batch->job->meta.dtype);
    vl_tensor span = vl_tensor_rows(tap->x, first, e->rows[e->n_rows - 1] - first + 1);
    char *out = (char *)batch->states[tap->state] + (size_t)(e->first * d) * element;
    /* The device belongs to the model: it is the one that the head was asked from. */
    VL_TRY(vl_device_read(batch->job->model->device, batch->scratch, &span, err));
    for (int64_t i = 0; i < e->n_rows; i++) {
        char *to = out + (size_t)(i * d) * element;
        const float *x = batch->scratch + (e->rows[i] - first) * d;
        convert(batch, to, x, d);
        note_faults(batch, tap, to, x, d);
    }
    return VL_OK;
}

static vl_status take(vl_batch *batch, const vl_tap *tap, vl_error *err)
{
    vl_cache_job *job = batch->job;
    int64_t d = job->info->d_model, n_states = job->info->n_layers + 1;
    if (!batch->states[tap->state] && batch->n_rows > 0) {
        batch->states[tap->state] = vl_alloc((size_t)(batch->n_rows * d), vl_dtype_size(job->meta.dtype));
        if (!batch->states[tap->state])
            return vl_fail_nomem(err, "states of a batch");
    }
    if (batch->entries[tap->sequence].n_rows > 0)
        VL_TRY(take_rows(batch, tap, err));
    if (++batch->given[tap->state] < batch->n)
        return VL_OK;
    void *data = batch->states[tap->state];
    batch->states[tap->state] = NULL;
    if (batch->queue)
        VL_TRY(vl_queue_states(batch->queue, tap->state, batch->first_row, batch->n_rows, data, err));
    else
        vl_free(data);
    if (!batch->queue)
        return VL_OK;
    int64_t done = job->done + batch->n_tokens * (tap->state + 1) / (n_states + 1);
    return vl_job_progress(job, "cache", "tokens", done, job->total, err);
}

static int on_tap(void *user, const vl_tap *tap)
{
    vl_batch *batch = user;
    batch->status = take(batch, tap, &batch->error);
    return batch->status != VL_OK;
}

static vl_status forward(vl_batch *batch, vl_error *err)
{
    int64_t longest = 0;
    const vl_sequence **sequences = vl_alloc((size_t)batch->n, sizeof *sequences);
    for (int i = 0; i < batch->n; i++) {
        const entry *e = &batch->entries[i];
        int64_t span = e->n_rows > 0 ? e->rows[e->n_rows - 1] - e->rows[0] + 1 : 0;
        longest = span > longest ? span : longest;
        if (sequences)
            sequences[i] = e->sequence;
    }
    batch->scratch = vl_alloc((size_t)(longest * batch->job->info->d_model), sizeof *batch->scratch);
    vl_status status = sequences && batch->scratch ? VL_OK : vl_fail_nomem(err, "batch");
    batch->status = VL_OK;
    vl_forward args = {.sequences = sequences, .n_sequences = batch->n, .tap = on_tap, .user = batch};
    if (status == VL_OK)
        status = vl_model_forward(batch->job->model, &args, err);
    if (batch->status != VL_OK) { /* the reason why the tap stopped the forward */
        status = batch->status;
        if (err)
            *err = batch->error;
    }
    vl_free(sequences);
    return status;
}

/* ---- tables ------------------------------------------------------------------------------------------------ */

/* -1 where there is no next row, before a picture, and for ids that the head does not know. */
static int32_t next_id(const vl_sequence *s, int64_t t, int64_t vocab_size)
{
    if (t + 1 >= s->n_tokens || s->token_class[t + 1] == VL_IMAGE || s->ids[t + 1] >= vocab_size)
        return -1;
    return s->ids[t + 1];
}

static void fill_rows(vl_rows *out, const entry *e, int32_t number, int32_t first_image, int64_t vocab_size)
{
    const vl_sequence *s = e->sequence;
    for (int64_t i = 0; i < e->n_rows; i++, out->n++) {
        int64_t t = e->rows[i], to = out->n;
        out->id[to] = s->ids[t];
        out->next_id[to] = next_id(s, t, vocab_size);
        out->position[to] = (int32_t)t;
        out->sample[to] = number;
        out->token_class[to] = s->token_class[t];
        out->turn[to] = s->turn[t];
        out->image[to] = s->image[t] < 0 ? -1 : first_image + s->image[t];
        memcpy(out->patch + 3 * to, s->patch[t], sizeof s->patch[t]);
        if (out->visible)
            out->visible[to] = s->visible ? s->visible[t] : 0;
    }
}

static vl_status fill_images(vl_image_table *out, const vl_sequence *s, const vl_cache_job *job, int64_t sample,
                             vl_error *err)
{
    VL_TRY(vl_images_reserve(out, s->n_images, err));
    for (int k = 0; k < s->n_images; k++) {
        int64_t to = out->n++;
        out->path[to] = vl_strdup(s->images[k].path);
        out->sha256[to] = vl_strdup(s->images[k].sha256);
        out->sample[to] = (int32_t)job->samples.items[sample].number;
        out->bytes[to] = job->image_bytes[job->first_image[sample] + k];
        out->mtime[to] = job->image_mtime[job->first_image[sample] + k];
        out->width[to] = s->images[k].width;
        out->height[to] = s->images[k].height;
        if (!out->path[to] || !out->sha256[to])
            return vl_fail_nomem(err, "tables");
    }
    return VL_OK;
}

static vl_status fill_entry(vl_tables *out, const vl_cache_job *job, const entry *e, vl_error *err)
{
    const vl_sample *sample = &job->samples.items[e->sample];
    vl_sample_table *samples = &out->samples;
    VL_TRY(vl_samples_reserve(samples, 1, VL_COLUMN_KEY | (job->has_answers ? VL_COLUMN_ASKED : 0), err));
    VL_TRY(vl_rows_reserve(&out->rows, e->n_rows, e->sequence->visible != NULL, err));
    fill_rows(&out->rows, e, (int32_t)sample->number, (int32_t)out->images.n, job->info->vocab_size);
    VL_TRY(fill_images(&out->images, e->sequence, job, e->sample, err));
    int64_t to = samples->n++;
    samples->id[to] = sample->number;
    samples->key[to] = vl_strdup(job->keys[e->sample]);
    samples->prompt[to] = vl_strdup(sample->prompt);
    if (sample->answer)
        samples->answer[to] = vl_strdup(sample->answer);
    return samples->key[to] && samples->prompt[to] && (!sample->answer || samples->answer[to])
               ? VL_OK
               : vl_fail_nomem(err, "tables");
}

/* The picture that is decoded must be the one that the split was decided with. */
static vl_status check_images(const vl_cache_job *job, const entry *e, vl_error *err)
{
    for (int k = 0; k < e->sequence->n_images; k++)
        if (strcmp(e->sequence->images[k].sha256, job->image_hash[job->first_image[e->sample] + k]) != 0) {
            vl_status status =
                vl_fail(err, VL_EMISMATCH, "image %s changed while the cache was made", e->sequence->images[k].path);
            return vl_sample_prefix(err, status, &job->samples, &job->samples.items[e->sample]);
        }
    return VL_OK;
}

vl_status vl_batch_run(vl_batch *batch, vl_write_queue *queue, int64_t first_row, vl_error *err)
{
    vl_status status = VL_OK;
    vl_tables tables = {0};
    batch->queue = queue;
    batch->first_row = first_row;
    if (batch->n == 0)
        return VL_OK;
    for (int i = 0; i < batch->n; i++) {
        VL_GOTO(check_images(batch->job, &batch->entries[i], err));
        VL_GOTO(fill_entry(&tables, batch->job, &batch->entries[i], err));
    }
    if (batch->n_rows > 0)
        VL_GOTO(forward(batch, err));
    if (queue)
        VL_GOTO(vl_queue_tables(queue, &tables, err));
    batch->job->done += queue ? batch->n_tokens : 0;
done:
    vl_tables_clear(&tables);
    clear(batch);
    return status;
}
