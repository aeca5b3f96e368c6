/* hf/config.h - config.json as typed structs, every omitted key filled with its class default.
 *
 * Defaults and meanings are those of transformers 4.46.3; newer spellings (rope_parameters, dtype, image_token_id)
 * are read too. What vlens does not compute is refused by name, never guessed. */
#ifndef VL_HF_CONFIG_H
#define VL_HF_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include <vlens/tensor.h>

#include "kernels/ops.h" /* vl_activation */
#include "trainer/base/status.h"

enum {
    VL_HF_MAX_LAYERS = 1024,
    VL_HF_MAX_CROSS = 256,  /* cross-attention layers */
    VL_HF_MAX_INDICES = 64, /* intermediate_layers_indices */
    VL_HF_MAX_RATIOS = 64,  /* supported aspect ratios */
    VL_HF_MAX_EOS = 16
};

typedef enum vl_hf_family { VL_HF_LLAMA = 0, VL_HF_LLAVA, VL_HF_MLLAMA } vl_hf_family;

typedef enum vl_hf_rope_kind {
    VL_HF_ROPE_DEFAULT = 0,
    VL_HF_ROPE_LINEAR,
    VL_HF_ROPE_DYNAMIC,
    VL_HF_ROPE_YARN,
    VL_HF_ROPE_LLAMA3
} vl_hf_rope_kind;

/* All fields that the kind needs are set and checked; the others hold 1 (factors) or 0. */
typedef struct vl_rope_config {
    vl_hf_rope_kind kind;
    double factor;                            /* linear, dynamic, yarn, llama3 */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn; 32 and 1 where omitted or 0 */
    double attention_factor;   /* multiplies cos and sin; yarn: 0.1 ln(factor) + 1 where omitted; else 1 */
    int original_max_position; /* the length that the formula of the kind uses: llama3 its own key;
                                  yarn its own key or max_position; dynamic max_position */
} vl_rope_config;

typedef struct vl_text_config {
    int hidden_size, intermediate_size, n_layers, n_heads, n_kv_heads, head_dim;
    int vocab_size; /* rows of the head; the embedding table has `embed_rows` */
    int embed_rows; /* vocab_size, and 8 more in Mllama */
    int max_position;
    double rms_eps, rope_theta;
    vl_activation hidden_act;
    bool attention_bias, mlp_bias, tie_embeddings;
    vl_rope_config rope;
    int cross_attention_layers[VL_HF_MAX_CROSS]; /* ascending; Mllama only */
    int n_cross;
    int bos_id, pad_id;         /* -1 where there is none */
    int eos_ids[VL_HF_MAX_EOS]; /* those of generation_config.json where that has any */
    int n_eos;
} vl_text_config;

typedef struct vl_clip_config {
    int hidden_size, intermediate_size, n_layers, n_heads, head_dim;
    int image_size, patch_size, n_channels;
    int grid;      /* image_size / patch_size */
    int n_patches; /* grid * grid, without the class row */
    double layer_norm_eps;
    vl_activation hidden_act;
} vl_clip_config;

typedef struct vl_mllama_vision_config {
    int hidden_size, intermediate_size, n_layers, n_global_layers, n_heads, head_dim;
    int image_size, patch_size, n_channels, max_tiles;
    int grid;       /* image_size / patch_size */
    int n_patches;  /* rows of one tile: grid * grid + 1 (class) */
    int output_dim; /* hidden_size * (1 + n_indices), checked */
    double norm_eps;
    vl_activation hidden_act;
    int indices[VL_HF_MAX_INDICES]; /* intermediate_layers_indices, ascending: i = the input of local layer i */
    int n_indices;
    int ratios[VL_HF_MAX_RATIOS][2]; /* {tiles high, tiles wide}; aspect ratio id = index + 1; checked to be the
                                        list that the processor numbers by */
    int n_ratios;
} vl_mllama_vision_config;

typedef struct vl_hf_config {
    vl_hf_family family;
    char model_type[32];
    vl_text_config text;
    vl_clip_config clip;                   /* LLaVA only */
    vl_mllama_vision_config mllama_vision; /* Mllama only */
    int image_token_index;                 /* -1 in a text model */
    /* LLaVA only: */
    int vision_feature_layer; /* as written (python index into hidden_states) */
    int vision_state;         /* the same, resolved: 0 = embeddings after pre_layrnorm, i = output of layer i */
    bool keep_class_row;      /* vision_feature_select_strategy "full"; "default" drops row 0 */
    vl_activation projector_act;
    bool projector_bias;
    int image_seq_length; /* 576 where omitted: informative, see image_tokens */
    int image_tokens;     /* rows that one picture takes in the sequence: n_patches, and 1 more with the class row */
    int processor_patch_size;        /* of processor_config.json; 0 where absent */
    int num_additional_image_tokens; /* of processor_config.json; -1 where absent */
    bool has_torch_dtype;
    vl_dtype torch_dtype; /* a hint only: the weights say what they are */
} vl_hf_config;

/* Reads config.json (and processor_config.json, generation_config.json where present) of a model directory.
 * Errors: VL_EIO (no config.json), VL_EFORMAT (wrong type or out of range; file and key named), VL_EUNSUPPORTED
 * (the message names what is not supported and lists what is), VL_EMISMATCH (two keys that contradict). */
vl_status vl_hf_config_read(vl_hf_config *out, const char *directory, vl_error *err);

const char *vl_hf_rope_name(vl_hf_rope_kind kind);

static inline bool vl_text_is_cross(const vl_text_config *text, int layer)
{
    for (int i = 0; i < text->n_cross; i++)
        if (text->cross_attention_layers[i] == layer)
            return true;
    return false;
}

#endif
