#include "trainer/fit/feeder.h"

#include "trainer/base/mem.h"

static vl_status new_vector(vl_tensor *out, vl_device *device, vl_dtype dtype, int64_t n, vl_error *err)
{
    VL_TRY(vl_tensor_new(out, device, dtype, 1, n, err));
    *out = vl_tensor_1d(out->data, dtype, n);
    return VL_OK;
}

vl_status vl_feeder_new(vl_feeder *out, vl_cache *cache, vl_device *device, int64_t capacity, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    vl_status status = VL_OK;
    size_t n = (size_t)capacity, values;
    *out = (vl_feeder){.cache = cache,
                       .device = device,
                       .d_model = info->d_model,
                       .capacity = capacity,
                       .dtype = info->dtype,
                       .shuffled_state = -1};
    if (!vl_mul_size(&values, n, (size_t)info->d_model))
        return vl_fail_nomem(err, "tile of states");
    out->pieces = vl_alloc(n, sizeof *out->pieces);
    out->weight = vl_alloc(n, sizeof *out->weight);
    out->target = vl_alloc(n, sizeof *out->target);
    out->token_class = vl_alloc(n, 1);
    out->host = vl_alloc_aligned(values, vl_dtype_size(info->dtype));
    if (!out->pieces || !out->weight || !out->target || !out->token_class || !out->host)
        VL_GOTO(vl_fail_nomem(err, "tile of states"));
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
    vl_device_free(f->device, f->stored.data);
    vl_device_free(f->device, f->wide.data);
    vl_device_free(f->device, f->row_weight.data);
    vl_device_free(f->device, f->targets.data);
    vl_free(f->pieces);
    vl_free(f->weight);
    vl_free(f->target);
    vl_free(f->token_class);
    vl_free(f->host);
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
    f->n_pieces = vl_sampler_take(sampler, f->pieces, rows < f->capacity ? rows : f->capacity);
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
static void turn_rows(vl_feeder *f, size_t row_bytes)
{
    unsigned char *low = f->host, *high = low + (size_t)(f->rows / 2) * row_bytes;
    for (size_t i = 0; i < (size_t)(f->rows / 2) * row_bytes; i++) {
        unsigned char byte = low[i];
        low[i] = high[i];
        high[i] = byte;
    }
}

vl_status vl_feeder_read(vl_feeder *f, int64_t state, vl_error *err)
{
    char *to = f->host;
    size_t row_bytes = (size_t)f->d_model * vl_dtype_size(f->dtype);
    for (int64_t p = 0; p < f->n_pieces; p++) {
        VL_TRY(vl_cache_read(to, f->cache, state, f->pieces[p].first, f->pieces[p].n, err));
        to += (size_t)f->pieces[p].n * row_bytes;
    }
    if (state == f->shuffled_state)
        turn_rows(f, row_bytes);
    return VL_OK;
}

vl_status vl_feeder_load(vl_tensor *out, vl_feeder *f, int64_t state, vl_error *err)
{
    *out = vl_tensor_rows(f->wide, 0, f->rows);
    VL_TRY(vl_feeder_read(f, state, err));
    if (f->dtype == VL_F32)
        return vl_device_write(f->device, out, f->host, err);
    vl_tensor stored = vl_tensor_rows(f->stored, 0, f->rows);
    VL_TRY(vl_device_write(f->device, &stored, f->host, err));
    return vl_op_cast(f->device, &(vl_cast_args){.out = *out, .x = stored}, err);
}
