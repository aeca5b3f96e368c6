#include "trainer/model/llama.h"

#include <math.h>

#include "trainer/base/mem.h"

/* ---- weights ----------------------------------------------------------------------------------------------- */

vl_status vl_mlp_load(vl_mlp *out, const vl_scope *scope, const vl_text_config *text, vl_error *err)
{
    int64_t d = text->hidden_size, f = text->intermediate_size;
    VL_TRY(vl_load_linear(&out->gate, scope, "mlp.gate_proj", vl_hf_shape2(f, d), text->mlp_bias, err));
    VL_TRY(vl_load_linear(&out->up, scope, "mlp.up_proj", vl_hf_shape2(f, d), text->mlp_bias, err));
    return vl_load_linear(&out->down, scope, "mlp.down_proj", vl_hf_shape2(d, f), text->mlp_bias, err);
}

void vl_mlp_free(vl_device *device, vl_mlp *mlp)
{
    vl_linear_free(device, &mlp->gate);
    vl_linear_free(device, &mlp->up);
    vl_linear_free(device, &mlp->down);
}

void vl_mlp_expect(const vl_mlp *mlp)
{
    vl_linear_expect(&mlp->gate);
    vl_linear_expect(&mlp->up);
    vl_linear_expect(&mlp->down);
}

void vl_llama_expect(const vl_llama *llama, int layer)
{
    const vl_llama_block *block = &llama->blocks[layer];
    const vl_linear *all[] = {&block->q, &block->k, &block->v, &block->o};
    for (int i = 0; i < 4; i++)
        vl_linear_expect(all[i]);
    vl_mlp_expect(&block->mlp);
}

static vl_status load_block(vl_llama_block *out, const vl_scope *scope, const vl_text_config *text, vl_error *err)
{
    int64_t d = text->hidden_size, e = text->head_dim;
    vl_hf_shape query = vl_hf_shape2(text->n_heads * e, d), key = vl_hf_shape2(text->n_kv_heads * e, d);
    bool bias = text->attention_bias;
    VL_TRY(vl_load_vector(&out->input_norm, scope, "input_layernorm.weight", d, err));
    VL_TRY(vl_load_vector(&out->post_norm, scope, "post_attention_layernorm.weight", d, err));
    VL_TRY(vl_load_linear(&out->q, scope, "self_attn.q_proj", query, bias, err));
    VL_TRY(vl_load_linear(&out->k, scope, "self_attn.k_proj", key, bias, err));
    VL_TRY(vl_load_linear(&out->v, scope, "self_attn.v_proj", key, bias, err));
    VL_TRY(vl_load_linear(&out->o, scope, "self_attn.o_proj", vl_hf_shape2(d, text->n_heads * e), bias, err));
    return vl_mlp_load(&out->mlp, scope, text, err);
}

vl_status vl_llama_load(vl_llama *out, vl_loader *loader, vl_error *err)
{
    const vl_text_config *text = &loader->source.config->text;
    *out = (vl_llama){.config = text};
    out->blocks = vl_calloc((size_t)text->n_layers, sizeof *out->blocks);
    if (!out->blocks)
        return vl_fail_nomem(err, "text decoder");
    vl_scope top = vl_scope_make(loader, VL_HF_TEXT, "%s", "");
    VL_TRY(vl_load_matrix(&out->embed, &top, "embed_tokens.weight", vl_hf_shape2(text->embed_rows, text->hidden_size),
                          err));
    for (int i = 0; i < text->n_layers; i++) {
        if (vl_text_is_cross(text, i))
            continue;
        vl_scope scope = vl_scope_make(loader, VL_HF_TEXT, "layers.%d.", i);
        VL_TRY(load_block(&out->blocks[i], &scope, text, err));
    }
    return VL_OK;
}

void vl_llama_free(vl_llama *llama, vl_device *device)
{
    for (int i = 0; llama->blocks && i < llama->config->n_layers; i++) {
        vl_llama_block *block = &llama->blocks[i];
        vl_device_free(device, block->input_norm.data);
        vl_device_free(device, block->post_norm.data);
        vl_linear_free(device, &block->q);
        vl_linear_free(device, &block->k);
        vl_linear_free(device, &block->v);
        vl_linear_free(device, &block->o);
        vl_mlp_free(device, &block->mlp);
    }
    vl_matrix_free(device, llama->embed);
    vl_free(llama->blocks);
    *llama = (vl_llama){0};
}

/* ---- forward ----------------------------------------------------------------------------------------------- */

vl_status vl_llama_embed(const vl_llama *llama, vl_pass *pass, const int32_t *ids, vl_error *err)
{
    int rows = llama->config->embed_rows;
    for (int64_t t = 0; t < pass->n_rows; t++)
        if (ids[t] < 0 || ids[t] >= rows)
            return vl_fail(err, VL_EINVAL, "token id %d is outside the embedding table of %d rows", (int)ids[t], rows);
    vl_tensor device_ids = vl_tensor_1d(pass->ids_data, VL_I32, pass->n_rows);
    VL_TRY(vl_device_write(pass->device, &device_ids, ids, err));
    return vl_op_embed(pass->device, &(vl_embed_args){.out = vl_pass_x(pass), .table = llama->embed, .ids = device_ids},
                       err);
}

vl_status vl_rms_norm(const vl_pass *pass, vl_tensor out, vl_tensor x, vl_tensor weight, vl_error *err)
{
    return vl_op_norm(
        pass->device,
        &(vl_norm_args){.out = out, .x = x, .weight = weight, .kind = VL_NORM_RMS, .eps = pass->text->rms_eps}, err);
}

/* x = x + wide_b. */
static vl_status add_branch(const vl_pass *pass, vl_error *err)
{
    vl_tensor x = vl_pass_x(pass), y = vl_pass_view(pass, pass->wide_b, pass->text->hidden_size);
    return vl_op_add(pass->device, &(vl_add_args){.out = x, .x = x, .y = y, .scale = 1}, err);
}

/* Where this layer's new keys (or values) go: into the cache behind those of earlier rows, or into scratch. */
static vl_tensor new_keys(const vl_pass *pass, void *scratch, const vl_tensor *cached)
{
    if (cached)
        return vl_tensor_rows(*cached, pass->spans[0].position, pass->n_rows);
    return vl_pass_view(pass, scratch, (int64_t)pass->text->n_kv_heads * pass->text->head_dim);
}

/* The queries [M, H*E], and the keys and values that they may see. */
typedef struct heads {
    vl_tensor out, q, k, v;
} heads;

/* wide_a [M, H*E] = attention of wide_b, causal inside each sequence. */
static vl_status attend(const vl_pass *pass, const heads *all, vl_error *err)
{
    const vl_text_config *text = pass->text;
    vl_attention_args args = {.n_heads = text->n_heads,
                              .n_kv_heads = text->n_kv_heads,
                              .scale = (float)(1 / sqrt((double)text->head_dim)),
                              .causal = true};
    for (int i = 0; i < pass->n_sequences; i++) {
        const vl_span *span = &pass->spans[i];
        int64_t first_key = pass->cache ? 0 : span->first;
        int64_t n_keys = span->position + span->n;
        args.out = vl_tensor_rows(all->out, span->first, span->n);
        args.q = vl_tensor_rows(all->q, span->first, span->n);
        args.k = vl_tensor_rows(all->k, first_key, n_keys);
        args.v = vl_tensor_rows(all->v, first_key, n_keys);
        args.causal_offset = span->position;
        VL_TRY(vl_op_attention(pass->device, &args, err));
    }
    return VL_OK;
}

static vl_status rotate(const vl_pass *pass, vl_tensor x, int n_heads, vl_error *err)
{
    int64_t half = pass->text->head_dim / 2;
    vl_rope_args args = {.x = x,
                         .cos = vl_pass_view(pass, pass->cos_data, half),
                         .sin = vl_pass_view(pass, pass->sin_data, half),
                         .n_heads = n_heads};
    return vl_op_rope(pass->device, &args, err);
}

/* wide_b [M, D] = o(attention(q, k, v of norm(x))). */
static vl_status self_attention(const vl_llama_block *block, vl_pass *pass, int layer, vl_error *err)
{
    const vl_text_config *text = pass->text;
    vl_device *device = pass->device;
    int64_t d = text->hidden_size, query_width = (int64_t)text->n_heads * text->head_dim;
    vl_tensor normed = vl_pass_view(pass, pass->wide_a, d), q = vl_pass_view(pass, pass->wide_b, query_width);
    vl_tensor k = new_keys(pass, pass->k_data, pass->cache ? &pass->cache->k[layer] : NULL);
    vl_tensor v = new_keys(pass, pass->v_data, pass->cache ? &pass->cache->v[layer] : NULL);
    VL_TRY(vl_rms_norm(pass, normed, vl_pass_x(pass), block->input_norm, err));
    VL_TRY(vl_linear_apply(device, &block->q, q, normed, err));
    VL_TRY(vl_linear_apply(device, &block->k, k, normed, err));
    VL_TRY(vl_linear_apply(device, &block->v, v, normed, err));
    VL_TRY(rotate(pass, q, text->n_heads, err));
    VL_TRY(rotate(pass, k, text->n_kv_heads, err));
    heads all = {vl_pass_view(pass, pass->wide_a, query_width), q, k, v};
    if (pass->cache) {
        all.k = pass->cache->k[layer];
        all.v = pass->cache->v[layer];
    }
    VL_TRY(attend(pass, &all, err));
    return vl_linear_apply(device, &block->o, vl_pass_view(pass, pass->wide_b, d), all.out, err);
}

vl_status vl_mlp_run(const vl_mlp *mlp, vl_pass *pass, vl_error *err)
{
    const vl_text_config *text = pass->text;
    vl_tensor x = vl_pass_view(pass, pass->wide_a, text->hidden_size);
    vl_tensor out = vl_pass_view(pass, pass->wide_b, text->hidden_size);
    for (int64_t first = 0; first < pass->n_rows; first += pass->chunk_rows) {
        int64_t n = pass->n_rows - first < pass->chunk_rows ? pass->n_rows - first : pass->chunk_rows;
        vl_tensor rows = vl_tensor_rows(x, first, n);
        vl_tensor gate = vl_tensor_2d(pass->gate_data, VL_F32, n, text->intermediate_size);
        vl_tensor up = vl_tensor_2d(pass->up_data, VL_F32, n, text->intermediate_size);
        VL_TRY(vl_linear_apply(pass->device, &mlp->gate, gate, rows, err));
        VL_TRY(vl_linear_apply(pass->device, &mlp->up, up, rows, err));
        vl_activation_args act = {.out = gate, .x = gate, .up = up, .kind = text->hidden_act};
        VL_TRY(vl_op_activation(pass->device, &act, err));
        VL_TRY(vl_linear_apply(pass->device, &mlp->down, vl_tensor_rows(out, first, n), gate, err));
    }
    return VL_OK;
}

vl_status vl_llama_run_block(const vl_llama *llama, vl_pass *pass, int layer, vl_error *err)
{
    const vl_llama_block *block = &llama->blocks[layer];
    int64_t d = pass->text->hidden_size;
    VL_TRY(self_attention(block, pass, layer, err));
    VL_TRY(vl_pass_stage(pass, "attention", layer, vl_pass_view(pass, pass->wide_b, d), err));
    VL_TRY(add_branch(pass, err));
    VL_TRY(vl_rms_norm(pass, vl_pass_view(pass, pass->wide_a, d), vl_pass_x(pass), block->post_norm, err));
    VL_TRY(vl_mlp_run(&block->mlp, pass, err));
    VL_TRY(vl_pass_stage(pass, "mlp", layer, vl_pass_view(pass, pass->wide_b, d), err));
    return add_branch(pass, err);
}
