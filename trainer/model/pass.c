#include "trainer/model/pass.h"

#include <stdio.h>

#include "trainer/base/mem.h"
#include "trainer/model/buffers.h"
#include "trainer/model/deep.h"
#include "trainer/model/rope.h"
#include "trainer/model/sequence.h"

/* Gate and up of this many rows are held at a time: beyond it the products gain nothing from more rows. */
enum { MLP_ROWS = 3072 };

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static vl_status allocate(vl_pass *pass, vl_error *err)
{
    const vl_decoder_spec *spec = pass->spec;
    int64_t rows = pass->capacity, key_width = (int64_t)spec->n_kv_heads * spec->head_dim;
    int64_t wide = max_i64(spec->hidden_size, (int64_t)spec->n_heads * spec->head_dim);
    wide = max_i64(wide, spec->embed_width);
    int64_t key_rows = pass->cache ? 0 : rows; /* a cache takes the keys and values itself */
    vl_buffer_request requests[9 + 2 * VL_MAX_ROPES] = {
        {&pass->x_data, rows, spec->hidden_size}, /* residual stream */
        {&pass->wide_a, rows, wide},              /* normed rows, then the heads' output */
        {&pass->wide_b, rows, wide},              /* queries, then the branch that is added to x */
        {&pass->k_data, key_rows, key_width},
        {&pass->v_data, key_rows, key_width},
        {&pass->gate_data, pass->chunk_rows, spec->intermediate_size},
        {&pass->up_data, pass->chunk_rows, spec->intermediate_size},
        {&pass->ids_data, rows, 1},
        {&pass->ends_data, spec->pictures_see_themselves ? rows : 0, 1},
    };
    int n = 9;
    for (int i = 0; i < spec->n_ropes; i++) {
        requests[n++] = (vl_buffer_request){&pass->cos_data[i], rows, spec->ropes[i].columns / 2};
        requests[n++] = (vl_buffer_request){&pass->sin_data[i], rows, spec->ropes[i].columns / 2};
    }
    return vl_buffers_alloc(&pass->memory, pass->device, requests, n, err);
}

/* ---- positions --------------------------------------------------------------------------------------------- */

static void fill_positions(int32_t (*out)[3], const vl_sequence *sequence, const vl_span *span)
{
    int64_t next = vl_sequence_next_position(sequence);
    for (int64_t i = 0; i < span->n; i++) {
        int64_t row = span->kv_row + i, behind = row - sequence->n_tokens;
        for (int axis = 0; axis < 3; axis++)
            out[i][axis] = behind < 0 ? sequence->position[row][axis] : (int32_t)(next + behind);
    }
}

static int64_t largest_position(int32_t (*positions)[3], int64_t n)
{
    int64_t largest = 0;
    for (int64_t i = 0; i < n; i++)
        for (int axis = 0; axis < 3; axis++)
            largest = max_i64(largest, positions[i][axis]);
    return largest;
}

/* Fills pass->positions and the tables of all ropes for the spans as they are. */
static vl_status rotate(vl_pass *pass, vl_error *err)
{
    const vl_decoder_spec *spec = pass->spec;
    vl_status status = VL_OK;
    int64_t half = 0;
    for (int i = 0; i < spec->n_ropes; i++)
        half = max_i64(half, spec->ropes[i].columns / 2);
    size_t table = (size_t)pass->n_rows * (size_t)half;
    for (int i = 0; i < pass->n_sequences; i++)
        fill_positions(pass->positions + pass->spans[i].first, pass->sequences[i], &pass->spans[i]);
    float *tables = vl_alloc(2 * table + (size_t)half + 1, sizeof *tables); /* cosines, sines, frequencies */
    if (!tables)
        return vl_fail_nomem(err, "rotary tables");
    for (int r = 0; r < spec->n_ropes; r++) {
        int64_t width = spec->ropes[r].columns / 2;
        for (int i = 0; i < pass->n_sequences; i++) {
            const vl_span *span = &pass->spans[i];
            const vl_rope_rows rows = {(const int32_t(*)[3])(pass->positions + span->first), span->n,
                                       largest_position(pass->positions + span->first, span->n) + 1};
            vl_rope_table(tables + span->first * width, tables + table + span->first * width, tables + 2 * table,
                          &spec->ropes[r], &rows);
        }
        vl_tensor cosines = vl_pass_view(pass, pass->cos_data[r], width);
        vl_tensor sines = vl_pass_view(pass, pass->sin_data[r], width);
        VL_GOTO(vl_device_write(pass->device, &cosines, tables, err));
        VL_GOTO(vl_device_write(pass->device, &sines, tables + table, err));
    }
done:
    vl_free(tables);
    return status;
}

/* ---- who sees whom ----------------------------------------------------------------------------------------- */

bool vl_pass_has_pictures(const vl_pass *pass)
{
    for (int i = 0; i < pass->n_sequences; i++) {
        const vl_span *span = &pass->spans[i];
        for (int64_t t = span->kv_row; t < span->kv_row + span->n && t < pass->sequences[i]->n_tokens; t++)
            if (pass->sequences[i]->image[t] >= 0)
                return true;
    }
    return false;
}

/* A row of a picture sees up to the end of its run of picture rows, the others up to themselves: Gemma 3's
 * get_block_sequence_ids_for_mask. */
static void fill_ends(int32_t *out, const vl_sequence *sequence, const vl_span *span)
{
    int64_t end = span->kv_row + span->n;
    for (int64_t i = span->n - 1; i >= 0; i--) {
        const int64_t t = span->kv_row + i;
        const bool picture = t < sequence->n_tokens && sequence->image[t] >= 0;
        const bool joined =
            picture && t + 1 < span->kv_row + span->n && t + 1 < sequence->n_tokens && sequence->image[t + 1] >= 0;
        if (!joined)
            end = t + 1;
        out[i] = (int32_t)end;
    }
}

static vl_status write_ends(vl_pass *pass, vl_error *err)
{
    if (!pass->spec->pictures_see_themselves || !vl_pass_has_pictures(pass))
        return VL_OK;
    int32_t *ends = vl_alloc((size_t)pass->n_rows, sizeof *ends); /* [M] */
    if (!ends)
        return vl_fail_nomem(err, "rows of pictures");
    for (int i = 0; i < pass->n_sequences; i++)
        fill_ends(ends + pass->spans[i].first, pass->sequences[i], &pass->spans[i]);
    const vl_tensor out = vl_tensor_1d(pass->ends_data, VL_I32, pass->n_rows);
    vl_status status = vl_device_write(pass->device, &out, ends, err);
    vl_free(ends);
    return status;
}

vl_status vl_pass_init(vl_pass *out, const vl_pass_args *args, vl_error *err)
{
    *out = (vl_pass){.device = args->device,
                     .spec = args->spec,
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
    out->positions = vl_alloc((size_t)out->n_rows, sizeof *out->positions);
    if (!out->positions)
        return vl_fail_nomem(err, "positions");
    VL_TRY(allocate(out, err));
    VL_TRY(write_ends(out, err));
    return rotate(out, err);
}

void vl_pass_free(vl_pass *pass)
{
    if (pass->device)
        vl_device_free(pass->device, pass->memory);
    vl_deep_free(pass->deep);
    vl_free(pass->spans);
    vl_free(pass->positions);
    *pass = (vl_pass){0};
}

vl_status vl_pass_move(vl_pass *pass, int64_t kv_row, int64_t n, vl_error *err)
{
    pass->spans[0] = (vl_span){0, n, kv_row};
    pass->n_rows = n;
    return rotate(pass, err);
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

vl_status vl_kv_cache_init(vl_kv_cache *out, vl_device *device, const vl_decoder_spec *spec, int64_t capacity,
                           vl_error *err)
{
    *out = (vl_kv_cache){.n_layers = spec->n_layers, .capacity = capacity};
    out->k = vl_calloc((size_t)spec->n_layers, sizeof *out->k);
    out->v = vl_calloc((size_t)spec->n_layers, sizeof *out->v);
    if (!out->k || !out->v)
        return vl_fail_nomem(err, "the key and value cache");
    int64_t width = (int64_t)spec->n_kv_heads * spec->head_dim;
    for (int i = 0; i < spec->n_layers; i++) {
        if (spec->layers[i].kind == VL_BLOCK_CROSS) /* its keys come from the picture, not from the tokens */
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
