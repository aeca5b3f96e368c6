/* Blocks that attend to the picture: the forward. */
#include "trainer/model/cross.h"

#include <stdio.h>

/* Keys and values of all pictures, [S, K*E]. With a KV cache they are computed with the prompt and kept. */
static vl_status picture_keys(vl_tensor *k, vl_tensor *v, const vl_block *block, const vl_pass *pass, int layer,
                              vl_error *err)
{
    const vl_decoder_spec *spec = pass->spec;
    const vl_cross_context *context = pass->context;
    int64_t width = (int64_t)spec->n_kv_heads * spec->head_dim;
    int pair = pass->cache ? vl_decoder_count(spec, VL_BLOCK_CROSS, layer) : 0;
    vl_tensor states = vl_tensor_2d(context->states, VL_F32, context->n_keys, spec->hidden_size);
    *k = vl_tensor_2d(context->k[pair], VL_F32, context->n_keys, width);
    *v = vl_tensor_2d(context->v[pair], VL_F32, context->n_keys, width);
    if (pass->spans[0].kv_row > 0)
        return VL_OK;
    VL_TRY(vl_linear_apply(pass->device, &block->k, *k, states, err));
    VL_TRY(vl_norm_apply(pass->device, &block->k_norm, *k, *k, err));
    return vl_linear_apply(pass->device, &block->v, *v, states, err);
}

/* The masks' row of the first row of a span. A generated token repeats the last row of the prompt
 * (_update_model_kwargs_for_generation); generation goes one token at a time. */
static int64_t mask_row(const vl_cross_context *context, const vl_span *span)
{
    return span->kv_row > 0 ? context->n_mask_rows - 1 : span->first;
}

static vl_status show(const vl_pass *pass, const char *what, int layer, int sequence, const vl_tensor *x, vl_error *err)
{
    char name[48];
    snprintf(name, sizeof name, "%s.%02d", what, layer);
    if (pass->stage && pass->stage(pass->user, name, sequence, x) != 0)
        return vl_fail(err, VL_ECANCELLED, "the forward was stopped at %s", name);
    return VL_OK;
}

/* wide_a [M, H*E] = attention of wide_b to the pictures of each sequence; 0 where a sequence has none. */
static vl_status attend(const vl_pass *pass, int layer, vl_tensor k, vl_tensor v, vl_error *err)
{
    const vl_decoder_spec *spec = pass->spec;
    const vl_cross_context *context = pass->context;
    int64_t width = (int64_t)spec->n_heads * spec->head_dim;
    vl_attention_args args = {
        .n_heads = spec->n_heads, .n_kv_heads = spec->n_kv_heads, .scale = (float)spec->layers[layer].attention_scale};
    for (int s = 0; s < pass->n_sequences; s++) {
        const vl_span *span = &pass->spans[s], *keys = &context->spans[s];
        args.out = vl_tensor_rows(vl_pass_view(pass, pass->wide_a, width), span->first, span->n);
        if (keys->n == 0) {
            VL_TRY(vl_op_zero(pass->device, args.out, err));
            continue;
        }
        args.q = vl_tensor_rows(vl_pass_view(pass, pass->wide_b, width), span->first, span->n);
        args.k = vl_tensor_rows(k, keys->first, keys->n);
        args.v = vl_tensor_rows(v, keys->first, keys->n);
        VL_TRY(show(pass, "cross_attention.query", layer, s, &args.q, err));
        VL_TRY(show(pass, "cross_attention.key", layer, s, &args.k, err));
        args.q_mask = vl_tensor_1d((int64_t *)context->q_mask + mask_row(context, span), VL_I64, span->n);
        args.k_mask = vl_tensor_1d((int64_t *)context->k_mask + keys->first, VL_I64, keys->n);
        VL_TRY(vl_op_attention(pass->device, &args, err));
    }
    return VL_OK;
}

/* A branch of the block: what is added to x, how much of it. */
typedef struct branch {
    const char *stage;
    int layer;
    float gate;
    bool masked; /* by the row mask */
} branch;

/* x = x + gate * (row mask *) wide_b, in the sequences that have pictures: the others skip the block. */
static vl_status add_branch(const vl_pass *pass, const branch *b, vl_error *err)
{
    const vl_cross_context *context = pass->context;
    vl_tensor x = vl_pass_x(pass), y = vl_pass_view(pass, pass->wide_b, pass->spec->hidden_size);
    for (int s = 0; s < pass->n_sequences; s++) {
        const vl_span *span = &pass->spans[s];
        if (context->spans[s].n == 0)
            continue;
        vl_tensor rows = vl_tensor_rows(x, span->first, span->n), part = vl_tensor_rows(y, span->first, span->n);
        VL_TRY(show(pass, b->stage, b->layer, s, &part, err));
        vl_add_args args = {.out = rows, .x = rows, .y = part, .scale = b->gate};
        if (b->masked)
            args.row_scale = vl_tensor_1d((float *)context->row_mask + mask_row(context, span), VL_F32, span->n);
        VL_TRY(vl_op_add(pass->device, &args, err));
    }
    return VL_OK;
}

vl_status vl_cross_block_run(const vl_block *block, vl_pass *pass, int layer, vl_error *err)
{
    const vl_decoder_spec *spec = pass->spec;
    vl_device *device = pass->device;
    int64_t d = spec->hidden_size, query_width = (int64_t)spec->n_heads * spec->head_dim;
    vl_tensor a = vl_pass_view(pass, pass->wide_a, d), b = vl_pass_view(pass, pass->wide_b, d), k, v;
    vl_tensor q = vl_pass_view(pass, pass->wide_b, query_width);
    VL_TRY(vl_norm_apply(device, &block->attention_norm, a, vl_pass_x(pass), err));
    VL_TRY(vl_linear_apply(device, &block->q, q, a, err));
    VL_TRY(vl_norm_apply(device, &block->q_norm, q, q, err)); /* head by head: its weight is as wide as a head */
    VL_TRY(picture_keys(&k, &v, block, pass, layer, err));
    VL_TRY(attend(pass, layer, k, v, err));
    VL_TRY(vl_linear_apply(device, &block->o, b, vl_pass_view(pass, pass->wide_a, query_width), err));
    VL_TRY(add_branch(pass, &(branch){"attention", layer, block->attention_gate, false}, err));
    VL_TRY(vl_norm_apply(device, &block->mlp_norm, a, vl_pass_x(pass), err));
    VL_TRY(vl_mlp_run(&block->mlp, pass, err));
    /* The row mask is on this branch alone (MllamaCrossAttentionDecoderLayer.forward). Meta's own code has it on the
     * attention branch too; checkpoints are read here as transformers reads them. */
    return add_branch(pass, &(branch){"mlp", layer, block->mlp_gate, true}, err);
}
