#include "trainer/readout/loader.h"

#include <string.h>

#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/readout/kept.h"

static vl_status new_vector(vl_tensor *out, vl_device *device, vl_dtype dtype, int64_t n, vl_error *err)
{
    VL_TRY(vl_tensor_new(out, device, dtype, 1, n, err));
    *out = vl_tensor_1d(out->data, dtype, n);
    return VL_OK;
}

vl_status vl_loader_new(vl_loader *out, vl_device *device, const vl_loader_source *source, vl_error *err)
{
    vl_status status = VL_OK;
    int64_t capacity = source->capacity;
    size_t n = (size_t)capacity;
    *out = (vl_loader){.source = *source,
                       .device = device,
                       .dtype = source->cache ? vl_cache_get_info(source->cache)->dtype : VL_F32,
                       .capacity = capacity,
                       .d_model = source->cache ? vl_cache_get_info(source->cache)->d_model : source->d_model,
                       .shuffled_state = -1};
    out->pieces = vl_alloc(n, sizeof *out->pieces);
    out->weight = vl_alloc(n, sizeof *out->weight);
    out->target = vl_alloc(n, sizeof *out->target);
    out->token_class = vl_alloc(n, 1);
    out->next_pieces = vl_alloc(n, sizeof *out->next_pieces);
    out->sound = vl_alloc(n, 1);
    out->masked = vl_alloc(n, sizeof *out->masked);
    if (!out->sound || !out->masked || !out->pieces || !out->weight || !out->target || !out->token_class ||
        !out->next_pieces)
        VL_GOTO(vl_fail_nomem(err, "tile of states"));
    if (source->cache)
        VL_GOTO(vl_prefetch_new(&out->prefetch, source->cache, capacity, source->background, err));
    if (out->dtype != VL_F32)
        VL_GOTO(vl_tensor_new(&out->stored, device, out->dtype, capacity, out->d_model, err));
    VL_GOTO(vl_tensor_new(&out->wide, device, VL_F32, capacity, out->d_model, err));
    VL_GOTO(new_vector(&out->row_weight, device, VL_F32, capacity, err));
    VL_GOTO(new_vector(&out->targets, device, VL_I32, capacity, err));
done:
    if (status != VL_OK)
        vl_loader_clear(out);
    return status;
}

void vl_loader_clear(vl_loader *f)
{
    if (!f->device)
        return;
    vl_loader_drop(f);
    vl_prefetch_free(f->prefetch);
    vl_device_free(f->device, f->stored.data);
    vl_device_free(f->device, f->wide.data);
    vl_device_free(f->device, f->row_weight.data);
    vl_device_free(f->device, f->targets.data);
    vl_free(f->pieces);
    vl_free(f->weight);
    vl_free(f->target);
    vl_free(f->token_class);
    vl_free(f->sound);
    vl_free(f->masked);
    vl_free(f->next_pieces);
    *f = (vl_loader){.device = NULL};
}

vl_tensor vl_loader_row_weight(const vl_loader *f)
{
    return vl_tensor_1d(f->row_weight.data, VL_F32, f->rows);
}

vl_status vl_loader_mask(vl_loader *f, const uint8_t *sound, vl_error *err)
{
    vl_tensor weight = vl_loader_row_weight(f);
    if (!sound && !f->is_masked)
        return VL_OK;
    for (int64_t r = 0; r < f->rows; r++)
        f->masked[r] = sound && !sound[r] ? 0 : f->weight[r];
    f->is_masked = sound != NULL;
    return vl_device_write(f->device, &weight, f->masked, err);
}

vl_tensor vl_loader_targets(const vl_loader *f)
{
    return vl_tensor_1d(f->targets.data, VL_I32, f->rows);
}

/* Class, weight and target of `row` as the next of the tile. */
static void add_row(vl_loader *f, const vl_cache_tokens *tokens, int64_t row, const vl_loader_order *order)
{
    int c = tokens ? tokens->token_class[row] : 0;
    f->token_class[f->rows] = (uint8_t)c;
    f->weight[f->rows] = (float)(order->scale * order->sampler->rows->weight[c]);
    f->target[f->rows++] = tokens ? tokens->next_id[row] : -1;
}

vl_status vl_loader_next(vl_loader *f, const vl_loader_order *order, vl_error *err)
{
    const vl_cache_tokens *tokens = f->source.cache ? vl_cache_get_tokens(f->source.cache) : NULL;
    if (f->log)
        VL_TRY(vl_log_poll(f->log, err));
    f->sampler = order->sampler;
    f->asked = order->then < f->capacity ? order->then : f->capacity;
    f->first_state = VL_LOADER_NOTHING;
    f->n_pieces = vl_sampler_take(order->sampler, f->pieces, order->rows < f->capacity ? order->rows : f->capacity);
    f->rows = 0;
    f->is_masked = false;
    for (int64_t p = 0; p < f->n_pieces; p++)
        for (int64_t k = 0; k < f->pieces[p].n; k++)
            add_row(f, tokens, f->pieces[p].first + k, order);
    if (f->rows == 0)
        return VL_OK;
    bool done = false;
    if (f->kept && vl_kept_find_tile(f->kept, f))
        VL_TRY(vl_kept_load_numbers(&done, f->kept, f, order, err));
    if (done)
        return VL_OK;
    vl_tensor weight = vl_loader_row_weight(f), targets = vl_loader_targets(f);
    VL_TRY(vl_device_write(f->device, &weight, f->weight, err));
    return vl_device_write(f->device, &targets, f->target, err);
}

/* The row of each is needed at most once, so it is looked up through the pieces. */
int64_t vl_loader_cache_row(const vl_loader *f, int64_t row)
{
    int64_t p = 0;
    for (; row >= f->pieces[p].n; p++)
        row -= f->pieces[p].n;
    return f->pieces[p].first + row;
}

/* The second half before the first: every row (but the last of an odd number) gets the target of another one, the same
 * one for all layers. */
static void turn_rows(const vl_loader *f, unsigned char *low)
{
    size_t half = (size_t)(f->rows / 2) * (size_t)f->d_model * vl_dtype_size(f->dtype);
    unsigned char *high = low + half;
    for (size_t i = 0; i < half; i++) {
        unsigned char byte = low[i];
        low[i] = high[i];
        high[i] = byte;
    }
}

bool vl_row_is_finite(const void *row, vl_dtype dtype, int64_t d)
{
    uint32_t found = 0;
    if (dtype == VL_F32) {
        const uint32_t *bits = row;
        for (int64_t i = 0; i < d; i++)
            found |= (bits[i] & 0x7f800000u) == 0x7f800000u;
        return !found;
    }
    const uint16_t *bits = row, exponent = dtype == VL_BF16 ? 0x7f80 : 0x7c00;
    for (int64_t i = 0; i < d; i++)
        found |= (bits[i] & exponent) == exponent;
    return !found;
}

/* One bad row must not end a layer: a NaN in one row of a product is in every entry of a gradient. */
static void clear_unsound(vl_loader *f, void *rows)
{
    size_t bytes = (size_t)f->d_model * vl_dtype_size(f->dtype);
    f->n_unsound = 0;
    for (int64_t r = 0; r < f->rows; r++) {
        char *row = (char *)rows + (size_t)r * bytes;
        f->sound[r] = vl_row_is_finite(row, f->dtype, f->d_model);
        if (f->sound[r])
            continue;
        f->n_unsound++;
        memset(row, 0, bytes);
    }
}

static void read_ahead(vl_loader *f, int64_t next)
{
    vl_prefetch_order order = {f->pieces, f->n_pieces, next};
    if (next == VL_LOADER_NEXT_TILE)
        order =
            (vl_prefetch_order){f->next_pieces, vl_sampler_peek(f->sampler, f->next_pieces, f->asked), f->first_state};
    if (next != VL_LOADER_NOTHING)
        vl_prefetch_ask(f->prefetch, &order);
}

vl_status vl_loader_read(const void **rows, vl_loader *f, int64_t state, int64_t next, vl_error *err)
{
    void *taken;
    if (!f->source.cache) {
        memset(f->sound, 1, (size_t)f->rows);
        /* memory is walked in order: a tile is one piece */
        *rows = f->source.memory[state] + f->pieces[0].first * f->d_model;
        return VL_OK;
    }
    if (f->first_state == VL_LOADER_NOTHING)
        f->first_state = state;
    VL_TRY(vl_prefetch_take(&taken, f->prefetch, &(vl_prefetch_order){f->pieces, f->n_pieces, state}, err));
    if (state == f->shuffled_state)
        turn_rows(f, taken);
    clear_unsound(f, taken);
    *rows = taken;
    read_ahead(f, next);
    return VL_OK;
}

vl_status vl_loader_load(vl_tensor *out, vl_loader *f, int64_t state, int64_t next, vl_error *err)
{
    const void *rows;
    *out = vl_tensor_rows(f->wide, 0, f->rows);
    if (f->kept && vl_kept_has(f->kept, state)) {
        memset(f->sound, 1, (size_t)f->rows); /* others are not kept */
        f->n_unsound = 0;
        return vl_kept_load(f->kept, *out, state, state == f->shuffled_state, err);
    }
    VL_TRY(vl_loader_read(&rows, f, state, next, err));
    if (f->dtype == VL_F32)
        return vl_device_write(f->device, out, rows, err);
    vl_tensor stored = vl_tensor_rows(f->stored, 0, f->rows);
    VL_TRY(vl_device_write(f->device, &stored, rows, err));
    return vl_op_cast(f->device, &(vl_cast_args){.out = *out, .x = stored}, err);
}

vl_status vl_loader_fetch(float *out, vl_loader *f, int64_t state, const int64_t *rows, int64_t n, vl_error *err)
{
    size_t d = (size_t)f->d_model;
    void *stored = vl_alloc((size_t)n * d, vl_dtype_size(f->dtype));
    vl_status status = VL_OK;
    if (!stored)
        return vl_fail_nomem(err, "rows of states");
    vl_prefetch_rest(f->prefetch);
    for (int64_t i = 0, length; i < n; i += length) {
        for (length = 1; i + length < n && rows[i + length] == rows[i] + length; length++)
            ;
        VL_GOTO(vl_cache_read((char *)stored + (size_t)i * d * vl_dtype_size(f->dtype), f->source.cache, state, rows[i],
                              length, err));
    }
    vl_widen(out, stored, f->dtype, (size_t)n * d);
done:
    vl_free(stored);
    return status;
}
