#include "trainer/view/reading.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/model/head.h"

enum { LENSES = 2, ROW_BLOCK = 64 };

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

/* Device work areas for a block of positions. */
typedef struct block_memory {
    vl_device *device;
    vl_tensor h, u;                 /* [rows, D] */
    vl_tensor logits, teacher;      /* [rows, V] */
    vl_tensor lse, teacher_lse;     /* [rows] */
    vl_tensor values, ids, metrics; /* [rows, k], [rows, k] i32, [rows, VL_METRIC_COUNT] */
    float *host_values, *host_lse, *host_metrics;
    float *host_logits; /* [rows, V]; NULL where no token is followed through all cells */
} block_memory;

static void block_clear(block_memory *b)
{
    vl_tensor *tensors[] = {&b->h,           &b->u,      &b->logits, &b->teacher, &b->lse,
                            &b->teacher_lse, &b->values, &b->ids,    &b->metrics};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++)
        vl_device_free(b->device, tensors[i]->data);
    vl_free(b->host_values);
    vl_free(b->host_lse);
    vl_free(b->host_metrics);
    vl_free(b->host_logits);
}

static vl_status block_alloc(block_memory *b, const vl_reading *r, int64_t rows, vl_error *err)
{
    VL_TRY(vl_tensor_new(&b->h, b->device, VL_F32, rows, r->d, err));
    VL_TRY(vl_tensor_new(&b->u, b->device, VL_F32, rows, r->d, err));
    VL_TRY(vl_tensor_new(&b->logits, b->device, VL_F32, rows, r->vocab_size, err));
    VL_TRY(vl_tensor_new(&b->teacher, b->device, VL_F32, rows, r->vocab_size, err));
    VL_TRY(vl_tensor_new(&b->lse, b->device, VL_F32, rows, 1, err));
    VL_TRY(vl_tensor_new(&b->teacher_lse, b->device, VL_F32, rows, 1, err));
    VL_TRY(vl_tensor_new(&b->values, b->device, VL_F32, rows, r->k, err));
    VL_TRY(vl_tensor_new(&b->ids, b->device, VL_I32, rows, r->k, err));
    VL_TRY(vl_tensor_new(&b->metrics, b->device, VL_F32, rows, VL_METRIC_COUNT, err));
    b->host_values = vl_alloc((size_t)(rows * r->k), sizeof(float));
    b->host_lse = vl_alloc((size_t)rows, sizeof(float));
    b->host_metrics = vl_alloc((size_t)rows, VL_METRIC_COUNT * sizeof(float));
    bool whole = r->n_tracked || r->trajectories;
    if (whole)
        b->host_logits = vl_alloc((size_t)rows * (size_t)r->vocab_size, sizeof(float));
    return b->host_values && b->host_lse && b->host_metrics && (b->host_logits || !whole)
               ? VL_OK
               : vl_fail_nomem(err, "reading");
}

static vl_status distribution(block_memory *b, vl_head *head, vl_tensor logits, vl_tensor lse, vl_tensor x, int64_t n,
                              vl_error *err)
{
    logits = vl_tensor_rows(logits, 0, n);
    VL_TRY(vl_head_logits(head, logits, vl_tensor_rows(x, 0, n), err));
    return vl_op_logsumexp(b->device, &(vl_logsumexp_args){.lse = vl_tensor_rows(lse, 0, n), .logits = logits}, err);
}

/* One state of a block of positions through one lens into the cells. */
static vl_status read_cells(vl_reading *r, block_memory *b, int64_t state, bool tuned, int64_t first, int64_t n,
                            vl_error *err)
{
    vl_tensor logits = vl_tensor_rows(b->logits, 0, n), lse = vl_tensor_rows(b->lse, 0, n);
    vl_tensor values = vl_tensor_rows(b->values, 0, n), ids = vl_tensor_rows(b->ids, 0, n);
    vl_tensor metrics = vl_tensor_rows(b->metrics, 0, n);
    int32_t *host_ids = vl_alloc((size_t)(n * r->k), sizeof *host_ids);
    vl_status status = VL_OK;
    if (!host_ids)
        return vl_fail_nomem(err, "reading");
    VL_GOTO(vl_op_topk(b->device, &(vl_topk_args){.values = values, .ids = ids, .logits = logits}, err));
    vl_metrics_args compare = {.out = metrics,
                               .logits = logits,
                               .lse = lse,
                               .teacher_logits = vl_tensor_rows(b->teacher, 0, n),
                               .teacher_lse = vl_tensor_rows(b->teacher_lse, 0, n)};
    VL_GOTO(vl_op_metrics(b->device, &compare, err));
    VL_GOTO(vl_device_read(b->device, b->host_values, &values, err));
    VL_GOTO(vl_device_read(b->device, host_ids, &ids, err));
    VL_GOTO(vl_device_read(b->device, b->host_lse, &lse, err));
    VL_GOTO(vl_device_read(b->device, b->host_metrics, &metrics, err));
    if (r->n_tracked)
        VL_GOTO(vl_device_read(b->device, b->host_logits, &logits, err));
    for (int64_t i = 0; i < n; i++) {
        size_t cell = cell_of(r, first + i, state, tuned);
        r->entropy[cell] = b->host_metrics[i * VL_METRIC_COUNT + VL_METRIC_ENTROPY];
        r->kl[cell] = b->host_metrics[i * VL_METRIC_COUNT + VL_METRIC_KL];
        for (int64_t j = 0; j < r->k; j++) {
            r->ids[cell * (size_t)r->k + (size_t)j] = host_ids[i * r->k + j];
            r->probability[cell * (size_t)r->k + (size_t)j] = expf(b->host_values[i * r->k + j] - b->host_lse[i]);
        }
        for (int64_t j = 0; j < r->n_tracked; j++)
            r->tracked_probability[cell * (size_t)r->n_tracked + (size_t)j] =
                expf(b->host_logits[i * r->vocab_size + r->tracked[j]] - b->host_lse[i]);
    }
done:
    vl_free(host_ids);
    return status;
}

/* All states of one block of positions; the model's own distribution (the last state) first, as teacher. */
static vl_status fill_block(vl_reading *r, block_memory *b, const vl_reading_source *source, vl_lens *lens,
                            int64_t first, int64_t n, vl_error *err)
{
    vl_tensor h = vl_tensor_rows(b->h, 0, n);
    for (int64_t step = 0; step < r->n_states; step++) {
        int64_t state = step == 0 ? r->n_states - 1 : step - 1;
        const float *rows = source->state(source->user, state, err);
        if (!rows)
            return err ? err->status : VL_EIO;
        VL_TRY(vl_device_write(b->device, &h, rows + first * r->d, err));
        if (step == 0)
            VL_TRY(distribution(b, source->head, b->teacher, b->teacher_lse, h, n, err));
        VL_TRY(distribution(b, source->head, b->logits, b->lse, h, n, err));
        VL_TRY(read_cells(r, b, state, false, first, n, err));
        if (!lens)
            continue;
        VL_TRY(vl_lens_transform(lens, b->device, state, vl_tensor_rows(b->u, 0, n), h, err));
        VL_TRY(distribution(b, source->head, b->logits, b->lse, b->u, n, err));
        VL_TRY(read_cells(r, b, state, true, first, n, err));
    }
    return VL_OK;
}

/* A second time over the states, now that the tokens of interest are known. */
static vl_status trace_block(vl_reading *r, block_memory *b, const vl_reading_source *source, vl_lens *lens,
                             int64_t first, int64_t n, vl_error *err)
{
    vl_tensor h = vl_tensor_rows(b->h, 0, n), u = vl_tensor_rows(b->u, 0, n);
    vl_tensor logits = vl_tensor_rows(b->logits, 0, n), lse = vl_tensor_rows(b->lse, 0, n);
    VL_TRY(vl_trajectories_start(r, first, n, err));
    for (int64_t state = 0; state < r->n_states; state++) {
        const float *rows = source->state(source->user, state, err);
        if (!rows)
            return err ? err->status : VL_EIO;
        VL_TRY(vl_device_write(b->device, &h, rows + first * r->d, err));
        if (lens)
            VL_TRY(vl_lens_transform(lens, b->device, state, u, h, err));
        VL_TRY(distribution(b, source->head, b->logits, b->lse, lens ? u : h, n, err));
        VL_TRY(vl_device_read(b->device, b->host_logits, &logits, err));
        VL_TRY(vl_device_read(b->device, b->host_lse, &lse, err));
        vl_trajectories_put(r, first, n, state, b->host_logits, b->host_lse);
    }
    return VL_OK;
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
    block_memory block = {.device = vl_head_device(source->head)};
    int64_t rows = r->n_positions < ROW_BLOCK ? r->n_positions : ROW_BLOCK;
    vl_status status = VL_OK;
    VL_GOTO(vl_reading_track(r, source, options, err));
    if (options->trajectories) {
        r->trajectories = vl_calloc((size_t)r->n_positions, sizeof *r->trajectories);
        if (!r->trajectories)
            VL_GOTO(vl_fail_nomem(err, "reading"));
    }
    VL_GOTO(block_alloc(&block, r, rows, err));
    for (int64_t first = 0; first < r->n_positions; first += rows) {
        int64_t n = r->n_positions - first < rows ? r->n_positions - first : rows;
        VL_GOTO(fill_block(r, &block, source, options->lens, first, n, err));
        if (r->trajectories)
            VL_GOTO(trace_block(r, &block, source, options->lens, first, n, err));
    }
    VL_GOTO(keep_pieces(r, source, err));
done:
    block_clear(&block);
    return status;
}
