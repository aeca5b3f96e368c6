#include "trainer/readout/kept.h"

#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"

struct vl_kept {
    vl_device *device;
    int64_t n_rows;
    int64_t *slot; /* [rows of the cache] where each lies, or -1 */
    int64_t n_states;
    vl_tensor *states;          /* [n_states] of [n_rows, D] as stored; no data: not here */
    vl_tensor weights, targets; /* [n_rows, 1] f32 and i32 */
    const vl_rows *weights_of;  /* the rows of the walks whose weights these are, */
    double weight_scale;        /* and their scale */
    /* The tile: */
    bool has_tile;
    vl_row_run *runs, *turned; /* [capacity], [capacity + 2] */
    int64_t n_runs, rows;
};

/* ---- making ------------------------------------------------------------------------------------------------ */

/* Slots in the order of the cache, so that neighbours stay neighbours. */
static vl_status give_slots(vl_kept *k, int64_t cache_rows, const vl_keep_args *args, vl_error *err)
{
    k->slot = vl_alloc((size_t)cache_rows, sizeof *k->slot);
    if (!k->slot)
        return vl_fail_nomem(err, "rows on the device");
    for (int64_t i = 0; i < cache_rows; i++)
        k->slot[i] = -1;
    for (int64_t p = 0; p < args->n_parts; p++)
        for (int64_t r = 0; r < args->parts[p]->n_runs; r++)
            for (int64_t i = 0; i < args->parts[p]->runs[r].n; i++)
                k->slot[args->parts[p]->runs[r].first + i] = 0;
    for (int64_t i = 0; i < cache_rows; i++)
        if (k->slot[i] == 0)
            k->slot[i] = k->n_rows++;
    return VL_OK;
}

/* All rows of one state, read in the order of the cache. */
static vl_status fill_state(vl_kept *k, vl_loader *f, int64_t state, void *buffer, vl_error *err)
{
    int64_t all = vl_cache_get_info(f->source.cache)->n_tokens;
    VL_TRY(vl_tensor_new(&k->states[state], k->device, f->dtype, k->n_rows, f->d_model, err));
    for (int64_t row = 0, n; row < all; row += n) {
        for (n = 0; row + n < all && n < f->capacity && k->slot[row + n] >= 0; n++)
            ;
        if (n == 0) {
            n = 1;
            continue;
        }
        vl_tensor part = vl_tensor_rows(k->states[state], k->slot[row], n);
        VL_TRY(vl_cache_read(buffer, f->source.cache, state, row, n, err));
        for (int64_t i = 0; i < n; i++)
            if (!vl_row_is_finite((const char *)buffer + (size_t)(i * f->d_model) * vl_dtype_size(f->dtype), f->dtype,
                                  f->d_model)) {
                vl_device_free(k->device, k->states[state].data);
                k->states[state].data = NULL;
                return VL_OK;
            }
        VL_TRY(vl_device_write(k->device, &part, buffer, err));
    }
    return f->log ? vl_log_poll(f->log, err) : VL_OK;
}

static vl_status fill_states(vl_kept *k, vl_loader *f, const vl_keep_args *args, vl_error *err)
{
    void *buffer = vl_alloc_aligned((size_t)(f->capacity * f->d_model), vl_dtype_size(f->dtype));
    vl_status status = buffer ? VL_OK : vl_fail_nomem(err, "rows of the cache");
    k->n_states = vl_cache_get_info(f->source.cache)->n_states;
    k->states = vl_calloc((size_t)k->n_states, sizeof *k->states);
    if (status == VL_OK && !k->states)
        status = vl_fail_nomem(err, "states on the device");
    vl_prefetch_rest(f->prefetch);
    for (int64_t i = 0; status == VL_OK && i < args->n_states; i++)
        status = fill_state(k, f, args->states[i], buffer, err);
    vl_free(buffer);
    return status;
}

/* Weights as vl_loader_next computes them. */
static vl_status fill_numbers(vl_kept *k, const vl_loader *f, const vl_keep_args *args, vl_error *err)
{
    const vl_cache_tokens *tokens = vl_cache_get_tokens(f->source.cache);
    int64_t all = vl_cache_get_info(f->source.cache)->n_tokens;
    float *weights = vl_alloc((size_t)k->n_rows, sizeof *weights);
    int32_t *targets = vl_alloc((size_t)k->n_rows, sizeof *targets);
    vl_status status = weights && targets ? VL_OK : vl_fail_nomem(err, "numbers of rows");
    for (int64_t row = 0; status == VL_OK && row < all; row++) {
        if (k->slot[row] < 0)
            continue;
        weights[k->slot[row]] = (float)(args->weight_scale * args->parts[0]->weight[tokens->token_class[row]]);
        targets[k->slot[row]] = tokens->next_id[row];
    }
    k->weights_of = args->parts[0];
    k->weight_scale = args->weight_scale;
    VL_GOTO(status);
    VL_GOTO(vl_tensor_new(&k->weights, k->device, VL_F32, k->n_rows, 1, err));
    VL_GOTO(vl_tensor_new(&k->targets, k->device, VL_I32, k->n_rows, 1, err));
    VL_GOTO(vl_device_write(k->device, &k->weights, weights, err));
    VL_GOTO(vl_device_write(k->device, &k->targets, targets, err));
done:
    vl_free(weights);
    vl_free(targets);
    return status;
}

vl_status vl_loader_keep(vl_loader *f, const vl_keep_args *args, vl_error *err)
{
    vl_status status = VL_OK;
    vl_loader_drop(f);
    if (args->n_states == 0)
        return VL_OK;
    vl_kept *k = f->kept = vl_calloc(1, sizeof *k);
    if (!k)
        return vl_fail_nomem(err, "states on the device");
    k->device = f->device;
    k->runs = vl_alloc((size_t)f->capacity, sizeof *k->runs);
    k->turned = vl_alloc((size_t)f->capacity + 2, sizeof *k->turned);
    if (!k->runs || !k->turned)
        VL_GOTO(vl_fail_nomem(err, "states on the device"));
    VL_GOTO(give_slots(k, vl_cache_get_info(f->source.cache)->n_tokens, args, err));
    VL_GOTO(fill_numbers(k, f, args, err));
    VL_GOTO(fill_states(k, f, args, err));
done:
    if (status != VL_OK)
        vl_loader_drop(f);
    return status;
}

void vl_loader_drop(vl_loader *f)
{
    vl_kept *k = f->kept;
    if (!k)
        return;
    for (int64_t i = 0; k->states && i < k->n_states; i++)
        vl_device_free(k->device, k->states[i].data);
    vl_device_free(k->device, k->weights.data);
    vl_device_free(k->device, k->targets.data);
    vl_free(k->states);
    vl_free(k->slot);
    vl_free(k->runs);
    vl_free(k->turned);
    vl_free(k);
    f->kept = NULL;
}

/* ---- tiles ------------------------------------------------------------------------------------------------- */

bool vl_kept_find_tile(vl_kept *k, const vl_loader *f)
{
    k->has_tile = true;
    k->n_runs = f->n_pieces;
    k->rows = f->rows;
    for (int64_t p = 0; p < f->n_pieces; p++) {
        const vl_run *piece = &f->pieces[p];
        /* neighbours that are all kept lie side by side */
        int64_t first = k->slot[piece->first], last = k->slot[piece->first + piece->n - 1];
        k->has_tile = k->has_tile && first >= 0 && last == first + piece->n - 1;
        k->runs[p] = (vl_row_run){first, piece->n};
    }
    return k->has_tile;
}

bool vl_kept_has(const vl_kept *k, int64_t state)
{
    return k->has_tile && k->states[state].data;
}

/* Appends rows [from, from + n) of the tile. */
static int64_t append(vl_row_run *out, int64_t n_out, const vl_kept *k, int64_t from, int64_t n)
{
    for (int64_t r = 0; r < k->n_runs && n > 0; r++) {
        int64_t length = k->runs[r].n;
        if (from >= length) {
            from -= length;
            continue;
        }
        int64_t taken = length - from < n ? length - from : n;
        out[n_out++] = (vl_row_run){k->runs[r].first + from, taken};
        from = 0;
        n -= taken;
    }
    return n_out;
}

/* As the loader turns the rows that it reads: the last of an odd number stays. */
static int64_t turn(vl_kept *k)
{
    int64_t half = k->rows / 2, n = append(k->turned, 0, k, half, half);
    n = append(k->turned, n, k, 0, half);
    return append(k->turned, n, k, 2 * half, k->rows - 2 * half);
}

vl_status vl_kept_load(vl_kept *k, vl_tensor out, int64_t state, bool turned, vl_error *err)
{
    vl_take_rows_args args = {out, k->states[state], k->runs, k->n_runs};
    if (turned) {
        args.n_runs = turn(k);
        args.runs = k->turned;
    }
    return vl_op_take_rows(k->device, &args, err);
}

vl_status vl_kept_load_numbers(bool *done, vl_kept *k, const vl_loader *f, const vl_loader_order *order, vl_error *err)
{
    *done = k->has_tile && order->sampler->rows == k->weights_of && !(order->scale < k->weight_scale) &&
            !(order->scale > k->weight_scale);
    if (!*done)
        return VL_OK;
    vl_take_rows_args args = {vl_tensor_2d(f->row_weight.data, VL_F32, f->rows, 1), k->weights, k->runs, k->n_runs};
    VL_TRY(vl_op_take_rows(k->device, &args, err));
    args.out = vl_tensor_2d(f->targets.data, VL_I32, f->rows, 1);
    args.table = k->targets;
    return vl_op_take_rows(k->device, &args, err);
}
