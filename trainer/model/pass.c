#include "trainer/model/pass.h"

#include <stdio.h>

#include "trainer/base/mem.h"
#include "trainer/model/rope.h"
#include "trainer/model/buffers.h"

/* Gate and up of this many rows are held at a time: beyond it the products gain nothing from more rows. */
enum { MLP_ROWS = 3072 };

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static vl_status allocate(vl_pass *pass, vl_error *err)
{
    const vl_text_config *text = pass->text;
    int64_t rows = pass->capacity, half = text->head_dim / 2;
    int64_t key_width = (int64_t)text->n_kv_heads * text->head_dim;
    int64_t wide = max_i64(text->hidden_size, (int64_t)text->n_heads * text->head_dim);
    int64_t key_rows = pass->cache ? 0 : rows; /* a cache takes the keys and values itself */
    const vl_buffer_request requests[] = {
        {&pass->x_data, rows, text->hidden_size}, /* residual stream */
        {&pass->wide_a, rows, wide},              /* normed rows, then the heads' output */
        {&pass->wide_b, rows, wide},              /* queries, then the branch that is added to x */
        {&pass->k_data, key_rows, key_width},
        {&pass->v_data, key_rows, key_width},
        {&pass->gate_data, pass->chunk_rows, text->intermediate_size},
        {&pass->up_data, pass->chunk_rows, text->intermediate_size},
        {&pass->cos_data, rows, half},
        {&pass->sin_data, rows, half},
        {&pass->ids_data, rows, 1},
    };
    return vl_buffers_alloc(&pass->memory, pass->device, requests, (int)(sizeof requests / sizeof *requests), err);
}

vl_status vl_pass_init(vl_pass *out, const vl_pass_args *args, vl_error *err)
{
    *out = (vl_pass){.device = args->device,
                     .text = args->text,
                     .sequences = args->sequences,
                     .n_sequences = args->n_sequences,
                     .cache = args->cache};
    out->spans = vl_calloc((size_t)args->n_sequences, sizeof *out->spans);
    if (!out->spans)
        return vl_fail_nomem(err, "sequences");
    for (int i = 0; i < args->n_sequences; i++) {
        out->spans[i] = (vl_span){out->n_rows, args->sequences[i]->n_tokens, 0};
        out->n_rows += args->sequences[i]->n_tokens;
    }
    out->capacity = out->n_rows;
    out->chunk_rows = out->n_rows < MLP_ROWS ? out->n_rows : MLP_ROWS;
    VL_TRY(allocate(out, err));
    return vl_pass_rotate(out, err);
}

void vl_pass_free(vl_pass *pass)
{
    if (pass->device)
        vl_device_free(pass->device, pass->memory);
    vl_free(pass->spans);
    *pass = (vl_pass){0};
}

void vl_pass_move(vl_pass *pass, int64_t position, int64_t n)
{
    pass->spans[0] = (vl_span){0, n, position};
    pass->n_rows = n;
}

vl_status vl_pass_rotate(vl_pass *pass, vl_error *err)
{
    vl_status status = VL_OK;
    int64_t half = pass->text->head_dim / 2;
    float *cosines = vl_alloc((size_t)pass->n_rows, (size_t)half * sizeof *cosines);
    float *sines = vl_alloc((size_t)pass->n_rows, (size_t)half * sizeof *sines);
    float *frequencies = vl_alloc((size_t)half, sizeof *frequencies);
    if (!cosines || !sines || !frequencies) {
        status = vl_fail_nomem(err, "rotary tables");
        goto done;
    }
    for (int i = 0; i < pass->n_sequences; i++) {
        const vl_span *span = &pass->spans[i];
        vl_rope_table(cosines + span->first * half, sines + span->first * half, frequencies, pass->text,
                      (vl_rope_range){span->position, span->n});
    }
    vl_tensor cos_view = vl_pass_view(pass, pass->cos_data, half), sin_view = vl_pass_view(pass, pass->sin_data, half);
    VL_GOTO(vl_device_write(pass->device, &cos_view, cosines, err));
    VL_GOTO(vl_device_write(pass->device, &sin_view, sines, err));
done:
    vl_free(cosines);
    vl_free(sines);
    vl_free(frequencies);
    return status;
}

vl_status vl_pass_stage(const vl_pass *pass, const char *name, int number, vl_tensor rows, vl_error *err)
{
    if (!pass->stage)
        return VL_OK;
    char full[48];
    snprintf(full, sizeof full, "%s.%02d", name, number);
    for (int i = 0; i < pass->n_sequences; i++) {
        vl_tensor part = vl_tensor_rows(rows, pass->spans[i].first, pass->spans[i].n);
        if (pass->stage(pass->user, full, i, &part) != 0)
            return vl_fail(err, VL_ECANCELLED, "the forward was stopped at %s", full);
    }
    return VL_OK;
}

vl_status vl_kv_cache_init(vl_kv_cache *out, vl_device *device, const vl_text_config *text, int64_t capacity,
                           vl_error *err)
{
    *out = (vl_kv_cache){.n_layers = text->n_layers, .capacity = capacity};
    out->k = vl_calloc((size_t)text->n_layers, sizeof *out->k);
    out->v = vl_calloc((size_t)text->n_layers, sizeof *out->v);
    if (!out->k || !out->v)
        return vl_fail_nomem(err, "the key and value cache");
    int64_t width = (int64_t)text->n_kv_heads * text->head_dim;
    for (int i = 0; i < text->n_layers; i++) {
        if (vl_text_is_cross(text, i)) /* its keys come from the picture, not from the tokens */
            continue;
        VL_TRY(vl_tensor_new(&out->k[i], device, VL_F32, capacity, width, err));
        VL_TRY(vl_tensor_new(&out->v[i], device, VL_F32, capacity, width, err));
    }
    return VL_OK;
}

void vl_kv_cache_free(vl_kv_cache *cache, vl_device *device)
{
    for (int i = 0; i < cache->n_layers; i++) {
        if (cache->k)
            vl_device_free(device, cache->k[i].data);
        if (cache->v)
            vl_device_free(device, cache->v[i].data);
    }
    vl_free(cache->k);
    vl_free(cache->v);
    *cache = (vl_kv_cache){0};
}
