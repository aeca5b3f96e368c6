#include "trainer/fidelity/transfer.h"

#include <math.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/readout/objective.h"
#include "trainer/readout/readout.h"

typedef struct transfer {
    const vl_fidelity_inputs *in;
    vl_head *head;
    vl_device_lens *lens;
    vl_objective objective;
    vl_readout readout;
    vl_log log;
    vl_rows rows;
    int64_t *states; /* [n_layers] */
    int64_t n_layers;
    double *matrix; /* [n_layers, n_layers] */
} transfer;

static void transfer_clear(transfer *t)
{
    vl_readout_clear(&t->readout);
    vl_objective_clear(&t->objective);
    vl_device_lens_free(t->lens);
    vl_head_close(t->head);
    vl_rows_clear(&t->rows);
    vl_free(t->states);
}

/* Evenly spaced among the held-out rows that are no patches and no first positions. */
static vl_status choose(vl_rows *out, const vl_fidelity_inputs *in, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(in->cache);
    const vl_cache_tokens *tokens = vl_cache_get_tokens(in->cache);
    const uint8_t *heldout = vl_cache_get_samples(in->cache)->heldout;
    int64_t able = 0, n = 0, wanted = in->config->fidelity.transfer_rows;
    int64_t *row = vl_alloc((size_t)info->n_tokens + 1, sizeof *row);
    if (!row)
        return vl_fail_nomem(err, "transfer");
    for (int64_t i = 0; i < info->n_tokens; i++)
        if (heldout[tokens->sample_row[i]] == VL_SAMPLE_HELDOUT && tokens->token_class[i] != VL_IMAGE &&
            tokens->position[i] != 0)
            row[able++] = i;
    wanted = wanted < able ? wanted : able;
    for (; n < wanted; n++) /* n <= n * able / wanted: what is read is still there */
        row[n] = row[n * able / wanted];
    vl_status status =
        n ? vl_rows_of_list(out, row, n, err) : vl_fail(err, VL_EINVAL, "%s: no held-out text rows", info->path);
    vl_free(row);
    return status;
}

static vl_status open_all(transfer *t, vl_error *err)
{
    const vl_fidelity_inputs *in = t->in;
    VL_TRY(choose(&t->rows, in, err));
    VL_TRY(vl_cache_head(&t->head, in->cache, in->device, in->config->precision, err));
    VL_TRY(vl_device_lens_new(&t->lens, in->lens, in->device, err));
    VL_TRY(vl_objective_new(&t->objective, t->head, VL_LOSS_KL, t->rows.n_rows, err));
    t->objective.precision = in->config->precision;
    vl_loader_source source = {.cache = in->cache, .capacity = t->rows.n_rows, .background = true};
    VL_TRY(vl_readout_new(&t->readout, t->head, in->device, &source, err));
    t->states = vl_alloc((size_t)t->n_layers, sizeof *t->states);
    if (!t->states)
        return vl_fail_nomem(err, "transfer");
    for (int64_t i = 0; i < t->n_layers; i++)
        t->states[i] = i;
    return VL_OK;
}

static vl_status choose_adapter(vl_adapter *out, void *user, const vl_readout_cell *cell, vl_error *err)
{
    return vl_device_lens_adapter(out, ((transfer *)user)->lens, cell->which, err);
}

/* Mean KL of a state through one adapter. */
static vl_status on_cell(void *user, const vl_readout_cell *cell, vl_error *err)
{
    transfer *t = user;
    double sum = 0;
    if (cell->which == 0) {
        t->log.progress.done = cell->index;
        VL_TRY(vl_log_poll(&t->log, err));
    }
    VL_TRY(vl_objective_layer(&t->objective, &(vl_objective_tile){.h = cell->h}, &cell->adapter, NULL, err));
    for (int64_t i = 0; i < cell->rows; i++)
        sum += (double)t->objective.host_loss[i];
    t->matrix[cell->index * t->n_layers + cell->which] = sum / (double)cell->rows;
    return VL_OK;
}

vl_status vl_transfer_matrix(double **out, const vl_fidelity_inputs *inputs, int64_t n_layers,
                             const vl_observer *observer, vl_error *err)
{
    transfer t = {.in = inputs,
                  .n_layers = n_layers,
                  .matrix = vl_alloc((size_t)(n_layers * n_layers), sizeof(double)),
                  .log = {observer, {"transfer", "states", 0, n_layers, (double)NAN}}};
    vl_status status = VL_OK;
    *out = NULL;
    if (!t.matrix)
        return vl_fail_nomem(err, "transfer");
    VL_GOTO(open_all(&t, err));
    vl_sampler sampler = vl_sampler_in_order(&t.rows);
    vl_walk walk = {.sampler = &sampler,
                    .n_rows = t.rows.n_rows,
                    .scale = 1,
                    .states = t.states,
                    .n_states = n_layers,
                    .teacher = &t.objective.teacher,
                    .teacher_state = n_layers,
                    .n_adapters = n_layers,
                    .adapter = choose_adapter,
                    .cell = on_cell,
                    .user = &t};
    VL_GOTO(vl_readout_walk(&t.readout, &walk, err));
    *out = t.matrix;
    t.matrix = NULL;
done:
    transfer_clear(&t);
    vl_free(t.matrix);
    return status;
}
