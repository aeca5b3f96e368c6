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
    vl_row_run *runs; /* [n_runs] the same rows */
    int64_t n_runs;
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
    int *given; /* [L + 1] sequences that have given their rows of a state */
    /* On the device: the rows of two states, one being filled and one on its way, [n_rows, D] as they are stored; and
     * what is wrong with them, [L + 1, n] pairs of vl_op_pack_rows. Kept from batch to batch. */
    vl_tensor packed[2], counts;
    int64_t packed_rows, counted;
    int64_t arriving; /* the state on its way; -1 */
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
    batch->arriving = -1;
    batch->given = vl_calloc(n, sizeof *batch->given);
    if (!batch->given) {
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
        vl_free(batch->entries[i].runs);
    }
    memset(batch->given, 0, (size_t)(batch->job->info->n_layers + 1) * sizeof *batch->given);
    batch->arriving = -1;
    batch->n = 0;
    batch->n_tokens = batch->n_rows = 0;
}

static void free_device_memory(vl_batch *batch)
{
    vl_tensor *all[] = {&batch->packed[0], &batch->packed[1], &batch->counts};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i]->data)
            vl_device_free(batch->job->model->device, all[i]->data);
        all[i]->data = NULL;
    }
    batch->packed_rows = batch->counted = 0;
}

void vl_batch_free(vl_batch *batch)
{
    if (!batch)
        return;
    if (batch->given)
        clear(batch);
    free_device_memory(batch);
    vl_free(batch->entries);
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

static vl_status find_runs(entry *e, vl_error *err)
{
    e->runs = vl_alloc((size_t)e->n_rows + 1, sizeof *e->runs);
    if (!e->runs)
        return vl_fail_nomem(err, "batch");
    for (int64_t i = 0; i < e->n_rows; i++) {
        vl_row_run *last = &e->runs[e->n_runs - 1];
        if (e->n_runs > 0 && e->rows[i] == last->first + last->n)
            last->n++;
        else
            e->runs[e->n_runs++] = (vl_row_run){e->rows[i], 1};
    }
    return VL_OK;
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
    VL_TRY(find_runs(e, err));
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

/* Device memory for the states of this batch: as much as the largest so far has needed. The device belongs to the
 * model: it is the one that the head was asked from. */
static vl_status prepare(vl_batch *batch, vl_error *err)
{
    vl_device *device = batch->job->model->device;
    int64_t d = batch->job->info->d_model, pairs = (batch->job->info->n_layers + 1) * batch->n;
    if (batch->n_rows > batch->packed_rows || pairs > batch->counted) {
        int64_t rows = batch->n_rows > batch->packed_rows ? batch->n_rows : batch->packed_rows;
        pairs = pairs > batch->counted ? pairs : batch->counted;
        free_device_memory(batch);
        for (int i = 0; i < 2; i++)
            VL_TRY(vl_tensor_new(&batch->packed[i], device, batch->job->meta.dtype, rows, d, err));
        VL_TRY(vl_tensor_new(&batch->counts, device, VL_I32, pairs, 2, err));
        batch->packed_rows = rows;
        batch->counted = pairs;
    }
    return vl_op_zero(device, batch->counts, err);
}

/* The state that is on its way goes to be written. */
static vl_status finish_arrival(vl_batch *batch, vl_error *err)
{
    int64_t state = batch->arriving, d = batch->job->info->d_model;
    if (state < 0)
        return VL_OK;
    batch->arriving = -1;
    void *data = vl_alloc((size_t)(batch->n_rows * d), vl_dtype_size(batch->job->meta.dtype));
    if (!data)
        return vl_fail_nomem(err, "states of a batch");
    vl_status status = vl_device_read_end(batch->job->model->device, data, err);
    if (status == VL_OK && batch->queue)
        return vl_queue_states(batch->queue, state, batch->first_row, batch->n_rows, data, err);
    vl_free(data);
    return status;
}

/* The kept rows of one sequence at one state, as they are stored. */
static vl_status take_rows(vl_batch *batch, const vl_tap *tap, vl_error *err)
{
    const entry *e = &batch->entries[tap->sequence];
    int32_t *counts = (int32_t *)batch->counts.data + 2 * ((int64_t)tap->state * batch->n + tap->sequence);
    vl_pack_rows_args args = {.out = vl_tensor_rows(batch->packed[tap->state % 2], e->first, e->n_rows),
                              .x = tap->x,
                              .runs = e->runs,
                              .n_runs = e->n_runs,
                              .counts = vl_tensor_1d(counts, VL_I32, 2)};
    return vl_op_pack_rows(batch->job->model->device, &args, err);
}

/* A state leaves when all sequences have given their rows of it, and arrives while the next block computes. */
static vl_status take(vl_batch *batch, const vl_tap *tap, vl_error *err)
{
    vl_cache_job *job = batch->job;
    int64_t n_states = job->info->n_layers + 1;
    if (batch->entries[tap->sequence].n_rows > 0)
        VL_TRY(take_rows(batch, tap, err));
    if (++batch->given[tap->state] < batch->n)
        return VL_OK;
    VL_TRY(finish_arrival(batch, err));
    vl_tensor whole = vl_tensor_rows(batch->packed[tap->state % 2], 0, batch->n_rows);
    VL_TRY(vl_device_read_begin(job->model->device, whole, err));
    batch->arriving = tap->state;
    if (!batch->queue)
        return VL_OK;
    int64_t done = job->done + batch->n_tokens * (tap->state + 1) / (n_states + 1);
    return vl_job_progress(job, "cache", "tokens", done, job->total, err);
}

/* What a fit would stumble over, in the order in which it came. */
static vl_status note_faults(vl_batch *batch, vl_error *err)
{
    vl_batch_faults *faults = &batch->faults;
    int64_t n = (batch->job->info->n_layers + 1) * batch->n;
    int32_t *counts = vl_alloc((size_t)n, 2 * sizeof *counts);
    vl_tensor found = vl_tensor_rows(batch->counts, 0, n);
    vl_status status = counts ? vl_device_read(batch->job->model->device, counts, &found, err)
                              : vl_fail_nomem(err, "counts of a batch");
    for (int64_t i = 0; status == VL_OK && i < n; i++) {
        if (counts[2 * i] > 0 && faults->not_finite == 0) {
            faults->sample = batch->job->samples.items[batch->entries[i % batch->n].sample].number;
            faults->state = i / batch->n;
        }
        faults->not_finite += counts[2 * i];
        faults->overflows += counts[2 * i + 1];
    }
    vl_free(counts);
    return status;
}

static int on_tap(void *user, const vl_tap *tap)
{
    vl_batch *batch = user;
    batch->status = take(batch, tap, &batch->error);
    return batch->status != VL_OK;
}

static vl_status forward(vl_batch *batch, vl_error *err)
{
    const vl_sequence **sequences = vl_alloc((size_t)batch->n, sizeof *sequences);
    for (int i = 0; sequences && i < batch->n; i++)
        sequences[i] = batch->entries[i].sequence;
    vl_status status = sequences ? prepare(batch, err) : vl_fail_nomem(err, "batch");
    batch->status = VL_OK;
    vl_forward args = {.sequences = sequences, .n_sequences = batch->n, .tap = on_tap, .user = batch};
    if (status == VL_OK)
        status = vl_model_forward(batch->job->model, &args, err);
    if (batch->status != VL_OK) { /* the reason why the tap stopped the forward */
        status = batch->status;
        if (err)
            *err = batch->error;
    }
    if (status == VL_OK)
        status = finish_arrival(batch, err);
    if (status == VL_OK)
        status = note_faults(batch, err);
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
