/* The weights of Mllama's vision encoder. */
#include "trainer/base/mem.h"
#include "trainer/model/families/mllama/mllama.h"

/* layernorm_pre and layernorm_post are made without an eps (MllamaVisionModel.__init__), so they have torch's own and
 * not the config's norm_eps. */
static const double TORCH_LAYER_NORM_EPS = 1e-5;

static vl_status load_layer(vl_mllama_vision_layer *out, const vl_scope *scope, const vl_mllama_vision_config *config,
                            bool gated, vl_error *err)
{
    int64_t c = config->hidden_size, f = config->intermediate_size;
    double eps = config->norm_eps;
    vl_shape square = vl_shape2(c, c);
    VL_TRY(vl_load_norm(&out->norm1, scope, "input_layernorm", c, VL_FORM_LAYER, eps, err));
    VL_TRY(vl_load_norm(&out->norm2, scope, "post_attention_layernorm", c, VL_FORM_LAYER, eps, err));
    VL_TRY(vl_load_linear(&out->q, scope, "self_attn.q_proj", square, false, err));
    VL_TRY(vl_load_linear(&out->k, scope, "self_attn.k_proj", square, false, err));
    VL_TRY(vl_load_linear(&out->v, scope, "self_attn.v_proj", square, false, err));
    VL_TRY(vl_load_linear(&out->o, scope, "self_attn.o_proj", square, false, err));
    VL_TRY(vl_load_linear(&out->fc1, scope, "mlp.fc1", vl_shape2(f, c), true, err));
    VL_TRY(vl_load_linear(&out->fc2, scope, "mlp.fc2", vl_shape2(c, f), true, err));
    out->attention_gate = out->mlp_gate = 1;
    if (!gated)
        return VL_OK;
    VL_TRY(vl_load_gate(&out->attention_gate, scope, "gate_attn", err));
    return vl_load_gate(&out->mlp_gate, scope, "gate_ffn", err);
}

static vl_status load_layers(vl_mllama_vision *out, vl_loader *loader, vl_error *err)
{
    const vl_mllama_vision_config *config = out->config;
    int n_local = config->n_layers, n = n_local + config->n_global_layers;
    out->layers = vl_calloc((size_t)n, sizeof *out->layers);
    if (!out->layers)
        return vl_fail_nomem(err, "vision encoder");
    for (int i = 0; i < n; i++) {
        bool global = i >= n_local;
        vl_scope scope = vl_scope_make(loader, VL_PART_VISION, "%s.layers.%d.",
                                       global ? "global_transformer" : "transformer", global ? i - n_local : i);
        VL_TRY(load_layer(&out->layers[i], &scope, config, global, err));
    }
    return VL_OK;
}

/* The embeddings by aspect ratio. Their tables stay in the file: only a row of each is read for a picture. */
static vl_status load_positions(vl_mllama_vision *out, const vl_scope *scope, vl_error *err)
{
    const vl_mllama_vision_config *config = out->config;
    int64_t rows = config->n_ratios + 1, tiles = config->max_tiles, c = config->hidden_size, n = out->n_rows;
    VL_TRY(vl_load_matrix(&out->pre_tile, scope, "pre_tile_positional_embedding.embedding.weight",
                          vl_shape2(rows, tiles * c), err));
    VL_TRY(vl_load_gate(&out->pre_gate, scope, "pre_tile_positional_embedding.gate", err));
    VL_TRY(vl_load_matrix(&out->post_tile, scope, "post_tile_positional_embedding.embedding.weight",
                          vl_shape2(rows, tiles * c), err));
    VL_TRY(vl_load_gate(&out->post_gate, scope, "post_tile_positional_embedding.gate", err));
    VL_TRY(vl_load_table(&out->position, scope, "gated_positional_embedding.embedding", vl_shape2(n, c), err));
    VL_TRY(vl_load_matrix(&out->tile_position, scope, "gated_positional_embedding.tile_embedding.weight",
                          vl_shape2(rows, tiles * n * c), err));
    return vl_load_gate(&out->position_gate, scope, "gated_positional_embedding.gate", err);
}

vl_status vl_mllama_vision_load(vl_mllama_vision *out, vl_loader *loader, vl_error *err)
{
    const vl_mllama_vision_config *config = vl_mllama_config(loader->spec);
    int64_t c = config->hidden_size, p = config->patch_size, n = config->n_patches;
    *out = (vl_mllama_vision){.config = config, .n_rows = n, .padded_rows = (n + 7) / 8 * 8};
    vl_scope top = vl_scope_make(loader, VL_PART_VISION, "%s", "");
    VL_TRY(vl_load_matrix(&out->patch, &top, "patch_embedding.weight", vl_shape4(c, config->n_channels, p, p), err));
    VL_TRY(vl_load_vector(&out->class_row, &top, "class_embedding", c, err));
    out->class_row = vl_tensor_2d(out->class_row.data, VL_F32, 1, c);
    VL_TRY(load_positions(out, &top, err));
    VL_TRY(vl_load_norm(&out->pre_norm, &top, "layernorm_pre", c, VL_FORM_LAYER, TORCH_LAYER_NORM_EPS, err));
    VL_TRY(vl_load_norm(&out->post_norm, &top, "layernorm_post", c, VL_FORM_LAYER, TORCH_LAYER_NORM_EPS, err));
    return load_layers(out, loader, err);
}

static void free_layer(vl_mllama_vision_layer *layer, vl_device *device)
{
    vl_norm_free(device, &layer->norm1);
    vl_norm_free(device, &layer->norm2);
    vl_linear_free(device, &layer->q);
    vl_linear_free(device, &layer->k);
    vl_linear_free(device, &layer->v);
    vl_linear_free(device, &layer->o);
    vl_linear_free(device, &layer->fc1);
    vl_linear_free(device, &layer->fc2);
}

void vl_mllama_vision_free(vl_mllama_vision *vision, vl_device *device)
{
    const vl_mllama_vision_config *config = vision->config;
    for (int i = 0; vision->layers && i < config->n_layers + config->n_global_layers; i++)
        free_layer(&vision->layers[i], device);
    vl_free(vision->layers);
    vl_matrix_free(device, vision->patch);
    vl_device_free(device, vision->class_row.data);
    vl_device_free(device, vision->position.data);
    vl_matrix_free(device, vision->tile_position);
    vl_matrix_free(device, vision->pre_tile);
    vl_matrix_free(device, vision->post_tile);
    vl_norm_free(device, &vision->pre_norm);
    vl_norm_free(device, &vision->post_norm);
    *vision = (vl_mllama_vision){0};
}
