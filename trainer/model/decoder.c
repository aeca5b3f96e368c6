#include "trainer/model/decoder.h"

#include "trainer/base/mem.h"
#include "trainer/model/cross.h"

/* ---- state 0 ----------------------------------------------------------------------------------------------- */

/* out [M, columns] = rows `ids` of a table. */
static vl_status gather(const vl_pass *pass, vl_tensor out, const vl_matrix *table, const int32_t *ids, double scale,
                        vl_error *err)
{
    vl_tensor device_ids = vl_tensor_1d(pass->ids_data, VL_I32, pass->n_rows);
    VL_TRY(vl_device_write(pass->device, &device_ids, ids, err));
    vl_embed_args args = {.out = out, .table = table, .ids = device_ids, .scale = (float)scale};
    return vl_op_embed(pass->device, &args, err);
}

/* x = x + rows of the table of learned positions. */
static vl_status add_positions(const vl_decoder *decoder, vl_pass *pass, vl_error *err)
{
    const vl_decoder_spec *spec = decoder->spec;
    vl_status status = VL_OK;
    vl_tensor x = vl_pass_x(pass), rows = vl_pass_view(pass, pass->wide_a, spec->hidden_size);
    int32_t *ids = vl_alloc((size_t)pass->n_rows, sizeof *ids); /* [M] */
    if (!ids)
        return vl_fail_nomem(err, "positions");
    for (int64_t t = 0; t < pass->n_rows; t++) {
        int64_t row = (int64_t)pass->positions[t][0] + spec->position_offset;
        if (row < 0 || row >= spec->position_rows)
            VL_GOTO(vl_fail(err, VL_EINVAL, "position %d, but the model has learned %d of them",
                            (int)pass->positions[t][0], spec->position_rows - spec->position_offset));
        ids[t] = (int32_t)row;
    }
    VL_GOTO(gather(pass, rows, decoder->positions, ids, 1, err));
    VL_GOTO(vl_op_add(pass->device, &(vl_add_args){.out = x, .x = x, .y = rows, .scale = 1}, err));
done:
    vl_free(ids);
    return status;
}

vl_status vl_decoder_embed(const vl_decoder *decoder, vl_pass *pass, const int32_t *ids, vl_error *err)
{
    const vl_decoder_spec *spec = decoder->spec;
    for (int64_t t = 0; t < pass->n_rows; t++)
        if (ids[t] < 0 || ids[t] >= spec->embed_rows)
            return vl_fail(err, VL_EINVAL, "token id %d is outside the embedding table of %d rows", (int)ids[t],
                           spec->embed_rows);
    double scale = spec->embed_scale != 0 ? spec->embed_scale : 1;
    if (decoder->project_in.weight) {
        vl_tensor narrow = vl_pass_view(pass, pass->wide_a, spec->embed_width);
        VL_TRY(gather(pass, narrow, decoder->embed, ids, scale, err));
        VL_TRY(vl_linear_apply(pass->device, &decoder->project_in, vl_pass_x(pass), narrow, err));
    } else {
        VL_TRY(gather(pass, vl_pass_x(pass), decoder->embed, ids, scale, err));
    }
    return decoder->positions ? add_positions(decoder, pass, err) : VL_OK;
}

/* ---- attention --------------------------------------------------------------------------------------------- */

/* Where this layer's new keys (or values) go: into the cache behind those of earlier rows, or into scratch. */
static vl_tensor new_keys(const vl_pass *pass, void *scratch, const vl_tensor *cached)
{
    if (cached)
        return vl_tensor_rows(*cached, pass->spans[0].kv_row, pass->n_rows);
    return vl_pass_view(pass, scratch, (int64_t)pass->spec->n_kv_heads * pass->spec->head_dim);
}

/* The queries [M, H*E], and the keys and values that they may see. */
typedef struct heads {
    vl_tensor out, q, k, v;
} heads;

/* wide_a [M, H*E] = attention of wide_b, causal inside each sequence. */
static vl_status attend(const vl_pass *pass, const heads *all, int layer, vl_error *err)
{
    const vl_decoder_spec *spec = pass->spec;
    vl_attention_args args = {.n_heads = spec->n_heads,
                              .n_kv_heads = spec->n_kv_heads,
                              .scale = (float)spec->layers[layer].attention_scale,
                              .softcap = (float)spec->attention_softcap,
                              .window = spec->layers[layer].window,
                              .causal = true};
    const bool pictures = spec->pictures_see_themselves && vl_pass_has_pictures(pass);
    for (int i = 0; i < pass->n_sequences; i++) {
        const vl_span *span = &pass->spans[i];
        int64_t first_key = pass->cache ? 0 : span->first;
        int64_t n_keys = span->kv_row + span->n;
        args.out = vl_tensor_rows(all->out, span->first, span->n);
        args.q = vl_tensor_rows(all->q, span->first, span->n);
        args.k = vl_tensor_rows(all->k, first_key, n_keys);
        args.v = vl_tensor_rows(all->v, first_key, n_keys);
        args.causal_offset = span->kv_row;
        if (pictures)
            args.ends = vl_tensor_1d((int32_t *)pass->ends_data + span->first, VL_I32, span->n);
        VL_TRY(vl_op_attention(pass->device, &args, err));
    }
    return VL_OK;
}

static vl_status rotate(const vl_pass *pass, vl_tensor x, int n_heads, int layer, vl_error *err)
{
    int rope = pass->spec->layers[layer].rope;
    if (rope < 0)
        return VL_OK;
    int64_t half = pass->spec->ropes[rope].columns / 2;
    vl_rope_args args = {.x = x,
                         .cos = vl_pass_view(pass, pass->cos_data[rope], half),
                         .sin = vl_pass_view(pass, pass->sin_data[rope], half),
                         .n_heads = n_heads};
    return vl_op_rope(pass->device, &args, err);
}

static vl_status norm_if_any(const vl_pass *pass, const vl_norm *norm, vl_tensor x, vl_error *err)
{
    return norm->weight.data ? vl_norm_apply(pass->device, norm, x, x, err) : VL_OK;
}

/* wide_b [M, D] = o(attention(q, k, v of `in`)). `in` is wide_a or x. */
static vl_status self_attention(const vl_block *block, vl_pass *pass, vl_tensor in, int layer, vl_error *err)
{
    const vl_decoder_spec *spec = pass->spec;
    vl_device *device = pass->device;
    int64_t d = spec->hidden_size, query_width = (int64_t)spec->n_heads * spec->head_dim;
    vl_tensor q = vl_pass_view(pass, pass->wide_b, query_width);
    vl_tensor k = new_keys(pass, pass->k_data, pass->cache ? &pass->cache->k[layer] : NULL);
    vl_tensor v = new_keys(pass, pass->v_data, pass->cache ? &pass->cache->v[layer] : NULL);
    VL_TRY(vl_linear_apply(device, &block->q, q, in, err));
    VL_TRY(vl_linear_apply(device, &block->k, k, in, err));
    VL_TRY(vl_linear_apply(device, &block->v, v, in, err));
    VL_TRY(norm_if_any(pass, &block->q_norm, q, err));
    VL_TRY(norm_if_any(pass, &block->k_norm, k, err));
    VL_TRY(rotate(pass, q, spec->n_heads, layer, err));
    VL_TRY(rotate(pass, k, spec->n_kv_heads, layer, err));
    heads all = {vl_pass_view(pass, pass->wide_a, query_width), q, k, v};
    if (pass->cache) {
        all.k = pass->cache->k[layer];
        all.v = pass->cache->v[layer];
    }
    VL_TRY(attend(pass, &all, layer, err));
    return vl_linear_apply(device, &block->o, vl_pass_view(pass, pass->wide_b, d), all.out, err);
}

/* ---- MLP --------------------------------------------------------------------------------------------------- */

/* `in` is wide_a, or x where nothing is normed before. */
static vl_status run_mlp(const vl_mlp *mlp, const vl_pass *pass, vl_tensor in, vl_error *err)
{
    const vl_decoder_spec *spec = pass->spec;
    vl_tensor out = vl_pass_view(pass, pass->wide_b, spec->hidden_size);
    for (int64_t first = 0; first < pass->n_rows; first += pass->chunk_rows) {
        int64_t n = pass->n_rows - first < pass->chunk_rows ? pass->n_rows - first : pass->chunk_rows;
        vl_tensor rows = vl_tensor_rows(in, first, n);
        vl_tensor gate = vl_tensor_2d(pass->gate_data, VL_F32, n, spec->intermediate_size);
        vl_tensor up = vl_tensor_2d(pass->up_data, VL_F32, n, spec->intermediate_size);
        vl_activation_args act = {.out = gate, .x = gate, .up = up, .kind = spec->hidden_act};
        if (mlp->gate.weight)
            VL_TRY(vl_linear_apply(pass->device, &mlp->gate, gate, rows, err));
        else
            act = (vl_activation_args){.out = gate, .x = up, .kind = spec->hidden_act};
        VL_TRY(vl_linear_apply(pass->device, &mlp->up, up, rows, err));
        VL_TRY(vl_op_activation(pass->device, &act, err));
        VL_TRY(vl_linear_apply(pass->device, &mlp->down, vl_tensor_rows(out, first, n), gate, err));
    }
    return VL_OK;
}

vl_status vl_mlp_run(const vl_mlp *mlp, const vl_pass *pass, vl_error *err)
{
    return run_mlp(mlp, pass, vl_pass_view(pass, pass->wide_a, pass->spec->hidden_size), err);
}

/* ---- the block --------------------------------------------------------------------------------------------- */

/* x = x + wide_b, normed behind the branch or behind the sum where the spec says so. */
static vl_status add_branch(const vl_pass *pass, const vl_norm *after, const vl_norm *sum, vl_error *err)
{
    const vl_decoder_spec *spec = pass->spec;
    vl_tensor x = vl_pass_x(pass), y = vl_pass_view(pass, pass->wide_b, spec->hidden_size);
    float scale = spec->residual_scale != 0 ? (float)spec->residual_scale : 1;
    VL_TRY(norm_if_any(pass, after, y, err));
    VL_TRY(vl_op_add(pass->device, &(vl_add_args){.out = x, .x = x, .y = y, .scale = scale}, err));
    return spec->norm_sum ? norm_if_any(pass, sum, x, err) : VL_OK;
}

/* What a branch reads: wide_a = norm of x, or x itself. */
static vl_status branch_input(vl_tensor *out, const vl_pass *pass, const vl_norm *norm, vl_error *err)
{
    *out = vl_pass_x(pass);
    if (!pass->spec->norm_before)
        return VL_OK;
    *out = vl_pass_view(pass, pass->wide_a, pass->spec->hidden_size);
    return vl_norm_apply(pass->device, norm, *out, vl_pass_x(pass), err);
}

static vl_status show(const vl_pass *pass, const char *stage, int layer, vl_error *err)
{
    return vl_pass_stage(pass, stage, layer, vl_pass_view(pass, pass->wide_b, pass->spec->hidden_size), err);
}

static vl_status self_block(const vl_block *block, vl_pass *pass, int layer, vl_error *err)
{
    const vl_norm *mlp_norm = block->mlp_norm.weight.data ? &block->mlp_norm : &block->attention_norm;
    vl_tensor in;
    VL_TRY(branch_input(&in, pass, &block->attention_norm, err));
    VL_TRY(self_attention(block, pass, in, layer, err));
    VL_TRY(show(pass, "attention", layer, err));
    if (pass->spec->parallel) /* wide_a is free again; x is still that of before */
        VL_TRY(branch_input(&in, pass, mlp_norm, err));
    VL_TRY(add_branch(pass, &block->attention_after_norm, &block->attention_norm, err));
    if (!pass->spec->parallel)
        VL_TRY(branch_input(&in, pass, mlp_norm, err));
    VL_TRY(run_mlp(&block->mlp, pass, in, err));
    VL_TRY(show(pass, "mlp", layer, err));
    return add_branch(pass, &block->mlp_after_norm, &block->mlp_norm, err);
}

vl_status vl_decoder_run_block(const vl_decoder *decoder, vl_pass *pass, int layer, vl_error *err)
{
    const vl_block *block = &decoder->blocks[layer];
    if (decoder->spec->layers[layer].kind == VL_BLOCK_CROSS)
        return vl_cross_block_run(block, pass, layer, err);
    return self_block(block, pass, layer, err);
}
