#include "trainer/view/reading.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/readout/readout.h"

enum { LENSES = 2, TILE_ROWS = 64 };

void vl_reading_free(vl_reading *r)
{
    if (!r)
        return;
    for (int64_t i = 0; r->pieces && i < r->vocab_size; i++)
        vl_free(r->pieces[i]);
    vl_free(r->pieces);
    vl_free(r->positions);
    vl_free(r->ids);
    vl_free(r->probability);
    vl_free(r->entropy);
    vl_free(r->kl);
    vl_free(r->tracked);
    vl_free(r->tracked_probability);
    vl_trajectories_free(r);
    vl_free(r->model_id);
    vl_free(r->prompt);
    vl_free(r->answer);
    vl_free(r->lens_path);
    vl_pictures_clear(&r->pictures);
    vl_attention_map_clear(&r->attention);
    vl_free(r);
}

vl_status vl_reading_alloc(vl_reading *r, vl_error *err)
{
    size_t cells = LENSES * (size_t)r->n_positions * (size_t)r->n_states, entries;
    if (!vl_mul_size(&entries, cells, (size_t)r->k))
        return vl_fail_nomem(err, "reading");
    r->ids = vl_calloc(entries, sizeof *r->ids);
    r->probability = vl_calloc(entries, sizeof *r->probability);
    r->entropy = vl_calloc(cells, sizeof *r->entropy);
    r->kl = vl_calloc(cells, sizeof *r->kl);
    r->pieces = vl_calloc((size_t)r->vocab_size, sizeof *r->pieces);
    if (!r->ids || !r->probability || !r->entropy || !r->kl || !r->pieces)
        return vl_fail_nomem(err, "reading");
    return VL_OK;
}

static size_t cell_of(const vl_reading *r, int64_t index, int64_t state, bool tuned)
{
    return ((size_t)tuned * (size_t)r->n_positions + (size_t)index) * (size_t)r->n_states + (size_t)state;
}

vl_reading_info vl_reading_get_info(const vl_reading *r)
{
    return (vl_reading_info){r->n_states, r->n_positions, r->k,       r->has_lens, r->model_id,
                             r->prompt,   r->warning,     r->tracked, r->n_tracked};
}

vl_reading_position vl_reading_get_position(const vl_reading *r, int64_t index)
{
    return r->positions[index];
}

vl_reading_cell vl_reading_get_cell(const vl_reading *r, int64_t index, int64_t state, bool tuned)
{
    size_t cell = cell_of(r, index, state, tuned && r->has_lens);
    return (vl_reading_cell){r->ids + cell * (size_t)r->k, r->probability + cell * (size_t)r->k, r->entropy[cell],
                             r->kl[cell], r->n_tracked ? r->tracked_probability + cell * (size_t)r->n_tracked : NULL};
}

const char *vl_reading_piece(const vl_reading *r, int32_t id)
{
    return id >= 0 && id < r->vocab_size && r->pieces[id] ? r->pieces[id] : "";
}

/* A reading in the making: positions are the rows of the walk, states its states. */
typedef struct maker {
    vl_reading *r;
    vl_device *device;
    vl_device_lens *lens; /* NULL: the logit lens alone */
    vl_readout readout;
    vl_rows rows;
    int64_t *states;
    vl_distribution q, teacher;
    vl_tensor u, values, ids, metrics; /* [rows, D], [rows, k], [rows, k] i32, [rows, VL_METRIC_COUNT] */
    float *host_values, *host_lse, *host_metrics;
    int32_t *host_ids;
    float *host_logits; /* [rows, V]; NULL where no token is followed through all cells */
    const vl_observer *observer;
    int64_t done; /* cells of `walk`, of all positions */
} maker;

vl_status vl_reading_report(const vl_observer *observer, const char *stage, int64_t done, int64_t total, vl_error *err)
{
    vl_progress progress = {stage, "rows", done, total, (double)NAN};
    if (observer && observer->progress && observer->progress(observer->user, &progress))
        return vl_fail(err, VL_ECANCELLED, "interrupted after %lld of %lld rows of the %s", (long long)done,
                       (long long)total, stage);
    return VL_OK;
}

static void maker_clear(maker *m)
{
    vl_tensor *tensors[] = {&m->u, &m->values, &m->ids, &m->metrics};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++)
        vl_device_free(m->device, tensors[i]->data);
    vl_distribution_clear(&m->q, m->device);
    vl_distribution_clear(&m->teacher, m->device);
    vl_readout_clear(&m->readout);
    vl_rows_clear(&m->rows);
    vl_device_lens_free(m->lens);
    vl_free(m->states);
    vl_free(m->host_values);
    vl_free(m->host_lse);
    vl_free(m->host_metrics);
    vl_free(m->host_ids);
    vl_free(m->host_logits);
}

static vl_status maker_alloc(maker *m, const vl_reading_source *source, int64_t rows, vl_error *err)
{
    const vl_reading *r = m->r;
    bool whole = r->n_tracked || r->trajectories;
    vl_loader_source from = {source->cache, source->memory, r->d, rows, true};
    VL_TRY(source->cache ? vl_rows_of_list(&m->rows, source->rows, r->n_positions, err)
                         : vl_rows_of_memory(&m->rows, r->n_positions, err));
    VL_TRY(vl_readout_new(&m->readout, source->head, m->device, &from, err));
    VL_TRY(vl_distribution_new(&m->q, source->head, rows, err));
    VL_TRY(vl_distribution_new(&m->teacher, source->head, rows, err));
    VL_TRY(vl_tensor_new(&m->u, m->device, VL_F32, rows, r->d, err));
    VL_TRY(vl_tensor_new(&m->values, m->device, VL_F32, rows, r->k, err));
    VL_TRY(vl_tensor_new(&m->ids, m->device, VL_I32, rows, r->k, err));
    VL_TRY(vl_tensor_new(&m->metrics, m->device, VL_F32, rows, VL_METRIC_COUNT, err));
    m->states = vl_alloc((size_t)r->n_states, sizeof *m->states);
    m->host_values = vl_alloc((size_t)(rows * r->k), sizeof(float));
    m->host_lse = vl_alloc((size_t)rows, sizeof(float));
    m->host_metrics = vl_alloc((size_t)rows, VL_METRIC_COUNT * sizeof(float));
    m->host_ids = vl_alloc((size_t)(rows * r->k), sizeof(int32_t));
    m->host_logits = whole ? vl_alloc((size_t)rows * (size_t)r->vocab_size, sizeof(float)) : NULL;
    if (!m->states || !m->host_values || !m->host_lse || !m->host_metrics || !m->host_ids || (whole && !m->host_logits))
        return vl_fail_nomem(err, "reading");
    for (int64_t i = 0; i < r->n_states; i++)
        m->states[i] = i;
    return VL_OK;
}

static vl_status choose_adapter(vl_adapter *out, void *user, const vl_readout_cell *cell, vl_error *err)
{
    maker *m = user;
    return cell->which == 1 ? vl_device_lens_adapter(out, m->lens, cell->state, err) : VL_OK;
}

/* What was read of one row into its cell. */
static void put_cell(maker *m, int64_t row, const vl_readout_cell *from)
{
    vl_reading *r = m->r;
    const float *metrics = m->host_metrics + row * VL_METRIC_COUNT;
    size_t cell = cell_of(r, from->first + row, from->state, from->which == 1), k = (size_t)r->k;
    r->entropy[cell] = metrics[VL_METRIC_ENTROPY];
    r->kl[cell] = metrics[VL_METRIC_KL];
    for (size_t j = 0; j < k; j++) {
        r->ids[cell * k + j] = m->host_ids[(size_t)row * k + j];
        r->probability[cell * k + j] = expf(m->host_values[(size_t)row * k + j] - m->host_lse[row]);
    }
    for (int64_t j = 0; j < r->n_tracked; j++)
        r->tracked_probability[cell * (size_t)r->n_tracked + (size_t)j] =
            expf(m->host_logits[row * r->vocab_size + r->tracked[j]] - m->host_lse[row]);
}

/* One state through one lens: `which` 0 is the logit lens, 1 the tuned one. */
static vl_status on_cell(void *user, const vl_readout_cell *cell, vl_error *err)
{
    maker *m = user;
    int64_t n = cell->rows;
    vl_tensor values = vl_tensor_rows(m->values, 0, n), ids = vl_tensor_rows(m->ids, 0, n);
    vl_distribution q = vl_distribution_rows(&m->q, n);
    VL_TRY(vl_readout_distribution(&m->q, &m->readout, cell, m->u, false, err));
    VL_TRY(vl_op_topk(m->device, &(vl_topk_args){.values = values, .ids = ids, .logits = q.logits}, err));
    vl_comparison args = {&m->teacher, &m->q, m->metrics, {.data = NULL}, n};
    VL_TRY(vl_distribution_compare(m->host_metrics, m->device, &args, err));
    VL_TRY(vl_device_read(m->device, m->host_values, &values, err));
    VL_TRY(vl_device_read(m->device, m->host_ids, &ids, err));
    VL_TRY(vl_device_read(m->device, m->host_lse, &q.lse, err));
    if (m->r->n_tracked)
        VL_TRY(vl_device_read(m->device, m->host_logits, &q.logits, err));
    for (int64_t i = 0; i < n; i++)
        put_cell(m, i, cell);
    m->done += n;
    return vl_reading_report(m->observer, "readout", m->done, m->r->n_positions * m->r->n_states * (m->lens ? 2 : 1),
                             err);
}

static vl_status start_trace(void *user, int64_t first, int64_t rows, vl_error *err)
{
    return vl_trajectories_start(((maker *)user)->r, first, rows, err);
}

static vl_status trace_adapter(vl_adapter *out, void *user, const vl_readout_cell *cell, vl_error *err)
{
    maker *m = user;
    return m->lens ? vl_device_lens_adapter(out, m->lens, cell->state, err) : VL_OK;
}

/* A second time over the states, now that the tokens of interest are known. */
static vl_status on_trace(void *user, const vl_readout_cell *cell, vl_error *err)
{
    maker *m = user;
    vl_distribution q = vl_distribution_rows(&m->q, cell->rows);
    VL_TRY(vl_readout_distribution(&m->q, &m->readout, cell, m->u, false, err));
    VL_TRY(vl_device_read(m->device, m->host_logits, &q.logits, err));
    VL_TRY(vl_device_read(m->device, m->host_lse, &q.lse, err));
    vl_trajectories_put(m->r, cell->first, cell->rows, cell->state, m->host_logits, m->host_lse);
    return VL_OK;
}

/* All positions at all states: the cells, and the trajectories where they are asked for. */
static vl_status walk(maker *m, vl_error *err)
{
    vl_sampler sampler = vl_sampler_in_order(&m->rows);
    vl_walk cells = {.sampler = &sampler,
                     .n_rows = m->r->n_positions,
                     .scale = 1,
                     .states = m->states,
                     .n_states = m->r->n_states,
                     .teacher = &m->teacher,
                     .teacher_state = m->r->n_states - 1,
                     .n_adapters = m->lens ? 2 : 1,
                     .adapter = choose_adapter,
                     .cell = on_cell,
                     .user = m};
    VL_TRY(vl_readout_walk(&m->readout, &cells, err));
    if (!m->r->trajectories)
        return VL_OK;
    vl_walk trace = cells;
    sampler = vl_sampler_in_order(&m->rows);
    trace.teacher = NULL;
    trace.n_adapters = 1;
    trace.tile = start_trace;
    trace.adapter = trace_adapter;
    trace.cell = on_trace;
    return vl_readout_walk(&m->readout, &trace, err);
}

static vl_status keep_piece(vl_reading *r, const vl_reading_source *source, int32_t id, vl_error *err)
{
    char number[24];
    if (id < 0 || id >= r->vocab_size || r->pieces[id])
        return VL_OK;
    const char *piece = source->piece(source->user, id);
    if (!piece) {
        snprintf(number, sizeof number, "<%d>", id);
        piece = number;
    }
    r->pieces[id] = vl_strdup(piece);
    return r->pieces[id] ? VL_OK : vl_fail_nomem(err, "reading");
}

static vl_status keep_pieces(vl_reading *r, const vl_reading_source *source, vl_error *err)
{
    size_t entries = (size_t)(1 + r->has_lens) * (size_t)r->n_positions * (size_t)r->n_states * (size_t)r->k;
    for (size_t i = 0; i < entries; i++)
        VL_TRY(keep_piece(r, source, r->ids[i], err));
    for (int64_t i = 0; i < r->n_tracked; i++)
        VL_TRY(keep_piece(r, source, r->tracked[i], err));
    for (int64_t i = 0; i < r->n_positions; i++) {
        VL_TRY(keep_piece(r, source, r->positions[i].id, err));
        r->positions[i].piece = vl_reading_piece(r, r->positions[i].id);
        if (!*r->positions[i].piece) /* an image token beyond the unembedding's rows */
            r->positions[i].piece =
                r->positions[i].token_class == VL_IMAGE || r->positions[i].id >= r->vocab_size ? "<image>" : "";
    }
    return VL_OK;
}

vl_status vl_reading_fill(vl_reading *r, const vl_reading_source *source, const vl_reading_options *options,
                          vl_error *err)
{
    maker m = {.r = r, .device = vl_head_device(source->head), .observer = options->observer};
    vl_status status = VL_OK;
    VL_GOTO(vl_reading_track(r, source, options, err));
    if (options->trajectories) {
        r->trajectories = vl_calloc((size_t)r->n_positions, sizeof *r->trajectories);
        if (!r->trajectories)
            VL_GOTO(vl_fail_nomem(err, "reading"));
    }
    if (options->lens)
        VL_GOTO(vl_device_lens_new(&m.lens, options->lens, m.device, err));
    VL_GOTO(maker_alloc(&m, source, r->n_positions < TILE_ROWS ? r->n_positions : TILE_ROWS, err));
    VL_GOTO(walk(&m, err));
    VL_GOTO(keep_pieces(r, source, err));
done:
    maker_clear(&m);
    return status;
}
