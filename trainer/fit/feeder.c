#include "trainer/fit/feeder.h"

#include "trainer/base/mem.h"

static vl_status new_vector(vl_tensor *out, vl_device *device, vl_dtype dtype, int64_t n, vl_error *err)
{
    VL_TRY(vl_tensor_new(out, device, dtype, 1, n, err));
    *out = vl_tensor_1d(out->data, dtype, n);
    return VL_OK;
}

vl_status vl_feeder_new(vl_feeder *out, vl_cache *cache, vl_device *device, int64_t capacity, bool background,
                        vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    vl_status status = VL_OK;
    size_t n = (size_t)capacity;
    *out = (vl_feeder){.cache = cache,
                       .device = device,
                       .d_model = info->d_model,
                       .capacity = capacity,
                       .dtype = info->dtype,
                       .shuffled_state = -1};
    out->pieces = vl_alloc(n, sizeof *out->pieces);
    out->weight = vl_alloc(n, sizeof *out->weight);
    out->target = vl_alloc(n, sizeof *out->target);
    out->token_class = vl_alloc(n, 1);
    out->next_pieces = vl_alloc(n, sizeof *out->next_pieces);
    if (!out->pieces || !out->weight || !out->target || !out->token_class || !out->next_pieces)
        VL_GOTO(vl_fail_nomem(err, "tile of states"));
    VL_GOTO(vl_reader_new(&out->reader, cache, capacity, background, err));
    if (info->dtype != VL_F32)
        VL_GOTO(vl_tensor_new(&out->stored, device, info->dtype, capacity, info->d_model, err));
    VL_GOTO(vl_tensor_new(&out->wide, device, VL_F32, capacity, info->d_model, err));
    VL_GOTO(new_vector(&out->row_weight, device, VL_F32, capacity, err));
    VL_GOTO(new_vector(&out->targets, device, VL_I32, capacity, err));
done:
    if (status != VL_OK)
        vl_feeder_clear(out);
    return status;
}

void vl_feeder_clear(vl_feeder *f)
{
    if (!f->device)
        return;
    vl_reader_free(f->reader);
    vl_device_free(f->device, f->stored.data);
    vl_device_free(f->device, f->wide.data);
    vl_device_free(f->device, f->row_weight.data);
    vl_device_free(f->device, f->targets.data);
    vl_free(f->pieces);
    vl_free(f->weight);
    vl_free(f->target);
    vl_free(f->token_class);
    vl_free(f->next_pieces);
    *f = (vl_feeder){.cache = NULL};
}

vl_tensor vl_feeder_row_weight(const vl_feeder *f)
{
    return vl_tensor_1d(f->row_weight.data, VL_F32, f->rows);
}

vl_tensor vl_feeder_targets(const vl_feeder *f)
{
    return vl_tensor_1d(f->targets.data, VL_I32, f->rows);
}

vl_status vl_feeder_next(vl_feeder *f, vl_sampler *sampler, int64_t rows, double scale, vl_error *err)
{
    const vl_cache_tokens *tokens = vl_cache_get_tokens(f->cache);
    if (f->notice)
        VL_TRY(vl_notice_poll(f->notice, err));
    f->sampler = sampler;
    f->asked = rows < f->capacity ? rows : f->capacity;
    f->first_state = VL_FEEDER_NOTHING;
    f->n_pieces = vl_sampler_take(sampler, f->pieces, f->asked);
    f->rows = 0;
    for (int64_t p = 0; p < f->n_pieces; p++) {
        for (int64_t k = 0; k < f->pieces[p].n; k++, f->rows++) {
            int64_t row = f->pieces[p].first + k;
            f->token_class[f->rows] = tokens->token_class[row];
            f->weight[f->rows] = (float)(scale * sampler->part->weight[tokens->token_class[row]]);
            f->target[f->rows] = tokens->next_id[row];
        }
    }
    if (f->rows == 0)
        return VL_OK;
    vl_tensor weight = vl_feeder_row_weight(f), targets = vl_feeder_targets(f);
    VL_TRY(vl_device_write(f->device, &weight, f->weight, err));
    return vl_device_write(f->device, &targets, f->target, err);
}

/* The row of each is needed at most once, so it is looked up through the pieces. */
int64_t vl_feeder_cache_row(const vl_feeder *f, int64_t row)
{
    int64_t p = 0;
    for (; row >= f->pieces[p].n; p++)
        row -= f->pieces[p].n;
    return f->pieces[p].first + row;
}

/* The second half before the first: every row (but the last of an odd number) gets the target of another one, the same
 * one for all layers. */
static void turn_rows(const vl_feeder *f, unsigned char *low)
{
    size_t half = (size_t)(f->rows / 2) * (size_t)f->d_model * vl_dtype_size(f->dtype);
    unsigned char *high = low + half;
    for (size_t i = 0; i < half; i++) {
        unsigned char byte = low[i];
        low[i] = high[i];
        high[i] = byte;
    }
}

static void read_ahead(vl_feeder *f, int64_t next)
{
    vl_reading_order order = {f->pieces, f->n_pieces, next};
    if (next == VL_FEEDER_NEXT_TILE)
        order =
            (vl_reading_order){f->next_pieces, vl_sampler_peek(f->sampler, f->next_pieces, f->asked), f->first_state};
    if (next != VL_FEEDER_NOTHING)
        vl_reader_ask(f->reader, &order);
}

vl_status vl_feeder_read(const void **rows, vl_feeder *f, int64_t state, int64_t next, vl_error *err)
{
    if (f->first_state == VL_FEEDER_NOTHING)
        f->first_state = state;
    void *taken;
    VL_TRY(vl_reader_take(&taken, f->reader, &(vl_reading_order){f->pieces, f->n_pieces, state}, err));
    if (state == f->shuffled_state)
        turn_rows(f, taken);
    *rows = taken;
    read_ahead(f, next);
    return VL_OK;
}

vl_status vl_feeder_load(vl_tensor *out, vl_feeder *f, int64_t state, int64_t next, vl_error *err)
{
    const void *rows;
    *out = vl_tensor_rows(f->wide, 0, f->rows);
    VL_TRY(vl_feeder_read(&rows, f, state, next, err));
    if (f->dtype == VL_F32)
        return vl_device_write(f->device, out, rows, err);
    vl_tensor stored = vl_tensor_rows(f->stored, 0, f->rows);
    VL_TRY(vl_device_write(f->device, &stored, rows, err));
    return vl_op_cast(f->device, &(vl_cast_args){.out = *out, .x = stored}, err);
}
