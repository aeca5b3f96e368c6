/* The weights of a decoder, under the names and in the layout that its spec gives. */
#include "trainer/base/mem.h"
#include "trainer/model/decoder.h"

const vl_decoder_names vl_plain_names = {
    .embed = "embed_tokens.weight",
    .norm = "norm",
    .layer = "layers.%d.",
    .attention_norm = "input_layernorm",
    .mlp_norm = "post_attention_layernorm",
    .q = "self_attn.q_proj",
    .k = "self_attn.k_proj",
    .v = "self_attn.v_proj",
    .o = "self_attn.o_proj",
    .gate = "mlp.gate_proj",
    .up = "mlp.up_proj",
    .down = "mlp.down_proj",
};

/* A linear of a block that is stored by itself, in whichever direction. */
static vl_status load_whole(vl_linear *out, const vl_scope *scope, const char *name, vl_shape shape, bool bias,
                            vl_error *err)
{
    if (!scope->loader->spec->decoder.transposed)
        return vl_load_linear(out, scope, name, shape, bias, err);
    const vl_picked_rows all = {
        .total = shape.size[0], .run = shape.size[0], .stride = shape.size[0], .transposed = true};
    return vl_load_picked(out, scope, name, shape, bias, &all, err);
}

/* q, k and v out of one stored matrix. */
static vl_status load_fused_qkv(vl_block *out, const vl_scope *scope, vl_error *err)
{
    const vl_decoder_spec *spec = &scope->loader->spec->decoder;
    const int64_t e = spec->head_dim, d = spec->hidden_size,
                  sizes[3] = {spec->n_heads * e, spec->n_kv_heads * e, spec->n_kv_heads * e};
    vl_linear *const parts[3] = {&out->q, &out->k, &out->v};
    vl_picked_rows picked = {.total = sizes[0] + sizes[1] + sizes[2], .transposed = spec->transposed};
    for (int i = 0; i < 3; i++) {
        bool heads = spec->qkv_layout == VL_QKV_HEADS;
        picked.run = heads ? e : sizes[i];
        picked.stride = heads ? 3 * e : sizes[i];
        VL_TRY(vl_load_picked(parts[i], scope, spec->names.qkv, vl_shape2(sizes[i], d), spec->qkv_bias, &picked, err));
        picked.first += picked.run;
    }
    return VL_OK;
}

static vl_status load_attention(vl_block *out, const vl_scope *scope, bool cross, vl_error *err)
{
    const vl_decoder_spec *spec = &scope->loader->spec->decoder;
    const vl_decoder_names *n = &spec->names;
    int64_t d = spec->hidden_size, query = (int64_t)spec->n_heads * spec->head_dim;
    int64_t key = (int64_t)spec->n_kv_heads * spec->head_dim;
    bool bias = spec->qkv_bias;
    if (!cross && spec->qkv_layout != VL_QKV_APART) {
        VL_TRY(load_fused_qkv(out, scope, err));
    } else {
        VL_TRY(load_whole(&out->q, scope, cross ? n->cross_q : n->q, vl_shape2(query, d), bias, err));
        VL_TRY(load_whole(&out->k, scope, cross ? n->cross_k : n->k, vl_shape2(key, d), bias, err));
        VL_TRY(load_whole(&out->v, scope, cross ? n->cross_v : n->v, vl_shape2(key, d), bias, err));
    }
    return load_whole(&out->o, scope, cross ? n->cross_o : n->o, vl_shape2(d, query), spec->o_bias, err);
}

static vl_status load_mlp(vl_mlp *out, const vl_scope *scope, vl_error *err)
{
    const vl_decoder_spec *spec = &scope->loader->spec->decoder;
    const vl_decoder_names *n = &spec->names;
    int64_t d = spec->hidden_size, f = spec->intermediate_size;
    if (spec->gate_up_fused) {
        vl_picked_rows picked = {.total = 2 * f, .run = f, .stride = f, .transposed = spec->transposed};
        VL_TRY(vl_load_picked(&out->gate, scope, n->gate_up, vl_shape2(f, d), spec->mlp_bias, &picked, err));
        picked.first = f;
        VL_TRY(vl_load_picked(&out->up, scope, n->gate_up, vl_shape2(f, d), spec->mlp_bias, &picked, err));
    } else {
        if (n->gate)
            VL_TRY(load_whole(&out->gate, scope, n->gate, vl_shape2(f, d), spec->mlp_bias, err));
        VL_TRY(load_whole(&out->up, scope, n->up, vl_shape2(f, d), spec->mlp_bias, err));
    }
    return load_whole(&out->down, scope, n->down, vl_shape2(d, f), spec->mlp_bias, err);
}

static vl_status load_norms(vl_block *out, const vl_scope *scope, vl_error *err)
{
    const vl_decoder_spec *spec = &scope->loader->spec->decoder;
    const vl_decoder_names *n = &spec->names;
    const struct {
        vl_norm *norm;
        const char *name;
        bool wanted;
    } norms[] = {
        {&out->attention_norm, n->attention_norm, spec->norm_before || spec->norm_sum},
        {&out->mlp_norm, n->mlp_norm, (spec->norm_before || spec->norm_sum) && n->mlp_norm},
        {&out->attention_after_norm, n->attention_after_norm, spec->norm_after},
        {&out->mlp_after_norm, n->mlp_after_norm, spec->norm_after},
    };
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        if (norms[i].wanted)
            VL_TRY(vl_load_norm(norms[i].norm, scope, norms[i].name, spec->hidden_size, spec->norm_form, spec->norm_eps,
                                err));
    return VL_OK;
}

/* A cross block norms its heads whatever the other blocks do (MllamaTextCrossAttention). */
static vl_status load_qk_norms(vl_block *out, const vl_scope *scope, bool cross, vl_error *err)
{
    const vl_decoder_spec *spec = &scope->loader->spec->decoder;
    const vl_decoder_names *n = &spec->names;
    if (!cross && spec->qk_norm == VL_QK_PLAIN)
        return VL_OK;
    bool width = !cross && spec->qk_norm == VL_QK_WIDTH;
    int64_t q = (width ? spec->n_heads : 1) * (int64_t)spec->head_dim;
    int64_t k = (width ? spec->n_kv_heads : 1) * (int64_t)spec->head_dim;
    VL_TRY(vl_load_norm(&out->q_norm, scope, cross ? n->cross_q_norm : n->q_norm, q, spec->norm_form, spec->norm_eps,
                        err));
    return vl_load_norm(&out->k_norm, scope, cross ? n->cross_k_norm : n->k_norm, k, spec->norm_form, spec->norm_eps,
                        err);
}

static vl_status load_block(vl_block *out, vl_loader *loader, int layer, vl_error *err)
{
    const vl_decoder_spec *spec = &loader->spec->decoder;
    bool cross = spec->layers[layer].kind == VL_BLOCK_CROSS;
    vl_scope scope = vl_scope_layer(loader, VL_PART_TEXT, spec->names.layer, layer);
    VL_TRY(load_norms(out, &scope, err));
    VL_TRY(load_attention(out, &scope, cross, err));
    VL_TRY(load_qk_norms(out, &scope, cross, err));
    if (cross) {
        VL_TRY(vl_load_gate(&out->attention_gate, &scope, spec->names.attention_gate, err));
        VL_TRY(vl_load_gate(&out->mlp_gate, &scope, spec->names.mlp_gate, err));
    }
    return load_mlp(&out->mlp, &scope, err);
}

vl_status vl_decoder_load(vl_decoder *out, vl_loader *loader, vl_error *err)
{
    const vl_decoder_spec *spec = &loader->spec->decoder;
    int64_t d = spec->hidden_size, p = spec->embed_width ? spec->embed_width : d;
    *out = (vl_decoder){.spec = spec};
    out->blocks = vl_calloc((size_t)spec->n_layers, sizeof *out->blocks);
    if (!out->blocks)
        return vl_fail_nomem(err, "text decoder");
    vl_scope top = vl_scope_make(loader, VL_PART_TEXT, "%s", "");
    VL_TRY(vl_load_matrix(&out->embed, &top, spec->names.embed, vl_shape2(spec->embed_rows, p), err));
    if (spec->position_rows)
        VL_TRY(vl_load_matrix(&out->positions, &top, spec->names.positions, vl_shape2(spec->position_rows, d), err));
    if (p != d)
        VL_TRY(vl_load_linear(&out->project_in, &top, spec->names.project_in, vl_shape2(d, p), false, err));
    for (int i = 0; i < spec->n_layers; i++)
        VL_TRY(load_block(&out->blocks[i], loader, i, err));
    return VL_OK;
}

static void free_block(vl_block *block, vl_device *device)
{
    vl_norm *const norms[] = {&block->attention_norm, &block->mlp_norm, &block->attention_after_norm,
                              &block->mlp_after_norm, &block->q_norm,   &block->k_norm};
    vl_linear *const linears[] = {&block->q,        &block->k,      &block->v,       &block->o,
                                  &block->mlp.gate, &block->mlp.up, &block->mlp.down};
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        vl_norm_free(device, norms[i]);
    for (size_t i = 0; i < sizeof linears / sizeof *linears; i++)
        vl_linear_free(device, linears[i]);
}

void vl_decoder_free(vl_decoder *decoder, vl_device *device)
{
    for (int i = 0; decoder->blocks && i < decoder->spec->n_layers; i++)
        free_block(&decoder->blocks[i], device);
    vl_matrix_free(device, decoder->embed);
    vl_matrix_free(device, decoder->positions);
    vl_linear_free(device, &decoder->project_in);
    vl_free(decoder->blocks);
    *decoder = (vl_decoder){0};
}

void vl_decoder_prefetch(const vl_decoder *decoder, int layer)
{
    const vl_block *block = &decoder->blocks[layer];
    const vl_linear *const linears[] = {&block->q,        &block->k,      &block->v,       &block->o,
                                        &block->mlp.gate, &block->mlp.up, &block->mlp.down};
    for (size_t i = 0; i < sizeof linears / sizeof *linears; i++)
        vl_linear_prefetch(linears[i]);
}
