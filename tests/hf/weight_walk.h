/* Every tensor that a family's checkpoint holds, as data: written by one test, looked up by another. */
#ifndef VL_TESTS_WEIGHT_WALK_H
#define VL_TESTS_WEIGHT_WALK_H

#include "tests/support/temp_folder.h"

#include "trainer/hf/names.h"
#include "trainer/hf/safetensors_write.h"

enum { WALK_MAX = 4096, WALK_NAME = 128 };

typedef struct walk_tensor {
    vl_hf_part part;
    vl_hf_shape shape;
    char suffix[WALK_NAME];
} walk_tensor;

typedef struct walk {
    walk_tensor *tensors;
    size_t n;
} walk;

__attribute__((format(printf, 4, 5))) static inline void walk_add(walk *w, vl_hf_part part, vl_hf_shape shape,
                                                                  const char *format, ...)
{
    va_list args;
    assert_true(w->n < WALK_MAX);
    walk_tensor *t = &w->tensors[w->n++];
    t->part = part;
    t->shape = shape;
    va_start(args, format);
    vsnprintf(t->suffix, sizeof t->suffix, format, args);
    va_end(args);
}

static inline void walk_linear(walk *w, vl_hf_part part, const char *name, vl_hf_shape shape, bool bias)
{
    walk_add(w, part, shape, "%s.weight", name);
    if (bias)
        walk_add(w, part, vl_hf_shape1(shape.size[0]), "%s.bias", name);
}

static inline void walk_text_layer(walk *w, const vl_text_config *t, int layer)
{
    static const char *const names[] = {"q_proj", "k_proj", "v_proj", "o_proj"};
    char name[WALK_NAME];
    int d = t->hidden_size, q = t->n_heads * t->head_dim, kv = t->n_kv_heads * t->head_dim;
    bool cross = vl_text_is_cross(t, layer);
    for (int i = 0; i < 4; i++) {
        temp_format(name, sizeof name, "layers.%d.%s.%s", layer, cross ? "cross_attn" : "self_attn", names[i]);
        walk_linear(w, VL_HF_TEXT, name, i == 3 ? vl_hf_shape2(d, q) : vl_hf_shape2(i ? kv : q, d), t->attention_bias);
    }
    for (int i = 0; i < 3; i++) {
        static const char *const mlp[] = {"gate_proj", "up_proj", "down_proj"};
        int f = t->intermediate_size;
        temp_format(name, sizeof name, "layers.%d.mlp.%s", layer, mlp[i]);
        walk_linear(w, VL_HF_TEXT, name, i == 2 ? vl_hf_shape2(d, f) : vl_hf_shape2(f, d), t->mlp_bias);
    }
    walk_add(w, VL_HF_TEXT, vl_hf_shape1(d), "layers.%d.input_layernorm.weight", layer);
    walk_add(w, VL_HF_TEXT, vl_hf_shape1(d), "layers.%d.post_attention_layernorm.weight", layer);
    if (!cross)
        return;
    walk_add(w, VL_HF_TEXT, vl_hf_shape1(t->head_dim), "layers.%d.cross_attn.q_norm.weight", layer);
    walk_add(w, VL_HF_TEXT, vl_hf_shape1(t->head_dim), "layers.%d.cross_attn.k_norm.weight", layer);
    walk_add(w, VL_HF_TEXT, vl_hf_shape1(1), "layers.%d.cross_attn_attn_gate", layer);
    walk_add(w, VL_HF_TEXT, vl_hf_shape1(1), "layers.%d.cross_attn_mlp_gate", layer);
}

static inline void walk_text(walk *w, const vl_text_config *t)
{
    walk_add(w, VL_HF_TEXT, vl_hf_shape2(t->embed_rows, t->hidden_size), "embed_tokens.weight");
    walk_add(w, VL_HF_TEXT, vl_hf_shape1(t->hidden_size), "norm.weight");
    if (!t->tie_embeddings)
        walk_add(w, VL_HF_HEAD, vl_hf_shape2(t->vocab_size, t->hidden_size), "weight");
    for (int i = 0; i < t->n_layers; i++)
        walk_text_layer(w, t, i);
}

static inline void walk_norm(walk *w, const char *name, int n)
{
    walk_add(w, VL_HF_VISION, vl_hf_shape1(n), "%s.weight", name);
    walk_add(w, VL_HF_VISION, vl_hf_shape1(n), "%s.bias", name);
}

/* One layer of a vision transformer, named as CLIP or as Mllama names it. */
static inline void walk_vision_layer(walk *w, const char *prefix, int d, int f, bool clip)
{
    static const char *const names[] = {"q_proj", "k_proj", "v_proj"};
    char name[WALK_NAME];
    for (int i = 0; i < 4; i++) {
        temp_format(name, sizeof name, "%s.self_attn.%s", prefix, i < 3 ? names[i] : clip ? "out_proj" : "o_proj");
        walk_linear(w, VL_HF_VISION, name, vl_hf_shape2(d, d), clip);
    }
    temp_format(name, sizeof name, "%s.mlp.fc1", prefix);
    walk_linear(w, VL_HF_VISION, name, vl_hf_shape2(f, d), true);
    temp_format(name, sizeof name, "%s.mlp.fc2", prefix);
    walk_linear(w, VL_HF_VISION, name, vl_hf_shape2(d, f), true);
    temp_format(name, sizeof name, "%s.%s", prefix, clip ? "layer_norm1" : "input_layernorm");
    walk_norm(w, name, d);
    temp_format(name, sizeof name, "%s.%s", prefix, clip ? "layer_norm2" : "post_attention_layernorm");
    walk_norm(w, name, d);
}

static inline void walk_llava(walk *w, const vl_hf_config *config)
{
    const vl_clip_config *c = &config->clip;
    int d = c->hidden_size, p = c->patch_size, out = config->text.hidden_size;
    walk_add(w, VL_HF_VISION, vl_hf_shape1(d), "embeddings.class_embedding");
    walk_add(w, VL_HF_VISION, vl_hf_shape4(d, 3, p, p), "embeddings.patch_embedding.weight");
    walk_add(w, VL_HF_VISION, vl_hf_shape2(c->n_patches + 1, d), "embeddings.position_embedding.weight");
    walk_norm(w, "pre_layrnorm", d);
    walk_norm(w, "post_layernorm", d);
    for (int i = 0; i < c->n_layers; i++) {
        char prefix[WALK_NAME];
        temp_format(prefix, sizeof prefix, "encoder.layers.%d", i);
        walk_vision_layer(w, prefix, d, c->intermediate_size, true);
    }
    walk_linear(w, VL_HF_PROJECTOR, "linear_1", vl_hf_shape2(out, d), config->projector_bias);
    walk_linear(w, VL_HF_PROJECTOR, "linear_2", vl_hf_shape2(out, out), config->projector_bias);
}

static inline void walk_mllama(walk *w, const vl_hf_config *config)
{
    const vl_mllama_vision_config *v = &config->mllama_vision;
    int d = v->hidden_size, p = v->patch_size, n = v->n_patches, ids = v->n_ratios + 1;
    char prefix[WALK_NAME];
    walk_add(w, VL_HF_VISION, vl_hf_shape1(d), "class_embedding");
    walk_add(w, VL_HF_VISION, vl_hf_shape4(d, 3, p, p), "patch_embedding.weight");
    walk_add(w, VL_HF_VISION, vl_hf_shape1(1), "gated_positional_embedding.gate");
    walk_add(w, VL_HF_VISION, vl_hf_shape2(n, d), "gated_positional_embedding.embedding");
    walk_add(w, VL_HF_VISION, vl_hf_shape2(ids, v->max_tiles * n * d),
             "gated_positional_embedding.tile_embedding.weight");
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "post_tile_positional_embedding" : "pre_tile_positional_embedding";
        walk_add(w, VL_HF_VISION, vl_hf_shape1(1), "%s.gate", name);
        walk_add(w, VL_HF_VISION, vl_hf_shape2(ids, v->max_tiles * d), "%s.embedding.weight", name);
    }
    walk_norm(w, "layernorm_pre", d);
    walk_norm(w, "layernorm_post", d);
    for (int i = 0; i < v->n_layers; i++) {
        temp_format(prefix, sizeof prefix, "transformer.layers.%d", i);
        walk_vision_layer(w, prefix, d, v->intermediate_size, false);
    }
    for (int i = 0; i < v->n_global_layers; i++) {
        temp_format(prefix, sizeof prefix, "global_transformer.layers.%d", i);
        walk_vision_layer(w, prefix, d, v->intermediate_size, false);
        walk_add(w, VL_HF_VISION, vl_hf_shape1(1), "%s.gate_attn", prefix);
        walk_add(w, VL_HF_VISION, vl_hf_shape1(1), "%s.gate_ffn", prefix);
    }
    walk_add(w, VL_HF_PROJECTOR, vl_hf_shape2(config->text.hidden_size, v->output_dim), "weight");
    walk_add(w, VL_HF_PROJECTOR, vl_hf_shape1(config->text.hidden_size), "bias");
}

/* The caller frees w.tensors. */
static inline walk walk_all(const vl_hf_config *config)
{
    walk w = {calloc(WALK_MAX, sizeof(walk_tensor)), 0};
    assert_non_null(w.tensors);
    walk_text(&w, &config->text);
    if (config->family == VL_HF_LLAVA)
        walk_llava(&w, config);
    if (config->family == VL_HF_MLLAMA)
        walk_mllama(&w, config);
    return w;
}

/* How many tensors were found; 0 with *err where one is missing or wrong. */
static inline size_t walk_find_all(const vl_hf_source *source, vl_error *err)
{
    walk w = walk_all(source->config);
    size_t found = 0;
    for (; found < w.n; found++) {
        const walk_tensor *t = &w.tensors[found];
        const vl_weight_view *view;
        if (vl_hf_weight(&view, source, t->part, t->shape, err, "%s", t->suffix) != VL_OK)
            break;
    }
    bool all = found == w.n;
    free(w.tensors);
    return all ? found : 0;
}

/* model.safetensors with all of them, zero, in bf16: layout 0 is that of before transformers 4.52, 1 that since. */
static inline void walk_write(const char *folder, const vl_hf_config *config, int layout)
{
    static const char *const vlm[2][4] = {
        {"language_model.model.", "language_model.lm_head.", "vision_model.", "multi_modal_projector."},
        {"model.language_model.", "lm_head.", "model.vision_model.", "model.multi_modal_projector."}};
    static const char *const tower[2] = {"vision_tower.vision_model.", "model.vision_tower.vision_model."};
    static const char *const text[4] = {"model.", "lm_head.", "", ""};
    static const uint16_t zeros[8192];
    char path[TEMP_PATH_SIZE];
    vl_error err = VL_ERROR_INIT;
    walk w = walk_all(config);
    vl_safetensors_entry *entries = calloc(w.n, sizeof *entries);
    char(*names)[2 * WALK_NAME] = calloc(w.n, sizeof *names);
    assert_true(entries && names);
    for (size_t i = 0; i < w.n; i++) {
        const walk_tensor *t = &w.tensors[i];
        const char *prefix = config->family == VL_HF_LLAMA                              ? text[t->part]
                             : config->family == VL_HF_LLAVA && t->part == VL_HF_VISION ? tower[layout]
                                                                                        : vlm[layout][t->part];
        size_t count = 1;
        temp_format(names[i], sizeof names[i], "%s%s", prefix, t->suffix);
        entries[i] = (vl_safetensors_entry){names[i], VL_BF16, t->shape.ndim, {0}, zeros};
        for (int k = 0; k < t->shape.ndim; k++)
            count *= (size_t)(entries[i].shape[k] = t->shape.size[k]);
        assert_true(count <= sizeof zeros / sizeof *zeros);
    }
    vl_status status = vl_safetensors_write(temp_path(path, folder, "model.safetensors"), entries, w.n, NULL, 0, &err);
    free(names);
    free(entries);
    free(w.tensors);
    if (status != VL_OK)
        fail_msg("%s", err.message);
}

#endif
