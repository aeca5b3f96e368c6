#include "trainer/fidelity/transfer.h"

#include <math.h>

#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/fit/objective.h"

typedef struct transfer {
    const vl_fidelity_inputs *in;
    const vl_observer *observer;
    vl_head *head;
    vl_objective objective;
    vl_tensor h, u; /* [n, D] */
    int64_t *row;   /* [n] of the cache */
    int64_t n, d;
    void *stored; /* [D] */
    float *host;  /* [n, D] */
} transfer;

static void transfer_clear(transfer *t)
{
    vl_device_free(t->in->device, t->h.data);
    vl_device_free(t->in->device, t->u.data);
    vl_objective_clear(&t->objective);
    vl_head_close(t->head);
    vl_free(t->row);
    vl_free(t->stored);
    vl_free(t->host);
}

/* Evenly spaced among the held-out rows that are no patches and no first positions. */
static vl_status choose(transfer *t, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(t->in->cache);
    const vl_cache_tokens *tokens = vl_cache_get_tokens(t->in->cache);
    const uint8_t *heldout = vl_cache_get_samples(t->in->cache)->heldout;
    int64_t able = 0, seen = 0, wanted = t->in->config->fidelity.transfer_rows;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < info->n_tokens; i++) {
            if (!heldout[tokens->sample_row[i]] || tokens->token_class[i] == VL_IMAGE || tokens->position[i] == 0)
                continue;
            if (pass == 0)
                able++;
            else if (seen++ == t->n * able / wanted && t->n < wanted)
                t->row[t->n++] = i;
        }
        if (pass == 0) {
            wanted = wanted < able ? wanted : able;
            if (wanted == 0)
                return vl_fail(err, VL_EINVAL, "%s: no held-out text rows", info->path);
            t->row = vl_alloc((size_t)wanted, sizeof *t->row);
            if (!t->row)
                return vl_fail_nomem(err, "transfer");
        }
    }
    return VL_OK;
}

static vl_status load(transfer *t, int64_t state, vl_error *err)
{
    vl_dtype dtype = vl_cache_get_info(t->in->cache)->dtype;
    const uint16_t *half = t->stored;
    for (int64_t i = 0; i < t->n; i++) {
        VL_TRY(vl_cache_read(t->stored, t->in->cache, state, t->row[i], 1, err));
        for (int64_t j = 0; j < t->d; j++)
            t->host[i * t->d + j] = dtype == VL_F32    ? ((const float *)t->stored)[j]
                                    : dtype == VL_BF16 ? vl_bf16_to_f32(half[j])
                                                       : vl_f16_to_f32(half[j]);
    }
    return vl_device_write(t->in->device, &t->h, t->host, err);
}

static vl_status open_all(transfer *t, vl_error *err)
{
    const vl_fidelity_inputs *in = t->in;
    t->d = vl_cache_get_info(in->cache)->d_model;
    VL_TRY(choose(t, err));
    VL_TRY(vl_cache_head(&t->head, in->cache, in->device, in->config->precision, err));
    VL_TRY(vl_objective_new(&t->objective, in->device, t->head, VL_OBJECTIVE_KL, t->n, err));
    VL_TRY(vl_tensor_new(&t->h, in->device, VL_F32, t->n, t->d, err));
    VL_TRY(vl_tensor_new(&t->u, in->device, VL_F32, t->n, t->d, err));
    t->stored = vl_alloc((size_t)t->d, sizeof(float));
    t->host = vl_alloc((size_t)t->n, (size_t)t->d * sizeof(float));
    return t->stored && t->host ? VL_OK : vl_fail_nomem(err, "transfer");
}

/* Mean KL of the state in t->h through adapter j: the objective without an adapter, of the transformed rows. */
static vl_status measure(double *out, transfer *t, int64_t j, const vl_adapter *none, vl_error *err)
{
    double sum = 0;
    VL_TRY(vl_lens_transform(t->in->lens, t->in->device, j, t->u, t->h, err));
    VL_TRY(vl_objective_layer(&t->objective, &(vl_objective_tile){.h = t->u}, none, NULL, err));
    for (int64_t i = 0; i < t->n; i++)
        sum += (double)t->objective.host_loss[i];
    *out = sum / (double)t->n;
    return VL_OK;
}

static vl_status fill(double *matrix, transfer *t, int64_t n_layers, const vl_adapter *none, vl_error *err)
{
    VL_TRY(load(t, n_layers, err));
    VL_TRY(vl_objective_teacher(&t->objective, t->h, err));
    for (int64_t i = 0; i < n_layers; i++) {
        vl_progress progress = {"transfer", "states", i, n_layers, (double)NAN};
        if (t->observer && t->observer->progress && t->observer->progress(t->observer->user, &progress))
            return vl_fail(err, VL_ECANCELLED, "interrupted");
        VL_TRY(load(t, i, err));
        for (int64_t j = 0; j < n_layers; j++)
            VL_TRY(measure(&matrix[i * n_layers + j], t, j, none, err));
    }
    return VL_OK;
}

vl_status vl_transfer_matrix(double **out, const vl_fidelity_inputs *inputs, int64_t n_layers,
                             const vl_observer *observer, vl_error *err)
{
    transfer t = {.in = inputs, .observer = observer};
    vl_adapter none = {0};
    double *matrix = vl_alloc((size_t)(n_layers * n_layers), sizeof *matrix);
    vl_status status = VL_OK;
    *out = NULL;
    if (!matrix)
        return vl_fail_nomem(err, "transfer");
    VL_GOTO(open_all(&t, err));
    VL_GOTO(vl_tensor_new(&none.bias, inputs->device, VL_F32, 1, t.d, err));
    VL_GOTO(vl_op_zero(inputs->device, none.bias, err));
    none.bias = vl_tensor_1d(none.bias.data, VL_F32, t.d);
    VL_GOTO(fill(matrix, &t, n_layers, &none, err));
done:
    vl_device_free(inputs->device, none.bias.data);
    transfer_clear(&t);
    if (status == VL_OK)
        *out = matrix;
    else
        vl_free(matrix);
    return status;
}
